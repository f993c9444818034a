"""Security libraries, which are imported when a job needs them: they are large, or not there."""

from __future__ import annotations

import importlib
import threading

_loading = threading.Lock()


def load(*names: str) -> None:
    """Import libraries, in that order; what is imported already costs nothing.

    One thread at a time: some import their own parts in circles, and a thread that came in between
    would find half of one, and take it for broken.

    Raises:
        ImportError, OSError: one is not there, or cannot be used.
    """
    with _loading:
        for name in names:
            importlib.import_module(name)
