"""The README says what is true."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import transferd
from transferd.cli.arguments import parse
from transferd.cli.outcomes import Exit
from transferd.config import parse_config
from transferd.model.job import Priority
from transferd.model.rates import Rates
from transferd.model.states import mermaid

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_state_diagram_is_the_one_that_the_table_draws() -> None:
    """A diagram drawn by hand dies."""
    assert f"```mermaid\n{mermaid()}\n```" in README


def test_the_python_sample_uses_names_that_exist() -> None:
    """What a newcomer copies must run."""
    samples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    tree = ast.parse("\n".join(samples))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "transferd"
    }
    assert imported | used <= set(transferd.__all__)


def test_the_configuration_sample_can_be_used() -> None:
    """What a newcomer copies must be read, and mean what the text says."""
    (sample,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    config = parse_config(sample, "README.md")
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    rates = config.schedule.schedule().rates(noon, UTC).within(config.bandwidth.rates())
    own = {Priority.NORMAL: 250_000, Priority.LOW: 0}
    assert rates == Rates(total=5_000_000, by_priority=own)


def test_every_exit_status_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts rely on them: the README and the help have all of them, and no others."""
    with pytest.raises(SystemExit):
        parse(["--help"])
    for text in (README, capsys.readouterr().out):
        (told,) = re.findall(r"exit status: (.*?)\(the\s+job\s+goes", text, re.DOTALL | re.I)
        assert {int(number) for number in re.findall(r"\d+", told)} == set(Exit)


def test_every_link_into_the_checkout_leads_somewhere() -> None:
    """Files move, links stay behind."""
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)


def test_the_contents_name_every_section() -> None:
    """A section that nobody can jump to is not found in so long a page."""
    titles = re.findall(r"^## (.*)", README, re.MULTILINE)
    contents = re.findall(r"^\[(.*?)\]\(#(.*?)\)", README, re.MULTILINE)
    assert contents == [(title, title.lower().replace(" ", "-")) for title in titles]
