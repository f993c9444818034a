"""The OpenAPI document: it has every route, every answer keeps to it, no input breaks a route."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from requests.adapters import HTTPAdapter
from schemathesis.specs.openapi.checks import positive_data_acceptance
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from tests.support.api import TIMERS, Api, Reply, running_api
from tests.support.fake_service import FakeService
from transferd.api.openapi import document
from transferd.api.routes import ROUTES, Access, Route
from transferd.api.server import application
from transferd.model.caller import Caller
from transferd.model.errors import Conflict, NotFound, StoreDamaged
from transferd.model.job import Job, JobId, JobSpec
from transferd.model.limits import Limits
from transferd.model.notices import NoticeKind, Page
from transferd.wire.requests import parse_creation

DOCUMENT = document(ROUTES)
FILE = {"remote": "https://host/a.iso", "local": "/home/alice/a.iso"}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/jobs"): {"name": "a job", "files": [FILE]},
    ("PATCH", "/v1/jobs/{id}"): {"name": "another"},
    ("POST", "/v1/jobs/{id}/files"): {"files": [FILE | {"local": "/home/alice/b.iso"}]},
    ("POST", "/v1/notices/ack"): {"numbers": [1, 2]},
    ("PUT", "/v1/jobs/{id}/credentials/{target}/{scheme}"): {
        "username": "a",
        "password": "hunter2",
    },
}
EVERY = [pytest.param(route, id=f"{route.method} {route.path}") for route in ROUTES]


async def _no_events() -> AsyncIterator[Page]:
    return
    yield


class Endless(FakeService):
    """Has every job that anybody asks for; its event streams end at once."""

    @asynccontextmanager
    async def subscribe(
        self,
        caller: Caller,
        *,
        job_id: JobId | None,
        kinds: NoticeKind,
        after: int | None,
        all_users: bool = False,
    ) -> AsyncIterator[AsyncIterator[Page]]:
        """Tell nothing."""
        yield _no_events()

    def _job(self, caller: Caller, job_id: JobId) -> Job:
        if job_id not in self.jobs:
            self._make(caller, a_spec(job_id))
        return super()._job(caller, job_id)


# ── the document ───────────────────────────────────────────────────────────────────────────


async def test_the_document_has_every_route_and_no_other() -> None:
    """Both are made from one table; the server must not have a route beside it."""
    async with running_api() as api:
        app = application(api.server._context, ROUTES)
        served = {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    described = {
        (method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item
    }
    assert served == described == {(route.method, route.path) for route in ROUTES}


async def test_the_document_is_served_as_it_is_made() -> None:
    """What is tested here is what callers get."""
    async with running_api() as api:
        reply = await api.send("GET", "/v1/openapi.json")
    assert reply.json == DOCUMENT


def test_every_name_in_the_document_is_defined_and_unique() -> None:
    """References lead somewhere; operations have names of their own."""
    text = repr(DOCUMENT)
    wanted = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert wanted <= set(DOCUMENT["components"]["schemas"])
    names = re.findall(r"'operationId': '(\w+)'", text)
    assert len(names) == len(set(names)) == len(ROUTES)
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_no_answer_has_room_for_a_secret() -> None:
    """A field that does not exist cannot leak."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name.endswith("Answer"):
            assert not {"password", "secret", "value"} & set(schema["properties"])


@pytest.mark.parametrize("route", EVERY)
def test_access_is_told_for_every_route(route: Route) -> None:
    """Only what says nothing of anybody's jobs is open to all."""
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    assert operation["x-access"] == route.access.value
    open_to_all = route.path.rpartition("/")[2] in {"health", "version", "openapi.json"}
    assert (route.access is Access.OPEN) == open_to_all
    assert (route.access is Access.OWNER) == ("{" in route.path)


# ── answers ────────────────────────────────────────────────────────────────────────────────


def a_spec(job_id: JobId) -> JobSpec:
    """A job with an id."""
    body = b'{"name":"a job","id":"%s"}' % job_id.encode()
    return parse_creation(body, Limits(), TIMERS).specs[0]


