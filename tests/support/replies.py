"""Replies without a network, for the handling of responses alone.

aioresponses 0.7.9 makes ClientResponse as aiohttp before 3.14 did; `Reply` supplies the argument
that has been added since. What it replaces (connections, framing, redirects) is tested on real
servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
from aioresponses import aioresponses
from multidict import CIMultiDict

_EVERYTHING = re.compile(".*")


class Reply(aiohttp.ClientResponse):
    """A response as aioresponses makes it."""

    def __init__(self, method: str, url: Any, **parts: Any) -> None:
        # All that is asked of it is how much has been written.
        parts["stream_writer"] = SimpleNamespace(output_size=0)
        super().__init__(method, url, **parts)


@contextmanager
def replying(
    status: int = 200,
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
    exception: Exception | None = None,
) -> Iterator[aioresponses]:
    """Give every GET the same reply."""
    with aioresponses() as replies:
        replies.get(
            _EVERYTHING,
            status=status,
            headers=CIMultiDict(headers),
            body=body,
            exception=exception,
            response_class=Reply,
            repeat=True,
        )
        yield replies
