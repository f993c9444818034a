"""The client against the real API server: requests, waiting, events, and which daemon."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, aclosing, suppress
from pathlib import Path

import pytest

import transferd
from tests.support.scripted_daemon import ScriptedDaemon, ScriptedService, scripted_daemon
from tests.support.servers import require_root
from transferd.client import sockets
from transferd.client.connector import connected
from transferd.client.errors import CALLER_ERRORS, DaemonFault, JobFailed, JobGone
from transferd.client.job import Job
from transferd.client.manager import Manager, connect
from transferd.client.sockets import distrust, locate
from transferd.model.credentials import Scheme, Target
from transferd.model.errors import (
    BadRequest,
    CallerError,
    Conflict,
    NoDaemon,
    NotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
)
from transferd.model.job import JobId
from transferd.model.notices import TERMINAL, Gap, NoticeKind
from transferd.model.states import JobState
from transferd.wire.api import GapAnswer, NoticeAnswer
from transferd.wire.bodies import FileBody, JobBody

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def daemon() -> AsyncIterator[ScriptedDaemon]:
    """A daemon that says what it is told to, and beats fast."""
    async with scripted_daemon(heartbeat=0.05) as running:
        yield running


@pytest.fixture
def service(daemon: ScriptedDaemon) -> ScriptedService:
    """What is behind that daemon."""
    return daemon.service


@pytest.fixture
async def manager(daemon: ScriptedDaemon) -> AsyncIterator[Manager]:
    """A client of that daemon."""
    async with connect(daemon.path) as connected:
        yield connected


async def running_job(manager: Manager, name: str = "a job") -> Job:
    """Make a job that runs."""
    job = await manager.create_job(name)
    await job.add_file("https://host/a", f"/tmp/{job.id}")
    await job.resume()
    return job


# ── requests ───────────────────────────────────────────────────────────────────────────────


async def test_the_sample_in_its_order(daemon: ScriptedDaemon) -> None:
    """Create, notify, credentials, file, resume, wait, complete: the order of the sample."""
    service = daemon.service
    called: list[str] = []
    async with transferd.connect(daemon.path) as manager:
        job = await manager.create_job("BitsAuthSample")
        assert job.state is JobState.SUSPENDED
        await job.set_notify(
            on_transferred=lambda job, notice: called.append(job.name),
            on_error=lambda job, notice: called.append("error"),
        )
        await job.set_credentials(Target.SERVER, Scheme.DIGEST, "CORP\\alice", "hunter2")
        await job.add_file("https://host/a.iso", "/home/alice/a.iso")
        await job.resume()
        async with asyncio.TaskGroup() as group:
            group.create_task(service.transfer(job))
            answer = await job.wait(timeout=15 * 60)
        assert answer.state == "transferred"
        assert called == ["BitsAuthSample"]
        await job.complete()
    (stored,) = service.passwords.values()
    assert stored == "hunter2"
    assert service.jobs == {}


async def test_what_a_job_holds_is_told(manager: Manager) -> None:
    """The attributes are those of the last answer."""
    job = await manager.create_job(
        "nightly",
        priority="low",
        description="every night",
        files=[FileBody(remote="https://host/a", local="/tmp/a")],
        headers={"X-Token": "secret"},
        min_retry_delay=5.0,
    )
    assert (job.name, job.answer.priority, job.answer.files_total) == ("nightly", "low", 1)
    assert job.answer.headers == ["X-Token"]
    assert job.answer.min_retry_delay == 5.0
    assert "secret" not in repr(job) + repr(job.answer)
    await job.change(name="weekly", max_size=10)
    assert (job.name, job.answer.max_size) == ("weekly", 10)
    assert [blocker.code for blocker in await job.why()] == ["suspended"]


async def test_creating_again_with_the_same_id_makes_no_other(
    manager: Manager, service: ScriptedService
) -> None:
    """Who does not know whether a request arrived may repeat it."""
    chosen = "0f8fad5b-d9cb-469f-a165-70867728950e"
    first = await manager.create_job("a", id=chosen)
    second = await manager.create_job("a", id=chosen)
    assert first.id == second.id == chosen
    assert len(service.jobs) == 1


async def test_many_jobs_are_made_at_once(manager: Manager, service: ScriptedService) -> None:
    """All or none, in one request."""
    jobs = await manager.create_jobs(JobBody(name=f"job {number}") for number in range(5))
    assert [job.name for job in jobs] == [f"job {number}" for number in range(5)]
    with pytest.raises(BadRequest):
        await manager.create_jobs([JobBody(name="good"), JobBody(name="")])
    assert len(service.jobs) == 5


async def test_lists_are_read_to_their_end(manager: Manager) -> None:
    """Pages are the daemon's business, not the caller's."""
    await manager.create_jobs(JobBody(name=f"job {number}") for number in range(250))
    assert [job.name async for job in manager.jobs()] == [f"job {n}" for n in range(250)]
    assert [job async for job in manager.jobs(state=JobState.ERROR)] == []
    some = manager.jobs(state=[JobState.SUSPENDED, JobState.QUEUED])
    assert len([job async for job in some]) == 250


async def test_files_are_read_to_their_end(manager: Manager) -> None:
    """Pages are the daemon's business, not the caller's."""
    job = await manager.create_job("many files")
    await job.add_files(
        FileBody(remote="https://host/a", local=f"/tmp/{number}") for number in range(250)
    )
    assert [file.index async for file in job.files()] == list(range(250))


async def test_paths_are_resolved_before_they_are_sent(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has another working directory and another home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/alice")
    job = await manager.create_job(
        "paths", files=[FileBody(remote="https://host/a", local="a")], cacert="ca.pem"
    )
    await job.add_file("https://host/b", Path("dir/../b"))
    await job.add_file("https://host/c", "~/c")
    locals_ = [file.local async for file in job.files()]
    assert locals_ == [str(tmp_path / "a"), str(tmp_path / "b"), "/home/alice/c"]
    assert job.answer.cacert == str(tmp_path / "ca.pem")
    await job.change(cacert=Path("other.pem"))
    assert job.answer.cacert == str(tmp_path / "other.pem")


async def test_credentials_are_removed(manager: Manager) -> None:
    """BITS.md A3."""
    job = await manager.create_job("secret")
    await job.set_credentials("server", "Basic", "alice", transferd.Secret("hunter2"))
    assert [each.scheme for each in job.answer.credentials] == ["basic"]
    await job.remove_credentials("server", "basic")
    assert (await job.refresh()).credentials == []
    with pytest.raises(NotFound) as refused:
        await job.remove_credentials(Target.SERVER, Scheme.BASIC)
    assert refused.value.code == "credential_not_found"


async def test_nobody_is_who_the_owner_is_already(manager: Manager) -> None:
    """BITS.md A9: no user and no password, for negotiate only."""
    job = await manager.create_job("implicit")
    await job.set_credentials("proxy", "Negotiate", None, None)
    (label,) = job.answer.credentials
    assert (label.target, label.scheme, label.username) == ("proxy", "negotiate", None)
    await job.remove_credentials(Target.PROXY, Scheme.NEGOTIATE)
    for scheme, password in ((Scheme.NTLM, None), (Scheme.NEGOTIATE, "hunter2")):
        with pytest.raises(BadRequest) as refused:
            await job.set_credentials(Target.SERVER, scheme, None, password)
        assert refused.value.code == "credentials_incomplete"


async def test_how_schemes_are_spoken_is_said_and_changed(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options replace a group, members change it; paths are resolved here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/alice")
    job = await manager.create_job(
        "spoken",
        negotiate=transferd.NegotiateOptions(keytab="~/a.keytab", ccache="cc", ntlm=True),
        passport=transferd.PassportOptions(login_host="login"),
    )
    negotiate = job.answer.negotiate
    assert (negotiate.keytab, negotiate.ccache) == ("/home/alice/a.keytab", str(tmp_path / "cc"))
    assert job.answer.passport.login_host == "login"
    await job.change(negotiate={"ccache": "FILE:~/cc", "ntlm": None, "spn": "HTTP/w"})
    negotiate = job.answer.negotiate
    assert (negotiate.keytab, negotiate.ccache) == ("/home/alice/a.keytab", "FILE:/home/alice/cc")
    assert (negotiate.spn, negotiate.ntlm) == ("HTTP/w", False)
    assert job.answer.passport.login_host == "login"
    options = transferd.NegotiateOptions(ccache="DIR::/run/cc/tkt")
    answer = await job.change(negotiate=options, passport=None)
    assert (answer.negotiate.keytab, answer.negotiate.ccache) == (None, "DIR::/run/cc/tkt")
    assert answer.passport.login_host is None
    bodies = [JobBody(name="many", negotiate=transferd.NegotiateBody(keytab="k", ccache="KCM:"))]
    (made,) = await manager.create_jobs(bodies)
    assert (made.answer.negotiate.keytab, made.answer.negotiate.ccache) == (
        str(tmp_path / "k"),
        "KCM:",
    )


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("name_invalid", "cannot use an empty name"),
        NotAllowed("not_allowed", "cannot do that"),
        NotFound("job_not_found", "there is no such job"),
        Conflict("invalid_state", "cannot resume a job that is cancelled"),
        TooLarge("too_large", "cannot take that much"),
        Unavailable("worker_lost", "cannot do that at the moment"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_refusals_come_as_the_models_own_errors(
    error: CallerError, manager: Manager, service: ScriptedService
) -> None:
    """The same class, code and text on both ends of the socket."""
    service.fault = error
    with pytest.raises(type(error)) as refused:
        await manager.create_job("refused")
    assert type(refused.value) is type(error)
    assert (refused.value.code, str(refused.value)) == (error.code, str(error))


def test_every_status_of_a_refusal_has_its_class() -> None:
    """A new class in the model must not come as a fault of the daemon."""
    known = {
        kind for kind in CallerError.__subclasses__() if kind.__module__ == BadRequest.__module__
    }
    assert set(CALLER_ERRORS.values()) == known


async def test_a_fault_of_the_daemon_is_not_the_callers(
    manager: Manager, service: ScriptedService
) -> None:
    """500 says that nobody can do anything but look into the daemon's log."""
    service.fault = RuntimeError("hunter2")
    with pytest.raises(DaemonFault) as failed:
        await manager.create_job("unlucky")
    assert "hunter2" not in str(failed.value)


