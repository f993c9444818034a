"""The event stream over a real socket: replay, ids, gaps, heartbeats, slow and leaving callers."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.support.api import TIMERS, Api, Stranger, running_api
from tests.support.fake_service import FakeService
from transferd.model.caller import Caller
from transferd.model.errors import StoreDamaged
from transferd.model.job import JobId
from transferd.model.limits import Limits
from transferd.model.notices import NoticeKind, Page

Kind = NoticeKind


@dataclass(frozen=True, slots=True)
class Heard:
    """One event, as a parser of event streams hands it over."""

    number: int | None
    kind: str
    data: Any


class Listener:
    """Reads a stream event by event; comments are left out."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> list[str]:
        """Return the lines up to the next empty one."""
        lines: list[str] = []
        while line := (await self.response.content.readline()).decode().removesuffix("\n"):
            lines.append(line)
        return lines

    async def next(self) -> Heard:
        """Return the next event."""
        async with asyncio.timeout(10):
            while not (
                fields := dict(line.split(": ", 1) for line in await self.block() if line[0] != ":")
            ):
                pass
        number = int(fields["id"]) if "id" in fields else None
        return Heard(number, fields["event"], json.loads(fields["data"]))

    async def rest(self) -> bytes:
        """Return what comes until the stream ends."""
        async with asyncio.timeout(10):
            return await self.response.content.read()


@asynccontextmanager
async def listening(api: Api, query: str = "", **headers: str) -> AsyncIterator[Listener]:
    """Open a stream; it is subscribed when the block begins."""
    before = api.service.listeners
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.session.get(f"/v1/events{query}", headers=fields) as response:
        assert response.status == 200, await response.read()
        await api.service.listening(before + 1)
        yield Listener(response)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A running server."""
    async with running_api() as running:
        yield running


async def _events(error: Exception | None = None) -> AsyncIterator[Page]:
    """No events, then perhaps an error."""
    if error is not None:
        raise error
    return
    yield


async def new_job(api: Api) -> JobId:
    """Make a job."""
    return JobId((await api.create())["id"])


# ── what is heard ──────────────────────────────────────────────────────────────────────────


async def test_a_notice_is_heard_with_its_number_and_its_job(api: Api) -> None:
    """The data is all that a listener needs."""
    job_id = await new_job(api)
    async with listening(api) as listener:
        assert listener.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert listener.response.headers["Cache-Control"] == "no-store"
        notice = await api.service.post(Kind.TRANSFERRED, job_id, deliveries=1)
        heard = await listener.next()
    assert (heard.number, heard.kind) == (notice.number, "transferred")
    assert heard.data["number"] == notice.number
    assert heard.data["job"]["id"] == job_id
    assert heard.data["job"]["blockers"][0]["code"] == "suspended"
    assert (heard.data["acknowledge"], heard.data["deliveries"]) == (True, 1)


async def test_a_name_cannot_forge_an_event(api: Api) -> None:
    """JSON escapes line breaks, so that an event is always one line of data."""
    job = await api.create(description="x\n\nid: 99\nevent: ended\ndata: {}\n\n")
    async with listening(api) as listener:
        await api.service.post(Kind.ERROR, JobId(job["id"]))
        heard = await listener.next()
    assert (heard.number, heard.kind) == (1, "error")
    assert heard.data["job"]["description"] == job["description"]


async def test_by_default_ends_and_errors_are_heard(api: Api) -> None:
    """Progress only on request."""
    job_id = await new_job(api)
    async with listening(api) as listener:
        for kind in (Kind.FILE_TRANSFERRED, Kind.TRANSFERRED, Kind.ERROR, Kind.ENDED):
            await api.service.post(kind, job_id, file=0)
        heard = [await listener.next() for _ in range(3)]
    assert [each.kind for each in heard] == ["transferred", "error", "ended"]
    assert [each.data["acknowledge"] for each in heard] == [True, True, False]


async def test_kinds_choose_what_is_heard(api: Api) -> None:
    """Names in any case, separated by commas or repeated."""
    job_id = await new_job(api)
    async with listening(api, "?kinds=File_Transferred&kinds=ended,error") as listener:
        for kind in (Kind.TRANSFERRED, Kind.FILE_TRANSFERRED, Kind.ENDED):
            await api.service.post(kind, job_id, file=7)
        heard = [await listener.next() for _ in range(2)]
    assert [(each.kind, each.data["file"]) for each in heard] == [
        ("file_transferred", 7),
        ("ended", 7),
    ]


async def test_a_modification_has_no_id(api: Api) -> None:
    """It cannot be replayed, and must not move the place of a replay."""
    job_id = await new_job(api)
    async with listening(api, "?kinds=modification,error") as listener:
        await api.service.touch(job_id)
        heard = await listener.next()
    assert (heard.number, heard.kind, heard.data["number"]) == (None, "modification", None)
    assert heard.data["job"]["id"] == job_id


async def test_one_job_can_be_listened_to(api: Api) -> None:
    """Others are not heard."""
    one, other = await new_job(api), await new_job(api)
    async with listening(api, f"?job={one}") as listener:
        await api.service.post(Kind.ERROR, other)
        await api.service.post(Kind.ERROR, one)
        assert (await listener.next()).data["job"]["id"] == one


async def test_an_unknown_job_is_told_before_a_stream_begins(api: Api) -> None:
    """404 instead of silence."""
    reply = await api.send("GET", f"/v1/events?job={uuid4()}")
    assert (reply.status, reply.code) == (404, "job_not_found")
    assert api.service.listeners == 0


async def test_the_service_hears_who_listens(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It decides whose jobs are heard."""
    asked: list[tuple[Any, ...]] = []

    @asynccontextmanager
    async def subscribe(caller: Caller, **wishes: Any) -> AsyncIterator[AsyncIterator[Page]]:
        asked.append((caller, wishes))
        yield _events()

    monkeypatch.setattr(api.service, "subscribe", subscribe)
    reply = await api.send("GET", "/v1/events")
    assert reply.status == 200
    ((caller, wishes),) = asked
    assert isinstance(caller, Caller)
    assert wishes == {
        "job_id": None,
        "kinds": Kind.TRANSFERRED | Kind.ERROR | Kind.ENDED,
        "after": None,
        "all_users": False,
    }


