"""Credentials during the life of a job: set, replaced and removed in every state, and audited."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.support.service import ME, QUICK, SETTINGS, TIMERS, Service, running_service, spec
from transferd.config import Config
from transferd.model.credentials import (
    Credential,
    CredentialLabel,
    NegotiateOptions,
    PassportOptions,
    Scheme,
    Secret,
    Target,
)
from transferd.model.errors import NotFound
from transferd.model.job import Job
from transferd.model.states import JobState
from transferd.sections import Passport
from transferd.wire import link

S = JobState

PASSWORD = "hunter2"

#: One job at a time, so that a second one stays queued; who has to wait waits for the test.
CONFIG = msgspec.structs.replace(
    QUICK,
    queue=msgspec.structs.replace(QUICK.queue, background_slots=1),
    passport=Passport(configuration_url="https://n/", login_host="login", realm="r"),
)
PATIENT = dataclasses.replace(
    SETTINGS, timers=dataclasses.replace(TIMERS, min_retry_delay=500.0, no_progress_timeout=10000)
)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with one slot."""
    async with running_service(tmp_path, CONFIG) as running:
        yield running


def credential(
    password: str = PASSWORD, username: str | None = "alice", scheme: Scheme = Scheme.NTLM
) -> Credential:
    """A credential for the server."""
    return Credential(
        target=Target.SERVER, scheme=scheme, username=username, password=Secret(password)
    )


# ── every state ────────────────────────────────────────────────────────────────────────────


async def _made(service: Service, *held: Credential, start: bool = True) -> Job:
    wish = spec("/a", start=start, settings=PATIENT)
    return await service.create(dataclasses.replace(wish, credentials=held))


async def _suspended(service: Service, *held: Credential) -> Job:
    return await _made(service, *held, start=False)


async def _queued(service: Service, *held: Credential) -> Job:
    await service.create(spec("/other"))
    await (await service.worker()).hears(link.Start)
    return await _made(service, *held)


async def _connecting(service: Service, *held: Credential) -> Job:
    job = await _made(service, *held)
    await (await service.worker()).hears(link.Start)
    return job


async def _transferring(service: Service, *held: Credential) -> Job:
    job = await _made(service, *held)
    worker = await service.worker()
    start = await worker.hears(link.Start)
    await worker.say(link.Connected(start.job, start.run))
    return await service.until(job, lambda now: now.state is S.TRANSFERRING)


async def _failing(service: Service, code: str, state: JobState, *held: Credential) -> Job:
    job = await _made(service, *held)
    worker = await service.worker()
    await worker.fail(await worker.hears(link.Start), code)
    return await service.until(job, lambda now: now.state is state)


async def _transient_error(service: Service, *held: Credential) -> Job:
    return await _failing(service, "kdc_unreachable", S.TRANSIENT_ERROR, *held)


async def _error(service: Service, *held: Credential) -> Job:
    return await _failing(service, "http_401", S.ERROR, *held)


async def _transferred(service: Service, *held: Credential) -> Job:
    job = await _made(service, *held)
    worker = await service.worker()
    await worker.carry(await worker.hears(link.Start))
    return await service.until(job, lambda now: now.state is S.TRANSFERRED)


async def _acknowledged(service: Service, *held: Credential) -> Job:
    return await service.parts.jobs.complete(ME, (await _transferred(service, *held)).id)


async def _cancelled(service: Service, *held: Credential) -> Job:
    return await service.parts.jobs.cancel(ME, (await _suspended(service, *held)).id)


REACHED: dict[JobState, Callable[..., Awaitable[Job]]] = {
    S.SUSPENDED: _suspended,
    S.QUEUED: _queued,
    S.CONNECTING: _connecting,
    S.TRANSFERRING: _transferring,
    S.TRANSIENT_ERROR: _transient_error,
    S.ERROR: _error,
    S.TRANSFERRED: _transferred,
    S.ACKNOWLEDGED: _acknowledged,
    S.CANCELLED: _cancelled,
}