async def test_an_id_cannot_lead_to_another_path(manager: Manager) -> None:
    """What is put into a path is escaped."""
    job = await manager.create_job("a job")
    for job_id in (f"{job.id}/files", f"{job.id}?", f"{job.id}#", "../version", "%2e%2e/version"):
        with pytest.raises((NotFound, BadRequest)):
            await manager.job(job_id)


async def test_versions_and_health_are_told(manager: Manager, daemon: ScriptedDaemon) -> None:
    """Who talks to whom."""
    assert (await manager.version()).version == transferd.__version__
    assert (await manager.health()).status == "ok"
    assert manager.socket == daemon.path


class Stranger:
    """Somebody else on a socket, who answers every request with the same bytes."""

    def __init__(self, reply: bytes) -> None:
        self.requests = 0
        self._reply = reply

    async def serve(self, path: Path) -> asyncio.Server:
        """Begin to answer."""
        return await asyncio.start_unix_server(self._answer, str(path))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        writer.write(self._reply)
        writer.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ],
)
async def test_somebody_else_on_the_socket_is_recognised(reply: bytes, tmp_path: Path) -> None:
    """What does not speak the API is no daemon of ours, and never followed anywhere."""
    path = tmp_path / "s"
    stranger = Stranger(reply)
    async with await stranger.serve(path), connect(path) as manager:
        with pytest.raises(DaemonFault, match=r"transferd|version"):
            await manager.version()
    assert stranger.requests == 1


