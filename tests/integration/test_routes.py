"""Over which interfaces the Internet is reached, in a network of the test's own."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.support.clocks import WallClock
from tests.support.netns import Network, network
from tests.support.servers import require_program, require_root
from transferd.service.clock import SystemClock
from transferd.service.network import NetworkWatch
from transferd.service.routes import interfaces


def ip(place: Network, *commands: str) -> None:
    """Do as `ip` is told, in a network."""
    subprocess.run(
        [*place.command, require_program("ip"), "-batch", "-"],
        input="\n".join(commands),
        text=True,
        check=True,
        timeout=30,
    )


@pytest.fixture
def place() -> Iterator[Network]:
    """A network with two interfaces that lead nowhere, and no route."""
    require_root("a network of its own")
    with network() as made:
        ip(
            made,
            "link add uplink0 type veth peer name other0",
            "link add vpn0 type veth peer name other1",
            *(f"link set {name} up" for name in ("uplink0", "other0", "vpn0", "other1")),
            "address add 10.1.0.2/24 dev uplink0",
            "address add 10.2.0.2/24 dev vpn0",
            "address add fd00:1::2/64 dev uplink0 nodad",
        )
        yield made


def reached(place: Network) -> set[str]:
    """Over what it is reached from there."""
    return set(place.within(interfaces))


def test_each_family_leads_where_its_own_route_does(place: Network) -> None:
    """A VPN that takes IPv4 alone leaves IPv6 as it is; without a route there is nothing."""
    assert reached(place) == set()
    ip(place, "route add default via 10.1.0.1")
    assert reached(place) == {"uplink0"}
    ip(place, "route del default", "route add default via 10.2.0.1")
    assert reached(place) == {"vpn0"}
    ip(place, "route add default via fd00:1::1")
    assert reached(place) == {"vpn0", "uplink0"}


def test_a_vpn_beside_the_default_route_is_seen(place: Network) -> None:
    """OpenVPN covers the default route by two halves; WireGuard by a table of its own."""
    ip(place, "route add default via 10.1.0.1", "route add 128.0.0.0/1 via 10.2.0.1")
    assert reached(place) == {"vpn0"}
    ip(place, "route del 128.0.0.0/1", "route add default via 10.2.0.1 table 51820")
    assert reached(place) == {"uplink0"}
    ip(place, "rule add not fwmark 51820 table 51820")
    assert reached(place) == {"vpn0"}


async def watched(place: Network, heard: asyncio.Queue[frozenset[str]]) -> None:
    """Change the ways, and hear each of them."""

    async def nobody() -> None:
        """Wait for no network."""

    watch = asyncio.create_task(NetworkWatch(nobody, heard.put_nowait, SystemClock()).run())

    async def becomes(*names: str) -> None:
        async with asyncio.timeout(10):
            while await heard.get() != frozenset(names):
                pass

    await becomes()
    for commands, names in (
        (("route add default via 10.1.0.1",), ("uplink0",)),
        (("route add default via 10.2.0.1 table 9", "rule add table 9"), ("vpn0",)),
        (("rule del table 9",), ("uplink0",)),
        (("link set uplink0 down",), ()),
    ):
        await asyncio.to_thread(ip, place, *commands)
        await becomes(*names)
    watch.cancel()
    await asyncio.wait([watch])


def test_every_change_of_the_ways_is_heard(place: Network) -> None:
    """Routes, rules, and an interface that takes its routes along without a word of them."""
    place.within(lambda: asyncio.run(watched(place, asyncio.Queue())))


async def retried(place: Network, heard: asyncio.Queue[frozenset[str]]) -> None:
    """Let routes come in a burst, and a VPN with them."""
    retries: asyncio.Queue[None] = asyncio.Queue()

    async def retry() -> None:
        retries.put_nowait(None)

    clock = WallClock(datetime.now(UTC))
    watch = asyncio.create_task(NetworkWatch(retry, heard.put_nowait, clock).run())
    async with asyncio.timeout(10):
        await heard.get()
        await asyncio.to_thread(ip, place, "route add default via 10.1.0.1")
        await clock.nap(1)
        await asyncio.to_thread(ip, place, "route add 128.0.0.0/1 via 10.2.0.1")
        while await heard.get() != frozenset({"vpn0"}):
            pass
        assert (retries.empty(), len(clock.naps)) == (True, 1)
        clock.wake()
        await retries.get()
        await asyncio.to_thread(ip, place, "route add 10.9.0.0/24 via 10.2.0.1")
        await clock.nap(2)
        clock.wake()
        await retries.get()
    watch.cancel()
    await asyncio.wait([watch])


def test_a_vpn_is_seen_while_a_burst_of_routes_settles(place: Network) -> None:
    """One retry answers the burst a moment later; the way is another at once."""
    place.within(lambda: asyncio.run(retried(place, asyncio.Queue())))
