"""One request on its way through a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from aiohttp import web

from transferd.api.identity import Identities
from transferd.api.ports import AdminUseCases, JobUseCases, NoticeUseCases
from transferd.api.room import Bodies, Ration
from transferd.api.turns import Turns
from transferd.model.caller import Caller
from transferd.model.checks import check_id
from transferd.model.errors import BadRequest, CallerError, TooLarge
from transferd.model.job import JobId, Seconds, Timers
from transferd.model.limits import Limits
from transferd.service.meter import Meter
from transferd.wire.answers import Answers

_Result = TypeVar("_Result")

_JSON = "application/json"
#: A body comes from this machine, and takes memory while it comes.
_PATIENCE: Seconds = 60.0
#: Larger bodies are judged in a thread, so that they do not hold up everybody else.
_INLINE_BYTES = 64 * 1024


class UnsupportedMediaType(CallerError):
    """The body is not JSON."""

    status = 415


@dataclass(slots=True, kw_only=True)
class Context:
    """What handlers work with; limits, timers and heartbeat may change between requests."""

    jobs: JobUseCases
    notices: NoticeUseCases
    admin: AdminUseCases
    meter: Meter
    limits: Limits
    #: Of a job that names none.
    timers: Timers
    answers: Answers
    identities: Identities
    #: Whether this daemon works for a user.
    serves: Callable[[int], bool]
    heartbeat: Seconds
    #: The OpenAPI document, as JSON.
    openapi: bytes
    bodies: Bodies = field(default_factory=Bodies)
    turns: Turns = field(default_factory=Turns)
    #: Set when the server is going down: event streams end then.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request, who sent it, and what it takes to answer."""

    request: web.Request
    context: Context
    caller: Caller
    ration: Ration

    @property
    def job_id(self) -> JobId:
        """The job that the path names.

        Raises:
            BadRequest: `id_invalid`.
        """
        return check_id(self.request.match_info["id"])

    async def body(self) -> bytes:
        """Read the body.

        Raises:
            UnsupportedMediaType: `not_json`.
            TooLarge: `body_too_large`, before or while it is read.
            Unavailable: `too_much_at_once`, beside other bodies.
            BadRequest: `malformed_body`, its encoding is broken; `body_too_slow`.
        """
        request, limit = self.request, self.context.limits.body_bytes
        if request.content_type != _JSON or (request.charset or "utf-8").lower() != "utf-8":
            raise UnsupportedMediaType(
                "not_json", f"cannot read the body; send it as {_JSON} (in UTF-8)"
            )
        too_large = TooLarge("body_too_large", f"cannot read a body of more than {limit} bytes")
        if (request.content_length or 0) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(_PATIENCE):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
                    self.ration.take(len(chunk), limit)
            return bytes(body)
        except TimeoutError:
            raise BadRequest(
                "body_too_slow",
                f"cannot read the body: it has not come within {_PATIENCE:.0f} s; send it at once",
            ) from None
        except web.RequestPayloadError:
            raise BadRequest(
                "malformed_body", "cannot read the body: it is cut or broken"
            ) from None

    async def parsed(self, parse: Callable[[bytes], _Result]) -> _Result:
        """Read the body and judge it.

        Raises:
            CallerError: as `body`, and as *parse*.
        """
        raw = await self.body()
        return await asyncio.to_thread(parse, raw) if len(raw) > _INLINE_BYTES else parse(raw)


def answer(
    body: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with JSON."""
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type=_JSON
    )
