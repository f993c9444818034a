"""Admins see and steer everybody's jobs, and take them over: real queue file and link, real locks.

The workers are the ones of tests/support/service.py, one for each owner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.service import QUICK, SETTINGS, Service, one_by_one, running_service, spec
from transferd.model.caller import Caller
from transferd.model.credentials import Credential, Scheme, Secret, Target
from transferd.model.errors import Conflict, NotAllowed, NotFound, Unavailable
from transferd.model.job import FileSpec, Header, Job, JobId, JobSpec, Priority, Settings
from transferd.model.notices import Event, Modified, Notice, NoticeKind, Page
from transferd.model.queue import Runnable
from transferd.model.states import JobEvent, JobState
from transferd.wire import chores, link

ALICE = Caller(uid=1001, gid=1001, pid=1)
BOB = Caller(uid=1002, gid=1002, pid=2)
CAROL = Caller(uid=1003, gid=1003, pid=3, admin=True, operator=True)
ROOT = Caller(uid=0, gid=0, pid=4, admin=True, operator=True)

DONE, FAILED, ENDED = NoticeKind.TRANSFERRED, NoticeKind.ERROR, NoticeKind.ENDED
TERMINAL = DONE | FAILED
COMMAND = ("/home/alice/tell-me",)
SECRET = "hunter2"


def _whose(caller: Caller) -> int:
    return caller.uid


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service for many users, with an empty queue."""
    async with running_service(tmp_path / "state", owner_of=_whose) as running:
        yield running


def _credential(password: str = SECRET) -> Credential:
    return Credential(
        target=Target.SERVER, scheme=Scheme.BASIC, username="alice", password=Secret(password)
    )


def _wish(*files: str, start: bool = True) -> JobSpec:
    """A wish of alice's with all that is hers alone."""
    settings = replace(SETTINGS, notify_command=COMMAND, header_names=("X-Key",))
    return replace(
        spec(*files, start=start, settings=settings),
        credentials=(_credential(),),
        headers=(Header(name="X-Key", value=Secret(SECRET)),),
    )


async def _made(service: Service, wish: JobSpec, caller: Caller = ALICE) -> Job:
    (created,) = await service.parts.jobs.create(caller, [wish])
    return created.job


async def _next(service: Service, caller: Caller, job: Job, kinds: NoticeKind) -> Notice:
    """Wait for a notice of a job that a caller hears."""
    listening = service.parts.notifier.subscribe(caller, job_id=job.id, kinds=kinds, after=0)
    async with asyncio.timeout(10), one_by_one(listening) as events:
        async for event in events:
            if isinstance(event, Notice):
                return event
    raise AssertionError("the stream ended")


# ── what admins may do without taking over ─────────────────────────────────────────────────


async def test_an_admin_sees_and_steers_anybodys_job(service: Service) -> None:
    """BITS O2: the job stays its owner's, and so does the worker."""
    job = await _made(service, _wish("/a", start=False))
    jobs = service.parts.jobs
    assert (await jobs.get(CAROL, job.id)).owner == ALICE.uid
    assert (await jobs.files(CAROL, job.id, after=-1, limit=10)).files
    assert await jobs.why(CAROL, job.id)
    await jobs.resume(CAROL, job.id)
    worker = await service.worker_of(ALICE.uid)
    start = await worker.hears(link.Start)
    assert start.credentials
    await jobs.suspend(CAROL, job.id)
    assert (await jobs.cancel(CAROL, job.id)).state is JobState.CANCELLED
    assert len(service.workers) == 1


