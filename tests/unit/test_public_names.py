"""The public surface of the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import transferd

PROMISED = """
    BadRequest BlockerAnswer Callback CallerError Conflict CredentialBody DaemonFault ErrorAnswer
    FileAnswer FileBody GapAnswer Job JobAnswer JobBody JobFailed JobGone JobState Manager
    NegotiateBody NegotiateOptions NoDaemon NotAllowed NotFound NoticeAnswer NoticeKind NotifyBody
    PassportBody PassportOptions Scheme Secret Target TooLarge TransferdError Unavailable connect
"""


def test_the_public_names_are_these() -> None:
    """Programs rely on every name; one goes or comes by decision only."""
    assert sorted(transferd.__all__) == sorted(PROMISED.split())


@pytest.mark.parametrize("name", transferd.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    """PEP 562: a name that is promised is found when it is asked for."""
    assert getattr(transferd, name) is getattr(transferd, name)
    assert name in dir(transferd)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """hasattr and `from transferd import x` rely on it."""
    with pytest.raises(AttributeError, match="nonsense"):
        transferd.nonsense  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    """What is fetched lazily stands beside it as an import for type checkers."""
    tree = ast.parse(Path(str(transferd.__file__)).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(transferd.__all__)


def test_the_import_brings_in_nothing_large() -> None:
    """A program that wants the version does not pay for an HTTP client."""
    code = (
        "import sys, transferd; transferd.__version__;"
        "print(*[m for m in ('aiohttp', 'asyncio', 'msgspec', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_client_brings_in_no_http_library() -> None:
    """Rule: whoever talks to the daemon pays for the little HTTP that this takes."""
    code = (
        "import sys, transferd; transferd.connect;"
        "print(*[m for m in ('aiohttp', 'rich', 'transferd.model.job') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
