"""The daemon's life: lock, queue file, organs, socket; and all of it backwards.

Organs fail together: an error in the scheduler, the store or the API brings the daemon down, and
the service manager starts it again. Jobs fail alone (see `service.carrier`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from transferd.accounts import find_account
from transferd.api.identity import admin_gid, user_name
from transferd.api.server import ApiServer
from transferd.assembly import Parts, Ports, assemble, default_timers, own_user
from transferd.config import Config, Source, changes
from transferd.launcher import own_launcher, owner_launcher
from transferd.listener import bind_listener, recorded
from transferd.logs import set_up_logging
from transferd.model.caller import Caller
from transferd.model.errors import ConfigError
from transferd.model.job import JobId, Seconds
from transferd.process import DESCRIPTORS
from transferd.service.administration import Administration, Subjects
from transferd.service.clock import SystemClock
from transferd.service.figures import Figures
from transferd.service.lookups import Lookups
from transferd.service.metering import SYSTEM_BUS
from transferd.service.surroundings import Places
from transferd.service.workers import Launch, Process
from transferd.store.opening import QUEUE_FILE, Store, open_store
from transferd.supervisor import Supervisor, inherited_sockets
from transferd.wire.answers import Answers

log = logging.getLogger(__name__)

#: How often a daemon that was started on demand looks whether it is still needed…
_LOOK: Seconds = 20.0
#: …and how often in a row it must not be.
_LOOKS = 3
#: Callers that are connected at once, at most…
_MOST_CONNECTIONS = 4096
#: …and at least; descriptors that are nobody's but the daemon's.
_FEWEST_CONNECTIONS, _OWN_DESCRIPTORS = 16, 64
#: Mode of the socket: everybody where a service is everybody's, else nobody but its user and root.
_SHARED_MODE, _OWN_MODE = 0o666, 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where the daemon lives, and how."""

    socket: Path
    state: Path
    configuration: Source
    #: For every user of the machine; else for the daemon's own.
    system: bool = False
    #: Started by a client: leaves once the queue has been empty for a while.
    on_demand: bool = False