async def test_every_request_has_a_connection_of_its_own(tmp_path: Path) -> None:
    """A kept one may have died with a restarted daemon, and a POST is not simply repeated."""
    asked: list[asyncio.StreamWriter] = []
    body = b'{"status": "ok", "jobs": {}, "workers": 0}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                asked.append(writer)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()
        closed.release()

    path = tmp_path / "s"
    closed = asyncio.Semaphore(0)
    async with await asyncio.start_unix_server(serve, str(path)):
        async with connect(path) as manager:
            await manager.health()
            await manager.health()
        for _ in range(3):  # one was the look whether anybody is there
            await closed.acquire()
    assert len(set(asked)) == len(asked) == 2


async def test_a_daemon_that_leaves_in_the_middle_is_no_daemon(tmp_path: Path) -> None:
    """The message says that nobody knows whether the request was served."""
    path = tmp_path / "s"
    async with await Stranger(b"").serve(path), connect(path) as manager:
        with pytest.raises(NoDaemon, match="look at the job"):
            await manager.version()


async def test_nobody_waits_for_an_acknowledgement_that_is_never_sent(
    daemon: ScriptedDaemon,
) -> None:
    """Asked of a manager after its end, it fails as every other request does."""
    async with connect(daemon.path) as manager:
        pass
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="not open"):
            await manager.acknowledge(1)


