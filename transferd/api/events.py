"""The event stream: server-sent events (WHATWG HTML 9.2) with replay, heartbeat and gaps.

A stream holds one page of events at a time: it is written, and the next is asked for when the
caller has taken enough of it. A slow caller therefore costs nothing but its own delay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from transferd.api import query
from transferd.api.acceptor import parted
from transferd.api.call import Call
from transferd.model.checks import check_id
from transferd.model.errors import TransferdError
from transferd.model.job import JobId
from transferd.model.notices import (
    TERMINAL,
    Event,
    Gap,
    Modified,
    Notice,
    NoticeKind,
    Page,
    parse_kinds,
)
from transferd.wire.answers import gap_answer

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
DEFAULT_KINDS = TERMINAL | NoticeKind.ENDED

_HEADERS = {"Content-Type": f"{MEDIA_TYPE}; charset=utf-8", "Cache-Control": "no-store"}
#: A comment: keeps the connection alive and shows that it is.
_HEARTBEAT = b":\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What a caller wants to hear."""

    job_id: JobId | None
    kinds: NoticeKind
    #: Replay what comes after this number; None: from now on.
    after: int | None
    #: Of everybody's jobs.
    all_users: bool


def read_interest(request: web.Request) -> Interest:
    """Read headers and query. `Last-Event-ID` is what a broken stream had reached and wins.

    Raises:
        BadRequest: `id_invalid`, `unknown_kind`, `cursor_invalid`, `value_invalid`.
    """
    job = query.word(request, "job")
    kinds = query.words(request, "kinds")
    after = query.cursor(query.word(request, "after"))
    reached = query.cursor(request.headers.get("Last-Event-ID"))
    return Interest(
        job_id=check_id(job) if job is not None else None,
        kinds=parse_kinds(kinds) if kinds is not None else DEFAULT_KINDS,
        after=after if reached is None else reached,
        all_users=query.flag(request, "all_users"),
    )


async def stream(call: Call) -> web.StreamResponse:
    """Answer with events until the caller goes or the server stops."""
    interest = read_interest(call.request)
    if interest.job_id is not None:
        await call.context.jobs.get(call.caller, interest.job_id)  # unknown: 404, and no stream
    response = web.StreamResponse(headers=_HEADERS)
    async with call.context.notices.subscribe(
        call.caller,
        job_id=interest.job_id,
        kinds=interest.kinds,
        after=interest.after,
        all_users=interest.all_users,
    ) as pages:
        # From the head of the answer on, its caller may rely on hearing everything.
        await response.prepare(call.request)
        await _Stream(call, response, interest.after).run(pages)
    await _part(call.request, response)
    return response


class _Stream:
    """One open stream."""

    def __init__(self, call: Call, response: web.StreamResponse, after: int | None) -> None:
        self._call = call
        self._context = call.context
        self._response = response
        #: The largest number told; an older notice that comes again has no id, lest a caller
        #: that comes back by Last-Event-ID begins further back each time.
        self._told = after or 0

    async def run(self, pages: AsyncIterator[Page]) -> None:
        """Write until one of the reasons to end holds."""
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[Any]] = [
                group.create_task(self._tell(pages)),
                group.create_task(self._beat()),
                group.create_task(self._gone()),
                group.create_task(self._context.stopping.wait()),
            ]
            if self._call.caller.admin:
                # What is heard may be others'; whoever may not any more begins anew.
                demoted = self._context.identities.demoted(self._call.request)
                tasks.append(group.create_task(demoted))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()

    async def _tell(self, pages: AsyncIterator[Page]) -> None:
        try:
            async for page in pages:
                await self._response.write(b"".join(map(self._frame, page)))
                page = ()  # the next one may be long in coming
        except ConnectionError:
            return
        except TransferdError as error:
            log.warning("api.stream_ended", extra={"fields": {"reason": str(error)}})
        except Exception:
            log.exception("api.stream_fault", extra={"fields": {}})

    async def _beat(self) -> None:
        with suppress(ConnectionError):
            while True:
                await self._response.write(_HEARTBEAT)
                await asyncio.sleep(self._context.heartbeat)

    async def _gone(self) -> None:
        # aiohttp tells a handler nothing of a lost connection before it writes to it.
        await parted(self._call.request.transport)

    def _frame(self, event: Event) -> bytes:
        answers, blockers = self._context.answers, self._context.jobs.blockers
        match event:
            case Notice():
                told = answers.notice(event, blockers(event.job))
                number = event.number if event.number > self._told else None
                self._told = max(self._told, event.number)
                return _frame(told.kind, told, number)
            case Modified():
                told = answers.modification(event.job, blockers(event.job))
                return _frame(told.kind, told)
            case Gap():
                self._told = max(0, event.oldest - 1)
                return _frame("gap", gap_answer(event))


def _frame(kind: str, data: msgspec.Struct, number: int | None = None) -> bytes:
    # JSON has no line breaks of its own, so that one data line holds it.
    identity = b"" if number is None else b"id: %d\n" % number
    return b"%sevent: %s\ndata: %s\n\n" % (identity, kind.encode(), msgspec.json.encode(data))


async def _part(request: web.Request, response: web.StreamResponse) -> None:
    """End the stream properly; a caller that is behind is cut off, and comes back for the rest."""
    transport = request.transport
    if transport is None:
        return
    if transport.get_write_buffer_size():
        transport.abort()
        return
    with suppress(ConnectionError):
        await response.write_eof()
