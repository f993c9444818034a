"""Passwords and other secrets, kept from everybody who has no need of them.

A real daemon that says as much as it can, and real servers; then everything is searched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import transferd
from tests.support.daemon import CONFIG
from tests.support.kdc import Kdc
from tests.support.owner import Machine, reach
from tests.support.recorder import traces
from tests.support.servers import PASSWORD
from tests.support.spots import PATIENCE, SOME, SPOTS, Spot, visiting
from transferd import Job, JobFailed, Manager, Target

#: Log as much as can be logged.
TALKATIVE = CONFIG + '[log]\nlevel = "debug"\n'
#: Let what is executed leave a core file when it dies, if nothing else keeps it from that.
_CORES = ("sh", "-c", 'ulimit -c "$(ulimit -H -c)" && exec "$0" "$@"')
#: Ways to look at a job.
_SHOWING = (("show",), ("show", "--json"))
#: What is to be seen of a process.
_SEEN = ("cmdline", "environ", "comm", "status")


@dataclass(kw_only=True)
class Canaries:
    """Secrets that nobody else has, by name."""

    secrets: dict[str, str] = field(default_factory=dict)

    def make(self, name: str) -> str:
        """Make another one."""
        return self.secrets.setdefault(name, f"canary-{os.urandom(8).hex()}")

    def found(self, *texts: bytes | str) -> set[str]:
        """Which of them are there, as they are or in disguise."""
        data = b"\n".join(text.encode() if isinstance(text, str) else text for text in texts)
        return traces(data, self.secrets) & self.secrets.keys()


def inside(directory: Path) -> Iterator[bytes]:
    """Everything in the files of a directory."""
    for path in directory.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


def processes(*pids: int) -> Iterator[bytes]:
    """What is to be seen of processes."""
    for pid in pids:
        for name in _SEEN:
            # Nobody but root may read all of it.
            with contextlib.suppress(PermissionError):
                yield Path(f"/proc/{pid}/{name}").read_bytes()


async def told(machine: Machine, manager: Manager, job: Job) -> list[str]:
    """What is told of a job to whoever may see it."""
    shown = [await asyncio.to_thread(machine.ctl, *words, job.id) for words in _SHOWING]
    assert not any(done.returncode for done in shown)
    said = [done.stdout + done.stderr for done in shown]
    said += [str(await job.refresh()), str(await job.why()), str([f async for f in job.files()])]
    async for event in manager.events(job=job.id, kinds=["error", "modification"], after=0):
        said.append(str(event))
        if isinstance(event, transferd.NoticeAnswer) and event.kind == "error":
            break
    return said


@pytest.fixture
def talkative(kdc: Kdc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A daemon that logs everything, and might leave a core."""
    directory = tmp_path_factory.mktemp("talkative")
    with Machine(directory, kdc) as machine:
        (directory / "transferd.toml").write_text(TALKATIVE, encoding="utf-8")
        yield machine.start(before=_CORES)


@pytest.mark.parametrize("spot", SPOTS, ids=str)
async def test_no_secret_of_any_scheme_is_left_anywhere(
    talkative: Machine, spot: Spot, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """BITS.md A4, promise 5: neither one that was refused nor one that is in use."""
    machine, canaries = talkative, Canaries(secrets={"right": PASSWORD})
    async with visiting(spot, machine, request, tmp_path) as visitor:
        job = await visitor.make(spot.user, canaries.make("wrong"))
        await job.resume()
        await visitor.fail(job)
        said = await told(machine, visitor.manager, job)
        await job.set_credentials(Target.SERVER, spot.scheme, spot.user, PASSWORD)
        visitor.front.hold = SOME
        await job.resume()
        await reach(machine, visitor.manager, job, SOME)
        (worker,) = machine.workers()
        kept = [*inside(machine.directory), *processes(machine.pid, worker)]
        assert any(job.id.encode() in each for each in kept)
        assert canaries.found(*kept, *said) == set()


async def test_no_secret_is_left_wherever_else_one_can_be_given(
    talkative: Machine, tmp_path: Path
) -> None:
    """In headers, in URLs, for a proxy; the job waits with them, and is cancelled in the end."""
    machine, canaries = talkative, Canaries()
    headers = {name: canaries.make(name) for name in ("X-Api-Key", "Cookie", "Authorization-Two")}
    proxy = f"http://proxyuser:{canaries.make('proxy URL')}@127.0.0.1:9"
    remote = f"http://alice:{canaries.make('URL')}@127.0.0.1:9/file?x=1"
    async with transferd.connect(machine.socket) as manager:
        job = await manager.create_job(
            "decorated", priority="foreground", headers=headers, proxy=proxy
        )
        await job.add_file(remote, tmp_path / "file")
        # Every try at once is the last one.
        await job.change(no_progress_timeout=0)
        await job.resume()
        with pytest.raises(JobFailed):
            await job.wait(PATIENCE)
        said = await told(machine, manager, job)
        assert {(each.target, each.scheme) for each in job.answer.credentials} > {
            ("server", "basic"),
            ("proxy", "basic"),
        }
        kept = [*inside(machine.directory), *processes(machine.pid, *machine.workers())]
        assert any(job.id.encode() in each for each in kept)
        assert canaries.found(*kept, *said) == set()
        assert canaries.found(remote, proxy) == {"URL", "proxy URL"}
        await job.cancel()


def test_a_daemon_that_dies_leaves_no_core(talkative: Machine) -> None:
    """The key of the vault and passwords are in its memory."""
    os.kill(talkative.pid, signal.SIGSEGV)
    end = os.waitid(os.P_PID, talkative.pid, os.WEXITED | os.WNOWAIT)
    assert end is not None
    assert (end.si_code, end.si_status) == (os.CLD_KILLED, signal.SIGSEGV)
