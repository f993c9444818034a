"""One request and its answer, over aiohttp: no redirect is followed, no credential is invented."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.model.job import Seconds
from transferd.wire.link import WorkerSettings
from transferd.worker.connection import Connector, open_session
from transferd.worker.faults import Peer, translate

#: Of the body of an answer that nobody wants, so much is read to keep its connection, and so long.
_DRAIN_BYTES = 64 * 1024
_DRAIN_SECONDS: Seconds = 2.0
#: aiohttp undoes the first of these and ignores every other: a body would be stored wrapped, or be
#: taken for whole where the connection broke.
_CODINGS = frozenset({"chunked", "identity", None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A GET, with everything that it carries."""

    #: Absolute and escaped; it goes out byte for byte.
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorization: str | None = field(default=None, repr=False)
    #: Without userinfo.
    proxy: URL | None = None
    #: Goes to the proxy only: with CONNECT where there is a tunnel, with the request otherwise.
    proxy_authorization: str | None = field(default=None, repr=False)

    @property
    def parsed(self) -> URL:
        """The URL in parts, never quoted again."""
        return URL(self.url, encoded=True)

    @property
    def peer(self) -> Peer:
        """Who is asked, for messages."""
        proxy = self.proxy
        return Peer(_place(self.parsed), None if proxy is None else _place(proxy))

    @property
    def tunnelled(self) -> bool:
        """Whether a proxy carries it without seeing it."""
        return self.proxy is not None and self.parsed.scheme == "https"

    @property
    def target(self) -> str:
        """The request target as it goes out (RFC 9112 3.2)."""
        if self.proxy is not None and not self.tunnelled:
            return str(self.parsed.with_fragment(None))
        return self.origin_form

    @property
    def origin_form(self) -> str:
        """The request target as the server gets it, whatever stands between."""
        return self.parsed.raw_path_qs


class Answer:
    """What came back for a request; whoever gets one drains, reads or closes it."""

    def __init__(
        self,
        request: Request,
        status: int,
        headers: CIMultiDictProxy[str],
        connection: object,
        response: aiohttp.ClientResponse | None,
    ) -> None:
        self.request = request
        self.status = status
        self.headers = headers
        #: Equal for two answers exactly when they came over the same connection.
        self.connection = connection
        self._response = response
        self._broken: TransferFailed | None = None

    @property
    def from_proxy(self) -> bool:
        """Whether a proxy refused to open the tunnel: the server was not reached."""
        return self._response is None

    def values(self, name: str) -> tuple[str, ...]:
        """Every line of a header, in order."""
        return tuple(self.headers.getall(name, ()))

    @property
    def chunked(self) -> bool:
        """Whether the body says where it ends without a length."""
        return self.transfer_coding == "chunked"

    @property
    def transfer_coding(self) -> str | None:
        """How the body is wrapped for the journey, in lower case."""
        values = self.values("Transfer-Encoding")
        return ", ".join(values).strip().lower() if values else None

    async def read(self) -> bytes:
        """Return some bytes of the body, b"" at its end.

        Raises:
            TransferFailed: `connection_lost`, `stalled`, `protocol_error`.
        """
        if self._response is None:
            return b""
        if self._broken is not None:
            raise self._broken
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            self._broken = translate(error, self.request.peer)
            rescued = _rescue(self._response.content)
            self.close()
            if not rescued:
                raise self._broken from error
            return rescued

    async def drain(self) -> None:
        """Throw the body away; one that is long or slow costs the connection."""
        drained = 0
        try:
            # Nobody wants these bytes, so nobody misses them.
            with contextlib.suppress(TransferFailed, TimeoutError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    while drained <= _DRAIN_BYTES and (data := await self.read()):
                        drained += len(data)
        finally:
            self.close()

    def close(self) -> None:
        """Give up the rest of the body, and the connection if there is any rest."""
        if self._response is not None:
            self._response.close()


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


def _rescue(content: aiohttp.StreamReader) -> bytes:
    """Return what had arrived before the body broke off: aiohttp keeps it back after an error."""
    content._exception = None
    return content.read_nowait()


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


def _place(url: URL) -> str:
    return f"{url.host_subcomponent}:{url.port}"