@pytest.mark.parametrize("admin", [CAROL, ROOT], ids=["member", "root"])
async def test_what_is_done_in_the_owners_name_needs_to_be_ones_own(
    service: Service, admin: Caller
) -> None:
    """A member of the admin group is not root: he must not write or run anything as somebody."""
    job = await _made(service, _wish("/a", start=False))
    jobs = service.parts.jobs
    changes: list[Callable[[Settings], Settings]] = [
        lambda settings: replace(settings, notify_command=("/bin/sh", "-c", "id")),
        lambda settings: replace(settings, proxy="http://carols:3128"),
        lambda settings: replace(settings, cacert="/home/carol/ca.pem"),
        lambda settings: replace(settings, allow_cleartext=True),
        lambda settings: replace(settings, overwrite=False),
        lambda settings: replace(settings, name="mine", priority=Priority.LOW),
    ]
    attempts: list[Awaitable[object]] = [
        *(jobs.change(admin, job.id, change) for change in changes),
        jobs.add_files(admin, job.id, [FileSpec(remote="http://h/b", local="/home/alice/b")]),
        jobs.set_credential(admin, job.id, _credential()),
        jobs.remove_credential(admin, job.id, Target.SERVER, Scheme.BASIC),
    ]
    for attempt in attempts:
        with pytest.raises(NotAllowed, match="take ownership of it first") as refused:
            await attempt
        assert refused.value.code == "take_ownership_first"
    assert await jobs.get(ALICE, job.id) == job


async def test_an_admin_may_say_when_and_how_much_a_job_moves(service: Service) -> None:
    """Priorities are what an admin keeps a machine in order with."""
    job = await _made(service, _wish("/a", start=False))
    timers = replace(SETTINGS.timers, max_download_time=60.0)

    def change(settings: Settings) -> Settings:
        return replace(settings, priority=Priority.LOW, timers=timers, streams=1, max_size=9)

    changed = await service.parts.jobs.change(CAROL, job.id, change)
    assert changed.owner == ALICE.uid
    assert (changed.settings.priority, changed.settings.streams) == (Priority.LOW, 1)


async def test_an_admin_does_not_acknowledge_for_others(service: Service) -> None:
    """The owner would never hear of it."""
    job = await _made(service, spec("/a"))
    worker = await service.worker_of(ALICE.uid)
    await worker.fail(await worker.hears(link.Start), "http_404")
    notice = await _next(service, ALICE, job, FAILED)
    acknowledge = service.parts.notifier.acknowledge
    with pytest.raises(NotAllowed) as refused:
        await acknowledge(CAROL, notice.number)
    assert refused.value.code == "take_ownership_first"
    with pytest.raises(NotFound) as hidden:
        await acknowledge(BOB, notice.number)
    with pytest.raises(NotFound) as missing:
        await acknowledge(BOB, 4711)
    assert hidden.value.detail.replace(str(notice.number), "4711") == missing.value.detail
    numbers = [notice.number, 4711]
    many = service.parts.notifier.acknowledge_all
    for caller, alone in ((CAROL, refused.value), (BOB, hidden.value)):
        errors = await many(caller, numbers)
        assert str(errors[notice.number]) == str(alone)
        assert str(errors[4711]) == str(missing.value)
    assert list(await many(ALICE, numbers)) == [4711]
    assert (await acknowledge(ALICE, notice.number)).settled


# ── listening ──────────────────────────────────────────────────────────────────────────────


async def test_an_admin_hears_of_others_when_he_asks_for_it(service: Service) -> None:
    """What a program of root's acts upon are root's own jobs, unless it says otherwise."""
    notifier, job = service.parts.notifier, await _made(service, spec("/a", start=False))
    own = await _made(service, spec("/b", start=False), CAROL)
    everything = {"job_id": None, "kinds": ENDED, "after": 0}
    await service.parts.jobs.cancel(ALICE, job.id)
    await service.parts.jobs.cancel(CAROL, own.id)
    assert await _heard(notifier.subscribe(CAROL, **everything), 1) == [own.id]  # type: ignore[arg-type]
    watching = notifier.subscribe(CAROL, all_users=True, **everything)  # type: ignore[arg-type]
    assert await _heard(watching, 2) == [job.id, own.id]
    with pytest.raises(NotAllowed):
        async with notifier.subscribe(BOB, all_users=True, **everything):  # type: ignore[arg-type]
            pass


