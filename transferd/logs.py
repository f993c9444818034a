"""The log: one line a record on standard error, or a record of fields in the journal; no secrets.

A record of ours has an event's name as its message (`job.created`, see model/events.py) and its
values in `extra={"fields": {...}}`. Any other record (a library's) is the event `log` with the text
in a field. Nothing that was logged can begin a second line, forge a field or steer a terminal.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO, TypeAlias

from transferd.journal import SOCKET, Journal, field_name, message_id
from transferd.model.events import EVENTS

Value: TypeAlias = str | int | float | bool | None

#: syslog(3) priorities, as sd-daemon(3) wants them at the beginning of a line.
_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.NOTSET, 7),
)

_EVENT = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
#: journald breaks lines of more than 48 KiB (LineMax=), and an escaped character may take six.
_MAX_CHARS = 4096
#: A field of the journal has no such bound; a trace should be there as a whole.
_FIELD_CHARS = 64 * 1024
_BARE = re.compile(r"[^\s\"=\\]+")
#: The same in printable ASCII, of which JSON escapes nothing.
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")

_SECRET_NAME = re.compile(r"(?i)passw|secret|token|authorization|cookie|api[-_]?key")
_REDACTED = "…"
#: Ids, codes and paths, mostly: without one of `:= ` no secret can be told from the rest.
_HARMLESS = re.compile(r"[^\s:=]*")

#: Without one of these in it, an ASCII text is what is left of it.
_SIGNS = (
    *("@", "?", "#", "authorization", "cookie", "x-api-key", "password", "passwd", "secret"),
    *("token", "basic", "bearer", "digest", "negotiate", "ntlm"),
)

#: A text in quotes, which may themselves be escaped: in a repr of a repr, in JSON within JSON.
_IN_QUOTES = r"(?P<quote>\\*[\"']).*?(?<!\\)(?P=quote)"

#: The second line of defence: nobody logs these on purpose. Each keeps its first group.
_SECRET_TEXTS = (
    # The value of a header or an assignment: in quotes, or up to the end of the line or the word.
    re.compile(
        r"(?im)(\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key)\b\\*[\"']?\s*[:=]\s*)"
        rf"(?:{_IN_QUOTES}|[^\r\n]*)"
    ),
    re.compile(
        r"(?i)(\b(?:password|passwd|secret|token)\b\\*[\"']?\s*[:=]\s*)"
        rf"(?:{_IN_QUOTES}|[^\s,;]+)"
    ),
    # A scheme and its token68; words of prose have no digit, capital or base64 sign in them.
    re.compile(r"(?i:\b(Basic|Bearer|Digest|Negotiate|NTLM)) +(?=\S*[0-9A-Z=+/])[\w+/=.~-]{8,}"),
    # user:password@ of a URL.
    re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/?#\s]*@"),
)
#: A URL, and what comes after its path: query and fragment, where signatures and tokens live. One
#: without them is matched too, or all that follows would be searched again for each URL in it.
_URL = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s?#\"<>]*[?#]?)([^\s\"<>]*)")


def redact(text: str) -> str:
    """Return *text* without credentials: header values, URL userinfo and URL queries.

    Users choose what is logged; whatever it is, this takes a time in proportion to its length.
    """
    if _HARMLESS.fullmatch(text):
        return text
    if text.isascii():
        lower = text.lower()
        if not any([sign in lower for sign in _SIGNS]):
            return text
    for pattern in _SECRET_TEXTS:
        text = pattern.sub(rf"\1{_REDACTED}", text)
    return _URL.sub(lambda url: url[1] + (url[2] and _REDACTED), text)


class Lines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z info job.created job=… owner=1000`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the one line for *record*."""
        return f"{_time(record)} {_level(record)} {_message(record)}"


