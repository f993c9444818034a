"""Adding files whose URLs hold a user and a password, which go into the job's vault, for basic.

Credential and files are two changes; the credential comes first, so that a running job never asks
for a new file without it, and is taken back when the files are refused.
"""

from __future__ import annotations

from contextlib import suppress

from transferd.api.ports import JobUseCases
from transferd.model.caller import Caller
from transferd.model.credentials import Credential
from transferd.model.errors import CallerError, Conflict, NotFound
from transferd.model.job import File, JobId
from transferd.model.limits import Limits
from transferd.model.urls import check_remote
from transferd.wire.requests import Addition

_PAGE = 1000


async def add(
    jobs: JobUseCases, caller: Caller, job_id: JobId, addition: Addition
) -> tuple[File, ...]:
    """Add files to a job, and the credential of their URLs.

    Raises:
        Conflict: `credentials_conflict`; the job has another user for basic, or files of an
            origin that the password was not written for.
        CallerError: as the service.
    """
    credential = addition.credential
    if credential is None:
        return await jobs.add_files(caller, job_id, addition.specs)
    replaces = await _refuse_conflict(jobs, caller, job_id, credential)
    await _refuse_other_origins(jobs, caller, job_id, addition)
    await jobs.set_credential(caller, job_id, credential)
    try:
        return await jobs.add_files(caller, job_id, addition.specs)
    except CallerError:
        if not replaces:
            with suppress(NotFound):
                await jobs.remove_credential(caller, job_id, credential.target, credential.scheme)
        raise


async def _refuse_conflict(
    jobs: JobUseCases, caller: Caller, job_id: JobId, credential: Credential
) -> bool:
    """Return whether the job has such a credential already, of the same user."""
    job = await jobs.get(caller, job_id)
    slot = (credential.target, credential.scheme)
    held = [label.username for label in job.credentials if (label.target, label.scheme) == slot]
    if held and held != [credential.username]:
        raise Conflict(
            "credentials_conflict",
            "cannot use the user of the URL beside another one that the job has for basic; "
            "make a job for each, or set the credentials of the job",
        )
    return bool(held)


async def _refuse_other_origins(
    jobs: JobUseCases, caller: Caller, job_id: JobId, addition: Addition
) -> None:
    """A job shows its credentials to every origin of its files."""
    after: int | None = -1
    while after is not None:
        page = await jobs.files(caller, job_id, after=after, limit=_PAGE)
        for file in page.files:
            if check_remote(file.spec.remote, Limits()).origin not in addition.origins:
                raise Conflict(
                    "credentials_conflict",
                    "cannot use a user and password in a URL in a job with files of another "
                    "origin; make a job of its own, or set the credentials of the job",
                )
        after = page.next