async def _heard(
    listening: AbstractAsyncContextManager[AsyncIterator[Page]], count: int
) -> list[JobId]:
    heard: list[JobId] = []
    async with asyncio.timeout(10), one_by_one(listening) as events:
        while len(heard) < count:
            event = await anext(events)
            assert isinstance(event, Notice)
            heard.append(event.job_id)
    return heard


async def test_an_admin_who_looks_on_delivers_nothing(service: Service) -> None:
    """The owner's command runs at once, and no delivery is counted."""
    job = await _made(service, _wish("/a"))
    worker = await service.worker_of(ALICE.uid)
    start = await worker.hears(link.Start)
    watching = service.parts.notifier.subscribe(
        CAROL, job_id=None, kinds=TERMINAL | ENDED, after=None, all_users=True
    )
    async with asyncio.timeout(10), one_by_one(watching) as events:
        await worker.fail(start, "http_404")
        seen = await anext(events)
        assert isinstance(seen, Notice)
        command = await worker.hears(chores.RunCommand)
        assert command.argv == COMMAND
        await service.parts.jobs.cancel(ALICE, job.id)
        await anext(events)  # whoever takes the next has taken the one before
        assert (await service.store.notices.notice(seen.number)).deliveries == 0
    assert seen.job_id == job.id


# ── taking over ────────────────────────────────────────────────────────────────────────────


