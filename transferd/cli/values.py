"""Durations, sizes and times: how people write them, and how they are shown to people."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, tzinfo

from transferd.model.limits import LEAST_RATE, MOST_STREAMS

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+|\d+(?:\.\d+)?")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?")

#: Control characters and what else could steer a terminal or break a line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def duration(text: str) -> float:
    """Read `90`, `15m`, `1h30m`, `2d` as seconds; for argparse."""
    if not _DURATION.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 15m, 1h30m or 2d")
    return sum(float(number) * _UNITS[unit or "s"] for number, unit in _PART.findall(text.lower()))


def size(text: str) -> int:
    """Read `4096`, `10M`, `1.5GiB` as bytes; for argparse."""
    match = _SIZE.fullmatch(text.lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 4096, 10M or 1.5GiB")
    number, unit = match.groups()
    return int(float(number) * (_FACTORS | _BINARY)[unit or ""])


def rate(text: str) -> int:
    """Read bytes a second as `size` does, 0 for no limit; for argparse."""
    if 0 < (found := size(text)) < LEAST_RATE:
        raise argparse.ArgumentTypeError(
            f"must be at least {LEAST_RATE} bytes a second, such as 2K (K is 1000); 0: no limit"
        )
    return found


def streams(text: str) -> int:
    """Read how many connections a job may have; for argparse."""
    if not text.isdecimal() or not 1 <= (found := int(text)) <= MOST_STREAMS:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MOST_STREAMS}")
    return found


def shown_size(count: int | float) -> str:
    """Show bytes: `999 B`, `12.3 MB`."""
    if count < 1000:
        return f"{count:.0f} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def shown_duration(seconds: float) -> str:
    """Show a duration in at most two units: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for unit, name, below, lesser in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name} {rest} {lesser}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def shown_clock(seconds: float) -> str:
    """Show a rest of time in few columns: `0:42`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"


def seconds_until(moment: str | None, now: datetime) -> float | None:
    """Return the seconds from *now* to an RFC 3339 time, not less than 0."""
    if moment is None:
        return None
    return max(0.0, (datetime.fromisoformat(moment) - now).total_seconds())


def shown_moment(moment: str, now: datetime, zone: tzinfo | None = None) -> str:
    """Show an RFC 3339 time by the clocks of *zone*, the terminal's for None: `18:00 CET`.

    With the date, unless that is today's.
    """
    local = datetime.fromisoformat(moment).astimezone(zone)
    day = "" if local.date() == now.astimezone(zone).date() else "%Y-%m-%d "
    return local.strftime(f"{day}{'%H:%M:%S' if local.second else '%H:%M'} %Z")


def wall_clock() -> datetime:
    """Return the time of day, in UTC; only for what people read."""
    return datetime.now(UTC)


def printable(text: str) -> str:
    """Return *text* as one harmless line: what could steer a terminal is shown as `?`."""
    return _UNPRINTABLE.sub("?", text)
