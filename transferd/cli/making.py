"""Commands that make jobs and say what they are to do."""

from __future__ import annotations

import shlex
from argparse import Namespace
from typing import Any

from transferd.cli.destination import destination
from transferd.cli.outcomes import Exit, usage
from transferd.cli.output import Output
from transferd.cli.passwords import Identity, identity, schemes_for
from transferd.cli.references import find_job, manager_for
from transferd.cli.settings import headers, settings
from transferd.cli.tickets import means_implicit, pass_on_cache
from transferd.client.job import Job
from transferd.model.choices import Target
from transferd.model.errors import NotFound
from transferd.wire.bodies import CredentialBody, FileBody


async def create(options: Namespace, output: Output) -> int:
    """Make a job and print its id."""
    said = settings(options)
    if options.id is not None:
        said["id"] = options.id
    files = [FileBody(remote=url, local=destination(to, url)) for url, to in options.files or []]
    given_headers = headers(options)
    if who := identity(Target.SERVER, None, None, None, implied=means_implicit(options)):
        pass_on_cache(said, [who])
        said["credentials"] = [CredentialBody(scheme=scheme) for scheme in who.schemes]
    async with manager_for(options) as manager:
        job = await manager.create_job(
            options.name, files=files, headers=given_headers, start=options.start, **said
        )
    if output.json:
        output.document(job.answer)
    else:
        output.line(job.id)
    return Exit.DONE


async def add(options: Namespace, output: Output) -> int:
    """Add a file to a job."""
    local = destination(options.dest, options.url)
    async with manager_for(options) as manager:
        job = await find_job(manager, options.job, all_users=options.all_users)
        await job.add_file(options.url, local, options.checksum)
        await job.refresh()
    _tell(job, f"added {local} to {job.name}", output)
    return Exit.DONE


async def set_credentials(options: Namespace, output: Output) -> int:
    """Set who a job is to a server or a proxy."""
    target = Target(options.target)
    who = identity(target, options.auth, options.user, options.password_file)
    if who is None:
        raise usage("cannot set credentials without --user; name the user, or NULL for yourself")
    async with manager_for(options) as manager:
        job = await find_job(manager, options.job, all_users=options.all_users)
        await _pass_on_cache(job, who)
        for scheme in who.schemes:
            await job.set_credentials(target, scheme, who.username, who.password)
    if who.password is not None:
        who.password.wipe()
    _tell(job, f"set for the {target}: {', '.join(who.schemes)}", output)
    return Exit.DONE


async def _pass_on_cache(job: Job, who: Identity) -> None:
    """Have the job use the caller's tickets, unless it says itself which ones."""
    known = job.answer.negotiate
    said: dict[str, Any] = {}
    if known.ccache is None and known.keytab is None:
        pass_on_cache(said, [who])
    if said:
        await job.change(**said)


async def remove_credentials(options: Namespace, output: Output) -> int:
    """Remove the credentials of a job for a target: of one scheme, or all."""
    wanted = None if options.auth is None else schemes_for(options.auth)
    async with manager_for(options) as manager:
        job = await find_job(manager, options.job, all_users=options.all_users)
        there = [each.scheme for each in job.answer.credentials if each.target == options.target]
        schemes = there if wanted is None else wanted
        if not schemes:
            raise NotFound(
                "credential_not_found",
                f"cannot remove credentials: {job.name!r} has none for the {options.target}",
            )
        for scheme in schemes:
            await job.remove_credentials(options.target, scheme)
        await job.refresh()
    text = f"removed credentials of {job.name}: {options.target}, {', '.join(schemes)}"
    _tell(job, text, output)
    return Exit.DONE


async def notify(options: Namespace, output: Output) -> int:
    """Choose what a job's listeners are told, and its command."""
    words = _command_words(options)
    async with manager_for(options) as manager:
        job = await find_job(manager, options.job, all_users=options.all_users)
        now = job.answer.notify
        kinds = now.kinds if options.kinds is None else options.kinds.split(",")
        command = None if options.no_command else words or now.command
        await job.set_notify(kinds=kinds, command=command)
    command_text = " ".join(command) if command else "none"
    _tell(job, f"{job.name} tells of {', '.join(kinds)}; command: {command_text}", output)
    return Exit.DONE


def _command_words(options: Namespace) -> list[str]:
    """Return the program and arguments that the options name; none where they name none."""
    words: list[str] = options.words
    if words and (options.no_command or options.command is not None):
        raise usage("cannot use a program after -- beside --command or --no-command; drop one")
    if options.command is None:
        return words
    try:
        return shlex.split(options.command)
    except ValueError as error:
        raise usage(f"cannot use --command {options.command!r}: {error}".lower()) from None


def _tell(job: Job, text: str, output: Output) -> None:
    if output.json:
        output.document(job.answer)
    else:
        output.remark(text)