async def test_a_daemon_that_is_gone_is_no_daemon(manager: Manager, daemon: ScriptedDaemon) -> None:
    """Each request finds the daemon anew, or says that it is not there."""
    await daemon.stop()
    with pytest.raises(NoDaemon, match="no such file"):
        await manager.version()
    await daemon.start()
    await manager.version()


# ── waiting ────────────────────────────────────────────────────────────────────────────────


async def test_wait_returns_when_the_job_is_transferred(
    manager: Manager, service: ScriptedService
) -> None:
    """And acknowledges nothing: who waits has not been called back."""
    job = await running_job(manager)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(job.wait())
        await service.listening(1)
        await service.transfer(job)
    assert waiting.result().state == "transferred"
    assert service.acknowledged == []


async def test_wait_raises_when_the_job_is_in_error(
    manager: Manager, service: ScriptedService
) -> None:
    """The error goes along, for programs and for people."""
    job = await running_job(manager)
    await service.fail(job)
    with pytest.raises(JobFailed, match="the server has no such file") as failed:
        await job.wait()
    assert failed.value.error is not None
    assert (failed.value.error.code, failed.value.error.http_status) == ("http_404", 404)
    assert failed.value.job.state == "error"


async def test_wait_raises_when_the_job_is_cancelled(
    manager: Manager, service: ScriptedService
) -> None:
    """Somebody else took the job away."""
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    await service.happen(job, NoticeKind.ENDED, JobState.CANCELLED)
    with pytest.raises(JobGone, match="cancelled"):
        await waiting


async def test_wait_returns_when_somebody_else_completes(
    manager: Manager, service: ScriptedService
) -> None:
    """A completed job was transferred, whoever completed it."""
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    await service.happen(job, NoticeKind.ENDED, JobState.ACKNOWLEDGED)
    assert (await waiting).state == "acknowledged"


async def test_wait_until_the_end_lets_transferred_pass(
    manager: Manager, service: ScriptedService
) -> None:
    """A job that completes itself has its files in place only when it has ended."""
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait(until="ended"))
    await service.listening(1)
    await service.transfer(job)
    await service.happen(job, NoticeKind.ENDED, JobState.ACKNOWLEDGED)
    assert (await waiting).state == "acknowledged"


async def test_wait_gives_up_after_its_time(manager: Manager, service: ScriptedService) -> None:
    """The job goes on."""
    job = await running_job(manager)
    with pytest.raises(TimeoutError):
        await job.wait(timeout=0.05)
    assert service.jobs[JobId(job.id)].state is JobState.QUEUED


async def test_wait_is_not_misled_by_an_old_notice(
    manager: Manager, service: ScriptedService
) -> None:
    """An error that nobody acknowledged is told again, though the job was resumed since."""
    job = await running_job(manager)
    await service.fail(job)
    await job.resume()
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    await manager.version()
    assert not waiting.done()
    await service.transfer(job)
    assert (await waiting).state == "transferred"


