"""Whether the connection is metered, as NetworkManager says over a bus that is real.

The NetworkManager is a fake: see tests/support/bus.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from jeepney import DBusAddress, HeaderFields, Parser, new_method_return, new_signal
from jeepney.io.asyncio import open_dbus_connection

from tests.support.bus import NAME, PATH, network_manager, private_bus
from tests.support.clocks import WallClock
from transferd.model.costs import NETWORK_MANAGER, UNKNOWN, LinkCost
from transferd.service import networkmanager
from transferd.service.metering import Metering

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
METERED = NETWORK_MANAGER[1]


class HandClock(WallClock):
    """Whose steady time is the test's, too."""

    def steady(self) -> float:
        """Seconds since noon."""
        return (self.moment - NOON).total_seconds()

    def wake_after(self, seconds: float) -> None:
        """Let so much time pass."""
        self.moment += timedelta(seconds=seconds)
        self.wake()


class Listener:
    """Hears what the connection costs."""

    def __init__(self, bus: str) -> None:
        self.heard: list[LinkCost] = []
        self._news = asyncio.Event()
        self.clock = HandClock(NOON)
        self.organ = Metering(self._hear, self.clock, bus)

    def _hear(self, cost: LinkCost) -> None:
        self.heard.append(cost)
        self._news.set()

    async def until(self, reached: Callable[[list[LinkCost]], bool]) -> None:
        """Wait for what is heard."""
        async with asyncio.timeout(10):
            while not reached(self.heard):
                self._news.clear()
                await self._news.wait()

    async def sleeps(self, delay: float) -> None:
        """Wait until somebody wants to sleep for so long."""
        async with asyncio.timeout(10):
            count = 1
            while await self.clock.nap(count) != delay:
                count += 1

    async def hears(self, cost: LinkCost) -> None:
        """Wait until that is the last word."""
        await self.until(lambda heard: heard[-1:] == [cost])


@asynccontextmanager
async def listening(bus: str) -> AsyncIterator[Listener]:
    """Listen meanwhile."""
    listener = Listener(bus)
    task = asyncio.create_task(listener.organ.run())
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None


async def test_it_is_heard_at_first_and_at_each_change(tmp_path: Path) -> None:
    """BITS B8: a change of the link's cost acts at once."""
    async with (
        private_bus(tmp_path) as bus,
        network_manager(bus.address, 1) as manager,
        listening(bus.address) as listener,
    ):
        await listener.hears(METERED)
        assert listener.organ.asked.is_set()
        await manager.become(4)
        await listener.hears(LinkCost.UNRESTRICTED)
        await manager.become(3)
        await listener.hears(METERED)
        await manager.become(99)
        await listener.hears(UNKNOWN)


async def test_a_manager_that_comes_later_or_goes_is_noticed(tmp_path: Path) -> None:
    """Nobody there means that nothing is known, and costs no timer."""
    async with private_bus(tmp_path) as bus, listening(bus.address) as listener:
        await listener.hears(UNKNOWN)
        async with network_manager(bus.address, 1):
            await listener.hears(METERED)
        await listener.hears(UNKNOWN)
        assert listener.clock.naps == []


async def test_a_signal_is_a_reason_to_ask_and_not_believed(tmp_path: Path) -> None:
    """Anybody on the bus may send one to us; only who is asked answers."""
    async with (
        private_bus(tmp_path) as bus,
        network_manager(bus.address, 1) as manager,
        listening(bus.address) as listener,
        await open_dbus_connection(bus.address) as stranger,
    ):
        await listener.hears(METERED)
        await manager.tell(2)
        await listener.until(lambda heard: len(heard) == 2)
        invalidated: list[str] = []
        body = (NAME, {"Metered": ("u", 2)}, invalidated)
        address = DBusAddress(PATH, interface="org.freedesktop.DBus.Properties")
        forged = new_signal(address, "PropertiesChanged", "sa{sv}as", body)
        # The third connection of the bus is the listener's, or one of the first two.
        for number in range(3):
            forged.header.fields[HeaderFields.destination] = f":1.{number}"
            await stranger.send(forged)
        await listener.until(lambda heard: len(heard) == 3)
        assert set(listener.heard) == {METERED}


async def test_many_signals_make_few_questions(tmp_path: Path) -> None:
    """One question is open at a time, and one more covers all that came meanwhile."""
    async with (
        private_bus(tmp_path) as bus,
        network_manager(bus.address, 1) as manager,
        listening(bus.address) as listener,
    ):
        await listener.hears(METERED)
        for _ in range(200):
            await manager.tell(1)
        await manager.become(2)
        await listener.hears(LinkCost.UNRESTRICTED)
        assert manager.asked < 100


