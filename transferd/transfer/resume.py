"""What to ask of a server for the rest of a file, and what its answer means for the bytes on disk.

The rule behind every line: bytes are put together only if the server says, in a way that can be
checked, that they belong to one version of the file. Everything else starts from zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TypeAlias

from transferd.model.failures import Failure
from transferd.model.job import File, Part, Seconds, Validator
from transferd.model.origins import readable
from transferd.transfer.httpdate import parse_http_date
from transferd.transfer.ranges import coverage_of

# RFC 9110 8.8.3, without obs-text: what cannot be sent back byte for byte is no condition.
_ENTITY_TAG = re.compile(r'(?P<weak>W/)?"[\x21\x23-\x7e]*"')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,18})", re.IGNORECASE)
_SETTLED = timedelta(seconds=1)


# ── what to ask ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRequest:
    """Ask for everything from *offset*, if the file is still the version of *if_range*."""

    offset: int
    if_range: str
    #: The last byte that is wanted; None: the file's.
    last: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The two request fields that say so."""
        last = "" if self.last is None else self.last
        return {"Range": f"bytes={self.offset}-{last}", "If-Range": self.if_range}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Ask nothing: all bytes are on disk already; what is left is to verify and finish them."""

    size: int


#: None: fetch the file from zero, without a range.
Plan: TypeAlias = RangeRequest | Whole | None


def condition(validator: Validator | None) -> str | None:
    """Return the If-Range value for a version; None: its bytes cannot be continued.

    A strong entity tag, else a Last-Modified date that is a strong validator: at least one second
    older than the Date of its response, so that the file could not change again unnoticed (RFC
    9110 8.8.2.2). With a weak tag the date may not be used either (RFC 9110 13.1.5); a field that
    is not an entity tag at all counts as none.
    """
    if validator is None:
        return None
    tag = _ENTITY_TAG.fullmatch(validator.etag) if validator.etag is not None else None
    if tag is not None:
        return None if tag["weak"] else validator.etag
    if validator.last_modified is None or validator.date is None:
        return None
    modified, sent = parse_http_date(validator.last_modified), parse_http_date(validator.date)
    if modified is None or sent is None or sent - modified < _SETTLED:
        return None
    return validator.last_modified


def modified_at(validator: Validator | None) -> Seconds | None:
    """Return the time of a version, for the file on disk (BITS.md F14)."""
    if validator is None or validator.last_modified is None:
        return None
    moment = parse_http_date(validator.last_modified)
    return None if moment is None else moment.timestamp()


def plan(file: File) -> Plan:
    """Decide how to go on with *file*: at the first byte that is not on disk for sure.

    Without a known length it starts from zero each time: its end could not be told from a break.
    A file with all of its bytes is whole even if its version cannot be recognised again, since
    they came from one answer, or from several that were found to be of one version.
    """
    there, total = coverage_of(file), file.bytes_total
    if there.size == 0 or total is None or there.end > total:
        return None
    gap = there.gap(total)
    if gap is None:
        return Whole(size=total)
    return ask_for(file, gap)


def ask_for(file: File, part: Part) -> RangeRequest | None:
    """Ask for a part of the version that is on disk; None: it could not be recognised."""
    if_range = condition(file.validator)
    if if_range is None:
        return None
    last = None if part.end == file.bytes_total else part.end - 1
    return RangeRequest(offset=part.start, if_range=if_range, last=last)


def recheck(file: File) -> RangeRequest | None:
    """Ask for the last byte of a file that is here, to hear if it is still the version on disk.

    A server that reads a file while somebody writes to it sends bytes of two versions in one
    answer; its validator tells afterwards. None: the version could not be recognised.
    """
    if_range = condition(file.validator)
    if not file.bytes_total or if_range is None:
        return None
    return RangeRequest(offset=file.bytes_total - 1, if_range=if_range)


# ── what an answer means ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The facts of an answer that decide.

    Fields are as they came; several of one name are joined by ", ".
    """

    status: int
    validator: Validator
    content_range: str | None = None
    content_length: int | None = None
    content_encoding: str | None = None
    content_type: str | None = None
    transfer_chunked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """The body is bytes *start* to *end* (not included) of the version on disk; keep the validator.

    It must bring exactly `end - start` bytes. A server may send less than was asked (RFC 9110
    15.3.7): with *end* below *total*, plan again afterwards.
    """

    start: int
    end: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """The body is the whole file from zero; what is on disk is worthless. Keep its validator."""

    #: None: the server does not say.
    total: int | None
    #: Whether nothing will tell the end of the file from a broken connection: neither
    #: Content-Length nor chunked framing nor an expected checksum.
    length_unverified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """There is nothing left to send: the bytes on disk are the file."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Nothing of this answer may be used: ask again, without a range.

    That request cannot be answered by another Restart, so it is made once at most.
    """

    #: What was wrong, one clause for the log.
    reason: str
    #: The server did not keep to the protocol: close the connection, do not read the body.
    drop: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The file is not to be had this way; what is on disk stays."""

    failure: Failure


Verdict: TypeAlias = Append | Fresh | Complete | Restart | Refused


def judge(file: File, request: RangeRequest | None, response: Response) -> Verdict:
    """Decide what an answer means for the bytes on disk.

    *response* is final: not a redirect that is followed, not a challenge that is answered. Append,
    Complete and Restart are answers to a range only.
    """
    if response.status == HTTPStatus.OK:
        return _judge_whole(file, response)
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        return _judge_unasked(file) if request is None else _judge_part(file, request, response)
    if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and request is not None:
        return _judge_unsatisfied(file, request, response)
    return Refused(
        failure=_failure(
            file,
            f"http_{response.status}",
            f"the server answered {response.status}{_phrase(response.status)}",
            response.status,
        )
    )


def changed(request: RangeRequest, response: Response) -> bool:
    """Whether an answer to `recheck` says that the file is another version by now.

    An answer that says nothing of the file (an error, a redirect) is no reason to think so.
    """
    match response.status:
        case HTTPStatus.PARTIAL_CONTENT | HTTPStatus.OK:  # 200: ranges are ignored, perhaps
            return not _same_version(request, response.validator)
        case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE | HTTPStatus.PRECONDITION_FAILED:
            return True
        case _:
            return False


def _judge_whole(file: File, response: Response) -> Verdict:
    """200: the server ignores ranges, or the file has changed (RFC 9110 13.1.5)."""
    if not _identity(response.content_encoding):
        coding = (response.content_encoding or "")[:40]
        what = f"the server sent it encoded ({coding!r}), though it was asked for as it is"
        return Refused(failure=_failure(file, "content_encoded", what, response.status))
    # Chunked framing marks the end of a body as surely as a length does (RFC 9112 7.1, 8): only a
    # body that ends with its connection is unverified.
    total = None if response.transfer_chunked else response.content_length
    delimited = response.transfer_chunked or total is not None
    return Fresh(total=total, length_unverified=not delimited and file.spec.checksum is None)


def _judge_unasked(file: File) -> Verdict:
    what = "the server sent a part of it (206), though all of it was asked for"
    return Refused(failure=_failure(file, "protocol_error", what, HTTPStatus.PARTIAL_CONTENT))


def _judge_part(file: File, request: RangeRequest, response: Response) -> Verdict:
    lie = _lie(file, request, response)
    if lie is not None:
        return Restart(reason=lie, drop=True)
    _, last, total = _numbers(response.content_range)
    return Append(start=request.offset, end=last + 1, total=total)


def _lie(file: File, request: RangeRequest, response: Response) -> str | None:
    """Return what a 206 has wrong (RFC 9110 14.4, 15.3.7)."""
    found = response.content_range
    first, last, total = _numbers(found)
    if not first <= last < total:
        return f"the server sent a part without a range that can be read: {(found or '')[:80]!r}"
    if request.last is not None and last > request.last:
        return f"the server sent bytes to {last}, though bytes to {request.last} were asked"
    if first != request.offset:
        return f"the server sent bytes from {first}, though bytes from {request.offset} were asked"
    if file.bytes_total not in (None, total):
        return f"the server says {total} bytes, where it said {file.bytes_total} before"
    if not response.transfer_chunked and response.content_length not in (None, last + 1 - first):
        return f"the server sent {response.content_length} bytes as the range {found!r}"
    if (response.content_type or "").lower().startswith("multipart/byteranges"):
        return "the server sent several parts, though one was asked"
    if not _identity(response.content_encoding):
        return "the server sent an encoded part"
    if not _same_version(request, response.validator):
        return "the part is not marked with the version that it was asked for"
    return None


def _judge_unsatisfied(file: File, request: RangeRequest, response: Response) -> Verdict:
    """416: nothing is left, if it is known for sure that the size is that of the same version.

    A server that ignores If-Range says the same of a later version that is as long as the part on
    disk; so the size must be the known one, or the answer must be marked with the version.
    """
    match = _UNSATISFIED.fullmatch(response.content_range or "")
    size = int(match[1]) if match is not None else None
    sure = file.bytes_total == size or (
        file.bytes_total is None and _same_version(request, response.validator)
    )
    if size == request.offset and sure:
        return Complete(size=size)
    return Restart(reason="the server has no bytes from where it was asked", drop=False)


def _numbers(content_range: str | None) -> tuple[int, int, int]:
    """Return first, last and total; numbers that contradict themselves where there are none."""
    match = _CONTENT_RANGE.fullmatch(content_range or "")
    return (int(match[1]), int(match[2]), int(match[3])) if match is not None else (0, -1, 0)


def _same_version(request: RangeRequest, validator: Validator) -> bool:
    """Whether an answer names the version that was asked for.

    A part that carries no validator is not trusted, although a server may leave out Last-Modified
    there (RFC 9110 15.3.7): a server that ignores If-Range would look the same.
    """
    if request.if_range.startswith('"'):
        return validator.etag == request.if_range
    return validator.last_modified == request.if_range


def _identity(content_encoding: str | None) -> bool:
    codings = (content_encoding or "").split(",")
    return all(coding.strip().lower() in {"", "identity"} for coding in codings)


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _failure(file: File, code: str, what: str, status: int) -> Failure:
    return Failure(
        code=code,
        message=f"cannot fetch {readable(file.spec.remote)}: {what}",
        http_status=status,
        file=file.spec.local,
    )
