"""`transferctl get`: the BITS sample, step by step.

Create, notify on transferred and error, credentials, add the file, resume, wait for the callback,
complete. What goes wrong before `resume` has answered cancels the half-made job.
"""

from __future__ import annotations

import contextlib
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from signal import Signals
from typing import Any

from transferd.cli.advice import advice_for
from transferd.cli.attached import attached, endings
from transferd.cli.destination import destination
from transferd.cli.outcomes import CommandError, Exit, status_of, usage
from transferd.cli.output import Output
from transferd.cli.passwords import Identity, check_schemes, identity, schemes_for
from transferd.cli.progress import showing
from transferd.cli.reasons import first_reason
from transferd.cli.references import manager_for
from transferd.cli.settings import headers, settings
from transferd.cli.tickets import (
    means_implicit,
    pass_on_cache,
    refuse_idle_options,
    refuse_idle_tickets,
)
from transferd.cli.values import shown_duration, shown_size
from transferd.client.errors import JobFailed, JobGone
from transferd.client.job import Job
from transferd.client.manager import Manager
from transferd.model.checks import check_checksum
from transferd.model.choices import Scheme, Target
from transferd.model.credentials import Secret
from transferd.model.errors import CallerError, TransferdError
from transferd.model.limits import Limits
from transferd.model.urls import check_proxy, check_remote, split_userinfo
from transferd.wire.api import JobAnswer, NoticeAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for, with everything checked that can be checked without a daemon."""

    url: str
    dest: str
    checksum: str | None
    name: str
    identities: tuple[Identity, ...]
    settings: dict[str, Any]
    headers: dict[str, str]
    #: Seconds; 0: no limit.
    timeout: float
    keep: bool
    detach: bool


async def run(options: Namespace, output: Output) -> int:
    """Get one file; returns the exit status."""
    wish = wished(options, output)
    with endings() as came:
        async with manager_for(options) as manager:
            return await _get(manager, wish, came, output)


async def _get(manager: Manager, wish: Wish, came: list[Signals], output: Output) -> int:
    job = await _begin(manager, wish)
    began = time.monotonic()
    if wish.detach:
        _tell_detached(job, output)
        return Exit.DONE
    with attached(job, output, came, names=True), showing(job, output):
        await _outcome(job, wish)
        unverified = [file async for file in job.files() if file.length_unverified]
        answer = await _complete(job, wish)
    _tell_saved(answer, wish, bool(unverified), time.monotonic() - began, output)
    return Exit.DONE


def wished(options: Namespace, output: Output) -> Wish:
    """Check the command line; a password is asked for when all else is right.

    Raises:
        CommandError, BadRequest: something is wrong; no job exists then.
    """
    url, named = _without_userinfo(options, output)
    dest = destination(options.dest, url)
    if options.checksum is not None:
        check_checksum(options.checksum)
    if options.detach and options.keep:
        raise usage("cannot use --keep with --detach, which keeps the job anyway; drop it")
    said = settings(options)
    proxy: tuple[Identity, ...] = ()
    if options.proxy is not None:
        said["proxy"], proxy = _proxy(options, output)
    given_headers = headers(options)
    if options.password_file == "-" == options.proxy_password_file:  # noqa: S105 - no password
        raise usage("cannot read two passwords from standard input; put one into a file")
    refuse_idle_tickets(options)
    server = identity(
        Target.SERVER,
        options.auth,
        options.user,
        options.password_file,
        implied=means_implicit(options),
    )
    through = None
    if not proxy:
        through = identity(
            Target.PROXY,
            options.proxy_auth,
            options.proxy_user,
            options.proxy_password_file,
            prefix="proxy-",
        )
    asked = tuple(each for each in (server, through) if each is not None)
    identities = (*named, *proxy, *asked)
    refuse_idle_options(options, identities)
    pass_on_cache(said, identities)
    return Wish(
        url=url,
        dest=dest,
        checksum=options.checksum,
        name=_job_name(options.name, dest),
        identities=identities,
        settings=said,
        headers=given_headers,
        timeout=options.timeout,
        keep=options.keep,
        detach=options.detach,
    )


def _without_userinfo(options: Namespace, output: Output) -> tuple[str, tuple[Identity, ...]]:
    """Take `user:password@`, which is for basic, out of the file's URL."""
    address = check_remote(options.url, Limits())
    if address.userinfo is None:
        return address.url, ()
    if options.user is not None:
        raise usage("cannot use --user beside a user in the URL; take it out of the URL")
    if options.auth is not None:
        raise usage("cannot use --auth beside a user in the URL, which is for basic; use --user")
    output.remark("transferctl: everybody can see a password in a URL with `ps`; use --user")
    return address.url, (_named_in_url(Target.SERVER, (Scheme.BASIC,), address.userinfo),)


def _proxy(options: Namespace, output: Output) -> tuple[str, tuple[Identity, ...]]:
    """Take `user:password@` out of the proxy's URL; it is for any scheme but Passport."""
    address = check_proxy(options.proxy, Limits())
    if address is None or address.userinfo is None:
        return options.proxy if address is None else address.url, ()
    if options.proxy_user is not None or options.proxy_password_file is not None:
        raise usage("cannot use --proxy-user beside a user in the proxy's URL; take it out there")
    output.remark("transferctl: everybody can see a password in a URL with `ps`; use --proxy-user")
    schemes = schemes_for(options.proxy_auth)
    check_schemes(Target.PROXY, schemes)
    return address.url, (_named_in_url(Target.PROXY, schemes, address.userinfo),)