async def test_a_running_job_goes_on_as_its_new_owners(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """O3: the former owner's run ends first; the new one's begins where it was, with no secret."""
    job = await _made(service, _wish("/a", "/b"))
    hers = await service.worker_of(ALICE.uid)
    start = await hers.hears(link.Start)
    await hers.fetch(start, start.files[0])
    await service.until(job, lambda seen: seen.files_transferred == 1, ALICE)
    caplog.set_level(logging.INFO)
    taken = await service.parts.jobs.take_ownership(CAROL, job.id)
    assert (taken.owner, taken.state) == (CAROL.uid, JobState.QUEUED)
    his = await service.worker_of(CAROL.uid)
    again = await his.hears(link.Start)
    assert [file.index for file in again.files] == [1]
    assert (again.credentials, again.headers) == ((), ())
    assert again.settings.wary
    assert again.settings.notify_command is None
    assert [type(message) for message in hers.heard][-1] is link.Stop
    order = [type(message) for message in his.heard]
    assert order.index(chores.Assume) < order.index(link.Start)
    (record,) = [each for each in caplog.records if each.message == "job.owner_changed"]
    fields = record.__dict__["fields"]
    assert fields == {"job": job.id, "from": ALICE.uid, "to": CAROL.uid, "by": CAROL.uid}
    await his.carry(again)
    assert (await _next(service, CAROL, job, DONE)).owner == CAROL.uid
    with pytest.raises(NotFound):
        await service.parts.jobs.get(ALICE, job.id)


async def test_what_the_new_owner_is_asked_about_is_what_is_not_published(
    service: Service,
) -> None:
    """Names, partial data, and which file that is."""
    job = await _made(service, _wish("/a", "/b"))
    hers = await service.worker_of(ALICE.uid)
    start = await hers.hears(link.Start)
    await hers.fetch(start, start.files[0])
    await service.until(job, lambda seen: seen.files_transferred == 1, ALICE)
    await service.parts.jobs.take_ownership(CAROL, job.id)
    question = await (await service.worker_of(CAROL.uid)).hears(chores.Assume)
    assert [(file.local, file.temporary) for file in question.files] == [
        ("/a", f"/.a.transferd-{job.id}"),
        ("/b", f"/.b.transferd-{job.id}"),
    ]
    first, second = (file.inode for file in question.files)
    assert first is not None
    assert (first.number, second) == (1, None)


async def test_a_new_owner_without_access_does_not_get_the_job(service: Service) -> None:
    """0x80200016: nothing has changed, and the job runs again as it did."""
    job = await _made(service, _wish("/a"))
    await (await service.worker_of(ALICE.uid)).hears(link.Start)
    await _made(service, spec("/c", start=False), CAROL)
    his = await service.worker_of(CAROL.uid)
    his.out_of_reach = [chores.Refusal(0, "local_access_denied", "cannot write into /: no")]
    with pytest.raises(Conflict, match=r"cannot write into /: no; let user 1003 write") as refused:
        await service.parts.jobs.take_ownership(CAROL, job.id)
    assert refused.value.code == "owner_no_access"
    assert (await service.parts.jobs.get(ALICE, job.id)).owner == ALICE.uid
    again = await (await service.worker_of(ALICE.uid)).hears(link.Start, 2)
    assert [each.username for each in again.credentials] == ["alice"]


async def test_without_a_worker_to_ask_the_job_stays_where_it_is(service: Service) -> None:
    """What cannot be known is tried again later."""
    job = await _made(service, _wish("/a", start=False))
    await _made(service, spec("/c", start=False), CAROL)
    (await service.worker_of(CAROL.uid)).kill()
    await service.parts.organs.workers.close()
    with pytest.raises(Unavailable) as refused:
        await service.parts.jobs.take_ownership(CAROL, job.id)
    assert refused.value.code == "worker_lost"
    assert (await service.store.jobs.job(job.id)).owner == ALICE.uid


async def test_to_take_ones_own_job_is_success_and_changes_nothing(service: Service) -> None:
    """Even where it runs: nothing is stopped, nothing is stripped."""
    job = await _made(service, _wish("/a"), CAROL)
    worker = await service.worker_of(CAROL.uid)
    await worker.hears(link.Start)
    taken = await service.parts.jobs.take_ownership(CAROL, job.id)
    assert taken.credentials == job.credentials
    assert not [m for m in worker.heard if isinstance(m, chores.Assume | link.Stop)]


async def test_nobody_but_an_admin_takes_ownership(service: Service) -> None:
    """O3; to a stranger the job does not even exist."""
    job = await _made(service, _wish("/a", start=False))
    with pytest.raises(NotAllowed) as refused:
        await service.parts.jobs.take_ownership(ALICE, job.id)
    assert refused.value.code == "not_allowed"
    with pytest.raises(NotFound):
        await service.parts.jobs.take_ownership(BOB, job.id)
    assert await service.parts.jobs.get(ALICE, job.id) == job


async def test_the_former_owner_hears_the_end_and_nothing_of_what_comes(service: Service) -> None:
    """For him the job has left; what its new owner does with it is not his to see."""
    job = await _made(service, _wish("/a", start=False))
    everything = ENDED | TERMINAL | NoticeKind.MODIFICATION
    listening = service.parts.notifier.subscribe(ALICE, job_id=job.id, kinds=everything, after=None)
    heard: list[Event] = []
    async with asyncio.timeout(10), one_by_one(listening) as events:
        # A modification is still to be told when the job becomes somebody else's.
        await service.parts.jobs.change(ALICE, job.id, lambda s: replace(s, description="x"))
        await service.parts.jobs.take_ownership(CAROL, job.id)
        await service.parts.jobs.resume(CAROL, job.id)
        his = await service.worker_of(CAROL.uid)
        await his.carry(await his.hears(link.Start))
        await _next(service, CAROL, job, DONE)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                async for event in events:
                    heard.append(event)
    (ended,) = [event for event in heard if isinstance(event, Notice)]
    assert (ended.kind, ended.owner, ended.job.owner) == (ENDED, ALICE.uid, ALICE.uid)
    shown = [event.job for event in heard if isinstance(event, Modified)]
    assert {seen.owner for seen in shown} <= {ALICE.uid}


async def test_what_was_owed_to_the_former_owner_is_owed_to_the_new_one(
    service: Service,
) -> None:
    """Who listens already hears it at once; no command runs for it."""
    wish = replace(_wish("/a"), settings=replace(SETTINGS, notify_command=None))
    job = await _made(service, wish)
    hers = await service.worker_of(ALICE.uid)
    await hers.fail(await hers.hears(link.Start), "http_404")
    owed = await _next(service, ALICE, job, FAILED)
    listening = service.parts.notifier.subscribe(CAROL, job_id=None, kinds=TERMINAL, after=None)
    async with asyncio.timeout(10), one_by_one(listening) as events:
        await service.parts.jobs.take_ownership(CAROL, job.id)
        inherited = await anext(events)
    assert isinstance(inherited, Notice)
    assert (inherited.number, inherited.owner) == (owed.number, CAROL.uid)
    with pytest.raises(NotFound):
        await service.parts.notifier.acknowledge(ALICE, owed.number)
    assert (await service.parts.notifier.acknowledge(CAROL, owed.number)).settled


async def test_the_former_owners_command_never_runs_as_the_new_owner(service: Service) -> None:
    """M8: it was to be run as somebody else."""
    job = await _made(service, _wish("/a"))
    hers = await service.worker_of(ALICE.uid)
    hers.command_status = 1
    await hers.fail(await hers.hears(link.Start), "http_404")
    await hers.hears(chores.RunCommand)
    await service.parts.jobs.take_ownership(CAROL, job.id)
    await service.parts.jobs.resume(CAROL, job.id)
    his = await service.worker_of(CAROL.uid)
    await his.fail(await his.hears(link.Start), "http_404")
    await _next(service, CAROL, job, FAILED)
    await asyncio.sleep(0)
    assert not [m for m in his.heard if isinstance(m, chores.RunCommand)]


# ── at the same time ───────────────────────────────────────────────────────────────────────


async def test_a_claim_from_before_is_not_carried_by_the_former_owners_worker(
    service: Service,
) -> None:
    """The scheduler had read the queue when the job was taken over."""
    job = await _made(service, _wish("/a", start=False))
    await service.parts.jobs.take_ownership(CAROL, job.id)
    stale = Runnable(job_id=job.id, owner=ALICE.uid, priority=Priority.NORMAL)
    await service.store.jobs.apply(job.id, JobEvent.RESUME, job.created)
    await service.parts.organs.runs.start([stale])
    await (await service.worker_of(CAROL.uid)).hears(link.Start)
    hers = await service.worker_of(ALICE.uid)
    assert not [m for m in hers.heard if isinstance(m, link.Start)]


async def test_a_job_does_not_begin_while_it_is_handed_over(service: Service) -> None:
    """Whoever is asked takes his time; the scheduler waits."""
    job = await _made(service, _wish("/a"))
    hers = await service.worker_of(ALICE.uid)
    await hers.hears(link.Start)
    await _made(service, spec("/c", start=False), CAROL)
    his = await service.worker_of(CAROL.uid)
    his.mute = True
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(service.parts.jobs.take_ownership(CAROL, job.id))
        question = await his.hears(chores.Assume)
        service.parts.organs.scheduler.wake()
        assert (await service.parts.jobs.get(ALICE, job.id)).state is JobState.QUEUED
        await his.say(chores.Inspected(question.request))
    assert taking.result().owner == CAROL.uid
    assert len([m for m in hers.heard if isinstance(m, link.Start)]) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda jobs, job: jobs.set_credential(ALICE, job.id, _credential("later")),
        lambda jobs, job: jobs.change(
            ALICE, job.id, lambda settings: replace(settings, notify_command=COMMAND)
        ),
        lambda jobs, job: jobs.add_files(
            ALICE, job.id, [FileSpec(remote="http://h/z", local="/z")]
        ),
        lambda jobs, job: jobs.complete(ALICE, job.id),
        lambda jobs, job: jobs.cancel(ALICE, job.id),
        lambda jobs, job: jobs.resume(ALICE, job.id),
        lambda jobs, job: jobs.suspend(ALICE, job.id),
    ],
    ids=["credential", "command", "files", "complete", "cancel", "resume", "suspend"],
)
async def test_what_the_former_owner_does_at_that_moment_comes_too_late(
    service: Service, act: Callable[..., Awaitable[object]]
) -> None:
    """It would be done to somebody else's job, and a command would run as its new owner."""
    job = await _made(service, _wish("/a", start=False))
    await _made(service, spec("/c", start=False), CAROL)
    his = await service.worker_of(CAROL.uid)
    his.mute = True
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(service.parts.jobs.take_ownership(CAROL, job.id))
        question = await his.hears(chores.Assume)
        acting = group.create_task(_refusal(act(service.parts.jobs, job)))
        await asyncio.sleep(0)
        await his.say(chores.Inspected(question.request))
    assert acting.result() == "job_not_found"
    after = await service.store.jobs.job(job.id)
    assert after == taking.result()
    assert (after.owner, after.credentials, after.settings.notify_command) == (CAROL.uid, (), None)


