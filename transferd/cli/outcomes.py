"""How a command ends: exit statuses, and what is said on the way out."""

from __future__ import annotations

import enum

from transferd.model.errors import (
    BadRequest,
    ConfigError,
    NoDaemon,
    NotAllowed,
    NotFound,
    TooLarge,
)


class Exit(enum.IntEnum):
    """Exit statuses; scripts rely on them."""

    DONE = 0
    #: The job failed, or the daemon could not do what was asked.
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    #: Not allowed, or not found.
    REFUSED = 4
    #: As timeout(1) has it.
    TIMED_OUT = 124
    #: 128 + SIGINT; the job goes on.
    INTERRUPTED = 130
    #: 128 + SIGHUP, 128 + SIGTERM; the same.
    HUNG_UP = 129
    TERMINATED = 143


class CommandError(Exception):
    """Ends a command with a message for people.

    `code` is stable and meant for programs; `job` is the id of the job that it is about; `advice`
    is a second line for people, `remedy` what it says that helps, for programs.
    """

    def __init__(
        self,
        status: Exit,
        message: str,
        *,
        code: str = "failed",
        job: str | None = None,
        advice: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.advice = advice
        self.remedy = remedy
        self.status = status
        self.code = code
        self.job = job


def usage(message: str, code: str = "usage") -> CommandError:
    """Make the error for a command line that cannot be meant."""
    return CommandError(Exit.USAGE, message, code=code)


_STATUSES: tuple[tuple[tuple[type[Exception], ...], Exit], ...] = (
    ((BadRequest, TooLarge, ConfigError), Exit.USAGE),
    ((NoDaemon,), Exit.NO_DAEMON),
    ((NotAllowed, NotFound), Exit.REFUSED),
)


def status_of(error: Exception) -> Exit:
    """Return the exit status that goes with *error*."""
    if isinstance(error, CommandError):
        return error.status
    for kinds, status in _STATUSES:
        if isinstance(error, kinds):
            return status
    return Exit.FAILED


def code_of(error: Exception) -> str:
    """Return the stable code of *error*, for programs."""
    if isinstance(error, NoDaemon):
        return "no_daemon"
    return str(getattr(error, "code", "failed"))
