"""What callers choose from, by name: types, priorities, schemes, kinds of notices.

A program that only asks needs these and little else: they are here so that it starts quickly.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from transferd.model.errors import BadRequest


class JobType(enum.StrEnum):
    """Which way the bytes go."""

    DOWNLOAD = "download"


class Priority(enum.IntEnum):
    """Who goes first (BG_JOB_PRIORITY). Everything but FOREGROUND is background."""

    FOREGROUND = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3

    @property
    def label(self) -> str:
        """The name that the socket uses."""
        return self.name.lower()


class Cost(enum.IntEnum):
    """Over which links a job may go (BITS.md B7), from the fewest to all of them."""

    #: What the configuration says for its priority.
    DEFAULT = 0
    UNRESTRICTED = 1
    STANDARD = 2
    NO_SURCHARGE = 3
    NOT_ROAMING = 4
    ALWAYS = 5

    @property
    def label(self) -> str:
        """The name that the socket uses."""
        return self.name.lower()


class OnError(enum.StrEnum):
    """What becomes of a job in error."""

    KEEP = "keep"
    CANCEL = "cancel"


class Target(enum.StrEnum):
    """Who asks for the credential."""

    SERVER = "server"
    PROXY = "proxy"


class Scheme(enum.StrEnum):
    """How the credential is presented."""

    BASIC = "basic"
    DIGEST = "digest"
    NTLM = "ntlm"
    NEGOTIATE = "negotiate"
    PASSPORT = "passport"


#: Schemes that one user and password may be set for when it is not known which of them will be
#: asked for (BITS.md A6). Not Passport: that password goes to a login server of its own.
PASSWORD_SCHEMES = (Scheme.BASIC, Scheme.DIGEST, Scheme.NEGOTIATE, Scheme.NTLM)


def parse_target(text: str) -> Target:
    """Read a target in any case.

    Raises:
        BadRequest: `unknown_target`.
    """
    try:
        return Target(text.lower())
    except ValueError:
        raise BadRequest(
            "unknown_target", f"cannot use target {text[:40]!r}; it is one of server, proxy"
        ) from None


def parse_scheme(text: str) -> Scheme:
    """Read a scheme in any case (the sample compares without case).

    Raises:
        BadRequest: `unknown_scheme`.
    """
    try:
        return Scheme(text.lower())
    except ValueError:
        known = ", ".join(Scheme)
        raise BadRequest(
            "unknown_scheme",
            f"invalid authentication scheme {text[:40]!r}; it is one of {known}",
        ) from None


class NoticeKind(enum.IntFlag):
    """What happened; a set of kinds is the sum of its values."""

    TRANSFERRED = 0x01
    ERROR = 0x02
    #: Property, state or progress; never stored, merged under load.
    MODIFICATION = 0x08
    FILE_TRANSFERRED = 0x10
    #: The job has left the queue, completed or cancelled; or its owner, taken over by an admin.
    ENDED = 0x100

    @property
    def label(self) -> str:
        """The name that the socket uses. Only for a single kind."""
        return str(self.name).lower()

    @property
    def terminal(self) -> bool:
        """Whether it must be acknowledged and is delivered until it is."""
        return bool(self & TERMINAL)


TERMINAL = NoticeKind.TRANSFERRED | NoticeKind.ERROR
DEFAULT_KINDS = TERMINAL


def parse_kinds(names: Iterable[str]) -> NoticeKind:
    """Read a set of kind names in any case.

    Raises:
        BadRequest: `unknown_kind`.
    """
    kinds = NoticeKind(0)
    for name in names:
        try:
            kinds |= NoticeKind[name.upper()]
        except KeyError:
            known = ", ".join(kind.label for kind in NoticeKind)
            raise BadRequest(
                "unknown_kind", f"cannot notify of {name[:40]!r}; kinds are {known}"
            ) from None
    return kinds


def kind_labels(kinds: NoticeKind) -> list[str]:
    """Name the kinds of a set, in the order of their values."""
    return [kind.label for kind in NoticeKind if kind & kinds]