async def provoke(api: Api, route: Route, status: int) -> Reply:
    """Make a route answer with a status."""
    service, body = api.service, BODIES.get((route.method, route.path))
    job = await api.create(files=[FILE], credentials=[{"scheme": "basic", **a_credential()}])
    notice = await service.post(NoticeKind.ERROR, JobId(job["id"]))
    names = {"id": job["id"], "target": "server", "scheme": "basic", "number": notice.number}
    path, keywords = route.path.format(**names), {}
    match status:
        case 200 if route.path == "/v1/jobs" and body:
            body = body | {"id": str(uuid4())}
            await api.send("POST", path, body)
        case 400:
            path += "?no=such"
        case 404:
            path += f"?job={uuid4()}" if route.path == "/v1/events" else ""
            service.fault = NotFound("job_not_found", "there is no such job")
        case 409:
            service.fault = Conflict("invalid_state", "not now")
            api.admin.foreign_key = True
        case 413:
            body = {"name": "x" * 20_000}
        case 415:
            body, keywords = None, {"data": b"name=x"}
        case 403 | 500 | 503:
            fail_identity(api, status)
    return await api.send(route.method, path, body, **keywords)


def a_credential() -> dict[str, str]:
    """A user and a password."""
    return {"username": "alice", "password": "hunter2"}


def fail_identity(api: Api, status: int) -> None:
    """Fail at what every route begins with."""
    context = api.server._context
    if status == 403:
        object.__setattr__(context, "serves", lambda uid: False)
        return
    fault = StoreDamaged("page 7") if status == 503 else RuntimeError("hunter2")

    def fail(_request: object) -> Caller:
        raise fault

    setattr(context.identities, "caller", fail)  # noqa: B010


STATUSES = [
    pytest.param(route, status, id=f"{route.method} {route.path} {status}")
    for route in ROUTES
    for status in (*(outcome.status for outcome in route.outcomes), *route.problems)
]


@pytest.mark.parametrize(("route", "status"), STATUSES)
async def test_every_documented_answer_can_be_had_and_validates(route: Route, status: int) -> None:
    """No status stands in the document for show, and each body is what its schema says."""
    async with running_api(service=Endless(), limits=Limits(body_bytes=10_000)) as api:
        reply = await provoke(api, route, status)
    assert reply.status == status, reply.body
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    content = operation["responses"][str(status)]["content"]
    media_type = reply.headers["Content-Type"].partition(";")[0]
    assert list(content) == [media_type]
    schema = content[media_type]["schema"]
    if schema:
        jsonschema_rs.validate(schema | {"components": DOCUMENT["components"]}, reply.json)
    if status >= 400:
        assert reply.code


# ── fuzzing ────────────────────────────────────────────────────────────────────────────────


class UnixConnection(HTTPConnection):
    """Goes to a Unix socket, whatever the host is."""

    path = ""

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class UnixAdapter(HTTPAdapter):
    """Sends requests to one Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = type("Connection", (UnixConnection,), {"path": path})
        self._pool = HTTPConnectionPool("transferd")
        self._pool.ConnectionCls = connection

    def get_connection_with_tls_context(
        self, *_args: object, **_kwargs: object
    ) -> HTTPConnectionPool:
        """Return the one pool."""
        return self._pool

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()
        super().close()


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """A caller of a server that runs in a thread of its own."""
    paths: list[str] = []
    started, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running_api(service=Endless()) as api:
            paths.append(str(api.path))
            started.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    with requests.Session() as http:
        http.mount("http://transferd", UnixAdapter(paths[0]))
        yield http
    over.set()
    thread.join()


schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_input_breaks_a_route(case: schemathesis.Case[Any], session: requests.Session) -> None:
    """Whatever comes in, the answer is documented, keeps to its schema, and is no fault."""
    response = case.call(base_url="http://transferd", session=session)
    # Not every rule stands in the schema: a URL with a space is a string all the same.
    case.validate_response(response, excluded_checks=[positive_data_acceptance])
