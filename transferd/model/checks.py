"""What a caller may ask for: every value is looked at once, before anything is made.

Each check returns the value as it is kept, or raises BadRequest with a stable code. Messages quote
at most a few characters of what came in, escaped, and never a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from transferd.model.credentials import Secret
from transferd.model.errors import BadRequest
from transferd.model.job import (
    CHECKSUM_ALGORITHMS,
    Checksum,
    Cost,
    FileSpec,
    Header,
    JobId,
    JobType,
    OnError,
    Priority,
    Seconds,
)
from transferd.model.limits import Limits
from transferd.model.paths import temporary_path
from transferd.model.states import JobState

_Word = TypeVar("_Word")

#: Characters of hostile input that a message quotes.
_SHOWN = 80
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: RFC 9110 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: RFC 9110 5.5, without obs-text: its encoding is anybody's guess.
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
_HEX = re.compile(r"[0-9a-f]+")

#: Headers that the transfer itself decides.
RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-range",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: No timer is longer; keeps every sum of times within what dates can hold.
LONGEST: Seconds = 10 * 365 * 86400.0
#: BITS has 5 s; below one second a retry is a hammer.
SHORTEST_RETRY_DELAY: Seconds = 1.0
#: What the queue file can hold.
LARGEST_SIZE = 2**63 - 1

_TYPES = {kind.value: kind for kind in JobType}
_PRIORITIES = {priority.label: priority for priority in Priority}
_COSTS = {cost.label: cost for cost in Cost}
_ON_ERROR = {choice.value: choice for choice in OnError}

_SOME_JOB = JobId("00000000-0000-0000-0000-000000000000")


def quoted(text: str) -> str:
    """Quote the beginning of a hostile text, escaped."""
    return repr(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")


# ── words ──────────────────────────────────────────────────────────────────────────────────


def check_id(text: str) -> JobId:
    """Read a UUID in any case.

    Raises:
        BadRequest: `id_invalid`.
    """
    if not _UUID.fullmatch(lowered := text.lower()):
        raise BadRequest("id_invalid", f"cannot use id {quoted(text)}; it must be a UUID")
    return JobId(lowered)


def check_type(text: str) -> JobType:
    """Read a job type in any case.

    Raises:
        BadRequest: `unknown_type`.
    """
    return _word("type", text, _TYPES)


def check_priority(text: str) -> Priority:
    """Read a priority in any case.

    Raises:
        BadRequest: `unknown_priority`.
    """
    return _word("priority", text, _PRIORITIES)


def check_cost(text: str) -> Cost:
    """Read over which links a job may go, in any case.

    Raises:
        BadRequest: `unknown_cost`.
    """
    return _word("cost", text, _COSTS)


def check_on_error(text: str) -> OnError:
    """Read what becomes of a job in error, in any case.

    Raises:
        BadRequest: `unknown_on_error`.
    """
    return _word("on_error", text, _ON_ERROR)


def check_states(names: Iterable[str]) -> frozenset[JobState]:
    """Read names of states in any case.

    Raises:
        BadRequest: `unknown_state`.
    """
    states = {state.label: state for state in JobState}
    return frozenset(_word("state", name, states) for name in names)


def _word(noun: str, text: str, known: Mapping[str, _Word]) -> _Word:
    try:
        return known[text.lower()]
    except KeyError:
        raise BadRequest(
            f"unknown_{noun}", f"cannot use {noun} {quoted(text)}; it is one of {', '.join(known)}"
        ) from None


# ── texts and numbers ──────────────────────────────────────────────────────────────────────


def check_name(text: str, limits: Limits) -> str:
    """Check a display name: one line, not empty.

    Raises:
        BadRequest: `name_too_long`, `name_invalid`.
    """
    if len(text) > limits.name_chars:
        raise too_long("name", len(text), limits.name_chars, "characters")
    if not text.strip():
        raise BadRequest("name_invalid", "cannot use an empty name; call the job something")
    if _CONTROL.search(text):
        raise BadRequest("name_invalid", "cannot use a name with control characters")
    return text


def check_description(text: str, limits: Limits) -> str:
    """Check a description; it may have several lines.

    Raises:
        BadRequest: `description_too_long`, `description_invalid`.
    """
    if len(text) > limits.description_chars:
        raise too_long("description", len(text), limits.description_chars, "characters")
    if _CONTROL_BUT_LINES.search(text):
        raise BadRequest("description_invalid", "cannot use a description with control characters")
    return text


def check_seconds(value: Seconds, *, floor: Seconds = 0.0) -> Seconds:
    """Check a duration.

    Raises:
        BadRequest: `value_invalid`.
    """
    if not math.isfinite(value) or not floor <= value <= LONGEST:
        raise BadRequest(
            "value_invalid",
            f"cannot wait {value:g} seconds; use a number from {floor:.0f} to {LONGEST:.0f}",
        )
    return value


def check_size(value: int | None) -> int | None:
    """Check a number of bytes.

    Raises:
        BadRequest: `value_invalid`.
    """
    if value is not None and not 0 <= value <= LARGEST_SIZE:
        raise BadRequest("value_invalid", f"cannot use a size over {LARGEST_SIZE} bytes")
    return value


def check_checksum(text: str) -> Checksum:
    """Read `algorithm:hex`, in any case.

    Raises:
        BadRequest: `checksum_invalid`.
    """
    algorithm, _, digest = text.lower().partition(":")
    size = CHECKSUM_ALGORITHMS.get(algorithm)
    if size is None:
        raise BadRequest(
            "checksum_invalid",
            f"cannot use checksum {quoted(text)}; write ALGORITHM:HEX with one of "
            + ", ".join(CHECKSUM_ALGORITHMS),
        )
    if len(digest) != 2 * size or not _HEX.fullmatch(digest):
        raise BadRequest(
            "checksum_invalid",
            f"cannot use checksum {quoted(text)}; {algorithm} has {2 * size} hexadecimal digits",
        )
    return Checksum(algorithm=algorithm, digest=digest)


def too_long(noun: str, size: int, limit: int, unit: str) -> BadRequest:
    """Make the refusal of a text that is longer than its limit: `NOUN_too_long`."""
    return BadRequest(
        f"{noun}_too_long", f"cannot use a {noun} of {size} {unit}; at most {limit} are allowed"
    )


# ── paths and programs ─────────────────────────────────────────────────────────────────────


def check_path(text: str, limits: Limits) -> str:
    """Check an absolute path of a file; it is taken as it stands, nothing is resolved.

    Raises:
        BadRequest: `path_not_absolute`, `path_invalid`, `path_too_long`.
    """
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest("path_invalid", "cannot use a path that is not valid text") from None
    if not text or "\0" in text:
        raise BadRequest("path_invalid", "cannot use a path that is empty or has a NUL character")
    if not text.startswith("/"):
        raise BadRequest(
            "path_not_absolute", f"cannot use path {quoted(text)}; it must begin with /"
        )
    components = text[1:].split("/")
    if not {"", ".", ".."}.isdisjoint(components):
        raise BadRequest(
            "path_invalid",
            f"cannot use path {quoted(text)}; resolve `.`, `..`, `//` and a final `/` first",
        )
    if len(encoded) > limits.path_bytes:
        raise too_long("path", len(encoded), limits.path_bytes, "bytes")
    for component in components:
        # A character has four bytes at most: most components need no second look.
        if len(component) * 4 > limits.path_component_bytes:
            size = len(component.encode())
            if size > limits.path_component_bytes:
                raise BadRequest(
                    "path_too_long",
                    f"cannot use path {quoted(text)}; one of its names has {size} bytes, "
                    f"at most {limits.path_component_bytes} are allowed",
                )
    return text


def check_destination(text: str, limits: Limits) -> str:
    """Check where a file shall go; its partial file in the same directory needs room as well.

    Raises:
        BadRequest: as check_path.
    """
    check_path(text, limits)
    if len(text) * 4 > limits.path_bytes - 255:
        size = len(temporary_path(text, _SOME_JOB).encode())
        if size > limits.path_bytes:
            raise too_long("path", size, limits.path_bytes, "bytes (with its partial file's name)")
    return text


def check_distinct(files: Sequence[FileSpec]) -> None:
    """Refuse two files of one job under the same name.

    Raises:
        BadRequest: `duplicate_destination`.
    """
    seen: set[str] = set()
    for file in files:
        if file.local in seen:
            raise BadRequest(
                "duplicate_destination",
                f"cannot put two files at {quoted(file.local)}; give each its own path",
            )
        seen.add(file.local)


def check_command(words: Sequence[str] | None, limits: Limits) -> tuple[str, ...] | None:
    """Check a notification command: an absolute program and its arguments.

    Raises:
        BadRequest: `command_invalid`.
    """
    if words is None:
        return None
    if not words or len(words) > limits.command_args:
        raise _bad_command(f"it is a list of 1 to {limits.command_args} words")
    if any("\0" in word for word in words):
        raise _bad_command("a word has a NUL character")
    if not words[0].startswith("/") or words[0].endswith("/"):
        raise _bad_command("its first word must be the absolute path of a program")
    size = sum(len(word.encode("utf-8", "surrogatepass")) + 1 for word in words)
    if size > limits.command_bytes:
        raise _bad_command(f"it has {size} bytes; at most {limits.command_bytes} are allowed")
    return tuple(words)


def _bad_command(why: str) -> BadRequest:
    return BadRequest("command_invalid", f"cannot use the notification command: {why}")


# ── headers ────────────────────────────────────────────────────────────────────────────────


def check_headers(headers: Mapping[str, str], limits: Limits) -> tuple[Header, ...]:
    """Check headers for a file's own origin.

    Raises:
        BadRequest: `header_invalid`, `headers_too_large`.
    """
    size = sum(len(name) + len(value) + len(": \r\n") for name, value in headers.items())
    if size > limits.headers_bytes:
        raise BadRequest(
            "headers_too_large",
            f"cannot use headers of {size} bytes; at most {limits.headers_bytes} are allowed",
        )
    seen: set[str] = set()
    for name, value in headers.items():
        _check_header(name, value)
        if name.lower() in seen:
            raise BadRequest("header_invalid", f"cannot use header {name[:_SHOWN]} twice")
        seen.add(name.lower())
    return tuple(Header(name=name, value=Secret(value)) for name, value in headers.items())


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        # What follows the name may be a value that slipped into it.
        start = _TOKEN.match(name)
        raise BadRequest(
            "header_invalid",
            f"cannot use a header whose name begins with {quoted(start[0] if start else '')}; "
            "a name has letters, digits and -",
        )
    if name.lower() in RESERVED_HEADERS:
        raise BadRequest(
            "header_invalid", f"cannot set header {name[:_SHOWN]}; the transfer itself decides it"
        )
    if not _FIELD_VALUE.fullmatch(value):
        raise BadRequest(
            "header_invalid",
            f"cannot use the value of header {name[:_SHOWN]}; it must be printable ASCII on one "
            "line, without spaces around it",
        )
