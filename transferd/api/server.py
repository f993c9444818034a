"""The HTTP server on the Unix socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, closing

import msgspec
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from transferd.api import events
from transferd.api.acceptor import Acceptor, note_request
from transferd.api.call import Call, Context
from transferd.api.errors import answer_problems
from transferd.api.identity import Identities
from transferd.api.openapi import document
from transferd.api.ports import AdminUseCases, JobUseCases, NoticeUseCases
from transferd.api.query import refuse_unknown
from transferd.api.routes import ROUTES, Access, Route
from transferd.model.caller import Caller
from transferd.model.errors import NotAllowed
from transferd.model.job import Seconds, Timers
from transferd.model.limits import Limits
from transferd.service.meter import Meter
from transferd.wire.answers import Answers

log = logging.getLogger(__name__)

_CONTEXT = web.AppKey("context", Context)
#: An answer goes to this machine, and takes memory until it is read.
_PATIENCE: Seconds = 60.0
#: Longer than any graceful stop: `stop` has the deadline.
_NEVER = 86400.0
#: For aiohttp, no time at all would be no limit.
_MOMENT = 0.001


class ApiServer:
    """Serves the API on one listening socket."""

    def __init__(
        self,
        *,
        jobs: JobUseCases,
        notices: NoticeUseCases,
        admin: AdminUseCases,
        meter: Meter,
        answers: Answers,
        limits: Limits,
        timers: Timers,
        serves: Callable[[int], bool],
        admin_gid: int | None = None,
        operator: int | None = None,
        heartbeat: Seconds = 15.0,
        connections: int = 1024,
    ) -> None:
        """Take what requests are served with.

        *timers* are those of a job that names none; *serves* tells whether this daemon works for
        a uid; members of *admin_gid* are admins, as uid 0 is; *operator* is whose daemon it is, if
        it is somebody's. Callers share *connections*, of which admins and operator may have all.
        """
        self._context = Context(
            jobs=jobs,
            notices=notices,
            admin=admin,
            meter=meter,
            limits=limits,
            timers=timers,
            answers=answers,
            identities=Identities(admin_gid, operator),
            serves=serves,
            heartbeat=heartbeat,
            openapi=msgspec.json.encode(document(ROUTES)),
        )
        self._most = connections
        self._runner: web.AppRunner | None = None
        self._acceptor: Acceptor | None = None

    def configure(
        self, *, limits: Limits, timers: Timers, admin_gid: int | None, heartbeat: Seconds
    ) -> None:
        """Serve otherwise from the next request, and the next heartbeat, on."""
        context = self._context
        context.limits, context.timers, context.heartbeat = limits, timers, heartbeat
        context.identities.configure(admin_gid)

    async def start(self, sock: socket.socket) -> None:
        """Serve on *sock*, a bound Unix socket, which is the server's from now on."""
        self._runner = web.AppRunner(
            application(self._context, ROUTES),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_NEVER,
            logger=_protocol_log(),
        )
        await self._runner.setup()
        if self._runner.server is not None:
            context = self._context
            self._acceptor = Acceptor(
                self._runner.server,
                self._most,
                context.identities.visitor,
                context.meter.connected,
            )
            self._acceptor.start(sock)

    async def stop(self, timeout: Seconds = 5.0) -> None:
        """Accept nothing new, end event streams and let requests end; the slow are cut off.

        Whoever was accepted is answered, even one whose request has not come yet.
        """
        self._context.stopping.set()
        runner, self._runner = self._runner, None
        acceptor, self._acceptor = self._acceptor, None
        if runner is None or acceptor is None:
            return
        await acceptor.close()
        try:
            async with asyncio.timeout(timeout):
                await acceptor.hear_out(timeout / 2)
                await runner.cleanup()
        except TimeoutError:
            log.warning("api.cut_off", extra={"fields": {"seconds": timeout}})
            if runner.server is not None:
                await runner.server.shutdown(_MOMENT)
            await runner.cleanup()
        # What is left has answers that its caller does not read.
        await acceptor.cut_off()


