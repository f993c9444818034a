"""Bad input over the socket: each kind has its name, makes nothing, and stops nobody else."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.api import Api, running_api
from transferd.model.job import JobId
from transferd.model.limits import Limits

LIMITS = Limits(body_bytes=100_000)
JOB_ID = JobId("0123abcd-0000-4000-8000-0123456789ab")
JOB = f"/v1/jobs/{JOB_ID}"
FILE = {"remote": "http://host/a", "local": "/tmp/a"}
CANARY = "hunter2-canary"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A running server with one job."""
    async with running_api(limits=LIMITS) as running:
        await running.create(id=JOB_ID)
        running.service.callers.clear()
        yield running


async def assert_unharmed(api: Api) -> None:
    """Nothing was made or changed, and the next request is served."""
    assert list(api.service.jobs) == [JOB_ID]
    assert api.service.jobs[JOB_ID].settings.name == "a job"
    assert api.service.files_of[JOB_ID] == []
    assert api.service.passwords == {}
    reply = await api.send("GET", JOB)
    assert (reply.status, reply.json["name"]) == (200, "a job")


def job(**body: Any) -> dict[str, Any]:
    """The body of a new job."""
    return {"name": "new", **body}


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        # names that nobody knows
        ("POST", "/v1/jobs", job(type="upload"), "unknown_type"),
        ("POST", "/v1/jobs", job(priority="urgent"), "unknown_priority"),
        ("POST", "/v1/jobs", job(on_error="retry"), "unknown_on_error"),
        ("POST", "/v1/jobs", job(notify={"kinds": ["x"]}), "unknown_kind"),
        ("POST", "/v1/jobs", job(credentials=[{"scheme": "x"}]), "unknown_scheme"),
        ("POST", "/v1/jobs", job(colour="red"), "unknown_field"),
        ("PUT", f"{JOB}/credentials/server/kerberos", {}, "unknown_scheme"),
        ("PUT", f"{JOB}/credentials/origin/basic", {}, "unknown_target"),
        ("DELETE", f"{JOB}/credentials/origin/basic", None, "unknown_target"),
        ("GET", "/v1/jobs?state=paused", None, "unknown_state"),
        ("GET", "/v1/jobs?state=", None, "unknown_state"),
        ("GET", "/v1/jobs?states=queued", None, "unknown_parameter"),
        ("POST", f"{JOB}/resume?force=1", None, "unknown_parameter"),
        ("GET", "/v1/events?kinds=done", None, "unknown_kind"),
        # ids, numbers, cursors
        ("GET", "/v1/jobs/1", None, "id_invalid"),
        ("GET", "/v1/jobs/%00", None, "id_invalid"),
        ("GET", "/v1/jobs/..%2F..%2Fetc", None, "id_invalid"),
        ("GET", "/v1/events?job=1", None, "id_invalid"),
        ("POST", "/v1/jobs", job(id="x"), "id_invalid"),
        ("POST", "/v1/notices/x/ack", None, "value_invalid"),
        ("POST", "/v1/notices/-1/ack", None, "value_invalid"),
        ("POST", f"/v1/notices/{2**63}/ack", None, "value_invalid"),
        ("GET", "/v1/jobs?limit=0", None, "value_invalid"),
        ("GET", "/v1/jobs?limit=1001", None, "value_invalid"),
        ("GET", "/v1/jobs?limit=ten", None, "value_invalid"),
        ("GET", "/v1/jobs?limit=1&limit=2", None, "value_invalid"),
        ("GET", "/v1/jobs?all_users=maybe", None, "value_invalid"),
        ("GET", "/v1/jobs?after=-1", None, "cursor_invalid"),
        ("GET", f"/v1/jobs?after={2**63}", None, "cursor_invalid"),
        ("GET", f"{JOB}/files?after=٣", None, "cursor_invalid"),
        ("GET", "/v1/events?after=x", None, "cursor_invalid"),
        # files
        ("POST", f"{JOB}/files", FILE | {"local": "a"}, "path_not_absolute"),
        ("POST", f"{JOB}/files", FILE | {"local": "/tmp/../etc/passwd"}, "path_invalid"),
        ("POST", f"{JOB}/files", FILE | {"local": "/tmp/a\0"}, "path_invalid"),
        ("POST", f"{JOB}/files", FILE | {"local": "/" + "x" * 10_000}, "path_too_long"),
        ("POST", f"{JOB}/files", FILE | {"remote": "file:///etc/passwd"}, "url_scheme_unsupported"),
        ("POST", f"{JOB}/files", FILE | {"remote": "http://h/\0"}, "url_invalid"),
        ("POST", f"{JOB}/files", FILE | {"remote": "http://h/\r\nX: y"}, "url_invalid"),
        ("POST", f"{JOB}/files", FILE | {"remote": "http://h/" + "x" * 10_000}, "url_too_long"),
        ("POST", f"{JOB}/files", FILE | {"checksum": "sha256:0"}, "checksum_invalid"),
        ("POST", f"{JOB}/files", {"files": [FILE, FILE]}, "duplicate_destination"),
        ("POST", "/v1/jobs", job(files=[FILE, FILE]), "duplicate_destination"),
        # texts
        ("POST", "/v1/jobs", job(name="x" * 10_000), "name_too_long"),
        ("POST", "/v1/jobs", job(name="a\0"), "name_invalid"),
        ("PATCH", JOB, {"name": "x" * 10_000}, "name_too_long"),
        ("PATCH", JOB, {"description": "x" * 10_000}, "description_too_long"),
        ("POST", "/v1/jobs", job(headers={"X": "a\r\nHost: b"}), "header_invalid"),
        ("POST", "/v1/jobs", job(headers={"Host": "b"}), "header_invalid"),
        ("POST", "/v1/jobs", job(notify={"command": ["rm"]}), "command_invalid"),
        ("POST", "/v1/jobs", job(proxy="socks5://h:1"), "proxy_invalid"),
        ("PUT", f"{JOB}/credentials/server/basic", {"username": "a"}, "credentials_incomplete"),
        ("PUT", f"{JOB}/credentials/server/passport", {}, "credentials_incomplete"),
        ("PUT", f"{JOB}/credentials/proxy/negotiate", {"password": "a"}, "credentials_incomplete"),
        ("PATCH", JOB, {"negotiate": {"ccache": "MEMORY:"}}, "ccache_invalid"),
        ("PATCH", JOB, {"passport": {"login_host": "a/b"}}, "login_host_invalid"),
        # types
        ("POST", "/v1/jobs", [], "wrong_type"),
        ("POST", "/v1/jobs", {"jobs": {}}, "wrong_type"),
        ("POST", "/v1/jobs", job(files="/tmp/a"), "wrong_type"),
        ("POST", "/v1/jobs", job(start="yes"), "wrong_type"),
        ("PATCH", JOB, {"name": None}, "wrong_type"),
        ("PATCH", JOB, {"name": "b", "streams": 0}, "value_invalid"),
        ("POST", "/v1/jobs", {}, "missing_field"),
        ("POST", "/v1/jobs", {"jobs": [{"name": "a"}, {}]}, "missing_field"),
    ],
)
async def test_bad_input_has_a_name_and_makes_nothing(
    api: Api, method: str, path: str, body: object, code: str
) -> None:
    """Each flaw is a 400 with its own code, found before the service is asked."""
    reply = await api.send(method, path, body)
    assert (reply.status, reply.code) == (400, code)
    assert len(reply.body) < 1000
    assert api.service.callers == []
    await assert_unharmed(api)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"name":"a"',
        b'{"name":"\xff"}',
        b'{"name":"a","name":"b"}',
        b"\0",
        b"[" * 90_000,
    ],
)
async def test_what_is_not_json_is_malformed(api: Api, raw: bytes) -> None:
    """Whatever is wrong with it."""
    headers = {"Content-Type": "application/json"}
    reply = await api.send("POST", "/v1/jobs", data=raw, headers=headers)
    assert (reply.status, reply.code) in {(400, "malformed_json"), (400, "wrong_type")}
    await assert_unharmed(api)