async def test_without_a_bus_nothing_is_watched_nor_imported(tmp_path: Path) -> None:
    """A server has no NetworkManager, and pays nothing for that."""
    program = (
        "import asyncio, sys\n"
        "from transferd.service.clock import SystemClock\n"
        "from transferd.service.metering import Metering\n"
        f"organ = Metering(print, SystemClock(), 'unix:path={tmp_path}/bus')\n"
        "asyncio.run(organ.run())\n"
        "assert organ.asked.is_set()\n"
        "assert 'jeepney' not in sys.modules\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0


@pytest.mark.parametrize("gone", [True, False])
async def test_a_bus_that_is_lost_is_tried_again_soon_and_what_was_said_holds(
    tmp_path: Path, *, gone: bool
) -> None:
    """A restarted bus lets no job onto a metered link; one that is lost for good says nothing.

    Be it gone, or a socket behind which nobody lets us in.
    """
    path = tmp_path / "bus"
    path.touch()  # nobody listens there
    async with listening(f"unix:path={path}") as listener:
        assert await listener.clock.nap(1) == 1
        path.unlink()
        async with private_bus(tmp_path) as bus, network_manager(bus.address, 1):
            listener.clock.wake()
            await listener.hears(METERED)
            await bus.end()
        assert path.exists()
        if gone:
            path.unlink()
        for delay in (2, 5, 10, 30, 60):
            await listener.sleeps(delay)
            assert listener.heard == [METERED]
            listener.clock.wake_after(delay)
        await listener.hears(UNKNOWN)
        path.unlink(missing_ok=True)
        await listener.clock.nap(7)
        async with private_bus(tmp_path) as bus, network_manager(bus.address, 1):
            listener.clock.wake()
            await listener.hears(METERED)


@pytest.mark.parametrize(("manager", "cost"), [(2, LinkCost.UNRESTRICTED), (None, UNKNOWN)])
async def test_a_bus_that_has_just_come_back_knows_of_nobody_yet(
    tmp_path: Path, manager: int | None, cost: LinkCost
) -> None:
    """NetworkManager is started again after it; only who has not come for a minute is gone."""
    path = tmp_path / "bus"
    async with AsyncExitStack() as before:
        bus = await before.enter_async_context(private_bus(tmp_path))
        await before.enter_async_context(network_manager(bus.address, 1))
        async with listening(bus.address) as listener:
            await listener.hears(METERED)
            await bus.end()
            await listener.sleeps(1)
            path.unlink(missing_ok=True)
            async with private_bus(tmp_path) as bus, await open_dbus_connection(bus.address):
                listener.clock.wake()
                await listener.sleeps(60)
                assert listener.heard == [METERED]
                if manager is None:
                    listener.clock.wake()
                    await listener.hears(cost)
                else:
                    async with network_manager(bus.address, manager):
                        await listener.hears(cost)


async def test_a_manager_that_does_not_answer_is_left_as_a_bus_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has changed, and will not say to what: what it said last does not hold for ever."""
    # From the beginning: a question may be on its way when it falls silent.
    monkeypatch.setattr(networkmanager, "_PATIENCE", 3.0)
    async with (
        private_bus(tmp_path) as bus,
        network_manager(bus.address, 1) as manager,
        listening(bus.address) as listener,
    ):
        await listener.hears(METERED)
        manager.mute = True
        await manager.become(2)
        await listener.sleeps(1)
        assert listener.heard == [METERED]


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let somebody onto what seems to be a bus, and send a value of a type that there is not."""
    await reader.readuntil(b"\r\n")
    writer.write(b"OK 0123456789abcdef\r\n")
    await reader.readuntil(b"BEGIN\r\n")
    parser = Parser()
    while (hello := parser.get_next_message()) is None:
        parser.add_data(await reader.read(4096))
    writer.write(new_method_return(hello, "s", (":1.1",)).serialise(serial=1))
    await reader.read(4096)
    address = DBusAddress(PATH, interface="org.freedesktop.DBus.Properties")
    signal = new_signal(address, "PropertiesChanged", "v", (("u", 1),)).serialise(serial=2)
    writer.write(signal.replace(b"\x01u\0", b"\x01!\0"))
    await writer.drain()
    writer.close()


async def test_a_bus_that_talks_nonsense_is_left_for_a_while(tmp_path: Path) -> None:
    """Whatever it says, the daemon goes on, and what was known holds."""
    path = tmp_path / "bus"
    async with (
        await asyncio.start_unix_server(talk_nonsense, path),
        listening(f"unix:path={path}") as listener,
    ):
        assert await listener.clock.nap(1) == 1
        assert listener.organ.asked.is_set()
        assert listener.heard == []