class JsonLines(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `event`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the one line for *record*."""
        event, fields = contents(record)
        line: dict[str, Value] = {"ts": _time(record), "level": _level(record), "event": event}
        for name, value in fields.items():
            line[f"{name}_" if name in line else name] = value
        return json.dumps(line)


class Prioritised(logging.Formatter):
    """Lines of another formatter with the priority that journald reads off and removes."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for *record*, after `<6>` or the like."""
        return f"<{_priority(record)}>{self._lines.format(record)}"


class LineHandler(logging.Handler):
    """Writes lines to a stream, those of one turn of the loop at once; what is wrong is not kept.

    Each write lets the other threads of the interpreter go first: a busy daemon would wait for them
    once for every line.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of *record*, soon; at once where there is no loop."""
        try:
            self._lines.append(f"{self.format(record)}\n")
            if record.levelno >= logging.WARNING:
                self.flush()
            elif len(self._lines) == 1:
                _soon(self.flush)
        except Exception:  # noqa: BLE001 - as every handler: a record that cannot be written
            self.handleError(record)

    def flush(self) -> None:
        """Write what there is."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                self._stream.write("".join(lines))
                self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody listens any more
        finally:
            self.release()


def _soon(call: Callable[[], None]) -> None:
    """Call at the end of this turn of the loop; where there is none, at once."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        call()
    else:
        loop.call_soon(call)


class JournalHandler(logging.Handler):
    """Hands records to journald; while it does not answer, they go to another handler."""

    def __init__(self, journal: Journal, otherwise: logging.Handler) -> None:
        super().__init__()
        self._journal = journal
        self._otherwise = otherwise

    def emit(self, record: logging.LogRecord) -> None:
        """Send the fields of *record*."""
        try:
            self._journal.send(journal_fields(record))
        except OSError:
            self._otherwise.handle(record)
        except Exception:  # noqa: BLE001 - as every handler: a record that cannot be written
            self.handleError(record)

    def close(self) -> None:
        """Let go of the socket."""
        self._journal.close()
        self._otherwise.close()
        super().close()


def journal_fields(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """Yield journald's fields for *record*, then ours, as TRANSFERD_NAME; no value is none."""
    event, fields = contents(record, _FIELD_CHARS)
    yield "MESSAGE", _line(event, {name: _cut(value, _MAX_CHARS) for name, value in fields.items()})
    yield "PRIORITY", str(_priority(record))
    yield "SYSLOG_IDENTIFIER", "transferd"
    if event in EVENTS:
        yield "MESSAGE_ID", message_id(event)
    yield field_name("event"), event
    for name, value in fields.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield field_name("event_" if name == "event" else name), text


#: Format, as the configuration names it, → formatter.
FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {"key=value": Lines, "json": JsonLines}


def set_up_logging(
    log_format: str,
    level: str,
    environ: Mapping[str, str],
    stream: TextIO = sys.stderr,
    journal: Path = SOCKET,
) -> None:
    """Send all logging of this process to *stream*, in place of where it went before.

    *log_format* and *level* are those of the configuration. Where JOURNAL_STREAM in *environ*
    names the very file behind *stream*, records go to journald at *journal* with their fields; if
    it is away, to *stream* as lines with their priority.
    """
    lines = FORMATS[log_format]()
    handler: logging.Handler = LineHandler(stream)
    handler.setFormatter(lines)
    if _is_journal(stream, environ):
        handler.setFormatter(Prioritised(lines))
        handler = JournalHandler(Journal(journal), handler)
    # Nobody reads these of a record, and asking costs as much as writing it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    # Requests are logged by what they do; their URLs are nobody's business.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Compare device and inode as systemd.exec(5) asks: the variable alone may be inherited."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _time(record: logging.LogRecord) -> str:
    milliseconds = round(record.created * 1_000_000) // 1000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _priority(record: logging.LogRecord) -> int:
    return next(number for level, number in _PRIORITIES if record.levelno >= level)


def _message(record: logging.LogRecord) -> str:
    """Return event and fields as one line."""
    return _line(*contents(record))


def _line(event: str, fields: Mapping[str, Value]) -> str:
    return event + "".join([f" {name}={_quoted(value)}" for name, value in fields.items()])


def contents(record: logging.LogRecord, longest: int = _MAX_CHARS) -> tuple[str, dict[str, Value]]:
    """Return the event and all that is said of it; a text has up to *longest* characters."""
    event = record.getMessage()
    given: dict[str, object] = {}
    if not _EVENT.fullmatch(event):
        given |= {"logger": record.name, "message": event}
        event = "log"
    given |= getattr(record, "fields", {})
    if record.exc_info and record.exc_info[1] is not None:
        given["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        given["trace"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        given["stack"] = record.stack_info
    return event, {
        name: _REDACTED if _means_secret(name) else _value(value, longest)
        for name, value in given.items()
    }


@functools.lru_cache(maxsize=256)
def _means_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _value(value: object, longest: int) -> Value:
    if isinstance(value, enum.Enum) and not isinstance(value, str):
        return value.name.lower()
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(redact(str(value)), longest)


def _cut(value: Value, longest: int) -> Value:
    return f"{value[:longest]}…" if isinstance(value, str) and len(value) > longest else value


def _quoted(value: Value) -> str:
    """Write a value as one word: as it is, or in JSON's quotes with everything odd escaped."""
    if not isinstance(value, str):
        return str(value) if type(value) is int else json.dumps(value)
    if _PLAIN.fullmatch(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    escaped = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)
    return value if _BARE.fullmatch(value) and escaped == f'"{value}"' else escaped
