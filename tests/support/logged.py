"""What the code logs, read from its source: event names and the fields that go with them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LEVELS = {"debug", "info", "warning", "error", "exception", "log"}
#: logging's own parameters beside the event.
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Unreadable(Exception):
    """The source is too clever for this; write the event or its fields out."""


@dataclass(frozen=True)
class Logged:
    """One event that may be logged at one place."""

    where: str
    event: str
    fields: frozenset[str]


def logged_in(path: Path) -> Iterator[Logged]:
    """Yield what a module logs by `log.LEVEL(event, extra={"fields": …})`."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(module):
        if isinstance(function, _FUNCTIONS):
            yield from _in_function(function, module, path)


def _in_function(
    function: ast.FunctionDef | ast.AsyncFunctionDef, module: ast.Module, path: Path
) -> Iterator[Logged]:
    reader = _Reader(function, module)
    for call in _own(function):
        if not _logs(call):
            continue
        where = f"{path.name}:{call.lineno}"
        try:
            event = call.args[1 if _method(call) == "log" else 0]
            names, fields = reader.texts(event), reader.fields(call)
        except Unreadable as error:
            raise Unreadable(f"{where}: {error}") from None
        for name in names:
            yield Logged(where, name, fields)


def _own(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.Call]:
    """Yield calls in a function, but not those in functions within it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _FUNCTIONS):
            continue
        if isinstance(node, ast.Call):
            yield node
        waiting += ast.iter_child_nodes(node)


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _logs(call: ast.Call) -> bool:
    target = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(target, ast.Name) and target.id == "log" and _method(call) in _LEVELS


class _Reader:
    """Finds out what expressions of one function can be."""

    def __init__(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef, module: ast.Module
    ) -> None:
        self._function = function
        self._module = module

    def texts(self, node: ast.expr) -> set[str]:
        """Return the texts that an expression can be."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.IfExp(body=one, orelse=other):
                return self.texts(one) | self.texts(other)
            case ast.Name(id=name):
                return self._texts_of(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get")):
                return self._table(table)
            case ast.Subscript(value=ast.Name(id=table)):
                return self._table(table)
        raise Unreadable(f"cannot tell which event {ast.unparse(node)} is")

    def _texts_of(self, name: str) -> set[str]:
        assigned = [value for value in self._assigned(name, self._function)]
        if assigned:
            return set().union(*map(self.texts, assigned))
        names = [argument.arg for argument in self._function.args.args]
        if name in names:
            return self._passed(names.index(name))
        raise Unreadable(f"cannot tell what {name} is")

    def _passed(self, position: int) -> set[str]:
        """Return what this module's calls of the function pass there."""
        found: set[str] = set()
        method = self._function.args.args[0].arg == "self"
        for call in ast.walk(self._module):
            if isinstance(call, ast.Call) and self._calls(call.func):
                argument = call.args[position - method]
                if not isinstance(argument, ast.Constant):
                    raise Unreadable(f"cannot tell what {ast.unparse(call)} logs")
                found.add(str(argument.value))
        return found

    def _calls(self, called: ast.expr) -> bool:
        name = self._function.name
        return (isinstance(called, ast.Attribute) and called.attr == name) or (
            isinstance(called, ast.Name) and called.id == name
        )

    def _table(self, name: str) -> set[str]:
        for value in self._assigned(name, self._module):
            if isinstance(value, ast.Dict):
                return set().union(*map(self.texts, value.values))
        raise Unreadable(f"cannot find the table {name}")

    def fields(self, call: ast.Call) -> frozenset[str]:
        """Return the names of the fields that go with a call."""
        for keyword in call.keywords:
            if keyword.arg == "extra":
                assert isinstance(keyword.value, ast.Dict)
                return frozenset(self._keys(keyword.value.values[0]))
        return frozenset()

    def _keys(self, node: ast.expr) -> set[str]:
        match node:
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return set().union(
                    *(self._keys(v) if k is None else self.texts(k) for k, v in pairs)
                )
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._keys(left) | self._keys(right)
            case ast.Name(id=name):
                values = self._assigned(name, self._function)
                return set().union(*(self._keys(value) for value in values))
            case ast.Call(func=ast.Attribute(attr=name), keywords=keywords):
                return self._returned(name) | {k.arg for k in keywords if k.arg}
            case ast.Call(func=ast.Name(id=name), keywords=keywords):
                return self._returned(name) | {k.arg for k in keywords if k.arg}
        raise Unreadable(f"cannot tell which fields {ast.unparse(node)} has")

    def _returned(self, name: str) -> set[str]:
        """Return the keys of the dictionary that a function of this module returns."""
        for function in ast.walk(self._module):
            if isinstance(function, _FUNCTIONS) and function.name == name:
                reader = _Reader(function, self._module)
                last = function.body[-1]
                if isinstance(last, ast.Return) and last.value is not None:
                    return reader._keys(_without_rest(last.value))
        raise Unreadable(f"cannot tell what {name}() returns")

    def _assigned(self, name: str, scope: ast.AST) -> list[ast.expr]:
        found: list[ast.expr] = []
        for node in ast.walk(scope):
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    found.append(value)
                case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == name:
                    found += [value] if value is not None else []
                case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                    found.append(value)
        return found


def _without_rest(node: ast.expr) -> ast.expr:
    """Leave `**more` out of a dictionary: its callers name what it holds."""
    if not isinstance(node, ast.Dict):
        return node
    pairs = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k is not None]
    return ast.Dict(keys=[k for k, _ in pairs], values=[v for _, v in pairs])
