"""NetworkManager's word on whether the connection is metered, over D-Bus.

It is imported where there is a bus only. What a signal says is not believed, since anybody may send
one: each is a reason to ask, and an answer comes from whoever was asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageFlag,
    MessageType,
    Properties,
)
from jeepney.bus_messages import message_bus
from jeepney.io.asyncio import DBusConnection, open_dbus_connection

from transferd.model.costs import NETWORK_MANAGER, UNKNOWN, LinkCost
from transferd.model.job import Seconds

_NAME, _PATH = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
#: A bus that takes longer to let us in hangs, and so does whoever takes longer to answer.
_PATIENCE: Seconds = 10.0


async def follow(address: str, tell: Callable[[LinkCost], None]) -> None:
    """Say what the connection costs, now and whenever that may have changed, until cancelled.

    Raises:
        OSError: there is no such bus, or it is gone.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            connection = await open_dbus_connection(address)
        async with connection:
            for rule in _reasons():
                await connection.send(message_bus.AddMatch(rule))
            await _Inquiry(connection, tell).run()
    except OSError:
        raise
    except Exception as error:  # a bus that talks nonsense brings any error out of a parser
        raise ConnectionError(f"the bus at {address} is lost: {error!r}") from error


def _reasons() -> tuple[MatchRule, MatchRule]:
    """Return what there is to hear of: another property, and another NetworkManager."""
    changed = MatchRule(
        type="signal",
        sender=_NAME,
        path=_PATH,
        interface="org.freedesktop.DBus.Properties",
        member="PropertiesChanged",
    )
    changed.add_arg_condition(0, _NAME)
    replaced = MatchRule(
        type="signal",
        sender="org.freedesktop.DBus",
        interface="org.freedesktop.DBus",
        member="NameOwnerChanged",
    )
    replaced.add_arg_condition(0, _NAME)
    return changed, replaced


class _Inquiry:
    """One question at a time, however many reasons there are."""

    def __init__(self, connection: DBusConnection, tell: Callable[[LinkCost], None]) -> None:
        self._connection = connection
        self._tell = tell
        self._asked: int | None = None
        #: When the answer to come is overdue, on the loop's clock.
        self._due: float | None = None
        #: Whether the answer to come may be out of date.
        self._stale = False

    async def run(self) -> None:
        await self._ask()
        while True:
            async with asyncio.timeout_at(self._due):
                message = await self._connection.receive()
            if message.header.message_type is MessageType.signal:
                await self._ask()
            elif message.header.fields.get(HeaderFields.reply_serial) == self._asked:
                self._asked = self._due = None
                self._tell(_cost(message))
                if self._stale:
                    await self._ask()

    async def _ask(self) -> None:
        self._stale = self._asked is not None
        if self._asked is None:
            question = Properties(DBusAddress(_PATH, _NAME, _NAME)).get("Metered")
            question.header.flags |= MessageFlag.no_auto_start
            self._asked = next(self._connection.outgoing_serial)
            self._due = asyncio.get_running_loop().time() + _PATIENCE
            await self._connection.send(question, serial=self._asked)


def _cost(answer: Message) -> LinkCost:
    """Return what an answer says; an error, as where nobody has the name, says nothing."""
    match answer.header.message_type, answer.body:
        case MessageType.method_return, (("u", metered),):
            return NETWORK_MANAGER.get(metered, UNKNOWN)
    return UNKNOWN