@dataclass(frozen=True)
class Act:
    """Something that an owner does to a credential, and who the job is before and after."""

    held: tuple[str, ...]
    left: tuple[str, ...]

    async def do(self, service: Service, job: Job) -> Job:
        """Do it."""
        if self.left:
            return await service.parts.jobs.set_credential(ME, job.id, credential("s", "bob"))
        return await service.parts.jobs.remove_credential(ME, job.id, Target.SERVER, Scheme.NTLM)


ACTS = {
    "set": Act(held=(), left=("bob",)),
    "replace": Act(held=("alice",), left=("bob",)),
    "remove": Act(held=("alice",), left=()),
}


def _users(credentials: tuple[CredentialLabel, ...] | tuple[link.LinkCredential, ...]) -> object:
    return tuple(each.username for each in credentials)


def _label(state: JobState) -> str:
    return state.label


def test_the_table_has_every_state() -> None:
    """BITS.md 1.3.2: the call is legal in all but the final ones."""
    assert set(REACHED) == set(JobState)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("state", [each for each in JobState if not each.final], ids=_label)
async def test_a_credential_is_changed_in_any_state_that_is_not_final(
    service: Service, state: JobState, act: Act
) -> None:
    """BITS.md A1-A3, A7: the state stays, and the next run is somebody else; a run begins anew."""
    job = await REACHED[state](service, *(credential(username=user) for user in act.held))
    changed = await act.do(service, job)
    assert _users(changed.credentials) == act.left

    worker = await service.worker()
    if state in (S.CONNECTING, S.TRANSFERRING):
        first, second = await worker.hears(link.Start), await worker.hears(link.Start, 2)
        assert await worker.hears(link.Stop) == link.Stop(job.id, first.run)
        assert (_users(first.credentials), _users(second.credentials)) == (act.held, act.left)
        return
    assert changed.state is state
    if state is S.TRANSFERRED:
        return
    if state is S.QUEUED:
        await worker.carry(await worker.hears(link.Start))
    starts = sum(isinstance(message, link.Start) for message in worker.heard)
    await service.parts.jobs.resume(ME, job.id)
    again = await worker.hears(link.Start, starts + 1)
    assert (again.job, _users(again.credentials)) == (job.id, act.left)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
@pytest.mark.parametrize("state", [each for each in JobState if each.final], ids=_label)
async def test_a_job_that_has_left_has_no_credentials_to_change(
    service: Service, state: JobState, act: Act
) -> None:
    """BITS.md 1.3.2: INV; the job is not in the queue any more, nor are its secrets."""
    job = await REACHED[state](service, *(credential(username=user) for user in act.held))
    assert job.state is state
    with pytest.raises(NotFound) as refused:
        await act.do(service, job)
    assert refused.value.code == "job_not_found"


async def test_the_old_run_is_over_before_the_new_one_begins(tmp_path: Path) -> None:
    """Promise 6: no connection of the old identity is left when the new one is used."""
    async with running_service(tmp_path) as service:  # with free slots
        job = await _connecting(service, credential())
        worker = await service.worker()
        worker.obedient = False
        first = await worker.hears(link.Start)

        async def obey() -> None:
            stop = await worker.hears(link.Stop)
            service.parts.organs.scheduler.wake()
            for _ in range(20):  # the scheduler looks at the queue several times meanwhile
                await service.store.jobs.counts()
            assert (await service.store.jobs.job(job.id)).state is S.QUEUED
            assert [m for m in worker.heard if isinstance(m, link.Start)] == [first]
            await worker.say(link.Stopped(stop.job, stop.run))

        async with asyncio.TaskGroup() as group:
            group.create_task(
                service.parts.jobs.set_credential(ME, job.id, credential("new", "bob"))
            )
            group.create_task(obey())
        assert _users((await worker.hears(link.Start, 2)).credentials) == ("bob",)


