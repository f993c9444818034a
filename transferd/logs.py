"""The log on standard error: one line a record, `key=value` pairs or JSON, without secrets.

A record of ours has an event's name as its message (`job.created`) and its values in
`extra={"fields": {...}}`. Any other record (a library's) is the event `log` with the text in a
field. Nothing that was logged can begin a second line, forge a field or steer a terminal.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO, TypeAlias

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
_BARE = re.compile(r"[^\s\"=\\]+")

_SECRET_NAME = re.compile(r"(?i)passw|secret|token|authorization|cookie|api[-_]?key")
_REDACTED = "…"

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
    # Query and fragment of a URL: signatures and tokens live there.
    re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s?#\"<>]*[?#])[^\s\"<>]+"),
)


def redact(text: str) -> str:
    """Return *text* without credentials: header values, URL userinfo and URL queries."""
    for pattern in _SECRET_TEXTS:
        text = pattern.sub(rf"\1{_REDACTED}", text)
    return text


class Lines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z info job.created job=… owner=1000`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the one line for *record*."""
        event, fields = _contents(record)
        pairs = (f" {name}={_quoted(value)}" for name, value in fields.items())
        return f"{_time(record)} {_level(record)} {event}{''.join(pairs)}"


class JsonLines(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `event`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the one line for *record*."""
        event, fields = _contents(record)
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
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return f"<{priority}>{self._lines.format(record)}"


#: Format, as the configuration names it, → formatter.
FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {"key=value": Lines, "json": JsonLines}


def set_up_logging(
    log_format: str, level: str, environ: Mapping[str, str], stream: TextIO = sys.stderr
) -> None:
    """Send all logging of this process to *stream*, in place of where it went before.

    *log_format* and *level* are those of the configuration. Where JOURNAL_STREAM in *environ*
    names the very file behind *stream*, lines carry their priority.
    """
    lines = FORMATS[log_format]()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Prioritised(lines) if _is_journal(stream, environ) else lines)
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
    moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _contents(record: logging.LogRecord) -> tuple[str, dict[str, Value]]:
    """Return the event and everything that the record says of it."""
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
        name: _REDACTED if _SECRET_NAME.search(name) else _value(value)
        for name, value in given.items()
    }


def _value(value: object) -> Value:
    if isinstance(value, enum.Enum) and not isinstance(value, str):
        return value.name.lower()
    if value is None or isinstance(value, bool | int | float):
        return value
    text = redact(str(value))
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _quoted(value: Value) -> str:
    """Write a value as one word: as it is, or in JSON's quotes with everything odd escaped."""
    if not isinstance(value, str):
        return json.dumps(value)
    quoted = json.dumps(value, ensure_ascii=False)
    escaped = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)
    return value if _BARE.fullmatch(value) and escaped == f'"{value}"' else escaped