async def test_too_many_files_are_refused_together() -> None:
    """100,001 files make no job, and the message is short."""
    files = [{"remote": "http://host/a", "local": f"/tmp/{number}"} for number in range(100_001)]
    body = io.BytesIO(json.dumps(job(files=files)).encode())
    headers = {"Content-Type": "application/json"}
    async with running_api() as api:
        reply = await api.send("POST", "/v1/jobs", data=body, headers=headers)
        assert (reply.status, reply.code) == (400, "too_many_files")
        assert api.service.jobs == {}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "route_not_found"),
        ("GET", "/v1", 404, "route_not_found"),
        ("GET", "/v1/jobs/", 404, "route_not_found"),
        ("GET", "/v2/jobs", 404, "route_not_found"),
        ("GET", "//v1/jobs", 404, "route_not_found"),
        ("GET", f"/v1/jobs/{JOB_ID[:-1]}0", 404, "job_not_found"),
        ("GET", f"/v1/events?job={JOB_ID[:-1]}0", 404, "job_not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("TRACE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", f"{JOB}/resume", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_is_said_to_be_missing(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    """A route, a job, a method."""
    reply = await api.send(method, path)
    assert (reply.status, reply.code) == (status, code)
    await assert_unharmed(api)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/json; charset=latin-1",
    ],
)
async def test_a_body_must_be_called_json(api: Api, content_type: str | None) -> None:
    """Another media type is another language."""
    field = f"Content-Type: {content_type}\r\n" if content_type else ""
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n{field}Connection: close\r\n"
    answer = await api.raw(head.encode() + b'Content-Length: 14\r\n\r\n{"name":"new"}')
    assert b" 415 " in answer
    assert b'"not_json"' in answer
    await assert_unharmed(api)


async def test_json_in_utf_8_may_say_so(api: Api) -> None:
    """The parameter has one allowed value."""
    headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    assert (await api.send("POST", "/v1/jobs", data=b'{"name":"a"}', headers=headers)).status == 201


# ── size and encoding ──────────────────────────────────────────────────────────────────────


async def test_a_body_that_says_that_it_is_too_large_is_not_read(api: Api) -> None:
    """The answer comes before the body does."""
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_unix_connection(str(api.path))
    writer.write(head + b"Content-Length: 100001\r\n\r\n")
    answer = await reader.readuntil(b"}")
    assert b" 413 " in answer
    assert b'"body_too_large"' in answer
    writer.close()
    await assert_unharmed(api)


async def test_a_body_of_unknown_size_is_read_up_to_the_limit(api: Api) -> None:
    """Chunks have no length of their own."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"name":"'
        for _ in range(200):
            yield b"x" * 1000
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    reply = await api.send("POST", "/v1/jobs", data=chunks(), headers=headers)
    assert (reply.status, reply.code) == (413, "body_too_large")
    await assert_unharmed(api)


async def test_a_body_that_unpacks_to_too_much_is_refused(api: Api) -> None:
    """The limit counts what has to be held."""
    packed = gzip.compress(b'{"name":"' + b"x" * 50_000_000 + b'"}')
    assert len(packed) < LIMITS.body_bytes
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    reply = await api.send("POST", "/v1/jobs", data=packed, headers=headers)
    assert (reply.status, reply.code) == (413, "body_too_large")
    await assert_unharmed(api)


async def test_a_broken_encoding_is_a_broken_body(api: Api) -> None:
    """What cannot be unpacked is the caller's mistake."""
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    tail = b"Content-Encoding: gzip\r\nContent-Length: 14\r\n\r\n" + b'{"name":"new"}'
    answer = await api.raw(head + tail)
    assert b" 400 " in answer
    assert b'"malformed_body"' in answer
    await assert_unharmed(api)


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x00\xa5",
        b"BREW /v1/jobs HTTP/1.1\r\n\r\n",
        b"GET /v1/jobs HTTP/9.9\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused_and_the_connection_closed(
    api: Api, request_: bytes
) -> None:
    """aiohttp answers in plain text; nobody else notices."""
    async with asyncio.timeout(5):
        answer = await api.raw(request_ + b"\r\n")
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    await assert_unharmed(api)