async def test_the_answer_begins_when_everything_from_then_on_is_heard(api: Api) -> None:
    """Who sees its head may start what it wants to hear of."""
    api.service.gate.clear()
    opening = asyncio.ensure_future(api.session.get("/v1/events"))
    await api.service.held.wait()
    for _ in range(10):
        assert (await api.send("GET", "/v1/version")).status == 200
    assert not opening.done()
    api.service.gate.set()
    async with await opening as response:
        assert response.status == 200
        assert api.service.listeners == 1


async def test_a_service_that_cannot_listen_says_so(api: Api) -> None:
    """A problem is told as such, not as a stream that breaks."""
    api.service.fault = StoreDamaged("cannot read page 7")
    reply = await api.send("GET", "/v1/events")
    assert reply.status == 503


# ── replay ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?after=2", {}),
        ("", {"Last_Event_ID": "2"}),
        ("?after=1", {"Last_Event_ID": "2"}),
    ],
)
async def test_a_stream_goes_on_where_it_broke(
    api: Api, query: str, headers: dict[str, str]
) -> None:
    """A browser repeats the first URL and adds the header: the header wins."""
    job_id = await new_job(api)
    for _ in range(4):
        await api.service.post(Kind.ENDED, job_id)
    async with listening(api, query, **headers) as listener:
        assert [(await listener.next()).number for _ in range(2)] == [3, 4]


async def test_without_a_cursor_only_news_and_what_is_owed_are_heard(api: Api) -> None:
    """Terminal notices come until somebody acknowledges them."""
    job_id = await new_job(api)
    owed = await api.service.post(Kind.ERROR, job_id)
    settled = await api.service.post(Kind.ERROR, job_id)
    await api.send("POST", f"/v1/notices/{settled.number}/ack")
    await api.service.post(Kind.ENDED, job_id)
    async with listening(api) as listener:
        assert (await listener.next()).number == owed.number
        await api.service.post(Kind.ENDED, job_id)
        assert (await listener.next()).data["number"] == 4


async def test_an_old_notice_that_comes_again_does_not_move_the_cursor(api: Api) -> None:
    """Otherwise a caller that comes back would replay more each time."""
    job_id = await new_job(api)
    for _ in range(3):
        await api.service.post(Kind.ERROR, job_id)
    async with listening(api, "?after=2") as listener:
        heard = [await listener.next() for _ in range(3)]
    assert [each.data["number"] for each in heard] == [1, 2, 3]
    assert [each.number for each in heard] == [None, None, 3]


