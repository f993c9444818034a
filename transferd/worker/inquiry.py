"""Asks for a file or the rest of one: follows redirects, and knows which secrets may go along."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from yarl import URL

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import File, Seconds, Settings, Validator
from transferd.model.origins import Origin, origin
from transferd.transfer.location import REDIRECTS, next_hop
from transferd.transfer.resume import (
    RangeRequest,
    Refused,
    Response,
    changed,
    judge,
    recheck,
)
from transferd.transfer.retry import parse_retry_after
from transferd.wire import bounds
from transferd.wire.link import LinkHeader
from transferd.worker.answer import Answer
from transferd.worker.authenticator import Authenticator
from transferd.worker.door import OWNER, Hop
from transferd.worker.proxy import Proxy, choose_proxy
from transferd.worker.request import Request

_LENGTH = re.compile(r"[0-9]{1,18}")


class Inquiry:
    """How the files of one run are asked for.

    The owner's headers are secrets like credentials: they go to the origin of the file's own URL,
    and are left out of every request to another one, which has a connection of its own as well.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        settings: Settings,
        headers: tuple[LinkHeader, ...],
        *,
        secrets: bool,
        max_redirects: int,
    ) -> None:
        self._authenticator = authenticator
        self._settings = settings
        self._headers = headers
        self._secrets = secrets
        self._max_redirects = max_redirects
        #: How each origin is reached; the environment does not change.
        self._proxies: dict[Origin, Proxy | None] = {}

    async def ask(self, remote: str, part: RangeRequest | None) -> Answer:
        """Ask for *remote*, or for a part of it; returns the answer that is no redirect.

        Raises:
            TransferFailed: `redirect_limit`, `redirect_invalid`, `redirect_refused`, and whatever
                Authenticator.ask raises.
        """
        home, url, hops = origin(remote), remote, 0
        while True:
            answer = await self._authenticator.ask(self._hop(url, home, part))
            if answer.status not in REDIRECTS:
                return answer
            try:
                url = next_hop(
                    answer.request.url,
                    answer.status,
                    answer.headers.get("Location"),
                    self._secrets,
                    hops=hops,
                    limit=self._max_redirects,
                )
            finally:
                await answer.drain()
            hops += 1

    async def changed(self, file: File) -> bool:
        """Ask whether a file that was fetched is another version by now.

        False also where that cannot be asked.

        Raises:
            TransferFailed: the server refuses to say, and whatever `ask` raises.
        """
        request = recheck(file)
        if request is None:
            return False
        answer = await self.ask(file.spec.remote, request)
        try:
            response = read_response(answer)
            if changed(request, response):
                return True
            verdict = judge(file, request, response)
            if isinstance(verdict, Refused):
                raise self.refused(verdict.failure, answer)
            return False
        finally:
            await answer.drain()

    def refused(self, failure: Failure, answer: Answer) -> TransferFailed:
        """Return the failure that an answer is, and how long its server is to be left alone."""
        if not failure.kind.transient:
            return TransferFailed(failure)
        wait = read_retry_after(answer, datetime.now(UTC))
        return TransferFailed(failure, wait)

    def _hop(self, url: str, home: Origin, part: RangeRequest | None) -> Hop:
        place = origin(url)
        own = place == home
        headers: list[tuple[str, str]] = []
        if own:
            headers += ((header.name, header.value.reveal()) for header in self._headers)
        if part is not None:
            headers += part.headers.items()
        if place not in self._proxies:
            self._proxies[place] = choose_proxy(URL(url, encoded=True), self._settings.proxy)
        proxy = self._proxies[place]
        request = Request(
            url=url,
            headers=tuple(headers),
            proxy=None if proxy is None else proxy.url,
            identity=OWNER if own and self._secrets else None,
        )
        return Hop(request=request, own=own, proxy=proxy)


def read_response(answer: Answer) -> Response:
    """Return the facts of an answer that decide what becomes of the bytes on disk."""
    length = _LENGTH.fullmatch(_joined(answer, "Content-Length") or "")
    return Response(
        status=answer.status,
        validator=Validator(
            etag=_short(answer, "ETag"),
            last_modified=_short(answer, "Last-Modified"),
            date=_short(answer, "Date"),
        ),
        content_range=_joined(answer, "Content-Range"),
        content_length=None if length is None else int(length[0]),
        content_encoding=_joined(answer, "Content-Encoding"),
        content_type=_joined(answer, "Content-Type"),
        transfer_chunked=answer.chunked,
    )


def read_retry_after(answer: Answer, now: datetime) -> Seconds | None:
    """Return how long the server wants to be left alone; None: it does not say."""
    value = answer.headers.get("Retry-After")
    return None if value is None else parse_retry_after(value, now)


def _short(answer: Answer, name: str) -> str | None:
    """Return a header that the queue file is to keep; one that is too long counts as missing."""
    value = _joined(answer, name)
    return None if value is None or len(value) > bounds.VALIDATOR else value


def _joined(answer: Answer, name: str) -> str | None:
    """Return all lines of a header as one text that can be sent to the daemon.

    Bytes that are not UTF-8 come from aiohttp as surrogates, which no JSON can hold.
    """
    values = answer.values(name)
    if not values:
        return None
    if len(values) == 1 and values[0].isascii():
        return values[0]
    return ", ".join(values).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