def _named_in_url(target: Target, schemes: tuple[Scheme, ...], userinfo: str) -> Identity:
    username, password = split_userinfo(userinfo)
    return Identity(
        target=target,
        schemes=schemes,
        username=username,
        password=Secret(password),
        from_url=True,
    )


def _job_name(given: str | None, dest: str) -> str:
    if given is not None:
        return given
    name = "".join(c if c.isprintable() else "_" for c in dest.rpartition("/")[2])
    return name[: Limits().name_chars]


# ── the steps of the sample ────────────────────────────────────────────────────────────────


async def _begin(manager: Manager, wish: Wish) -> Job:
    job = await manager.create_job(
        wish.name,
        headers=wish.headers,
        **wish.settings | ({"auto_complete": True} if wish.detach else {}),
    )
    begun = False
    try:
        await _set_up(job, wish)
        begun = True
    finally:  # also when interrupted
        if not begun:
            await _abandon(job)
        _wipe(wish.identities)
    return job


async def _set_up(job: Job, wish: Wish) -> None:
    if wish.detach:
        await job.set_notify()
    else:
        await job.set_notify(on_transferred=_told, on_error=_told)
    for each in wish.identities:
        for scheme in each.schemes:
            await job.set_credentials(each.target, scheme, each.username, each.password)
    await job.add_file(wish.url, wish.dest, wish.checksum)
    await job.resume()


def _told(job: Job, notice: NoticeAnswer) -> None:
    """Take note of the end: to return is to acknowledge, and `wait` goes on then."""


async def _outcome(job: Job, wish: Wish) -> None:
    """Wait until the file is here; whatever else happens raises."""
    try:
        await job.wait(wish.timeout or None)
    except JobFailed as failed:
        raise await _failure(job, failed, wish) from failed
    except JobGone as gone:
        raise CommandError(
            Exit.FAILED,
            f"cannot get {wish.name!r}: the job was {gone.state or 'ended by somebody else'}",
            code="job_gone",
            job=job.id,
        ) from gone
    except TimeoutError:
        raise await _late(job, wish) from None


async def _late(job: Job, wish: Wish) -> CommandError:
    """Cancel a job that took too long, unless it shall be kept; returns what to say."""
    reason = await first_reason(job)
    because = f": {reason}" if reason else ""
    if wish.keep:
        fate = f"the job goes on, `transferctl wait {job.id} --complete` attaches again"
    else:
        await _abandon(job)
        fate = (
            "the job is cancelled; --timeout gives it longer, "
            "--keep keeps it, --detach leaves it to the daemon"
        )
    return CommandError(
        Exit.TIMED_OUT,
        f"cannot get {wish.name!r} within {shown_duration(wish.timeout)}{because}; {fate}",
        code="timed_out",
        job=job.id,
    )


async def _failure(job: Job, failed: JobFailed, wish: Wish) -> CommandError:
    """Settle what becomes of a job in error; returns what to say."""
    code = failed.error.code if failed.error else "failed"
    missing = failed.error.missing if failed.error else []
    remedies = [blocker.remedy for blocker in failed.job.blockers]
    remedy = remedies[0] if remedies else f"see `transferctl why {job.id}`"
    if wish.keep:
        fate, advice = f"job {job.id} is kept; to go on: {remedy}", remedy
    else:
        await _abandon(job)
        advice = advice_for(code, remedy, missing, wish.identities)
        fate = f"the job is cancelled; {advice}"
    return CommandError(Exit.FAILED, str(failed), code=code, job=job.id, advice=fate, remedy=advice)


async def _complete(job: Job, wish: Wish) -> JobAnswer:
    """Give the file its name; what was fetched is not thrown away when that fails."""
    try:
        return await job.complete()
    except TransferdError as error:
        status = Exit.FAILED if isinstance(error, CallerError) else status_of(error)
        raise CommandError(
            status,
            f"cannot save {wish.dest}: {error}; the file is kept in job {job.id}, "
            f"`transferctl complete {job.id}` tries again",
            code=getattr(error, "code", "not_completed"),
            job=job.id,
        ) from error


async def _abandon(job: Job) -> None:
    with contextlib.suppress(TransferdError):
        await job.cancel()


def _wipe(identities: Sequence[Identity]) -> None:
    for each in identities:
        if each.password is not None:
            each.password.wipe()


# ── what is said in the end ────────────────────────────────────────────────────────────────


def _tell_detached(job: Job, output: Output) -> None:
    if output.json:
        output.document({"job": job.answer})
        return
    output.line(job.id)
    if output.on_terminal:
        output.remark(f"{job.name} is transferred in the background; `transferctl wait {job.id}`")


def _tell_saved(
    answer: JobAnswer, wish: Wish, unverified: bool, seconds: float, output: Output
) -> None:
    count = answer.bytes_transferred
    if output.json:
        output.document(
            {
                "path": wish.dest,
                "bytes": count,
                "seconds": round(seconds, 3),
                "length_unverified": unverified,
                "job": answer,
            }
        )
    elif output.on_terminal:
        output.line(f"saved {wish.dest} ({shown_size(count)} in {shown_duration(seconds)})")
    else:
        output.line(wish.dest)
    if unverified:
        output.remark(
            "transferctl: the server did not say how long the file is; "
            "only a --checksum could tell whether it is whole"
        )
