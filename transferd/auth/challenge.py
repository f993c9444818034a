"""Reads WWW-Authenticate and Proxy-Authenticate (RFC 9110 11.3, 11.6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One scheme that a server offers."""

    #: Lower case.
    scheme: str
    #: Names in lower case, values unquoted.
    params: Mapping[str, str] = field(default_factory=dict)
    token68: str | None = None


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """Read every challenge of every header line, in order."""
    raise NotImplementedError
