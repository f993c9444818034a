"""The README's commands, for tests that do what it tells its readers to do."""

from __future__ import annotations

import re
from pathlib import Path

_README = Path(__file__).resolve().parents[2] / "README.md"


def commands_in_row(purpose: str) -> list[str]:
    """Return the commands of the table's row that begins with a *purpose*, in their order."""
    row = re.search(rf"(?m)^\| {re.escape(purpose)} \|(.*)\|$", _README.read_text(encoding="utf-8"))
    assert row is not None, f"the README has no row {purpose!r}"
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`]+)`", row[1])]


def commands(heading: str) -> list[str]:
    """Return the blocks of shell below a *heading* (without its `#`), up to the next heading."""
    found = re.search(
        rf"(?ms)^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", _README.read_text(encoding="utf-8")
    )
    assert found is not None, f"the README has no heading {heading!r}"
    return re.findall(r"(?ms)^```sh\n(.*?)^```$", found[1])
