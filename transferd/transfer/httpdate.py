"""Dates of HTTP header fields."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

_LONGEST = 64


@lru_cache(64)
def parse_http_date(text: str) -> datetime | None:
    """Read a date in any of the three formats of RFC 9110 5.6.7; None: it is not one."""
    if len(text) > _LONGEST:
        return None
    try:
        moment = parsedate_to_datetime(text)
        # A date without a zone is in UTC: every HTTP date is.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
