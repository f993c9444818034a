"""What is made of a response, without a network; test_exchange.py is the twin with one."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from tests.support.replies import replying
from transferd.model.errors import TransferFailed
from transferd.model.job import Validator
from transferd.transfer.resume import Response
from transferd.wire.link import WorkerSettings
from transferd.worker.connection import Connector
from transferd.worker.exchange import Exchange
from transferd.worker.inquiry import read_response, read_retry_after
from transferd.worker.request import Request

NOW = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
REQUEST = Request(url="https://files.example.org/a?sig=s", authorization="Basic c2VjcmV0")


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    """An exchange that never connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made = Exchange(Connector(), context, WorkerSettings(user_agent="transferd/test"))
    yield made
    await made.close()


async def test_every_fact_that_decides_is_read(exchange: Exchange) -> None:
    """The judgement sees the fields as they came."""
    headers = (
        ("ETag", '"v1"'),
        ("Last-Modified", "Mon, 05 Jan 2026 10:00:00 GMT"),
        ("Date", "Tue, 06 Jan 2026 10:00:00 GMT"),
        ("Content-Range", "bytes 5-9/10"),
        ("Content-Length", "5"),
        ("Content-Type", "text/plain"),
    )
    with replying(206, headers, b"56789"):
        answer = await exchange.send(REQUEST)
        assert read_response(answer) == Response(
            status=206,
            validator=Validator(
                etag='"v1"',
                last_modified="Mon, 05 Jan 2026 10:00:00 GMT",
                date="Tue, 06 Jan 2026 10:00:00 GMT",
            ),
            content_range="bytes 5-9/10",
            content_length=5,
            content_type="text/plain",
        )
        assert await answer.read() == b"56789"
        assert await answer.read() == b""


@pytest.mark.parametrize(
    ("value", "length"), [("12", 12), ("", None), ("-1", None), ("1e3", None), ("٣", None)]
)
async def test_a_length_is_digits_or_none(
    exchange: Exchange, value: str, length: int | None
) -> None:
    """What is no number is not taken for one."""
    with replying(200, (("Content-Length", value),)):
        assert read_response(await exchange.send(REQUEST)).content_length == length


async def test_a_field_that_came_twice_is_not_taken_for_one_of_them(exchange: Exchange) -> None:
    """Two entity tags are none: joined, they match nothing that was ever recorded."""
    with replying(200, (("ETag", '"a"'), ("ETag", '"b"'))):
        answer = await exchange.send(REQUEST)
        assert answer.values("etag") == ('"a"', '"b"')
        assert read_response(answer).validator.etag == '"a", "b"'


@pytest.mark.parametrize(("coding", "chunked"), [("Chunked", True), ("identity", False)])
async def test_chunked_framing_is_seen(exchange: Exchange, coding: str, chunked: bool) -> None:
    """The end of a chunked body can be trusted without a length."""
    with replying(200, (("Transfer-Encoding", coding),)):
        assert read_response(await exchange.send(REQUEST)).transfer_chunked is chunked


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("7200", 7200.0),
        ("99999", 86_400.0),
        ("Mon, 05 Jan 2026 10:01:40 GMT", 100.0),
        ("Mon, 05 Jan 2026 09:00:00 GMT", 0.0),
        ("in a while", None),
    ],
)
async def test_retry_after_is_read_and_capped(
    exchange: Exchange, value: str, seconds: float | None
) -> None:
    """Seconds or a date, never more than a day, never before now."""
    with replying(503, (("Retry-After", value),)):
        answer = await exchange.send(REQUEST)
        assert read_retry_after(answer, NOW) == seconds


async def test_a_body_that_nobody_wants_is_read_away(exchange: Exchange) -> None:
    """Draining ends at the end of the body, and may be repeated."""
    with replying(401, (("WWW-Authenticate", "Basic"),), b"x" * 100_000):
        answer = await exchange.send(REQUEST)
        await answer.drain()
        await answer.drain()
    assert answer.status == 401


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (aiohttp.ServerDisconnectedError(), "connection_lost"),
        (aiohttp.SocketTimeoutError("read"), "stalled"),
        (aiohttp.ConnectionTimeoutError("connect"), "connect_timeout"),
        (ConnectionResetError(104, "reset"), "connection_lost"),
        (UnicodeError("label too long"), "name_not_resolved"),
    ],
)
async def test_what_the_client_raises_becomes_a_failure(
    exchange: Exchange, raised: Exception, code: str
) -> None:
    """Translated once, at this border; the message has neither query nor credential."""
    with replying(exception=raised), pytest.raises(TransferFailed) as caught:
        await exchange.send(REQUEST)
    assert caught.value.failure.code == code
    assert "files.example.org:443" in str(caught.value)
    assert "sig" not in str(caught.value)


def test_a_request_does_not_show_its_secrets() -> None:
    """Neither credentials nor headers are in a repr."""
    request = Request(
        url="http://h/",
        headers=(("X-Key", "hunter2"),),
        authorization="Basic hunter2",
        proxy_authorization="Basic hunter2",
    )
    assert "hunter2" not in repr(request)