async def test_removing_what_is_not_there_changes_nothing(service: Service) -> None:
    """BITS.md A3: S_FALSE is told apart, and disturbs no run."""
    job = await _connecting(service, credential())
    with pytest.raises(NotFound) as refused:
        await service.parts.jobs.remove_credential(ME, job.id, Target.PROXY, Scheme.NTLM)
    assert refused.value.code == "credential_not_found"
    worker = await service.worker()
    assert not [message for message in worker.heard if isinstance(message, link.Stop)]
    assert (await service.parts.jobs.get(ME, job.id)).state is S.CONNECTING


# ── what the worker is told ────────────────────────────────────────────────────────────────


async def test_the_worker_learns_who_how_and_since_when(service: Service) -> None:
    """The implicit identity has no user and no password; every credential has its age."""
    wish = spec("/a", settings=dataclasses.replace(SETTINGS, negotiate=NegotiateOptions(spn="w")))
    held = (credential("", None, Scheme.NEGOTIATE), credential("p", "b", Scheme.PASSPORT))
    await service.create(dataclasses.replace(wish, credentials=held))
    start = await (await service.worker()).hears(link.Start)
    who = {each.scheme: each for each in start.credentials}
    assert set(who) == {Scheme.NEGOTIATE, Scheme.PASSPORT}
    assert (who[Scheme.NEGOTIATE].username, len(who[Scheme.NEGOTIATE].password)) == (None, 0)
    assert who[Scheme.PASSPORT].password.reveal() == "p"
    assert all(0 < each.age < 60 for each in start.credentials)
    assert start.settings.negotiate == NegotiateOptions(spn="w")


async def test_the_configuration_says_what_a_job_leaves_out_of_passport(service: Service) -> None:
    """It is looked up when the job is handed over, and is none of the job's settings."""
    options = PassportOptions(login_host="other:443")
    settings = dataclasses.replace(SETTINGS, passport=options)
    job = await service.create(spec("/a", settings=settings))
    start = await (await service.worker()).hears(link.Start)
    assert start.settings.passport == PassportOptions(
        configuration_url="https://n/", login_host="other:443", realm="r"
    )
    assert (await service.parts.jobs.get(ME, job.id)).settings.passport == options
    assert CONFIG.passport != Config().passport


async def test_a_silent_kdc_is_told_as_what_it_is(service: Service) -> None:
    """Promise 9: a stuck job says why, and that it goes on by itself."""
    job = await _transient_error(service)
    (blocker,) = await service.parts.jobs.why(ME, job.id)
    assert (blocker.code, blocker.until is not None) == ("kdc_unreachable", True)
    assert "tried again by itself" in blocker.remedy


async def test_credentials_that_are_set_later_do_not_make_a_failure_newer(
    service: Service,
) -> None:
    """What modifies a job says nothing of when it failed; no time is better than a wrong one."""
    job = await _error(service)
    await service.parts.jobs.set_credential(ME, job.id, credential())
    (blocker,) = await service.parts.jobs.why(ME, job.id)
    assert (blocker.code, blocker.since) == ("http_401", None)


# ── audit ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("accepted", "event"), [(True, "auth.accepted"), (False, "auth.rejected")])
async def test_a_credential_that_was_judged_is_written_down(
    service: Service, caplog: pytest.LogCaptureFixture, accepted: bool, event: str
) -> None:
    """BITS.md A22: who was whom, where and how; never with what."""
    job = await _connecting(service, credential())
    worker = await service.worker()
    start = await worker.hears(link.Start)
    audited = link.Audited(
        start.job, start.run, accepted, Target.PROXY, Scheme.NEGOTIATE, "proxy.example", "ntlm"
    )
    with caplog.at_level(logging.INFO):
        await worker.say(audited)
        await worker.say(link.Connected(start.job, start.run))
        await service.until(job, lambda now: now.state is S.TRANSFERRING)
    (record,) = (each for each in caplog.records if each.message.startswith("auth."))
    assert record.message == event
    assert vars(record)["fields"] == {
        "job": job.id,
        "owner": ME.uid,
        "host": "proxy.example",
        "target": Target.PROXY,
        "scheme": Scheme.NEGOTIATE,
        "mechanism": "ntlm",
    }
    assert PASSWORD not in caplog.text + repr([vars(each) for each in caplog.records])
