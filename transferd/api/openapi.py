"""The OpenAPI 3.1 document, made from the routes and from the structs that they read and write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, TypeAlias, get_args

import msgspec

from transferd import __version__
from transferd.api import errors
from transferd.api.parameters import Parameter
from transferd.api.routes import Outcome, Route
from transferd.wire.api import GapAnswer, NoticeAnswer, Problem

Document: TypeAlias = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"
_PROBLEMS = {
    400: "Something in the request is malformed, unknown or refused.",
    403: "The caller may not do that.",
    404: "There is no such thing, or none that the caller may see.",
    409: "Right, but not in the present state.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    500: "Something is wrong in the daemon.",
    503: "The daemon cannot do that at the moment.",
}


def document(routes: Iterable[Route]) -> Document:
    """Describe *routes*."""
    routes = tuple(routes)
    paths: dict[str, Document] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    _, schemas = msgspec.json.schema_components(_structs(routes), ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "transferd",
            "version": __version__,
            "description": "Background transfers. Spoken over a Unix socket; the caller is who "
            "the kernel says.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _structs(routes: Iterable[Route]) -> list[type]:
    found: set[type] = {Problem, NoticeAnswer, GapAnswer}
    for route in routes:
        found.update(_members(route.body))
        for outcome in route.outcomes:
            found.update(_members(outcome.body))
    return sorted(found, key=lambda struct: struct.__name__)


def _members(body: type | UnionType | None) -> tuple[type, ...]:
    if isinstance(body, UnionType):
        return get_args(body)
    return (body,) if body is not None else ()


def _operation(route: Route) -> Document:
    operation: Document = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "x-access": route.access.value,
        "responses": dict(_responses(route)),
    }
    parameters = (*route.path_parameters, *route.parameters)
    if parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in parameters]
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(route.body)}},
        }
    return operation


def _responses(route: Route) -> Iterator[tuple[str, Document]]:
    for outcome in route.outcomes:
        yield str(outcome.status), _response(outcome)
    for status in route.problems:
        content = {errors.MEDIA_TYPE: {"schema": _schema(Problem)}}
        yield str(status), {"description": _PROBLEMS[status], "content": content}


def _response(outcome: Outcome) -> Document:
    schema = _schema(outcome.body) if outcome.body is not None else {}
    return {
        "description": outcome.text,
        "content": {outcome.media_type: {"schema": schema}},
    }


def _schema(body: type | UnionType) -> Document:
    references = [{"$ref": _REFERENCE.format(name=struct.__name__)} for struct in _members(body)]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _parameter(parameter: Parameter) -> Document:
    described: Document = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.text,
        "required": parameter.place == "path",
        "schema": parameter.schema,
    }
    if parameter.many:
        described["schema"] = {"type": "array", "items": parameter.schema, "minItems": 1}
        described |= {"style": "form", "explode": False}
    return described