async def _refusal(attempt: Awaitable[object]) -> str | None:
    try:
        await attempt
    except NotFound as error:
        return error.code
    return None


@pytest.mark.parametrize("turns", range(40))
async def test_a_cancelled_taking_is_done_or_not_done(service: Service, turns: int) -> None:
    """At every step: the old owner's with the secrets, or the new owner's without them."""
    job = await _made(service, _wish("/a"))
    hers = await service.worker_of(ALICE.uid)
    await hers.hears(link.Start)
    taking = asyncio.create_task(service.parts.jobs.take_ownership(CAROL, job.id))
    for _ in range(turns * 3):
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait([taking])
    found = await service.store.jobs.job(job.id)
    secrets = await service.store.jobs.secrets(job.id, found.modified)
    held = [each.username for each in secrets.credentials]
    if found.owner == ALICE.uid:
        assert (held, found.settings.notify_command) == (["alice"], COMMAND)
        second = 2 if any(isinstance(m, link.Stop) for m in hers.heard) else 1
        await hers.hears(link.Start, second)
    else:
        assert (held, found.settings.notify_command) == ([], None)
        await (await service.worker_of(CAROL.uid)).hears(link.Start)


async def test_after_a_crash_the_job_is_one_or_the_other(tmp_path: Path) -> None:
    """The queue file alone decides, before and after the one transaction."""
    async with running_service(tmp_path / "state", owner_of=_whose) as service:
        jobs = [await _made(service, _wish(f"/{name}")) for name in "ab"]
        await service.parts.jobs.take_ownership(CAROL, jobs[1].id)
    async with running_service(tmp_path / "state", owner_of=_whose) as service:
        hers = await (await service.worker_of(ALICE.uid)).hears(link.Start)
        his = await (await service.worker_of(CAROL.uid)).hears(link.Start)
        assert (hers.job, len(hers.credentials), len(hers.headers)) == (jobs[0].id, 1, 1)
        assert (his.job, len(his.credentials), len(his.headers)) == (jobs[1].id, 0, 0)


