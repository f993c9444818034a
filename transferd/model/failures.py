"""Why a transfer failed, as data: code, context, whether time may heal it, what would help.

The table stands on BITS.md 1.7 with transferd's choices: 408, 429, 503 and 504 are transient, a
full disk is transient with a retry of its own, and a dead worker is never the job's fault.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: How credentials are set for whoever asks with that code.
_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "http_401": "`transferctl credentials set JOB --user NAME`",
        "http_407": "`transferctl credentials set JOB --target proxy --user NAME`",
    }
)


class Context(enum.StrEnum):
    """What was being used when it failed (BG_ERROR_CONTEXT)."""

    QUEUE = "queue"
    NOTIFICATION = "notification"
    LOCAL_FILE = "local_file"
    REMOTE_FILE = "remote_file"
    TRANSPORT = "transport"


class Remedy(enum.Enum):
    """What unsticks a job that failed this way."""

    #: The job's own delay, doubling.
    BACKOFF = "backoff"
    #: Nothing of the server's or the network's: a short delay, doubling.
    SOON = "soon"
    #: Free space; looked at again at short, even intervals.
    SPACE = "space"
    #: The owner.
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class FailureKind:
    """What is known of a code."""

    context: Context
    remedy: Remedy
    #: What the owner can do, as one clause that follows "to continue,".
    advice: str

    @property
    def transient(self) -> bool:
        """Whether the service tries again by itself."""
        return self.remedy is not Remedy.OWNER


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failure of one job; kept with the job until its bytes move again."""

    code: str
    #: What was tried, what happened: a whole sentence, without secrets.
    message: str
    http_status: int | None = None
    #: Local path of the file that failed, where one did.
    file: str | None = None
    #: What the owner can do before it is tried again, where more is known than the code tells.
    advice: str | None = None
    #: The schemes of which credentials would do, strongest first, where nobody is named for any.
    missing: tuple[str, ...] = ()

    @property
    def remedy(self) -> str:
        """What the owner can do, as one clause that follows "to continue,"."""
        advice = self.advice
        if self.missing:
            advice = f"set credentials for {' or '.join(self.missing)} ({_COMMANDS[self.code]})"
        if advice is None:
            return self.kind.advice
        if self.kind.transient:
            return advice
        where = "for the proxy, " if self.code == "http_407" else ""
        return f"{where}{advice}{';' if '; ' in advice else ','} then resume"

    @property
    def kind(self) -> FailureKind:
        """Context, remedy and advice of the code."""
        return kind_of(self.code)


_Q, _L, _R, _T = Context.QUEUE, Context.LOCAL_FILE, Context.REMOTE_FILE, Context.TRANSPORT
_WAIT = "wait: it is tried again by itself, or `resume` tries at once"

