"""What is wrong with a configuration, in words of people who write one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

_NAME = re.compile(r"Object (contains unknown|missing required) field `(.*?)`", re.DOTALL)
_PLACE = re.compile(r" - at (`key` in )?`\$\.?([\w.]*(?:\[\d+\][\w.]*)*)(\[\.\.\.\])?`\Z")
_STEP = re.compile(r"(\w+)|\[(\d+)\]")
#: What a value is shown with at most.
_SHOWN = 40
#: Bounds that nobody comes near.
_HUGE = 2**53


def explain(error: msgspec.ValidationError, data: dict[str, Any], kind: type) -> str:
    """Say what keeps *data* from being a *kind*, as msgspec has found out.

    What is in a table of any names is not shown: it may be secret.
    """
    text = str(error)
    found, named = _PLACE.search(text), _NAME.match(text)
    place = found[2] if found else ""
    if found is None and named is None:
        return text
    node, value = _at(inspect.type_info(kind), data, place)
    if named is not None and isinstance(node, inspect.StructType):
        if named[1].startswith("missing"):
            return f"`{place}` lacks `{named[2]}`"
        return _unknown(named[2], place, [field.encode_name for field in node.fields])
    wanted = "" if node is None else _wanted(node, value)
    if not wanted:
        return text
    shown = "" if isinstance(_plain(node), inspect.DictType) else f"; it is {_shown(value)}"
    return f"`{place}` must be {wanted}{shown}"


def _at(kind: inspect.Type, value: Any, place: str) -> tuple[inspect.Type | None, Any]:
    """Return what belongs at a place, and what is there; None: nobody can say."""
    node: inspect.Type | None = kind
    for name, number in _STEP.findall(place):
        match _plain(node):
            case inspect.StructType(fields=fields):
                node = next((each.type for each in fields if each.encode_name == name), None)
                value = value[name]
            case inspect.VarTupleType(item_type=item):
                node, value = item, value[int(number)]
            case _:
                return None, None
    return node, value


def _plain(node: inspect.Type | None) -> inspect.Type | None:
    """Return a type without what is said of it, and without None: TOML has no such value."""
    match node:
        case inspect.Metadata(type=kind):
            return _plain(kind)
        case inspect.UnionType(types=kinds):
            return next(_plain(kind) for kind in kinds if not isinstance(kind, inspect.NoneType))
    return node


def _wanted(node: inspect.Type, value: object) -> str:
    """Say what belongs where *value* is; "": there are no words for it."""
    if isinstance(node, inspect.Metadata) and node.extra_json_schema is not None:
        return str(node.extra_json_schema.get("description", ""))
    match _plain(node):
        case inspect.LiteralType(values=values):
            return f"one of {_listed(values)}"
        case inspect.IntType() | inspect.FloatType() as number:
            kind = "a whole number" if isinstance(number, inspect.IntType) else "a number"
            plain = ", without quotes or a unit such as K" if isinstance(value, str) else ""
            return f"{kind}{_bounds(number, value)}{plain}"
        case inspect.BoolType():
            return "true or false, without quotes"
        case inspect.StrType():
            return "a text in quotes"
        case inspect.VarTupleType(min_length=least):
            return "a list in [ ] of at least one" if least else "a list in [ ]"
        case inspect.StructType():
            return "a section, or a table in { }"
    return ""


def _bounds(number: inspect.IntType | inspect.FloatType, value: object) -> str:
    words = (("more than", number.gt), ("at least", number.ge), ("at most", number.le))
    huge = isinstance(value, int) and value >= _HUGE
    kept = ((word, bound) for word, bound in words if bound is not None)
    said = [f"{word} {bound:.17g}" for word, bound in kept if bound < _HUGE or huge]
    return f", {' and '.join(said)}" if said else ""


def _unknown(name: str, place: str, known: list[str]) -> str:
    there = f"`{place}` has no key `{name}`" if place else f"there is no section `{name}`"
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f"{there}; {f'did you mean `{near[0]}`?' if near else f'there are {_listed(known)}'}"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def _shown(value: object) -> str:
    return text if len(text := repr(value)) <= _SHOWN else f"{text[:_SHOWN]}…"
