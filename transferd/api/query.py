"""Parameters of the query. Each is read once; an unknown or repeated one is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web

from transferd.model.checks import quoted
from transferd.model.errors import BadRequest

#: Entries of a page.
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_DIGITS = re.compile(r"[0-9]{1,19}")
_LARGEST = 2**63 - 1
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def refuse_unknown(request: web.Request, known: Iterable[str]) -> None:
    """Refuse parameters that the route does not have: a typing error must not widen a list.

    Raises:
        BadRequest: `unknown_parameter`.
    """
    for name in request.query:
        if name not in known:
            raise BadRequest(
                "unknown_parameter",
                f"cannot use parameter {quoted(name)}; known are: {', '.join(known) or 'none'}",
            )


def word(request: web.Request, name: str) -> str | None:
    """Return a parameter that may be given once.

    Raises:
        BadRequest: `value_invalid`.
    """
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise BadRequest("value_invalid", f"cannot use parameter {name} more than once")
    return values[0] if values else None


def words(request: web.Request, name: str) -> list[str] | None:
    """Return the values of a list: separated by commas, or by repeating the parameter."""
    values = request.query.getall(name, [])
    return ",".join(values).split(",") if values else None


def flag(request: web.Request, name: str) -> bool:
    """Return a yes or no; not given is no.

    Raises:
        BadRequest: `value_invalid`.
    """
    text = word(request, name)
    if text is None:
        return False
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise BadRequest(
            "value_invalid", f"cannot use {quoted(text)} as {name}; it is true or false"
        ) from None


def limit(request: web.Request) -> int:
    """Return how many entries a page shall have.

    Raises:
        BadRequest: `value_invalid`.
    """
    text = word(request, "limit")
    size = DEFAULT_LIMIT if text is None else number(text)
    if size is None or not 1 <= size <= MAX_LIMIT:
        raise BadRequest("value_invalid", f"cannot use that limit; it is a number 1 to {MAX_LIMIT}")
    return size


def cursor(text: str | None) -> int | None:
    """Read where a page or a replay begins.

    Raises:
        BadRequest: `cursor_invalid`.
    """
    if text is None:
        return None
    if (position := number(text)) is None:
        raise BadRequest(
            "cursor_invalid", f"cannot go on after {quoted(text)}; use `next` as it is"
        )
    return position


def number(text: str) -> int | None:
    """Read a number that the queue file can hold; None: it is none."""
    if not _DIGITS.fullmatch(text) or int(text) > _LARGEST:
        return None
    return int(text)
