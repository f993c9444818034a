"""JSON of callers, read strictly: UTF-8, no name twice in an object, no NaN, no unknown fields.

What is refused is told with a stable code and its place in the body, never with its value.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

from transferd.model.checks import quoted
from transferd.model.errors import BadRequest

_Body = TypeVar("_Body")

_UNKNOWN_FIELD = re.compile(
    r"Object contains unknown field `(.*?)`(?: - at `([^`]*)`)?", flags=re.DOTALL
)
_WRONG_TYPE = re.compile(r"Expected `[^`]+`, got `")
_MISSING_FIELD = "Object missing required field"


def glance(raw: bytes, type_: type[_Body]) -> _Body:
    """Decode what *type_* names and pass over the rest, which may still be refused later.

    Raises:
        BadRequest: `malformed_json`, `wrong_type`.
    """
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except msgspec.DecodeError as error:
        raise _malformed(str(error)) from None
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None


def decode(raw: bytes, type_: type[_Body]) -> _Body:
    """Decode a body as a whole.

    Raises:
        BadRequest: `malformed_json`, `wrong_type`, `unknown_field`, `missing_field`,
            `value_invalid`.
    """
    body = glance(raw, type_)
    # Which of two values counts is anybody's guess (RFC 8259 4), and msgspec does not tell.
    json.loads(raw, object_pairs_hook=_refuse_twins, parse_int=bool, parse_float=bool)
    return body


def located(error: BadRequest, path: str) -> BadRequest:
    """Return *error* with the place in the body where the refused value stands."""
    return BadRequest(error.code, f"{error.detail} - at `{path}`")


class locating:
    """Say where in the body a value stands that is refused within.

    Not a generator, which would take longer than most checks.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, BadRequest):
            raise located(error, self._path) from None


def _refuse_twins(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _malformed(f"the name {quoted(name)} stands twice in one object")
        seen.add(name)


def _malformed(why: str) -> BadRequest:
    return BadRequest("malformed_json", f"cannot read the body as JSON: {why}")


def _refusal(message: str) -> BadRequest:
    """Translate msgspec's words; they hold types, bounds and paths, and no value."""
    if unknown := _UNKNOWN_FIELD.fullmatch(message):
        flaw = BadRequest(
            "unknown_field", f"cannot use the body: no field is called {quoted(unknown[1])}"
        )
        return located(flaw, unknown[2] or "$")
    if message.startswith(_MISSING_FIELD):
        return BadRequest("missing_field", f"cannot use the body: {message}")
    code = "wrong_type" if _WRONG_TYPE.match(message) else "value_invalid"
    return BadRequest(code, f"cannot use the body: {message}")
