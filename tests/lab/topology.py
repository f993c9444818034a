"""Networks around a bottleneck: server - router - home - client.

The router's interface to the home is a token bucket (tbf), the only queue that ever fills; a queue
on the sender's own interface would measure nothing, since small-queue limits keep flows apart
there. What the client sends passes a delay box in the router: that direction alone has the round
trip's time, since little flows there. Each role has an address of the server and an interface of
the client, so that interface counters tell them apart whichever program downloads, behind the
bottleneck. Networks are kept by descriptors and go with the process, in whatever way it ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tests.bench.stage import CHECKOUT
from tests.lab.link import Link
from tests.support.netns import Network, network
from tests.support.servers import require_program

#: Congestion control → number of its routing table at the server.
_TABLES = {"cubic": 101, "bbr": 102}
#: Least, initial and greatest bytes; the greatest holds 500 ms of 1 Gbit/s, and what the kernel
#: counts on top of it.
_MEMORY = "4096 131072 268435456"
_SERVER_CONTROLS = {
    "ipv4/tcp_wmem": _MEMORY,
    # What a connection has learned must not help the next one.
    "ipv4/tcp_no_metrics_save": "1",
}
#: Where a proxy runs, a machine that nobody has tuned.
_HOME_CONTROLS = {"ipv4/tcp_rmem": "4096 131072 6291456", "ipv4/tcp_wmem": "4096 16384 4194304"}
_CLIENT_CONTROLS = {"ipv4/tcp_rmem": _MEMORY, "ipv4/ping_group_range": "0 2147483647"}
_FORWARDING = {
    "ipv4/ip_forward": "1",
    # Answers leave by another interface than the one that the delay box is.
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}


class Role(IntEnum):
    """What traffic is for; the value is the last byte of addresses."""

    BACKGROUND = 1
    #: A second background download.
    SECOND = 2
    FOREGROUND = 3
    PROBE = 4
    #: What a proxy in the home hands over of a background download.
    PROXY = 5

    @property
    def server(self) -> str:
        """The server's address."""
        return f"10.91.0.1{self.value}"

    @property
    def client(self) -> str:
        """The client's address."""
        return f"10.93.{self.value}.2"

    @property
    def gateway(self) -> str:
        """The home's address on the client's side."""
        return f"10.93.{self.value}.1"

    @property
    def interface(self) -> str:
        """The client's interface."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The two ends, and the home in front of the client."""

    link: Link
    server: Network
    home: Network
    client: Network


@contextlib.contextmanager
def topology(link: Link, controls: Mapping[Role, str]) -> Iterator[Topology]:
    """Build it; *controls* is the congestion control of the server by role.

    Raises:
        OSError: the process is not root.
        subprocess.CalledProcessError: the kernel lacks something.
    """
    with contextlib.ExitStack() as stack:
        server, router, home, client = (stack.enter_context(network()) for _ in range(4))
        for place in (router, home):
            _set(place, _FORWARDING)
        _set(server, _SERVER_CONTROLS)
        _set(home, _HOME_CONTROLS)
        _set(client, _CLIENT_CONTROLS)
        _cable(router, "core", server, "uplink")
        _cable(router, "access", home, "wan")
        for role in Role:
            _cable(home, role.interface, client, role.interface)
        stack.enter_context(_delay_box(router, link))
        _route_server(server, link, controls)
        _route_router(router)
        _shape(router, link)
        _route_home(home)
        _route_client(client)
        yield Topology(link=link, server=server, home=home, client=client)


def _set(place: Network, controls: Mapping[str, str]) -> None:
    def write() -> None:
        for name, value in controls.items():
            Path("/proc/sys/net", name).write_text(value)

    place.within(write)


def _cable(one: Network, its_end: str, other: Network, other_end: str) -> None:
    _ip(one, f"link add {its_end} type veth peer name {other_end} netns {other.path}")


def _route_server(server: Network, link: Link, controls: Mapping[Role, str]) -> None:
    _ip(
        server,
        *(f"address add {role.server}/24 dev uplink" for role in Role),
        f"link set uplink up gso_max_segs {link.segments}",
        *(
            f"route add default via 10.91.0.1 congctl {control} table {table}"
            for control, table in _TABLES.items()
        ),
        *(f"rule add from {role.server} lookup {_TABLES[controls[role]]}" for role in Role),
    )


def _route_router(router: Network) -> None:
    _ip(
        router,
        "address add 10.91.0.1/24 dev core",
        "address add 10.92.0.1/24 dev access",
        "link set core up",
        "link set access up",
        "route add 10.93.0.0/16 via 10.92.0.2",
        "route add default dev delay table 100",
        "rule add iif access lookup 100",
    )


def _shape(router: Network, link: Link) -> None:
    bucket = f"rate {link.rate}mbit burst {link.burst} limit {link.limit}"
    command = [require_program("tc"), *f"qdisc add dev access root tbf {bucket}".split()]
    subprocess.run([*router.command, *command], check=True)


def _route_home(home: Network) -> None:
    _ip(
        home,
        "address add 10.92.0.2/24 dev wan",
        "link set wan up",
        "route add default via 10.92.0.1",
        *(f"address add {role.gateway}/24 dev {role.interface}" for role in Role),
        *(f"link set {role.interface} up" for role in Role),
    )


def _route_client(client: Network) -> None:
    _ip(
        client,
        *(f"address add {role.client}/24 dev {role.interface}" for role in Role),
        *(f"link set {role.interface} up" for role in Role),
        *(f"route add {role.server} via {role.gateway} src {role.client}" for role in Role),
    )


def _ip(place: Network, *commands: str) -> None:
    subprocess.run(
        [*place.command, require_program("ip"), "-batch", "-"],
        input="\n".join(commands),
        text=True,
        check=True,
    )


@contextlib.contextmanager
def _delay_box(router: Network, link: Link) -> Iterator[None]:
    _ip(
        router,
        "tuntap add delay mode tun",
        "link set delay up txqueuelen 20000",
    )
    module = [sys.executable, "-m", "tests.lab.delay_box", "delay", str(link.rtt / 1000)]
    with subprocess.Popen(
        [*until_parent_ends(), *router.command, *module],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise OSError("the delay box did not start")
            yield
        finally:
            process.kill()


def until_parent_ends(sent: str = "KILL") -> Sequence[str]:
    """Return what to put before a command, so that it does not outlive this process."""
    return [require_program("setpriv"), "--pdeathsig", sent, "--"]
