"""Libraries that are imported late, by whichever thread comes first."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from transferd.auth.libraries import load

#: Meets the other one where both are imported at once.
_MODULE = """
import threading
try:
    threading.gate_of_a_test.wait(0.2)
    met = True
except threading.BrokenBarrierError:
    met = False
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two modules that were not imported yet."""
    names = ("hen_of_a_test", "egg_of_a_test")
    for name in names:
        (tmp_path / f"{name}.py").write_text(_MODULE)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(threading, "gate_of_a_test", threading.Barrier(2), raising=False)
    return names


def test_one_library_is_imported_at_a_time(modules: tuple[str, str]) -> None:
    """Rule: nobody finds half of a library, and takes it for missing."""
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(load, modules))
    assert [sys.modules[name].met for name in modules] == [False, False]


def test_what_is_missing_is_named() -> None:
    """Rule: an error says which library it is."""
    with pytest.raises(ImportError, match="no_such_library"):
        load("sys", "no_such_library")
