"""Every refusal and every fault becomes one kind of answer: application/problem+json (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from transferd.model.errors import (
    CallerError,
    LinkBroken,
    StoreError,
    TransferdError,
    VaultError,
)
from transferd.wire.api import Problem

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

#: Faults of the service that time or its admin may mend; the log has the rest.
_UNAVAILABLE: Mapping[type[TransferdError], tuple[str, str]] = MappingProxyType(
    {
        StoreError: ("store_unavailable", "cannot use the queue file; see the daemon's log"),
        VaultError: ("vault_unavailable", "cannot open or seal secrets; see the daemon's log"),
        LinkBroken: ("worker_unavailable", "cannot reach the owner's worker; try again"),
    }
)


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Make an error answer."""
    body = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
    )
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type=MEDIA_TYPE
    )


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what handlers raise."""
    try:
        return await handler(request)
    except CallerError as error:
        return problem(error.status, error.code, error.detail)
    except web.HTTPMethodNotAllowed as error:
        return _method_not_allowed(request, error)
    except web.HTTPNotFound:
        return problem(404, "route_not_found", "there is nothing here; see /v1/openapi.json")
    except web.HTTPException:
        raise
    except tuple(_UNAVAILABLE) as error:
        return _unavailable(error)
    except ConnectionError:
        log.debug("api.connection_lost", exc_info=True, extra={"fields": {}})
        return problem(503, "connection_lost", "cannot serve a request whose connection is lost")
    except Exception:
        log.exception("api.fault", extra={"fields": {"method": request.method}})
        return problem(500, "internal", "something is wrong in the daemon; see its log")


def _method_not_allowed(
    request: web.Request, error: web.HTTPMethodNotAllowed
) -> web.StreamResponse:
    allow: dict[str, str] = {
        hdrs.ALLOW: ", ".join(sorted({*error.allowed_methods, hdrs.METH_OPTIONS}))
    }
    if request.method == hdrs.METH_OPTIONS:
        return web.Response(status=204, headers=allow)
    return problem(
        405, "method_not_allowed", f"cannot do that here; use {allow[hdrs.ALLOW]}", allow
    )


def _unavailable(error: TransferdError) -> web.Response:
    code, detail = next(told for kind, told in _UNAVAILABLE.items() if isinstance(error, kind))
    log.error("api.unavailable", extra={"fields": {"code": code, "reason": str(error)}})
    return problem(503, code, detail)
