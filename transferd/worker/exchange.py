"""One request and its answer, over aiohttp: no redirect is followed, no credential is invented.

Nothing is ever sent twice: a connection that turned out to be gone is the caller's to hear of.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from http import HTTPStatus

import aiohttp
import h11
from multidict import CIMultiDict
from yarl import URL

from transferd.model.errors import ConnectionGone, TransferFailed
from transferd.model.failures import Failure
from transferd.wire.link import WorkerSettings
from transferd.worker.answer import Answer
from transferd.worker.connection import (
    Connector,
    begin_tls_with_proxy,
    new_number,
    open_session,
    passage,
)
from transferd.worker.faults import gone, translate
from transferd.worker.request import Request
from transferd.worker.tunnel import Dialogue, PlainStream, Verdict, peek

#: aiohttp undoes the first of these and ignores every other: a body would be stored wrapped, or be
#: taken for whole where the connection broke.
_CODINGS = frozenset({"chunked", "identity", None})


class Exchange:
    """Sends the requests of one lane, one at a time."""

    def __init__(self, connector: Connector, context: ssl.SSLContext, settings: WorkerSettings):
        self._connector = connector
        self._context = context
        self._settings = settings
        # Also for headers that come byte by byte, and for 1xx answers without end.
        self._patience = settings.connect_timeout + settings.stall_window
        self._session = open_session(connector, settings)
        #: A connection to a proxy that asked for credentials, between two legs.
        self._dialogue: Dialogue | None = None

    async def send(self, request: Request) -> Answer:
        """Send *request*; returns when the headers of its answer are in, whatever they say.

        One that is to go through a tunnel needs one: see `tunnel` and `reaches`.

        Raises:
            ConnectionGone: the connection or tunnel that it was to go through is not there, or a
                connection that was there before ended without a byte of an answer.
            TransferFailed: there is no answer, or none that is HTTP.
        """
        with passage(request, self._context) as way:
            try:
                async with asyncio.timeout(self._patience):
                    response = await self._session.request(
                        request.method,
                        request.parsed,
                        headers=self._headers(request),
                        allow_redirects=False,
                        ssl=self._context,
                        proxy=request.proxy,
                    )
            except (aiohttp.ClientError, OSError, UnicodeError) as error:
                failed = translate(error, request.peer)
                if way.gone and failed.failure.code == "connection_lost":
                    raise ConnectionGone(failed.failure) from error
                raise failed from error
        answer = Answer(
            request,
            response.status,
            response.headers,
            way.number,
            response,
            handler=way.handler,
        )
        if answer.transfer_coding not in _CODINGS:
            answer.close()
            raise _unreadable(answer)
        return answer

    async def tunnel(self, request: Request) -> Answer:
        """Ask the proxy of *request* for a tunnel to its origin, on `request.connection` if given.

        Returns the proxy's answer, which has no body any more. 2xx: the tunnel stands, and the next
        `send` to that origin goes through it. 407: the proxy asks for credentials; its connection
        is kept for the next leg where it allows that.

        Raises:
            ConnectionGone: as `send`.
            TransferFailed: `connect_timeout`, `proxy_unreachable`, `tls_failed`: there is no
                answer; `protocol_error`, `header_too_large`; `http_` and the status: any other.
        """
        try:
            async with asyncio.timeout(self._patience):
                return await self._ask(request)
        except TimeoutError as error:
            raise translate(aiohttp.ConnectionTimeoutError(), request.peer) from error

    def reaches(self, request: Request) -> bool:
        """Whether `send` would find a connection, or a tunnel, that stands and may carry it."""
        return self._connector.reaches(request)

    async def close(self) -> None:
        """Drop every connection."""
        self._drop_dialogue()
        self._connector.drop_tunnel()
        await self._session.close()

    async def _ask(self, request: Request) -> Answer:
        with contextlib.ExitStack() as undo:
            dialogue = await self._find(request)
            undo.callback(dialogue.stream.abort)
            verdict = await self._put(dialogue, request)
            if verdict.stands:
                self._connector.stand(dialogue, request)
                undo.pop_all()
            elif verdict.status != HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                raise _no_tunnel(request, verdict.status)
            elif verdict.kept:
                self._dialogue = dialogue
                undo.pop_all()
        return Answer(request, verdict.status, verdict.headers, dialogue.number, None)

    async def _put(self, dialogue: Dialogue, request: Request) -> Verdict:
        settings = self._settings
        try:
            return await dialogue.ask(request, settings.user_agent, settings.header_bytes)
        except (OSError, EOFError) as error:
            failed = translate(error, request.peer)
            reused = dialogue.answered or request.connection is not None
            if reused and not dialogue.heard:
                raise ConnectionGone(failed.failure) from error
            raise failed from error
        except h11.RemoteProtocolError as error:
            raise translate(error, request.peer) from error

    async def _find(self, request: Request) -> Dialogue:
        """Take up the dialogue that *request* goes on with, or begin one."""
        kept, self._dialogue = self._dialogue, None
        with contextlib.ExitStack() as undo:
            if kept is not None:
                undo.callback(kept.stream.abort)
                if kept.serves(request) and await peek(kept.stream) is None:
                    undo.pop_all()
                    return kept
        if request.connection is not None:
            raise gone(request.peer)
        if request.proxy is None:
            raise ValueError("cannot ask for a tunnel: the request goes through no proxy")
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                return await self._begin(request, request.proxy)
        except TimeoutError as error:
            raise translate(aiohttp.ConnectionTimeoutError(), request.peer) from error

    async def _begin(self, request: Request, proxy: URL) -> Dialogue:
        peer = request.peer
        base = await self._connector.open_socket(proxy, peer)
        stream = (
            await begin_tls_with_proxy(base, self._context, proxy, peer)
            if proxy.scheme == "https"
            else PlainStream(base)
        )
        return Dialogue(stream, proxy, request.identity, new_number())

    def _drop_dialogue(self) -> None:
        if self._dialogue is not None:
            self._dialogue.stream.abort()
            self._dialogue = None

    def _headers(self, request: Request) -> CIMultiDict[str]:
        headers = CIMultiDict(request.headers)
        headers.setdefault("User-Agent", self._settings.user_agent)
        headers["Accept-Encoding"] = "identity"
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        if request.proxy_authorization is not None and not request.tunnelled:
            headers["Proxy-Authorization"] = request.proxy_authorization
        return headers


def _no_tunnel(request: Request, status: int) -> TransferFailed:
    """Return the failure of a proxy that says something else instead of opening a tunnel."""
    peer = request.peer
    code = f"http_{status}" if status >= HTTPStatus.BAD_REQUEST else "protocol_error"
    message = f"cannot reach {peer.server}: proxy {peer.proxy} answered CONNECT with {status}"
    return TransferFailed(Failure(code=code, message=message, http_status=status))


def _unreadable(answer: Answer) -> TransferFailed:
    message = (
        f"cannot read from {answer.request.peer}: it sends the body in a transfer coding other than"
        f" chunked ({(answer.transfer_coding or '')[:40]!r})"
    )
    return TransferFailed(
        Failure(code="protocol_error", message=message, http_status=answer.status)
    )