def application(context: Context, routes: Iterable[Route]) -> web.Application:
    """Make the application of *routes*."""
    # How large a body may be is held against the limits of the moment, where it is read.
    app = web.Application(middlewares=[_observe, answer_problems])
    app[_CONTEXT] = context
    for route in routes:
        handler = _handler(route)
        app.router.add_route(route.method, route.path, handler)
        if route.method == hdrs.METH_GET and route.handler is not events.stream:
            app.router.add_route(hdrs.METH_HEAD, route.path, handler)
    return app


def _handler(route: Route) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        context = request.app[_CONTEXT]
        caller = context.identities.caller(request)
        _admit(route, caller, context)
        refuse_unknown(request, route.query_names)
        async with AsyncExitStack() as held:
            if route.looks:
                await held.enter_async_context(context.turns.take(caller.uid))
                _check_connected(request)
            ration = held.enter_context(closing(context.bodies.ration(caller.uid)))
            call = Call(request=request, context=context, caller=caller, ration=ration)
            response = await route.handler(call)
            if isinstance(response, web.Response):
                await _deliver(request, response, context)
            return response

    return handle


def _check_connected(request: web.Request) -> None:
    """Make sure that somebody waits for the answer.

    Raises:
        ConnectionResetError: nobody does.
    """
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the caller is gone")


async def _deliver(request: web.Request, response: web.Response, context: Context) -> None:
    """Write an answer while it counts as its caller's; who does not read it is cut off."""
    if context.stopping.is_set():
        response.force_close()  # said in the answer, so that nothing more is asked here
    try:
        async with asyncio.timeout(_PATIENCE):
            await response.prepare(request)
            await response.write_eof()
    except ConnectionError:
        pass  # aiohttp finds out by itself
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def _admit(route: Route, caller: Caller, context: Context) -> None:
    """Make sure that a caller may use a route; whose a job is, is the service's to judge.

    Raises:
        NotAllowed: `not_allowed`.
    """
    if route.access is Access.OPEN:
        return
    if not context.serves(caller.uid):
        raise NotAllowed("not_allowed", "cannot serve you: this daemon works for somebody else")
    if route.access is Access.OPERATOR and not caller.operator:
        raise NotAllowed(
            "not_allowed", "cannot tell you of the service as a whole: that is for its admins"
        )


@web.middleware
async def _observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count answers, and log them without anything that a caller wrote."""
    began = time.monotonic()
    answered = note_request(request.transport)
    try:
        response = await handler(request)
    finally:
        answered()
    context = request.app[_CONTEXT]
    if context.stopping.is_set():
        response.force_close()  # said in the answer, so that nothing more is asked here
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    method = request.method if request.method in hdrs.METH_ALL else "other"
    context.meter.answered(method, route, response.status)
    if log.isEnabledFor(logging.DEBUG) and request.transport is not None:
        fields = {
            "method": method,
            "route": route,
            "status": response.status,
            "uid": context.identities.caller(request).uid,
            "ms": round((time.monotonic() - began) * 1000, 1),
        }
        log.debug("api.request", extra={"fields": fields})
    return response


#: What aiohttp raises for a request that is not HTTP.
_UNREADABLE = (HttpProcessingError, web.RequestPayloadError)


class _WithoutWire(logging.Filter):
    """Drops what aiohttp quotes of a request that is not HTTP: it may be a piece of a body."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite such a record; let all pass."""
        if record.exc_info and isinstance(record.exc_info[1], _UNREADABLE):
            record.msg, record.args = "api.malformed_request", ()
            record.exc_info = record.exc_text = None
            record.fields = {}
        return True


def _protocol_log() -> logging.Logger:
    protocol = logging.getLogger(f"{__name__}.http")
    if not protocol.filters:
        protocol.addFilter(_WithoutWire())
    return protocol
