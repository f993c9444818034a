"""The connections of a run: as many as it may have, each with sessions of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Self, TypeAlias

from transferd.auth.flow import Randomness
from transferd.model.credentials import Credential
from transferd.wire.link import Message, Start, WorkerSettings
from transferd.worker.authenticator import Audit, Authenticator
from transferd.worker.body import Bodies, Mover
from transferd.worker.caps import Caps
from transferd.worker.connection import Connector
from transferd.worker.deference import Flows
from transferd.worker.exchange import Exchange
from transferd.worker.inquiry import Inquiry
from transferd.worker.manners import Manners
from transferd.worker.security import Steps
from transferd.worker.shelf import Shelf
from transferd.worker.trust import Trust

#: What must be the same for two runs that share connections.
Key: TypeAlias = tuple[object, ...]

#: Connections that wait for another run.
_SPARE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What a worker lends to its runs."""

    limits: WorkerSettings
    #: For disk calls alone: a slow name server must not hold up a write, nor the reverse.
    threads: Executor
    #: For bodies, and nothing else.
    bodies: Bodies
    #: Background bodies on their way.
    flows: Flows
    #: What holds for all bodies together.
    caps: Caps
    #: For security libraries alone, which may wait for a KDC.
    security: Executor
    trust: Trust
    shelf: Shelf
    spares: Spares
    randomness: Randomness
    #: Sends to the daemon; keeps the order of the calls.
    post: Callable[[Message], None]


class Spares:
    """Exchanges whose run is over, with their connections.

    Only those of runs that had no secret at all: nobody has authenticated these connections.
    """

    def __init__(self) -> None:
        self._idle: list[tuple[Key, Exchange]] = []

    def take(self, key: Key) -> Exchange | None:
        """Return the one that was used last."""
        for position in range(len(self._idle) - 1, -1, -1):
            if self._idle[position][0] == key:
                return self._idle.pop(position)[1]
        return None

    async def give(self, key: Key, exchange: Exchange) -> None:
        """Keep one for the next run."""
        self._idle.append((key, exchange))
        if len(self._idle) > _SPARE:
            _, oldest = self._idle.pop(0)
            await oldest.close()

    async def close(self) -> None:
        """Close all."""
        while self._idle:
            _, exchange = self._idle.pop()
            await exchange.close()


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One connection of a run, with the sessions that were opened on it."""

    exchange: Exchange
    authenticator: Authenticator
    inquiry: Inquiry
    mover: Mover


class Lanes:
    """All lanes of a run. Each is used by one task at a time."""

    def __init__(self, start: Start, equipment: Equipment, manners: Manners, audit: Audit) -> None:
        self._start = start
        self._equipment = equipment
        self._manners = manners
        self._audit = audit
        self._all: list[Lane] = []
        self._idle: list[Lane] = []
        #: Whether every answer was read to its end.
        self.sound = False

    @property
    def busy(self) -> int:
        """How many of them are used."""
        return len(self._all) - len(self._idle)

    async def take(self) -> Lane:
        """Return a lane that nobody uses.

        Raises:
            TransferFailed: `tls_failed`, the CA file cannot be used.
        """
        if self._idle:
            return self._idle.pop()
        lane = await self._open()
        self._all.append(lane)
        return lane

    def give(self, lane: Lane) -> None:
        """Take that nobody uses a lane any more."""
        self._idle.append(lane)

    async def _open(self) -> Lane:
        start, equipment = self._start, self._equipment
        limits, settings = equipment.limits, start.settings
        exchange = equipment.spares.take(self._key) if self._anonymous else None
        if exchange is None:
            context = await equipment.trust.context(settings.cacert)
            exchange = Exchange(
                Connector(equipment.trust.sessions, self._manners.open_socket), context, limits
            )
        authenticator = Authenticator(
            exchange,
            (
                Credential(
                    target=held.target,
                    scheme=held.scheme,
                    username=held.username,
                    password=held.password,
                    age=held.age,
                )
                for held in start.credentials
            ),
            settings=settings,
            steps=Steps(equipment.security, limits.kerberos_timeout),
            randomness=equipment.randomness,
            audit=self._audit,
        )
        inquiry = Inquiry(
            authenticator,
            settings,
            start.headers,
            secrets=bool(start.headers) or authenticator.armed,
            max_redirects=limits.max_redirects,
        )
        return Lane(exchange, authenticator, inquiry, Mover(equipment.bodies, self._manners))

    @property
    def _anonymous(self) -> bool:
        """Whether nobody's name is on its connections: no file of CAs may have changed, either."""
        start = self._start
        return not start.credentials and not start.headers and start.settings.cacert is None

    @property
    def _key(self) -> Key:
        return self._start.settings.proxy, self._equipment.limits, self._manners.yields

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Each of them, also when the first wait is cancelled.
        async with contextlib.AsyncExitStack() as closing:
            for lane in self._all:
                closing.push_async_callback(self._leave, lane)
            self._all, self._idle = [], []

    async def _leave(self, lane: Lane) -> None:
        lane.authenticator.close()
        # Its connections are such as the run wanted when they were opened.
        if self.sound and self._anonymous and self._manners.steady:
            await self._equipment.spares.give(self._key, lane.exchange)
        else:
            await lane.exchange.close()