async def test_a_caller_that_leaves_in_the_middle_of_a_body_makes_nothing(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """A half body is no body, and no fault of the daemon's."""
    caplog.set_level(logging.DEBUG, logger="transferd")
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    _, writer = await asyncio.open_unix_connection(str(api.path))
    writer.write(head + b'Content-Length: 14\r\n\r\n{"name":')
    await writer.drain()
    await api.send("GET", "/v1/version")
    writer.close()
    await writer.wait_closed()
    await api.send("GET", "/v1/version")
    await assert_unharmed(api)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ── secrets ────────────────────────────────────────────────────────────────────────────────

SECRETS: list[dict[str, Any]] = [
    {"credentials": [{"scheme": "basic", "username": "a", "password": CANARY}]},
    {"headers": {"X-Token": CANARY}},
    {"files": [FILE | {"remote": f"http://a:{CANARY}@host/a"}]},
    {"proxy": f"http://a:{CANARY}@proxy:1"},
    # the same, each wrong in itself
    {"credentials": [{"scheme": "basic", "username": "a", "password": CANARY + "\0"}]},
    {"credentials": [{"scheme": "basic", "username": "a", "password": CANARY * 10_000}]},
    {"credentials": [{"scheme": "basic", "username": "a", "password": {CANARY: 1}}]},
    {"credentials": [{"scheme": "basic", "username": "a", "password": [CANARY]}]},
    {"credentials": [{"scheme": "basic", "password": CANARY}]},
    {"credentials": [{"scheme": "basic", "username": "a", "passwd": CANARY}]},
    {"credentials": {"password": CANARY}},
    {"credentials": [CANARY]},
    {"credentials": CANARY},
    {"credentials": [{"scheme": "ntlm", "username": None, "password": CANARY}]},
    {"credentials": [{"scheme": "passport", "username": "a", "password": CANARY + "\n"}]},
    {"passport": {"configuration_url": f"https://a:{CANARY}@h/"}},
    {"proxy": f"https://a:{CANARY}@h"},
    {"negotiate": {"password": CANARY}},
    {"password": CANARY},
    {"headers": {"X-Token": CANARY + "\r\n"}},
    {"headers": {"X-Token": [CANARY]}},
    {"headers": {"Host": CANARY}},
    {"headers": {f"Authorization: Bearer {CANARY}": ""}},
    {"headers": {"X": CANARY * 10_000}},
    {"headers": [CANARY]},
    {"files": [FILE | {"remote": f"ftp://a:{CANARY}@host/a"}]},
    {"files": [FILE | {"remote": f"http://a:{CANARY}@ho st/a"}]},
    {"files": [FILE | {"remote": f"http://a:{CANARY}@host:0/a"}]},
    {"files": [FILE | {"remote": f"http://a:{CANARY}/@host/a"}]},
    {"files": [FILE | {"remote": f"http://a:{CANARY}@host/" + "x" * 10_000}]},
    {"files": [FILE | {"remote": f"http://a:{CANARY}@host/", "local": "relative"}]},
    {"files": [FILE | {"remote": f"http://host/ä?X-Amz-Signature={CANARY}"}]},
    {"proxy": f"socks5://a:{CANARY}@proxy:1"},
    {"proxy": f"http://a:{CANARY}@proxy"},
    {"proxy": [f"http://a:{CANARY}@proxy"]},
]

FLAWS: list[dict[str, Any]] = [
    {},
    {"name": ""},
    {"priority": "urgent"},
    {"colour": "red"},
    {"start": 1},
    {"id": JOB_ID},
]


def bodies_with_secrets() -> Iterator[tuple[str, str, bytes]]:
    """Requests that hold the canary where a secret may stand, on every route that reads a body."""
    for secret in SECRETS:
        for flaw in FLAWS:
            body = {"name": "new", **secret, **flaw}
            for shape in (body, {"jobs": [body]}, {"jobs": [{"name": "a"}, body], "x": 1}):
                yield "POST", "/v1/jobs", json.dumps(shape).encode()
            yield "PATCH", JOB, json.dumps(body).encode()
        cut = json.dumps({"name": "new", **secret}).encode()[:-1]
        for path in ("/v1/jobs", f"{JOB}/files"):
            yield "POST", path, cut
        for file in secret.get("files", []):
            yield "POST", f"{JOB}/files", json.dumps(file).encode()
            yield "POST", f"{JOB}/files", json.dumps({"files": [FILE, file]}).encode()
    slot = f"{JOB}/credentials/server"
    for identity in (
        {"username": "a:b", "password": CANARY},
        {"username": None, "password": CANARY},
        {"username": "a", "password": CANARY + "\n"},
        {"username": "a", "password": [CANARY]},
        {"username": "a", "pasword": CANARY},
        {"user": "a", "password": CANARY},
    ):
        for scheme in ("basic", "digest", "passport", "none"):
            yield "PUT", f"{slot}/{scheme}", json.dumps(identity).encode()
    yield "PUT", f"{slot}/basic", f'{{"username":"a","password":"{CANARY}"'.encode()
    yield "PUT", f"{slot}/basic", f'{{"password":"{CANARY}","password":"{CANARY}"}}'.encode()


async def test_no_answer_and_no_log_ever_tells_a_secret(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither when it is accepted, nor when it or something beside it is refused."""
    caplog.set_level(logging.DEBUG)
    headers = {"Content-Type": "application/json"}
    statuses = set()
    for method, path, raw in bodies_with_secrets():
        assert CANARY.encode() in raw
        reply = await api.send(method, path, data=raw, headers=headers)
        assert CANARY.encode() not in reply.body, raw
        assert CANARY not in str(reply.headers)
        assert reply.status < 500, raw
        statuses.add(reply.status)
    assert {200, 201, 400, 409, 413} >= statuses >= {201, 400, 409}
    for text in (*(record.getMessage() for record in caplog.records), caplog.text):
        assert CANARY not in text
    for record in caplog.records:
        assert CANARY not in repr(vars(record))


async def test_a_body_that_is_taken_for_a_request_is_not_logged(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """With a wrong Content-Length the rest of a body is read as the next request."""
    caplog.set_level(logging.DEBUG)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    await api.raw(head + b"Content-Length: 2\r\n\r\n{}" + f'{{"password":"{CANARY}"}}'.encode())
    records = [record for record in caplog.records if record.name.startswith("transferd")]
    assert "api.malformed_request" in [record.getMessage() for record in records]
    for record in records:
        assert CANARY not in repr(vars(record))
    assert not re.search(CANARY, caplog.text)
