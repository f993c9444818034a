"""The connections of a run: as many as it may have, each with sessions of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

from transferd.auth.flow import Randomness
from transferd.model.credentials import Credential, Scheme, Target
from transferd.wire.link import Start, WorkerSettings
from transferd.wire.message import Message
from transferd.worker.authenticator import Audit, Authenticator
from transferd.worker.body import Bodies, Mover
from transferd.worker.caps import Caps
from transferd.worker.connection import Connector
from transferd.worker.deference import Flows
from transferd.worker.exchange import Exchange
from transferd.worker.inquiry import Inquiry
from transferd.worker.manners import Manners
from transferd.worker.security import Steps
from transferd.worker.shelf import Shelves
from transferd.worker.trust import Trust
from transferd.worker.window import Place, open_plain

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
    shelves: Shelves
    spares: Spares
    randomness: Randomness
    #: Sends to the daemon; keeps the order of the calls.
    post: Callable[[Message], None]


class Spares:
    """Lanes whose run is over, with their connections.

    Only those of runs that had no secret at all: no server has authenticated these connections. A
    proxy may have, by what its URL carries; that is the same for all who share them.
    """

    def __init__(self) -> None:
        self._idle: list[tuple[Key, Lane]] = []

    def take(self, key: Key) -> Lane | None:
        """Return the one that was used last."""
        for position in range(len(self._idle) - 1, -1, -1):
            if self._idle[position][0] == key:
                return self._idle.pop(position)[1]
        return None

    async def give(self, key: Key, lane: Lane) -> None:
        """Keep one for the next run."""
        self._idle.append((key, lane))
        if len(self._idle) > _SPARE:
            _, oldest = self._idle.pop(0)
            await oldest.exchange.close()

    async def close(self) -> None:
        """Close all."""
        while self._idle:
            _, lane = self._idle.pop()
            await lane.exchange.close()


class Tenant:
    """The run that has a lane at present; a lane outlives it."""

    def __init__(self) -> None:
        self._audit: Audit | None = None
        self._manners: Manners | None = None

    def move_in(self, audit: Audit, manners: Manners) -> None:
        """Take that the lane is this run's."""
        self._audit, self._manners = audit, manners

    def move_out(self) -> None:
        """Take that it is nobody's."""
        self._audit = self._manners = None

    def hear(
        self, accepted: bool, target: Target, scheme: Scheme, host: str, mechanism: str | None
    ) -> None:
        """Hear of a credential that was accepted or refused; see authenticator.Audit."""
        if self._audit is not None:
            self._audit(accepted, target, scheme, host, mechanism)

    def open_socket(self, place: Place) -> socket.socket:
        """Open a socket, to be connected, as the run wants it."""
        return open_plain(place) if self._manners is None else self._manners.open_socket(place)


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One connection of a run, with the sessions that were opened on it."""

    exchange: Exchange
    authenticator: Authenticator
    inquiry: Inquiry
    mover: Mover
    tenant: Tenant


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
        lane = self._equipment.spares.take(self._key) if self._anonymous else None
        if lane is None:
            lane = await self._open()
        lane.tenant.move_in(self._audit, self._manners)
        lane = replace(lane, mover=Mover(self._equipment.bodies, self._manners))
        self._all.append(lane)
        return lane

    def give(self, lane: Lane) -> None:
        """Take that nobody uses a lane any more."""
        self._idle.append(lane)

    async def _open(self) -> Lane:
        start, equipment = self._start, self._equipment
        limits, settings = equipment.limits, start.settings
        context = await equipment.trust.context(settings.cacert)
        tenant = Tenant()
        connector = Connector(equipment.trust.sessions, tenant.open_socket)
        exchange = Exchange(connector, context, limits)
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
            audit=tenant.hear,
        )
        inquiry = Inquiry(
            authenticator,
            settings,
            start.headers,
            secrets=bool(start.headers) or authenticator.armed,
            max_redirects=limits.max_redirects,
        )
        mover = Mover(equipment.bodies, self._manners)
        return Lane(exchange, authenticator, inquiry, mover, tenant)

    @property
    def _anonymous(self) -> bool:
        """Whether nobody's name is on its connections: no file of CAs may have changed, either."""
        start = self._start
        return not start.credentials and not start.headers and start.settings.cacert is None

    @property
    def _key(self) -> Key:
        # All that a lane without secrets is made of: the other settings concern files.
        settings = self._start.settings
        return (
            settings.proxy,
            settings.allow_cleartext,
            settings.negotiate,
            settings.passport,
            self._manners.yields,
            self._equipment.limits,
        )

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
        lane.tenant.move_out()
        # Its connections are such as the run wanted when they were opened.
        if self.sound and self._anonymous and self._manners.steady:
            await self._equipment.spares.give(self._key, lane)
        else:
            await lane.exchange.close()
