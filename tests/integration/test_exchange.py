"""One request and its answer, on a real origin that misbehaves on demand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import pytest

from tests.support.exchanges import body_of, failure, open_exchange
from tests.support.origin import (
    Document,
    Fault,
    Origin,
    Seen,
    Version,
    Wire,
    fixed,
    raw_answer,
    redirect,
)
from tests.support.tls import Authority
from transferd.model.errors import TransferFailed
from transferd.wire.link import WorkerSettings
from transferd.worker import faults
from transferd.worker.request import Request
from transferd.worker.trust import Trust

QUICK = WorkerSettings(user_agent="transferd/test", connect_timeout=0.2, stall_window=0.2)


@pytest.fixture
def trust() -> Iterator[Trust]:
    """TLS contexts, loaded in a thread."""
    with ThreadPoolExecutor(1) as executor:
        yield Trust(executor)


async def test_the_request_is_a_plain_get_with_nothing_added(origin: Origin) -> None:
    """GET, our own user agent, identity coding, no cookies, no credentials."""
    origin.pages["/a"] = fixed(200, [("Set-Cookie", "id=1")], b"hello")
    async with open_exchange() as exchange:
        for _ in range(2):
            answer = await exchange.send(Request(url=origin.url("/a")))
            assert (answer.status, await body_of(answer)) == (200, b"hello")
    for seen in origin.seen:
        assert dict(seen.headers) == {
            "host": f"127.0.0.1:{origin.port}",
            "user-agent": "transferd/test",
            "accept": "*/*",
            "accept-encoding": "identity",
        }
    assert origin.connections == 1


async def test_a_url_goes_out_byte_for_byte(origin: Origin) -> None:
    """A signed URL that is quoted again is another URL."""
    target = "/a%2fb/~c%7E;p=1?sig=a%2Bb+c%3d&x=%C3%BC&empty="
    origin.pages["/a%2fb/~c%7E;p=1"] = fixed(200)
    async with open_exchange() as exchange:
        answer = await exchange.send(Request(url=origin.url(target) + "#fragment"))
        await answer.drain()
    assert [seen.target for seen in origin.seen] == [target]
    assert answer.request.target == target


async def test_the_owners_headers_replace_ours_but_not_the_coding(origin: Origin) -> None:
    """A user agent of the owner's is sent in place of ours; bodies are asked for as they are."""
    headers = (("user-agent", "mine"), ("X-Key", "k"), ("accept-encoding", "gzip"))
    async with open_exchange() as exchange:
        await (await exchange.send(Request(url=origin.url("/"), headers=headers))).drain()
    (seen,) = origin.seen
    sent = [pair for pair in seen.headers if pair[0] in ("user-agent", "x-key", "accept-encoding")]
    assert sorted(sent) == [("accept-encoding", "identity"), ("user-agent", "mine"), ("x-key", "k")]


async def test_redirects_and_encodings_are_left_to_others(origin: Origin) -> None:
    """An exchange is one hop, and its body is what was on the wire."""
    origin.pages["/from"] = redirect("/to")
    origin.pages["/gz"] = fixed(200, [("Content-Encoding", "gzip")], b"not really gzip")
    async with open_exchange() as exchange:
        answer = await exchange.send(Request(url=origin.url("/from")))
        await answer.drain()
        encoded = await exchange.send(Request(url=origin.url("/gz")))
        assert await body_of(encoded) == b"not really gzip"
    assert answer.status == 302
    assert answer.headers["Location"] == "/to"
    assert len(origin.seen) == 2


async def test_answers_over_one_connection_have_one_identity(origin: Origin) -> None:
    """Connection-bound schemes can tell whether two answers came the same way."""
    origin.pages["/close"] = fixed(200, [("Connection", "close")])
    identities = []
    async with open_exchange() as exchange:
        for path in ("/", "/", "/close", "/"):
            answer = await exchange.send(Request(url=origin.url(path)))
            identities.append(answer.connection)
            await answer.drain()
    assert identities[0] == identities[1] == identities[2]
    assert identities[3] not in identities[:3]


