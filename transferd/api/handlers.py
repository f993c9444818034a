"""What each route does: read the request, ask the service, write the answer. No rule lives here."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from aiohttp import web

from transferd import __version__
from transferd.api import query
from transferd.api.additions import add
from transferd.api.call import Call, answer
from transferd.model.caller import Caller
from transferd.model.checks import check_states
from transferd.model.credentials import Scheme, Secret, parse_scheme, parse_target
from transferd.model.errors import BadRequest
from transferd.model.job import Job, JobId
from transferd.model.states import JobState
from transferd.wire.answers import blocker_answer, file_answer
from transferd.wire.api import (
    AcknowledgementAnswer,
    BlockersAnswer,
    FilesAnswer,
    HealthAnswer,
    JobAnswer,
    JobsAnswer,
    UnsettledAnswer,
    VersionAnswer,
)
from transferd.wire.requests import (
    parse_acknowledgement,
    parse_addition,
    parse_creation,
    parse_identity,
    parse_patch,
)

Handler: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]
Verb: TypeAlias = Callable[[Caller, JobId], Awaitable[Job]]

#: Jobs that are told of in one turn of the loop: one or two thousandths of a second.
_TURN = 100
#: What a client may rely on beyond the routes.
FEATURES = ("bulk_acknowledge", "bulk_create", "caller_chosen_id", "events", "gap", "replay", "why")


# ── jobs ───────────────────────────────────────────────────────────────────────────────────


async def create_jobs(call: Call) -> web.Response:
    """Make one job, or several, all or none."""
    context = call.context
    creation = await call.parsed(
        partial(parse_creation, limits=context.limits, defaults=context.timers)
    )
    secrets = [
        *(credential.password for spec in creation.specs for credential in spec.credentials),
        *(header.value for spec in creation.specs for header in spec.headers),
    ]
    with _wiping(secrets):
        created = await context.jobs.create(call.caller, creation.specs)
    status = 201 if any(each.new for each in created) else 200
    jobs = await _all_told(call, [each.job for each in created])
    if creation.many:
        return answer(JobsAnswer(jobs=jobs, next=None), status)
    location = {"Location": f"/v1/jobs/{jobs[0].id}"} if status == 201 else None
    return answer(jobs[0], status, location)


async def list_jobs(call: Call) -> web.Response:
    """Return a page of jobs."""
    request = call.request
    names = query.words(request, "state")
    page = await call.context.jobs.page(
        call.caller,
        states=check_states(names) if names is not None else None,
        all_users=query.flag(request, "all_users"),
        after=query.cursor(query.word(request, "after")) or 0,
        limit=query.limit(request),
    )
    return answer(JobsAnswer(jobs=await _all_told(call, page.jobs), next=_next(page.next)))


async def get_job(call: Call) -> web.Response:
    """Return a job."""
    return answer(_told(call, await call.context.jobs.get(call.caller, call.job_id)))


async def change_job(call: Call) -> web.Response:
    """Change settings of a job."""
    job_id = call.job_id
    change = await call.parsed(partial(parse_patch, limits=call.context.limits))
    return answer(_told(call, await call.context.jobs.change(call.caller, job_id, change)))


async def resume_job(call: Call) -> web.Response:
    """Start or continue a job."""
    return await _verb(call, call.context.jobs.resume)


async def suspend_job(call: Call) -> web.Response:
    """Pause a job."""
    return await _verb(call, call.context.jobs.suspend)


async def complete_job(call: Call) -> web.Response:
    """Publish what is whole, and take the job out of the queue."""
    return await _verb(call, call.context.jobs.complete)


async def cancel_job(call: Call) -> web.Response:
    """Take the job out of the queue, and remove partial data."""
    return await _verb(call, call.context.jobs.cancel)


async def take_ownership(call: Call) -> web.Response:
    """Make the caller, an admin, the owner of a job."""
    return await _verb(call, call.context.jobs.take_ownership)


async def why(call: Call) -> web.Response:
    """Say what keeps a job from moving."""
    blockers = await call.context.jobs.why(call.caller, call.job_id)
    return answer(BlockersAnswer(blockers=[blocker_answer(blocker) for blocker in blockers]))


# ── files and credentials ──────────────────────────────────────────────────────────────────


async def list_files(call: Call) -> web.Response:
    """Return a page of a job's files."""
    job_id, after = call.job_id, query.cursor(query.word(call.request, "after"))
    page = await call.context.jobs.files(
        call.caller,
        job_id,
        after=-1 if after is None else after,
        limit=query.limit(call.request),
    )
    files = [file_answer(job_id, file) for file in page.files]
    return answer(FilesAnswer(files=files, next=_next(page.next)))


async def add_files(call: Call) -> web.Response:
    """Add one file, or several, all or none."""
    job_id = call.job_id
    addition = await call.parsed(partial(parse_addition, limits=call.context.limits))
    secrets = [addition.credential.password] if addition.credential is not None else []
    with _wiping(secrets):
        files = await add(call.context.jobs, call.caller, job_id, addition)
    return answer(
        FilesAnswer(files=[file_answer(job_id, file) for file in files], next=None), status=201
    )


