"""What whoever looks after the service asks of it, and what they are told."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How bad a finding is."""

    #: Something does not work, or is open to others.
    ERROR = "error"
    #: It works, and should not be left so.
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be."""

    #: Stable, for programs: `key_missing`, `key_exposed`…
    code: str
    severity: Severity
    #: What is so: a whole sentence, without secrets.
    text: str
    #: What to do, as one clause.
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A change of the key that seals secrets."""

    #: Name of the key that seals from now on; tells nothing of it.
    key: str
    #: Secrets that were sealed anew.
    resealed: int
    #: Secrets that no key here can open; they stay as they are.
    unreadable: int