@pytest.mark.parametrize(("size", "connections"), [(1000, 1), (64 * 1024, 1), (3_000_000, 2)])
async def test_a_short_unwanted_body_keeps_its_connection(
    origin: Origin, size: int, connections: int
) -> None:
    """What nobody wants is read up to 64 KiB; more costs the connection."""
    origin.pages["/401"] = fixed(401, body=b"x" * size)
    async with open_exchange() as exchange:
        await (await exchange.send(Request(url=origin.url("/401")))).drain()
        await (await exchange.send(Request(url=origin.url("/")))).drain()
    assert origin.connections == connections


async def test_a_refused_connection_is_named() -> None:
    """connection_refused says who was asked, without path and query."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        async with open_exchange() as exchange:
            failed = await failure(exchange, Request(url=f"http://127.0.0.1:{port}/p?token=s"))
    assert failed.failure.code == "connection_refused"
    assert str(failed) == f"cannot reach 127.0.0.1:{port}: the connection was refused"


async def test_a_name_that_does_not_resolve_is_named() -> None:
    """name_not_resolved is transient: names come back."""
    async with open_exchange() as exchange:
        failed = await failure(exchange, Request(url="http://nowhere.invalid/f?token=s"))
    assert failed.failure.code == "name_not_resolved"
    assert str(failed) == "cannot reach nowhere.invalid:80: the name does not resolve"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "connection_lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "connection_lost"),
        (b"220 mail.example.org ESMTP\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "protocol_error"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "header_too_large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "connection_lost"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "connection_lost",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
            "protocol_error",
        ),
    ],
    ids=[
        "nothing",
        "half a head",
        "another protocol",
        "a length that is none",
        "a huge header",
        "a short body",
        "a chunked body without end",
        "chunks that are none",
    ],
)
async def test_a_broken_answer_is_a_failure_with_a_code(
    origin: Origin, data: bytes, code: str
) -> None:
    """Whatever a server sends, the outcome is data, and the message has no byte of the server's."""
    origin.pages["/"] = raw_answer(data)
    async with open_exchange() as exchange:
        failed = await failure(exchange, Request(url=origin.url("/?token=s")))
    assert failed.failure.code == code
    assert "token" not in str(failed)
    assert "ESMTP" not in str(failed)


async def test_a_large_header_within_the_limit_is_read(origin: Origin) -> None:
    """Kerberos challenges exceed 8 KiB; the limit is the configured one."""
    origin.pages["/"] = fixed(401, [("WWW-Authenticate", "Negotiate " + "A" * 40_000)])
    async with open_exchange() as exchange:
        answer = await exchange.send(Request(url=origin.url("/")))
        await answer.drain()
    assert len(answer.values("WWW-Authenticate")[0]) == 40_010


async def test_a_server_that_never_answers_is_stalled(origin: Origin) -> None:
    """Silence is bounded by the stall window, before the headers as after them."""

    async def silent(seen: object, wire: Wire) -> None:
        await asyncio.Event().wait()

    origin.pages["/"] = silent
    origin.pages["/late"] = Document(version=Version(body=b"x" * 9), faults=deque([Fault(stall=4)]))
    async with open_exchange(QUICK) as exchange:
        assert (await failure(exchange, Request(url=origin.url("/")))).failure.code == "stalled"
        late = await failure(exchange, Request(url=origin.url("/late")))
    assert late.failure.code == "stalled"


