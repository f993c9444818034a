"""A private D-Bus daemon, and a NetworkManager that says what a test tells it to.

NetworkManager itself needs a machine of its own, with links that it may take up and down. So this
fake stands for something that is not ours: it has the one property of the real one, on a real bus.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jeepney import (
    DBusAddress,
    HeaderFields,
    MessageType,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.bus_messages import message_bus
from jeepney.io.asyncio import DBusConnection, open_dbus_connection

from tests.support.servers import require_program

NAME, PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
_PROPERTIES = DBusAddress(PATH, interface="org.freedesktop.DBus.Properties")
_CONFIG = """
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
</busconfig>
"""


class Bus:
    """A bus that runs."""

    def __init__(self, address: str, process: asyncio.subprocess.Process) -> None:
        self.address = address
        self._process = process

    async def end(self) -> None:
        """Kill it, whoever is on it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def private_bus(directory: Path) -> AsyncIterator[Bus]:
    """Run a bus at `bus` in *directory*."""
    config, socket = directory / "bus.conf", directory / "bus"
    config.write_text(_CONFIG.format(socket=socket))
    process = await asyncio.create_subprocess_exec(
        require_program("dbus-daemon"),
        f"--config-file={config}",
        "--nofork",
        "--nopidfile",
        "--nosyslog",
        "--print-address=1",
        stdout=asyncio.subprocess.PIPE,
    )
    bus = Bus(f"unix:path={socket}", process)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(10):
            await process.stdout.readline()
        yield bus
    finally:
        await bus.end()


class NetworkManager:
    """The fake."""

    def __init__(self, connection: DBusConnection, metered: int) -> None:
        self._connection = connection
        self._metered = metered
        self.asked = 0
        #: It hears, and answers no more.
        self.mute = False

    async def become(self, metered: int) -> None:
        """Take another value, and tell of it."""
        self._metered = metered
        await self.tell(metered)

    async def tell(self, metered: int) -> None:
        """Tell of a value, be it true or not."""
        invalidated: list[str] = []
        body = (NAME, {"Metered": ("u", metered)}, invalidated)
        await self._connection.send(new_signal(_PROPERTIES, "PropertiesChanged", "sa{sv}as", body))

    async def serve(self) -> None:
        """Answer until cancelled, or the bus is gone."""
        while True:
            try:
                message = await self._connection.receive()
            except EOFError:
                return
            if message.header.message_type is not MessageType.method_call:
                continue
            self.asked += 1
            if self.mute:
                continue
            if message.body == (NAME, "Metered"):
                answer = new_method_return(message, "v", (("u", self._metered),))
            else:
                answer = new_error(message, "org.freedesktop.DBus.Error.InvalidArgs")
            await self._connection.send(answer)


@asynccontextmanager
async def network_manager(bus: str, metered: int) -> AsyncIterator[NetworkManager]:
    """Let it have its name on a bus, and answer."""
    connection = await open_dbus_connection(bus)
    try:
        request = message_bus.RequestName(NAME)
        serial = next(connection.outgoing_serial)
        await connection.send(request, serial=serial)
        while (await connection.receive()).header.fields.get(HeaderFields.reply_serial) != serial:
            pass
        served = NetworkManager(connection, metered)
        task = asyncio.create_task(served.serve())
        try:
            yield served
        finally:
            task.cancel()
            await asyncio.wait([task])
    finally:
        with contextlib.suppress(ConnectionError):  # the bus may have gone first
            await connection.close()