async def test_lost_notices_are_told_as_a_gap(api: Api) -> None:
    """A listener must know that it has to look at the jobs again."""
    job_id = await new_job(api)
    for _ in range(5):
        await api.service.post(Kind.ENDED, job_id)
    api.service.oldest = 4
    async with listening(api, "?after=1") as listener:
        gap, after = await listener.next(), await listener.next()
    assert (gap.number, gap.kind, gap.data) == (None, "gap", {"after": 1, "oldest": 4})
    assert after.number == 4


# ── life of a stream ───────────────────────────────────────────────────────────────────────


async def test_a_silent_stream_has_a_heartbeat() -> None:
    """Comments at once and then regularly: both ends notice a dead connection."""
    async with running_api(heartbeat=0.01) as api, listening(api) as listener:
        assert [await listener.block() for _ in range(3)] == [[":"]] * 3


async def test_stopping_the_server_ends_streams_at_once(api: Api) -> None:
    """They never hold up the shutdown, and end properly."""
    async with listening(api) as one, listening(api, "?kinds=modification") as other:
        async with asyncio.timeout(5):
            await api.server.stop(60.0)
        assert await one.rest() == b":\n\n"
        assert await other.rest() == b":\n\n"
    assert api.service.listeners == 0


async def test_a_caller_that_goes_ends_its_subscription(api: Api) -> None:
    """Also when nothing happens that could be written to it."""
    async with listening(api) as one, listening(api):
        one.response.close()
        async with asyncio.timeout(10):
            await api.service.listening(1)
    async with asyncio.timeout(10):
        await api.service.listening(0)


async def test_a_stream_ends_when_the_service_fails(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller comes back; details are for the log."""

    @asynccontextmanager
    async def subscribe(
        *_: object, error: Exception, **__: object
    ) -> AsyncIterator[AsyncIterator[Page]]:
        yield _events(error)

    for error, event in (
        (StoreDamaged("cannot read page 7"), "api.stream_ended"),
        (RuntimeError("hunter2"), "api.stream_fault"),
    ):
        monkeypatch.setattr(api.service, "subscribe", partial(subscribe, error=error))
        reply = await api.send("GET", "/v1/events")
        assert (reply.status, reply.body) == (200, b":\n\n")
        assert event in [record.getMessage() for record in caplog.records]


class Flood(FakeService):
    """A service that has more to tell than anybody can hear."""

    def __init__(self) -> None:
        super().__init__()
        self.told = 0

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
        """Tell without end."""
        await self._listen(+1)
        try:
            yield self._tell()
        finally:
            await self._listen(-1)

    async def _tell(self) -> AsyncIterator[Page]:
        """Tell for ever, and remember how much was taken."""
        (known,) = self.jobs
        notice = await self.post(Kind.ENDED, known)
        for self.told in count(1):
            yield [notice]
            if self.told % 100 == 0:
                await asyncio.sleep(0)


async def test_a_slow_caller_is_not_buffered_without_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It holds one event and what the sockets hold; it is cut off when the server stops."""
    caplog.set_level(logging.WARNING)
    service = Flood()
    async with running_api(service=service) as api:
        await api.create(description="x" * 1000)
        _, writer = await asyncio.open_unix_connection(str(api.path), limit=1024)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await api.service.listening(1)
        told = -1
        while told != service.told:  # until the stream stands still
            told = service.told
            for _ in range(100):
                await asyncio.sleep(0)
        assert 0 < told < 2000
        async with asyncio.timeout(5):
            await api.server.stop(60.0)
            assert service.listeners == 0
        writer.close()
        assert api.admin.counted.requests["GET", "/v1/events", 200] == 1
    assert not caplog.records


@pytest.mark.parametrize(("group", "ends"), [(None, True), (Stranger.any().groups[0], False)])
async def test_the_stream_of_somebody_who_is_no_admin_any_more_ends(
    group: int | None, ends: bool
) -> None:
    """Rule: a reload counts at once; he may come back, and hear of what is his."""
    stranger = Stranger.any()
    async with running_api(admin_gid=stranger.groups[0]) as api:
        with stranger.acting():
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(api.path))
        head = b"GET /v1/events?all_users=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        reading = asyncio.create_task(api.raw(head, sock))
        await api.service.listening(1)
        api.server.configure(limits=Limits(), timers=TIMERS, admin_gid=group, heartbeat=0.01)
        if ends:
            async with asyncio.timeout(10):
                assert (await reading).startswith(b"HTTP/1.1 200")
            assert api.service.listeners == 0
        else:
            await api.send("GET", "/v1/health")
            assert api.service.listeners == 1
            reading.cancel()
            await asyncio.wait([reading])