async def test_headers_that_never_end_are_stalled(origin: Origin) -> None:
    """One byte at a time is no answer, however often one comes; nor are interim answers."""

    async def dribbling(seen: Seen, wire: Wire) -> None:
        await wire.raw(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            await wire.raw(b"x")
            await asyncio.sleep(0.02)

    async def promising(seen: Seen, wire: Wire) -> None:
        while True:
            await wire.raw(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.02)

    origin.pages["/dribbling"], origin.pages["/promising"] = dribbling, promising
    async with open_exchange(QUICK) as exchange:
        for path in ("/dribbling", "/promising"):
            failed = await failure(exchange, Request(url=origin.url(path)))
            assert failed.failure.code == "stalled"


async def test_a_slow_unwanted_body_costs_its_connection_not_our_time(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A challenge whose body drips is given up after a moment."""
    monkeypatch.setattr("transferd.worker.answer.DRAIN_SECONDS", 0.1)
    dripping = Document(version=Version(body=b"x" * 1000), drip=0.02)
    origin.pages["/401"] = dripping
    async with open_exchange() as exchange, asyncio.timeout(2):
        await (await exchange.send(Request(url=origin.url("/401")))).drain()
        await (await exchange.send(Request(url=origin.url("/")))).drain()
    assert origin.connections == 2


async def test_a_connection_that_takes_too_long_is_given_up() -> None:
    """A full backlog lets nobody in: connect_timeout."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        async with open_exchange(QUICK) as exchange:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            failed = await failure(exchange, Request(url=url))
    assert failed.failure.code == "connect_timeout"


async def test_only_certificates_of_the_named_ca_are_trusted(tmp_path: Path) -> None:
    """cacert replaces the system's CAs; an unknown CA is tls_failed, and nothing is sent."""
    authority = Authority(tmp_path)
    async with Origin(tls=authority.server()).running() as secure:
        secure.pages["/"] = fixed(200, body=b"over tls")
        async with open_exchange(cacert=authority.cacert) as exchange:
            answer = await exchange.send(Request(url=secure.url("/")))
            assert await body_of(answer) == b"over tls"
        async with open_exchange() as exchange:
            failed = await failure(exchange, Request(url=secure.url("/")))
    assert failed.failure.code == "tls_failed"
    assert str(failed).startswith(f"cannot trust the certificate of 127.0.0.1:{secure.port}: ")
    assert len(secure.seen) == 1


async def test_a_server_without_tls_is_named(origin: Origin) -> None:
    """Plain text where TLS was expected is tls_failed, for the owner to mend."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(page, "127.0.0.1")
    async with server, open_exchange() as exchange:
        port = server.sockets[0].getsockname()[1]
        failed = await failure(exchange, Request(url=f"https://127.0.0.1:{port}/"))
    assert failed.failure.code == "tls_failed"


async def test_a_ca_file_that_changed_is_read_again(trust: Trust, tmp_path: Path) -> None:
    """An owner mends the file and resumes; an unchanged one is loaded once."""
    first = Authority(tmp_path)
    context = await trust.context(first.cacert)
    assert await trust.context(first.cacert) is context
    second = Authority(tmp_path)
    assert await trust.context(second.cacert) is not context


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), ("no pem", "holds no")])
async def test_an_unusable_ca_file_is_named(
    trust: Trust, tmp_path: Path, content: str | None, reason: str
) -> None:
    """A cacert that cannot be used is tls_failed, not a fault of the worker."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TransferFailed, match=reason) as caught:
        await trust.context(str(path))
    assert caught.value.failure.code == "tls_failed"


def _every(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _every(child)


@pytest.mark.parametrize("kind", sorted(set(_every(aiohttp.ClientError)), key=str))
def test_every_error_of_aiohttps_has_a_code(kind: type[Exception]) -> None:
    """A new exception in a new aiohttp must not become a fault of the worker unnoticed."""
    error = kind.__new__(kind)
    code = faults.translate(error, faults.Peer("h:80", "p:3128")).failure
    assert code.kind is not None
    fallback = (aiohttp.ClientError,)
    first = next(entry for entry, _ in faults._TABLE if isinstance(error, entry))
    assert (first in fallback) == (kind in _WITHOUT_OWN_LINE)


#: Classes that no request of ours can raise.
_WITHOUT_OWN_LINE = {
    aiohttp.ClientError,
    aiohttp.client_exceptions.RedirectClientError,
    aiohttp.client_exceptions.NonHttpUrlClientError,
    aiohttp.client_exceptions.NonHttpUrlRedirectClientError,
    aiohttp.client_exceptions.UploadAbortedError,
}
