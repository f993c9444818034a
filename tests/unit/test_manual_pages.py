"""Manual pages say what the grammars and the configuration say."""

from __future__ import annotations

import argparse
import re

import msgspec
import pytest

from transferd.arguments import make_parser as make_daemon_parser
from transferd.cli.arguments import make_parser
from transferd.cli.documents import make_documents
from transferd.cli.outcomes import Exit
from transferd.config import Config
from transferd.installation.layout import Maker
from transferd.installation.roff import escaped


def manual(name: str) -> str:
    """A page, with its escapes undone."""
    text = make_documents()[Maker.MANUAL, name]
    return re.sub(r"\\f[BIR]|\\&", "", text).replace("\\-", "-").replace("\\(aq", "'")


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Every long option of a parser and of its commands."""
    found = set()
    for action in parser._actions:
        found |= {name for name in action.option_strings if name.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for nested in action.choices.values():
                found |= options(nested)
    return found


@pytest.mark.parametrize(
    ("name", "parser"),
    [("transferctl.1", make_parser()), ("transferd.8", make_daemon_parser())],
    ids=["transferctl", "transferd"],
)
def test_every_option_is_in_the_manual(name: str, parser: argparse.ArgumentParser) -> None:
    """Rule: a page is made of the grammar, and leaves nothing out but --help."""
    text = manual(name)
    missing = {option for option in options(parser) if not re.search(rf"{option}\b", text)}
    assert missing - {"--help"} == set()


def test_every_command_is_in_the_manual() -> None:
    """Rule: those of commands with commands of their own, too."""
    headings = re.findall(r'(?m)^\.SS "transferctl (.*?) \[OPTION\]', manual("transferctl.1"))
    assert {"get", "credentials set", "take-ownership", "admin install"} <= set(headings)
    assert len(headings) == len(set(headings))


def test_every_key_of_the_configuration_is_in_the_manual() -> None:
    """Rule: with its section."""
    text = manual("transferd.toml.5")
    for section in msgspec.structs.fields(Config):
        assert f'.SH "[{section.name}]"' in text
        for key in msgspec.structs.fields(section.type):
            assert re.search(rf"(?m)^{key.name} = ", text), key.name


def test_every_exit_status_is_in_the_manual() -> None:
    """Rule: scripts rely on them."""
    told = re.search(r"\.SH EXIT STATUS\n(.*?)\n\.SH", manual("transferctl.1"), re.DOTALL)
    assert told is not None
    terms = re.findall(r"\.TP\n([\d, ]+)\n", told[1])
    assert {int(number) for term in terms for number in term.split(",")} == set(Exit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--option", "\\-\\-option"),
        (".hidden\n'quoted", "\\&.hidden\n\\(aqquoted"),
        ("a\\b", "a\\eb"),
        ("~/x…", "\\(ti/x\\|.\\|.\\|.\\&"),
    ],
)
def test_text_is_never_a_command_of_roff(text: str, expected: str) -> None:
    """Rule: a dot or an apostrophe at the start of a line would swallow the line."""
    assert escaped(text) == expected