async def set_credential(call: Call) -> web.Response:
    """Keep a credential, in place of one for the same target and scheme."""
    job_id, match = call.job_id, call.request.match_info
    target, scheme = parse_target(match["target"]), parse_scheme(match["scheme"])
    credential = await call.parsed(
        partial(parse_identity, target=target, scheme=scheme, limits=call.context.limits)
    )
    with _wiping([credential.password]):
        job = await call.context.jobs.set_credential(call.caller, job_id, credential)
    return answer(_told(call, job))


async def remove_credential(call: Call) -> web.Response:
    """Forget a credential."""
    match = call.request.match_info
    target, scheme = parse_target(match["target"]), parse_scheme(match["scheme"])
    job = await call.context.jobs.remove_credential(call.caller, call.job_id, target, scheme)
    return answer(_told(call, job))


# ── notices ────────────────────────────────────────────────────────────────────────────────


async def acknowledge(call: Call) -> web.Response:
    """Settle a notice."""
    number = query.number(call.request.match_info["number"])
    if number is None:
        raise BadRequest("value_invalid", "cannot acknowledge that; a notice has a number")
    context = call.context
    notice = await context.notices.acknowledge(call.caller, number)
    return answer(context.answers.notice(notice, context.jobs.blockers(notice.job)))


async def acknowledge_all(call: Call) -> web.Response:
    """Settle notices, each by itself."""
    numbers = await call.parsed(parse_acknowledgement)
    refused = await call.context.notices.acknowledge_all(call.caller, numbers)
    return answer(
        AcknowledgementAnswer(
            settled=[number for number in numbers if number not in refused],
            refused=[
                UnsettledAnswer(
                    number=number, status=error.status, code=error.code, detail=error.detail
                )
                for number, error in refused.items()
            ],
        )
    )


# ── the service ────────────────────────────────────────────────────────────────────────────


async def health(call: Call) -> web.Response:
    """Say how the service is."""
    counts = {state.label: count for state, count in (await _counts(call)).items()}
    return answer(HealthAnswer(status="ok", jobs=counts, workers=_workers(call)))


async def _counts(call: Call) -> Mapping[JobState, int]:
    """Count what is the caller's business: everybody's jobs, or his own, or none."""
    context = call.context
    if call.caller.operator:
        return await context.jobs.counts()
    if context.serves(call.caller.uid):
        return await context.jobs.tally(call.caller)
    return {state: 0 for state in JobState if not state.final}


def _workers(call: Call) -> int:
    """Count worker processes as `_counts` counts jobs."""
    context = call.context
    if call.caller.operator:
        return context.jobs.worker_count
    return context.jobs.workers_of(call.caller) if context.serves(call.caller.uid) else 0


async def version(_call: Call) -> web.Response:
    """Say what the service is."""
    return answer(
        VersionAnswer(
            name="transferd",
            version=__version__,
            api="v1",
            features=[*FEATURES, *(["kerberos"] if kerberos_available() else [])],
            schemes=[scheme.value for scheme in Scheme],
        )
    )


@functools.cache
def kerberos_available() -> bool:
    """Whether workers find the extra `kerberos`; it is not loaded here."""
    return importlib.util.find_spec("gssapi") is not None


async def openapi(call: Call) -> web.Response:
    """Describe this API."""
    return web.Response(body=call.context.openapi, content_type="application/json")


async def figures(call: Call) -> web.Response:
    """Tell Prometheus what was counted."""
    text = await call.context.admin.figures()
    return web.Response(body=text, content_type="text/plain", charset="utf-8")


async def admin_status(call: Call) -> web.Response:
    """Say how the service is, in detail."""
    return answer(await call.context.admin.status())


async def admin_check(call: Call) -> web.Response:
    """Look for what is wrong."""
    return answer(await call.context.admin.check(call.caller))


async def rotate_key(call: Call) -> web.Response:
    """Seal every secret under a new key."""
    return answer(await call.context.admin.rotate_key())


# ── what they share ────────────────────────────────────────────────────────────────────────


async def _verb(call: Call, verb: Verb) -> web.Response:
    return answer(_told(call, await verb(call.caller, call.job_id)))


def _told(call: Call, job: Job) -> JobAnswer:
    return call.context.answers.job(job, call.context.jobs.blockers(job))


async def _all_told(call: Call, jobs: Iterable[Job]) -> list[JobAnswer]:
    """Tell of jobs, and let others have their turn in between."""
    told: list[JobAnswer] = []
    for job in jobs:
        told.append(_told(call, job))
        if not len(told) % _TURN:
            await asyncio.sleep(0)
    return told


def _next(cursor: int | None) -> str | None:
    return str(cursor) if cursor is not None else None


@contextmanager
def _wiping(secrets: Iterable[Secret]) -> Iterator[None]:
    """Wipe secrets once the service has sealed or refused them."""
    try:
        yield
    except asyncio.CancelledError:
        raise  # whoever was given them may still be at work
    except Exception:
        _wipe(secrets)
        raise
    _wipe(secrets)


def _wipe(secrets: Iterable[Secret]) -> None:
    for secret in secrets:
        secret.wipe()
