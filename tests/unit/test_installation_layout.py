"""What is installed where."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferd.cli.documents import make_documents
from transferd.installation import data
from transferd.installation.closure import needed
from transferd.installation.layout import LAYOUTS, LOCAL, PACKAGE, Kind, Layout, Maker, link_to

CHECKOUT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@EACH
def test_every_file_has_one_place_and_a_maker(layout: Layout) -> None:
    """Rule: no two rows meet, and what a row is made of exists."""
    rows = layout.rows()
    assert len({row.path for row in rows}) == len(rows)
    made = make_documents()
    for row in rows:
        assert (
            row.source in data.NAMES if row.maker is Maker.DATA else (row.maker, row.source) in made
        )


@EACH
def test_only_what_is_configured_is_outside_of_the_prefix(layout: Layout) -> None:
    """Rule: a package has its files in /usr, a machine's own software in /usr/local and /opt."""
    for row in layout.rows():
        configured = row.path.is_relative_to("/etc")
        assert configured or row.path.is_relative_to(layout.prefix)
        assert (row.kind is Kind.CONFIGURATION) == configured


def test_everything_that_comes_with_the_code_is_installed() -> None:
    """Rule: a file beside the code that no row installs is forgotten."""
    installed = {row.source for row in LOCAL.rows() if row.maker is Maker.DATA}
    beside = {
        str(path.relative_to(CHECKOUT))
        for folder in ("systemd", "config")
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file()
    }
    assert installed == set(data.NAMES) == beside


@EACH
@pytest.mark.parametrize("name", [name for name in data.NAMES if name.endswith(".service")])
def test_units_run_the_environments_own_programs(layout: Layout, name: str) -> None:
    """Rule: a unit does not depend on a link that somebody may move."""
    text = data.with_programs_in(data.read(name), layout.environment)
    (start,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert start.startswith(f"ExecStart={layout.environment}/bin/transferd")
    assert "/usr/local/bin" not in text


def test_links_are_relative_where_debian_wants_it() -> None:
    """Rule: within a top-level directory a link is relative, and absolute across."""
    assert LOCAL.links(LOCAL.environment)[Path("/usr/local/bin/transferd")] == Path(
        "/opt/transferd/bin/transferd"
    )
    assert PACKAGE.links(PACKAGE.environment)[Path("/usr/bin/transferctl")] == Path(
        "../lib/transferd/bin/transferctl"
    )
    assert link_to(Path("/opt/a"), Path("/opt/b")) == Path("a")


def test_a_copy_has_what_is_needed_and_no_more() -> None:
    """Rule: what runs is copied with all that it needs in turn; tests, gates and pip are not."""
    names = set(needed())
    assert {
        "transferd",
        "aiohttp",
        "multidict",
        "cryptography",
        "cffi",
        "rich",
        "packaging",
    } <= names
    assert not {"pytest", "mypy", "ruff", "hypothesis", "pip", "setuptools"} & names
