"""The map of imports in pyproject.toml covers the whole package; `lint-imports` enforces it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def contracts() -> list[dict[str, Any]]:
    """The contracts of import-linter."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def rooms() -> set[str]:
    """Every package and module directly in transferd."""
    package = ROOT / "transferd"
    modules = {f"transferd.{path.stem}" for path in package.glob("*.py")}
    packages = {f"transferd.{path.parent.name}" for path in package.glob("*/__init__.py")}
    return (modules | packages) - {"transferd.__init__"}


def test_every_room_has_its_height() -> None:
    """Rule: a new room is put into the layers, so that imports into and out of it are checked."""
    layers = [layer for contract in contracts() for layer in contract.get("layers", [])]
    placed = {room for layer in layers for room in re.split(r"[|:]", layer.replace(" ", ""))}
    assert placed == rooms()


def test_every_contract_is_about_rooms_that_exist() -> None:
    """Rule: no contract is kept because it names a room that is gone."""
    named = {
        module
        for contract in contracts()
        for key in ("modules", "source_modules", "forbidden_modules")
        for module in contract.get(key, [])
        if module.startswith("transferd")
    }
    assert named <= rooms()