FAILURES: Mapping[str, FailureKind] = MappingProxyType(
    {
        # network
        "name_not_resolved": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "network_unreachable": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "connection_refused": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "connect_timeout": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "connection_lost": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "stalled": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "server_resting": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "proxy_unreachable": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "kdc_unreachable": FailureKind(_T, Remedy.BACKOFF, _WAIT),
        "tls_failed": FailureKind(
            _T,
            Remedy.OWNER,
            "mend the certificate or name its CA with --cacert (cacert), then resume",
        ),
        # remote
        "protocol_error": FailureKind(_R, Remedy.BACKOFF, _WAIT),
        "header_too_large": FailureKind(
            _R, Remedy.OWNER, "raise network.header_bytes, then resume"
        ),
        "content_encoded": FailureKind(
            _R, Remedy.OWNER, "have the server send the file as it is, then resume"
        ),
        "redirect_invalid": FailureKind(_R, Remedy.OWNER, "mend the redirect or change the URL"),
        "redirect_refused": FailureKind(_R, Remedy.OWNER, "use the final URL in a new job"),
        "redirect_limit": FailureKind(_R, Remedy.OWNER, "mend the redirects or change the URL"),
        "checksum_mismatch": FailureKind(
            _R, Remedy.OWNER, "check the expected checksum, then resume to fetch the file anew"
        ),
        "remote_unstable": FailureKind(
            _R, Remedy.BACKOFF, "wait until the remote file has stopped changing"
        ),
        "size_limit": FailureKind(_R, Remedy.OWNER, "raise --max-size (max_size), then resume"),
        "server_not_authenticated": FailureKind(
            _R, Remedy.OWNER, "make sure that this is the right server, then resume"
        ),
        "cleartext_refused": FailureKind(
            _R,
            Remedy.OWNER,
            "use https, or let them go in clear with --allow-cleartext (allow_cleartext),"
            " then resume",
        ),
        # local
        "disk_full": FailureKind(_L, Remedy.SPACE, "free some space: it goes on by itself"),
        "local_directory_missing": FailureKind(_L, Remedy.OWNER, "make the directory, then resume"),
        "local_access_denied": FailureKind(
            _L, Remedy.OWNER, "make the directory writable for the job's owner, then resume"
        ),
        "local_not_regular": FailureKind(
            _L, Remedy.OWNER, "move away what stands at the destination, then resume or complete"
        ),
        "local_hard_link": FailureKind(
            _L,
            Remedy.OWNER,
            "remove the file at the destination or its other names, then resume or complete",
        ),
        "local_forbidden": FailureKind(
            _L, Remedy.OWNER, "choose a destination on a file system that holds files"
        ),
        "local_too_large": FailureKind(
            _L,
            Remedy.OWNER,
            "raise the owner's limit on the size of files (ulimit -f), then resume",
        ),
        "local_exists": FailureKind(
            _L, Remedy.OWNER, "move the existing file away, then complete again; or cancel the job"
        ),
        "local_lost": FailureKind(_L, Remedy.OWNER, "resume to fetch the file anew"),
        "local_busy": FailureKind(_L, Remedy.SOON, _WAIT),
        "local_io": FailureKind(_L, Remedy.OWNER, "check the disk, then resume"),
        # the service itself
        "worker_lost": FailureKind(_Q, Remedy.SOON, _WAIT),
        "worker_fault": FailureKind(
            _Q, Remedy.OWNER, "report it with the daemon's log, then resume or cancel"
        ),
        "owner_refused": FailureKind(
            _Q, Remedy.OWNER, "have the administrator allow it, then resume"
        ),
        "queue_full": FailureKind(_Q, Remedy.OWNER, "complete or cancel other jobs, then resume"),
        "secrets_unreadable": FailureKind(
            _Q, Remedy.OWNER, "put the key file back, or set the credentials again, then resume"
        ),
        "no_progress": FailureKind(_Q, Remedy.OWNER, "mend what the message names, then resume"),
        "time_limit": FailureKind(
            _Q, Remedy.OWNER, "raise --max-download-time (max_download_time), then resume"
        ),
    }
)

#: Statuses that time may heal (RFC 9110 section 15; BITS.md 1.7). 429 deviates from BITS.
TRANSIENT_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})

_STATUS_ADVICE: Mapping[int, str] = MappingProxyType(
    {
        401: (
            "set credentials for a scheme that the server offers"
            f" ({_COMMANDS['http_401']}), then resume"
        ),
        403: "get access to the file, then resume",
        404: "check the URL; a new job is needed for another one",
        407: f"set credentials for the proxy ({_COMMANDS['http_407']}), then resume",
        410: "check the URL; a new job is needed for another one",
    }
)


def http_failure_kind(status: int) -> FailureKind:
    """Classify an HTTP status that is not the wanted one."""
    transient = status in TRANSIENT_STATUSES or status < 200 or status >= 600
    if transient:
        return FailureKind(_R, Remedy.BACKOFF, _WAIT)
    context = _T if status == 407 else _R
    return FailureKind(
        context,
        Remedy.OWNER,
        _STATUS_ADVICE.get(status, "mend the cause at the server, then resume"),
    )


def kind_of(code: str) -> FailureKind:
    """Return what is known of *code*; `http_NNN` covers every status.

    Raises:
        KeyError: no such code.
    """
    if code.startswith("http_"):
        return http_failure_kind(int(code.removeprefix("http_")))
    return FAILURES[code]