async def test_wait_notices_what_it_was_not_told(
    manager: Manager, service: ScriptedService
) -> None:
    """Every heartbeat is a look: a notice that nobody sent does not make a program hang."""
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    service.put(JobId(job.id), state=JobState.TRANSFERRED)
    assert (await waiting).state == "transferred"


async def test_wait_says_so_when_a_job_vanishes_without_a_word(
    manager: Manager, service: ScriptedService
) -> None:
    """Whether it was completed or cancelled is not made up."""
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    del service.jobs[JobId(job.id)]
    with pytest.raises(JobGone) as gone:
        await waiting
    assert gone.value.state is None


async def test_wait_says_so_when_a_job_vanishes_while_the_daemon_is_away(
    manager: Manager, daemon: ScriptedDaemon, service: ScriptedService
) -> None:
    """A stream for a job that is gone is refused; that is how the waiting ends, then."""
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    await manager.version()
    await daemon.stop()
    del service.jobs[JobId(job.id)]
    await daemon.start()
    with pytest.raises(JobGone):
        await waiting


async def test_waiting_for_a_job_that_is_not_there_is_not_found(manager: Manager) -> None:
    """Nothing is waited for."""
    job = await running_job(manager)
    await job.cancel()
    with pytest.raises(NotFound):
        await job.wait()


async def test_wait_bears_a_restart(
    manager: Manager, daemon: ScriptedDaemon, service: ScriptedService
) -> None:
    """An update of the daemon is nobody's failure."""
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    await daemon.stop()
    await service.transfer(job)
    await daemon.start()
    assert (await waiting).state == "transferred"


