"""Move files in the background, and survive restarts.

    async with transferd.connect(start=True) as manager:
        job = await manager.create_job("nightly")
        await job.add_file("https://host/a.iso", "~/a.iso")
        await job.resume()
        await job.wait()
        await job.complete()

The names below are the public ones. They are fetched when they are first used (PEP 562), so that
the import costs nothing to programs that need one of them, or only the version.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transferd.client.callbacks import Callback
    from transferd.client.errors import DaemonFault, JobFailed, JobGone
    from transferd.client.job import Job
    from transferd.client.manager import Manager, connect
    from transferd.model.choices import NoticeKind, Scheme, Target
    from transferd.model.credentials import NegotiateOptions, PassportOptions, Secret
    from transferd.model.errors import (
        BadRequest,
        CallerError,
        Conflict,
        NoDaemon,
        NotAllowed,
        NotFound,
        TooLarge,
        TransferdError,
        Unavailable,
    )
    from transferd.model.states import JobState
    from transferd.wire.api import (
        BlockerAnswer,
        ErrorAnswer,
        FileAnswer,
        GapAnswer,
        JobAnswer,
        NoticeAnswer,
    )
    from transferd.wire.bodies import (
        CredentialBody,
        FileBody,
        JobBody,
        NegotiateBody,
        NotifyBody,
        PassportBody,
    )

__version__ = "0.1.0"

_HOMES = {
    "client.callbacks": ["Callback"],
    "client.errors": ["DaemonFault", "JobFailed", "JobGone"],
    "client.job": ["Job"],
    "client.manager": ["Manager", "connect"],
    "model.choices": ["NoticeKind", "Scheme", "Target"],
    "model.credentials": ["NegotiateOptions", "PassportOptions", "Secret"],
    "model.errors": [
        "BadRequest",
        "CallerError",
        "Conflict",
        "NoDaemon",
        "NotAllowed",
        "NotFound",
        "TooLarge",
        "TransferdError",
        "Unavailable",
    ],
    "model.states": ["JobState"],
    "wire.api": [
        "BlockerAnswer",
        "ErrorAnswer",
        "FileAnswer",
        "GapAnswer",
        "JobAnswer",
        "NoticeAnswer",
    ],
    "wire.bodies": [
        "CredentialBody",
        "FileBody",
        "JobBody",
        "NegotiateBody",
        "NotifyBody",
        "PassportBody",
    ],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BadRequest",
    "BlockerAnswer",
    "Callback",
    "CallerError",
    "Conflict",
    "CredentialBody",
    "DaemonFault",
    "ErrorAnswer",
    "FileAnswer",
    "FileBody",
    "GapAnswer",
    "Job",
    "JobAnswer",
    "JobBody",
    "JobFailed",
    "JobGone",
    "JobState",
    "Manager",
    "NegotiateBody",
    "NegotiateOptions",
    "NoDaemon",
    "NotAllowed",
    "NotFound",
    "NoticeAnswer",
    "NoticeKind",
    "NotifyBody",
    "PassportBody",
    "PassportOptions",
    "Scheme",
    "Secret",
    "Target",
    "TooLarge",
    "TransferdError",
    "Unavailable",
    "connect",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
