"""May a service run from there: is it root's, may everybody read it, and nobody else write?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def obstacle(path: Path) -> str | None:
    """Return the first thing that keeps a service from running a program at *path*, if any.

    Looks at every component of the path and, where links are among them, of what they lead to.
    """
    for place in (path, path.resolve()):
        for component in (*reversed(place.absolute().parents), place.absolute()):
            if (found := _fault(component)) is not None:
                return found
    return None


def obstacle_below(directory: Path) -> str | None:
    """Return the first thing in a directory tree that others may write or not read, if any."""
    for place in _tree(directory):
        if (found := _fault(place)) is not None:
            return found
    return None


def _tree(directory: Path) -> Iterator[Path]:
    for folder, _, files in os.walk(directory):
        yield Path(folder)
        for name in files:
            yield Path(folder, name)


def _fault(path: Path) -> str | None:
    try:
        found = path.lstat()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if found.st_uid != 0:
        return f"{path} belongs to uid {found.st_uid}, not to root"
    if stat.S_ISLNK(found.st_mode):
        return None  # its mode says nothing
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by others than root"
    if not found.st_mode & stat.S_IROTH:
        return f"{path} cannot be read by everybody"
    if stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_IXOTH:
        return f"{path} cannot be entered by everybody"
    return None