async def test_wait_gives_up_without_a_daemon(
    manager: Manager,
    daemon: ScriptedDaemon,
    service: ScriptedService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But a daemon that stays away ends the waiting."""
    monkeypatch.setattr("transferd.client.job.PATIENCE", 0.1)
    job = await running_job(manager)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    await daemon.stop()
    with pytest.raises(NoDaemon):
        await waiting


@pytest.mark.parametrize(
    ("command", "terminal"), [(None, TERMINAL), (["/bin/true"], NoticeKind(0))]
)
async def test_waiting_does_not_hold_back_a_jobs_command(
    command: list[str] | None,
    terminal: NoticeKind,
    manager: Manager,
    service: ScriptedService,
) -> None:
    """BITS.md M5: who listens to a terminal notice and does not acknowledge delays the command."""
    job = await running_job(manager)
    await job.set_notify(command=command)
    waiting = asyncio.ensure_future(job.wait())
    await service.listening(1)
    assert service.ears[0].kinds & TERMINAL == terminal
    assert service.ears[0].kinds & NoticeKind.ENDED
    await service.transfer(job)
    assert (await waiting).state == "transferred"


# ── events ─────────────────────────────────────────────────────────────────────────────────


async def test_events_go_on_behind_the_last_one_after_a_restart(
    manager: Manager, daemon: ScriptedDaemon, service: ScriptedService
) -> None:
    """Last-Event-ID: nothing is missed, nothing that was settled comes twice."""
    job = await running_job(manager)
    numbers: list[int | None] = []
    async with aclosing(manager.events(kinds=["file_transferred", "transferred"])) as events:
        first = asyncio.ensure_future(anext(events))
        await service.listening(1)
        await service.happen(job, NoticeKind.FILE_TRANSFERRED, JobState.TRANSFERRING)
        event = await first
        assert isinstance(event, NoticeAnswer)
        numbers.append(event.number)
        second = asyncio.ensure_future(anext(events))
        await daemon.stop()
        await service.happen(job, NoticeKind.FILE_TRANSFERRED, JobState.TRANSFERRING)
        await service.transfer(job)
        await daemon.start()
        for event in (await second, await anext(events)):
            assert isinstance(event, NoticeAnswer)
            numbers.append(event.number)
    assert numbers == [1, 2, 3]
    assert [ear.after for ear in service.heard_by] == [None, 1]


async def test_an_older_notice_that_comes_again_does_not_move_the_cursor(
    manager: Manager, daemon: ScriptedDaemon, service: ScriptedService
) -> None:
    """Else everything since then would be told twice after a restart."""
    job = await running_job(manager)
    async with aclosing(manager.events()) as events:
        first = asyncio.ensure_future(anext(events))
        await service.listening(1)
        owed = await service.fail(job)
        await service.transfer(job)
        await first
        await anext(events)
        again = asyncio.ensure_future(anext(events))
        service.again(owed)
        event = await again
        assert isinstance(event, NoticeAnswer)
        assert event.number == owed.number
        pending = asyncio.ensure_future(anext(events))
        await daemon.stop()
        await daemon.start()
        await pending
    assert service.heard_by[-1].after == 2


async def test_events_are_replayed_from_where_one_says(
    manager: Manager, service: ScriptedService
) -> None:
    """`after` is a cursor that a program has kept."""
    job = await running_job(manager)
    for _ in range(3):
        await service.happen(job, NoticeKind.FILE_TRANSFERRED, JobState.TRANSFERRING)
    async with aclosing(manager.events(job=job.id, after=1)) as events:
        heard = [await anext(events), await anext(events)]
    assert [event.number for event in heard if isinstance(event, NoticeAnswer)] == [2, 3]
    assert service.heard_by[-1].job_id == job.id


async def test_a_gap_is_told(manager: Manager, service: ScriptedService) -> None:
    """A program must know that it has to look at the jobs itself."""
    async with aclosing(manager.events(after=5)) as events:
        heard = asyncio.ensure_future(anext(events))
        await service.listening(1)
        service.ears[0].queue.put_nowait(Gap(after=5, oldest=100))
        assert await heard == GapAnswer(after=5, oldest=100)


async def test_a_gap_says_where_to_go_on(
    manager: Manager, daemon: ScriptedDaemon, service: ScriptedService
) -> None:
    """Also when the queue is another one than the cursor came from, and its numbers are smaller."""
    job = await running_job(manager)
    async with aclosing(manager.events(after=500)) as events:
        heard = asyncio.ensure_future(anext(events))
        await service.listening(1)
        service.ears[0].queue.put_nowait(Gap(after=500, oldest=3))
        await heard
        pending = asyncio.ensure_future(anext(events))
        await daemon.stop()
        await daemon.start()
        await service.listening(1)
        assert service.heard_by[-1].after == 2
        await service.happen(job, NoticeKind.FILE_TRANSFERRED, JobState.TRANSFERRING)
        await pending


async def test_an_unknown_kind_is_refused_without_asking(manager: Manager) -> None:
    """A typing error must not mean silence for ever."""
    with pytest.raises(BadRequest, match="finished"):
        await anext(manager.events(kinds=["finished"]))


async def test_acknowledging_twice_is_no_error(manager: Manager, service: ScriptedService) -> None:
    """And what does not exist is not found."""
    job = await running_job(manager)
    notice = await service.transfer(job)
    await manager.acknowledge(notice.number)
    await manager.acknowledge(notice.number)
    assert service.outbox[0].settled
    with pytest.raises(NotFound):
        await manager.acknowledge(999)


async def test_of_several_notices_those_that_are_there_are_acknowledged(
    manager: Manager, service: ScriptedService
) -> None:
    """Whoever names one that is gone hears of it; the others do not come again."""
    notices = [await service.transfer(await running_job(manager)) for _ in range(2)]
    with pytest.raises(NotFound, match="999"):
        await manager.acknowledge(notices[0].number, 999, notices[1].number)
    assert all(notice.settled for notice in service.outbox)
    await manager.acknowledge()


async def test_a_caller_waits_where_the_queue_of_callers_is_full(tmp_path: Path) -> None:
    """Somebody who connects all the time costs others time, and not an answer that never comes."""
    path = str(tmp_path / "s")
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(0)
        with suppress(BlockingIOError):
            while True:
                other = stack.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                other.connect(path)
        waiting = asyncio.create_task(connected(path))
        assert (await asyncio.wait([waiting], timeout=0.05))[1]
        listening.accept()[0].close()
        assert stack.enter_context(await waiting).getpeername() == path
    with pytest.raises(ConnectionRefusedError):
        await connected(path)


# ── which daemon ───────────────────────────────────────────────────────────────────────────


async def test_the_named_socket_is_the_only_one(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    """Who names a socket must not be answered by another daemon."""
    environ = {"XDG_RUNTIME_DIR": str(daemon.path.parent)}
    assert await locate(daemon.path, environ, start=False) == daemon.path
    named = {**environ, "TRANSFERD_SOCKET": str(daemon.path)}
    assert await locate(None, named, start=False) == daemon.path
    absent = tmp_path / "absent"
    with pytest.raises(NoDaemon, match="absent: no such file"):
        await locate(absent, named, start=True)
    with pytest.raises(NoDaemon, match="absent: no such file"):
        await locate(None, {**environ, "TRANSFERD_SOCKET": str(absent)}, start=True)


async def test_the_users_own_daemon_comes_before_the_systems(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a socket that nobody listens on is passed over."""
    own = tmp_path / "transferd.sock"
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    monkeypatch.setattr(sockets, "system_socket", lambda: daemon.path)
    assert await locate(None, environ, start=False) == daemon.path
    own.symlink_to(daemon.path)
    assert await locate(None, environ, start=False) == own
    await daemon.stop()
    with pytest.raises(NoDaemon) as none:
        await locate(None, environ, start=False)
    assert str(own) in str(none.value)
    assert str(daemon.path) in str(none.value)
    assert "start one with `transferd`" in str(none.value)


async def test_a_system_daemon_that_works_for_others_is_passed_over(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not keep a user from a daemon of his own; one that was named is used all the same."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    monkeypatch.setattr(sockets, "system_socket", lambda: daemon.path)
    daemon.serves = False
    with pytest.raises(NoDaemon, match="works for somebody else"):
        await locate(None, environ, start=False)
    assert await locate(daemon.path, environ, start=False) == daemon.path


async def test_a_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    """A socket's path has 107 bytes."""
    with pytest.raises(NoDaemon, match="too long"):
        await locate(tmp_path / ("x" * 200), {}, start=False)


def test_a_directory_under_tmp_must_be_ones_own(tmp_path: Path) -> None:
    """Anybody can make a directory under /tmp first, and wait there with a daemon of his own."""
    uid = os.geteuid()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    assert distrust(private, uid) is None
    assert "belongs to somebody else" in str(distrust(private, uid + 1))
    private.chmod(0o710)
    assert "chmod it to 0700" in str(distrust(private, uid))
    link = tmp_path / "link"
    private.chmod(0o700)
    link.symlink_to(private)
    assert "not a directory" in str(distrust(link, uid))
    assert "no such file" in str(distrust(tmp_path / "absent", uid))


async def test_nobody_speaks_with_another_users_daemon_unasked(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root who came by su has the other's XDG_RUNTIME_DIR: what he types is not for that user."""
    require_root("giving a directory away")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    (runtime / "transferd.sock").symlink_to(daemon.path)
    monkeypatch.setattr(sockets, "system_socket", lambda: tmp_path / "none")
    environ = {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)}
    assert await locate(None, environ, start=False) == runtime / "transferd.sock"
    os.chown(runtime, 54321, 54321)
    with pytest.raises(NoDaemon, match="runtime belongs to user 54321"):
        await locate(None, environ, start=False)
    meant = runtime / "transferd.sock"
    assert await locate(meant, environ, start=False) == meant


async def test_a_socket_in_somebody_elses_directory_is_not_used(
    daemon: ScriptedDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if somebody answers there."""
    shared = tmp_path / "transferd"
    shared.mkdir(mode=0o755)
    (shared / "transferd.sock").symlink_to(daemon.path)
    monkeypatch.setattr(sockets, "fallback_directory", lambda uid: shared)
    monkeypatch.setattr(sockets, "user_socket", lambda environ, uid: shared / "transferd.sock")
    monkeypatch.setattr(sockets, "system_socket", lambda: tmp_path / "absent")
    environ: Mapping[str, str] = {}
    with pytest.raises(NoDaemon, match="chmod it to 0700"):
        await locate(None, environ, start=False)
    shared.chmod(0o700)
    assert await locate(None, environ, start=False) == shared / "transferd.sock"