async def test_a_taken_job_that_completes_itself_does_so_as_its_new_owners(
    service: Service,
) -> None:
    """What was wanted of the job is still wanted."""
    wish = replace(_wish("/a"), settings=replace(SETTINGS, auto_complete=True))
    job = await _made(service, wish)
    hers = await service.worker_of(ALICE.uid)
    await hers.hears(link.Start)
    await service.parts.jobs.take_ownership(CAROL, job.id)
    his = await service.worker_of(CAROL.uid)
    await his.carry(await his.hears(link.Start))
    await his.hears(chores.Publish)
    assert (await _next(service, CAROL, job, ENDED)).job.state is JobState.ACKNOWLEDGED


async def test_a_users_own_daemon_has_one_owner_whoever_asks(tmp_path: Path) -> None:
    """Root at alice's own daemon works for alice: nothing has to be taken over there."""
    async with running_service(tmp_path / "state", QUICK) as service:
        job = await service.create(_wish("/a", start=False))
        taken = await service.parts.jobs.take_ownership(ROOT, job.id)
        assert taken == job
        await service.parts.jobs.set_credential(ROOT, job.id, _credential())


async def test_a_missing_job_is_taken_by_nobody(service: Service) -> None:
    """Admins are told the same as everybody."""
    with pytest.raises(NotFound) as refused:
        await service.parts.jobs.take_ownership(ROOT, JobId(str(uuid4())))
    assert refused.value.code == "job_not_found"
