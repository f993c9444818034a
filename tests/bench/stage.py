"""What every row finds ready: a server, places in memory and on disk, and daemons to measure."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import filecmp
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.client import Client, Notice, job
from tests.bench.measure import cpu_seconds
from tests.bench.pairs import Spent
from tests.bench.site import MIB, Files, nginx
from tests.support.daemon import DaemonProcess
from tests.support.servers import Server
from transferd.wire.bodies import JobBody

#: tmpfs everywhere.
_MEMORY = Path("/dev/shm")
#: What is measured; a worker, which starts in `/`, would find an installed transferd before it.
CHECKOUT = Path(__file__).parents[2]
#: A worker that leaves between two runs would have to start within one.
STAYS = "[worker]\nidle_seconds = 3600\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured."""

    pairs: int
    #: Of a large file.
    size: int
    #: Held while something is measured, so that others who take it, too, do not disturb.
    lock: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The scene of all rows."""

    extent: Extent
    server: Server
    files: Files
    memory: Path
    disk: Path

    def quiet(self) -> AbstractAsyncContextManager[None]:
        """Keep others from measuring meanwhile."""
        return quiet(self.extent.lock)

    def body(self) -> Path:
        """Return the large file."""
        return self.files.body("body", self.extent.size)

    def url(self, path: Path, *, tls: bool = False, place: str = "/") -> str:
        """Return where a file is served."""
        name = f"{place}{path.relative_to(self.files.root)}"
        return self.server.tls_url(name) if tls else self.server.url(name, host="localhost")

    @contextlib.contextmanager
    def daemon(self, config: str = STAYS) -> Iterator[DaemonProcess]:
        """Run a daemon whose queue is on disk, where queues are."""
        with self.directory() as directory, daemon_in(directory, config) as daemon:
            yield daemon.start()

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Make a directory on the disk, and remove it in the end."""
        with tempfile.TemporaryDirectory(prefix="state-", dir=self.disk) as name:
            yield Path(name)

    @contextlib.asynccontextmanager
    async def subject(self, *, tls: bool = False, lines: int = 4) -> AsyncIterator[Subject]:
        """Run a daemon that has a worker already, and connect to it."""
        with self.daemon() as daemon:
            async with Client.open(daemon.socket, lines) as client:
                subject = Subject(daemon, client, self.options(tls=tls))
                await subject.warm_up(self.url(self.files.body("warm", MIB), tls=tls), self.memory)
                yield subject

    def options(self, *, tls: bool) -> Mapping[str, str]:
        """Return what a job needs to trust the server."""
        return {"cacert": str(self.server.cacert)} if tls else {}


@contextlib.contextmanager
def daemon_in(directory: Path, config: str = "") -> Iterator[DaemonProcess]:
    """Make a daemon, and stop it in the end; what it logged is shown when something fails."""
    daemon = DaemonProcess(directory, config=config)
    daemon.variables["PYTHONPATH"] = str(CHECKOUT)
    with daemon:
        try:
            yield daemon
        except Exception:
            print(daemon.logged()[-4000:], file=sys.stderr)
            raise


@contextlib.asynccontextmanager
async def quiet(lock: Path | None) -> AsyncIterator[None]:
    """Hold a file's lock, if there is a file, so that others who take it do not measure."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield


class Subject:
    """A daemon that is measured, and its client."""

    def __init__(self, daemon: DaemonProcess, client: Client, options: Mapping[str, str]) -> None:
        self.daemon = daemon
        self.client = client
        self._options = options

    @property
    def pids(self) -> list[int]:
        """The daemon and its workers."""
        return [self.daemon.pid, *self.daemon.workers()]

    async def warm_up(self, url: str, directory: Path) -> None:
        """Download something, so that everything is loaded that a download needs."""
        place = directory / "warm-up"
        wish = job([(url, place)], **self._options)
        await self.finish(await self.client.submit([wish]))
        place.unlink()

    async def download(
        self, *jobs: Sequence[tuple[str, Path]], streams: int | None = None
    ) -> tuple[Spent, list[Notice]]:
        """Carry jobs of these files until all are transferred, each by the words of its notice."""
        wishes: list[JobBody] = [job(each, streams=streams, **self._options) for each in jobs]
        pids = self.pids
        used, began = cpu_seconds(pids), time.monotonic()
        notices = await self.client.submit(wishes)
        seconds = time.monotonic() - began
        return Spent(seconds=seconds, cpu_seconds=cpu_seconds(pids) - used), notices

    async def finish(self, notices: Sequence[Notice]) -> None:
        """Do what an owner does who has heard of it: the files get their names."""
        await self.client.acknowledge(notices)
        for notice in notices:
            await self.client.act(notice.job.id, "complete")


@contextlib.contextmanager
def stage(extent: Extent, disk: Path) -> Iterator[Stage]:
    """Make everything, and remove it in the end; *disk* is a directory on a disk."""
    with contextlib.ExitStack() as stack:
        disk.mkdir(parents=True, exist_ok=True)
        memory, place = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=parent)))
            for parent in (_MEMORY, disk)
        )
        root = memory / "root"
        root.mkdir()
        server = stack.enter_context(nginx(root))
        yield Stage(extent=extent, server=server, files=Files(root), memory=memory, disk=place)


async def check_equal(sent: Path, got: Path) -> None:
    """Make sure that a download brought the bytes that were served.

    Raises:
        AssertionError: it did not.
    """
    if not await asyncio.to_thread(filecmp.cmp, sent, got, shallow=False):
        raise AssertionError(f"{got.name} is not what was served")
