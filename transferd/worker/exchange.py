"""One request and its answer, over aiohttp: no redirect is followed, no credential is invented."""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.wire.link import WorkerSettings
from transferd.worker.answer import Answer
from transferd.worker.connection import Connector, open_session
from transferd.worker.faults import translate
from transferd.worker.request import Request

#: aiohttp undoes the first of these and ignores every other: a body would be stored wrapped, or be
#: taken for whole where the connection broke.
_CODINGS = frozenset({"chunked", "identity", None})


class Exchange:
    """Sends the requests of one lane, one at a time."""

    def __init__(self, connector: Connector, context: ssl.SSLContext, settings: WorkerSettings):
        self._connector = connector
        self._context = context
        self._user_agent = settings.user_agent
        # Also for headers that come byte by byte, and for 1xx answers without end.
        self._patience = settings.connect_timeout + settings.stall_window
        self._session = open_session(connector, settings)

    async def send(self, request: Request) -> Answer:
        """Send *request*; returns when the headers of its answer are in, whatever they say.

        Raises:
            TransferFailed: there is no answer, none that is HTTP, or the proxy opens no tunnel.
        """
        try:
            async with asyncio.timeout(self._patience):
                response = await self._session.request(
                    "GET",
                    request.parsed,
                    headers=self._headers(request),
                    allow_redirects=False,
                    ssl=self._context,
                    proxy=request.proxy,
                    proxy_headers=self._proxy_headers(request),
                )
        except aiohttp.ClientHttpProxyError as refusal:
            return _no_tunnel(request, refusal)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise translate(error, request.peer) from error
        answer = Answer(
            request, response.status, response.headers, self._connector.latest, response
        )
        if answer.transfer_coding not in _CODINGS:
            answer.close()
            raise _unreadable(answer)
        return answer

    async def close(self) -> None:
        """Drop every connection."""
        await self._session.close()

    def _headers(self, request: Request) -> CIMultiDict[str]:
        headers = CIMultiDict(request.headers)
        headers.setdefault("User-Agent", self._user_agent)
        headers["Accept-Encoding"] = "identity"
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        if request.proxy_authorization is not None and not request.tunnelled:
            headers["Proxy-Authorization"] = request.proxy_authorization
        return headers

    def _proxy_headers(self, request: Request) -> CIMultiDict[str] | None:
        if not request.tunnelled:
            return None
        headers = CIMultiDict([("User-Agent", self._user_agent)])
        if request.proxy_authorization is not None:
            headers["Proxy-Authorization"] = request.proxy_authorization
        return headers


def _no_tunnel(request: Request, refusal: aiohttp.ClientHttpProxyError) -> Answer:
    """Return a proxy's challenge; whatever else it says instead of a tunnel is a failure."""
    if refusal.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        headers = CIMultiDictProxy(CIMultiDict(refusal.headers or {}))
        return Answer(request, refusal.status, headers, object(), None)
    peer = request.peer
    code = (
        f"http_{refusal.status}" if refusal.status >= HTTPStatus.BAD_REQUEST else "protocol_error"
    )
    message = (
        f"cannot reach {peer.server}: proxy {peer.proxy} answered CONNECT with {refusal.status}"
    )
    raise TransferFailed(Failure(code=code, message=message, http_status=refusal.status))


def _unreadable(answer: Answer) -> TransferFailed:
    message = (
        f"cannot read from {answer.request.peer}: it sends the body in a transfer coding other than"
        f" chunked ({(answer.transfer_coding or '')[:40]!r})"
    )
    return TransferFailed(
        Failure(code="protocol_error", message=message, http_status=answer.status)
    )