class Daemon:
    """One daemon, from its lock to its last word."""

    def __init__(
        self,
        options: Options,
        config: Config,
        origin: Path | None,
        environ: MutableMapping[str, str],
    ) -> None:
        """Take what is meant for the daemon out of *environ*; the rest is for its own worker.

        *origin* is the file that *config* was read from.

        Raises:
            ActivationError: the service manager passed on something else than the socket.
        """
        self._options = options
        self._config = config
        self._origin = origin
        self._supervisor = Supervisor(environ, os.getpid())
        self._inherited = inherited_sockets(environ, os.getpid())
        self._environ: Mapping[str, str] = environ
        self._clock = SystemClock()
        self._figures = Figures()
        self._launcher = self._new_launcher()
        self._groups = Lookups(admin_gid)
        self._stop = asyncio.Event()
        self._reread = asyncio.Event()
        self._on_terminal = os.isatty(2)

    async def run(self) -> None:
        """Live until SIGTERM or SIGINT; read the configuration again on SIGHUP.

        Raises:
            StoreLocked, StoreError: the state directory cannot be used.
            SocketRefused: the socket cannot be used.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        given = self._environ.get("CREDENTIALS_DIRECTORY")
        credentials = Path(given) if given else None
        async with open_store(
            self._options.state,
            credentials=credentials,
            new_id=_new_id,
            observe=self._figures.queried,
        ) as store:
            answers = self._answers()
            parts = self._assemble(store, answers)
            requeued = await store.jobs.recover(self._clock.steady())
            with self._listening() as listening, recorded(self._socket_path, self._options.state):
                administration = self._administration(store, parts)
                server = self._server(parts, administration, answers)
                await server.start(listening)
                fields = {"socket": self._options.socket, "requeued": requeued}
                log.info("daemon.ready", extra={"fields": fields})
                await self._live(store.beat, parts, server, administration)
        log.info("daemon.stopped", extra={"fields": {}})

    def _answers(self) -> Answers:
        def wall_time(steady: Seconds) -> datetime:
            return self._clock.now() + timedelta(seconds=steady - self._clock.steady())

        return Answers(user_name, wall_time)

    def _assemble(self, store: Store, answers: Answers) -> Parts:
        ports = Ports(
            jobs=store.jobs,
            notices=store.notices,
            launch=self._launch,
            clock=self._clock,
            answers=answers,
            meter=self._figures,
            owner_of=_caller if self._options.system else own_user,
            bus=self._environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS,
        )
        return assemble(self._config, ports)

    def _administration(self, store: Store, parts: Parts) -> Administration:
        subjects = Subjects(
            store=store.jobs,
            keys=store.keys,
            workers=parts.organs.workers,
            figures=self._figures,
            clock=self._clock,
            places=Places(
                system=self._options.system,
                socket=self._socket_path,
                state=self._options.state,
                queue=self._options.state / QUEUE_FILE,
            ),
            owner_of=_caller if self._options.system else own_user,
            name_of=user_name,
        )
        return Administration(subjects, self._origin)

    async def _launch(self, owner: int, end: socket.socket) -> Process:
        """Start a worker as the configuration of the moment says."""
        return await self._launcher(owner, end)

    def _new_launcher(self) -> Launch:
        module = ("-m", "transferd.worker")
        if self._options.system:
            worker = self._config.worker
            # Isolated: what users put into their homes or their environment is not executed.
            command = (sys.executable, "-I", *module)
            extra, root = worker.environment, worker.allow_root
            return owner_launcher(command, find_account, extra, allow_root=root)
        return own_launcher((sys.executable, "-P", *module), self._environ)

    def _serves(self, uid: int) -> bool:
        """Whether somebody is served: without its powers a daemon could work for its user alone."""
        return self._options.system or uid in (0, os.getuid())

    def _server(self, parts: Parts, administration: Administration, answers: Answers) -> ApiServer:
        return ApiServer(
            jobs=parts.jobs,
            notices=parts.notifier,
            admin=administration,
            meter=self._figures,
            answers=answers,
            limits=self._config.limits.limits(),
            timers=default_timers(self._config),
            serves=self._serves,
            admin_gid=admin_gid(self._config.api.admin_group),
            operator=None if self._options.system else os.getuid(),
            heartbeat=self._config.api.heartbeat_seconds,
            connections=_room(DESCRIPTORS.now),
        )

    @contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        """Listen on the inherited socket, else on one of our own."""
        if self._inherited:
            yield self._inherited[0]
            return
        mode = _SHARED_MODE if self._options.system else _OWN_MODE
        with bind_listener(self._options.socket, mode=mode) as listener:
            yield listener.socket

    @property
    def _socket_path(self) -> Path:
        # A socket of our own got its name as a link; the kernel knows another one.
        inherited = self._inherited[0].getsockname() if self._inherited else None
        return Path(inherited) if inherited else self._options.socket

    async def _live(
        self,
        beat: Callable[[], Awaitable[None]],
        parts: Parts,
        server: ApiServer,
        administration: Administration,
    ) -> None:
        """Run every organ until told to stop; end them from the outside in.

        The API goes first, so that nothing new begins; then the runs, whose workers report their
        last durable offsets; the queue file is closed when nobody writes any more.
        """
        async with asyncio.TaskGroup() as group:
            scheduler = group.create_task(_schedule(parts), name="scheduler")
            organs = [
                group.create_task(organ, name=name)
                for name, organ in (
                    ("closing", parts.organs.closing.run()),
                    ("notifier", parts.notifier.run()),
                    ("housekeeper", parts.housekeeper.run()),
                    ("network", parts.network.run()),
                    ("metering", parts.metering.run()),
                    ("windows", parts.organs.windows.run()),
                    ("workers", parts.organs.workers.run()),
                    # The loop turns, and the queue file can be read and written.
                    ("watchdog", self._supervisor.keep_alive(beat)),
                    ("demand", self._leave_when_idle(parts)),
                    ("reload", self._reload(parts, server, administration)),
                )
            ]
            self._supervisor.ready(self._listening_status)
            await self._stop.wait()
            self._supervisor.stopping()
            log.info("daemon.stopping", extra={"fields": {}})
            await server.stop(_API_PATIENCE)
            await _end([scheduler])
            await parts.organs.runs.close()
            await _end(organs)
            await parts.organs.workers.close()

    @property
    def _listening_status(self) -> str:
        return f"listening on {self._socket_path}"

    def _hung_up(self) -> None:
        """Take SIGHUP: a terminal that is gone ends the daemon that was started in it."""
        if self._on_terminal and not os.isatty(2):
            self._stop.set()
        else:
            self._reread.set()

    async def _reload(
        self, parts: Parts, server: ApiServer, administration: Administration
    ) -> None:
        """Read the configuration again whenever that is asked for, until cancelled."""
        source = self._options.configuration
        while await self._reread.wait():
            self._reread.clear()
            self._supervisor.reloading()
            try:
                config, origin = await asyncio.to_thread(source.read)
                gid = await self._groups.find(config.api.admin_group)
            except (ConfigError, TimeoutError) as error:
                fields = {"source": source.path, "reason": str(error)}
                log.error("config.refused", extra={"fields": fields})
                administration.refused(str(error))
                self._supervisor.ready(f"{self._listening_status}; kept as it was: {error}")
            else:
                changed = changes(self._config, config)
                self._config, self._origin = config, origin
                self._take_up(config, gid, parts, server)
                if self._options.system and not _AT_START.isdisjoint(changed):
                    parts.organs.workers.renew()
                administration.configured(origin)
                details = {"source": origin, "changed": ",".join(changed)}
                log.info("config.reloaded", extra={"fields": details})
                self._supervisor.ready(self._listening_status)

    def _take_up(
        self, config: Config, admin_gid: int | None, parts: Parts, server: ApiServer
    ) -> None:
        """Go on with another configuration."""
        self._launcher = self._new_launcher()
        parts.reconfigure(config)
        server.configure(
            limits=config.limits.limits(),
            timers=default_timers(config),
            admin_gid=admin_gid,
            heartbeat=config.api.heartbeat_seconds,
        )
        set_up_logging(config.log.format, config.log.level, self._environ, sys.stderr)

    async def _leave_when_idle(self, parts: Parts) -> None:
        if not self._options.on_demand:
            return
        quiet = 0
        while quiet < _LOOKS:
            await asyncio.sleep(_LOOK)
            parts.organs.outcomes.departed.clear()
            if any((await parts.jobs.counts()).values()):
                quiet = 0
                await parts.organs.outcomes.departed.wait()
            else:
                quiet = 0 if parts.notifier.busy else quiet + 1
        log.info("daemon.idle", extra={"fields": {}})
        self._stop.set()


#: What of the configuration a worker of a system service is started by.
_AT_START = frozenset({"worker.allow_root", "worker.environment"})
#: Requests that are being answered when the daemon is told to stop get this long.
_API_PATIENCE: Seconds = 1.0
#: Jobs wait this long for NetworkManager's first word.
_LINK_PATIENCE: Seconds = 2.0


def _room(descriptors: int) -> int:
    """Return how many callers there may be where the process may have so many *descriptors*."""
    return max(_FEWEST_CONNECTIONS, min(descriptors - _OWN_DESCRIPTORS, _MOST_CONNECTIONS))


def _caller(caller: Caller) -> int:
    return caller.uid


async def _schedule(parts: Parts) -> None:
    """Schedule once it is known over which link: no job starts to be interrupted at once."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINK_PATIENCE):
            await parts.metering.asked.wait()
    await parts.organs.scheduler.run()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in reversed(tasks):
        task.cancel()
        await asyncio.wait([task])


def _new_id() -> JobId:
    return JobId(str(uuid.uuid4()))
