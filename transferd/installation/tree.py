"""A directory tree into which files are put, none of them ever half there, and taken out again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path


class Tree:
    """The file system below a root directory, which need not be the running machine's.

    Paths are as they are on the machine that will run from it; they are found below the root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def at(self, path: Path) -> Path:
        """Return where a path of the machine is."""
        return self.root / path.relative_to("/")

    def has(self, path: Path) -> bool:
        """Whether there is anything by that name."""
        return os.path.lexists(self.at(path))

    def read(self, path: Path) -> bytes | None:
        """Return the contents of a regular file; None if there is none."""
        place = self.at(path)
        return place.read_bytes() if place.is_file() and not place.is_symlink() else None

    def leads_to(self, path: Path) -> Path | None:
        """Return where a link leads; None if there is no link."""
        place = self.at(path)
        return Path(os.readlink(place)) if place.is_symlink() else None

    def missing(self, paths: Iterable[Path]) -> list[Path]:
        """Return the directories that *paths* need and that are not there, outermost first."""
        needed = {directory for path in paths for directory in path.parents}
        return sorted(directory for directory in needed if not self.at(directory).is_dir())

    def make_directories(self, directories: Iterable[Path]) -> None:
        """Make directories that everybody may enter, outermost first."""
        for directory in directories:
            self.at(directory).mkdir(mode=0o755, exist_ok=True)

    def write(self, path: Path, contents: bytes) -> bool:
        """Make a file, for everybody to read, have these contents; whether it was another."""
        if self.read(path) == contents:
            return False
        hidden = self._hidden(path)
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(contents)
            file.flush()
            os.fsync(descriptor)
        hidden.replace(self.at(path))
        return True

    def link(self, path: Path, target: Path) -> bool:
        """Make *path* a link to *target*; whether it was none."""
        if self.leads_to(path) == target:
            return False
        hidden = self._hidden(path)
        hidden.symlink_to(target)
        hidden.replace(self.at(path))
        return True

    def replace_directory(self, path: Path, new: Path) -> None:
        """Put the directory *new* (as it is here, beside *path*) in the place of *path*."""
        place = self.at(path)
        old = place.with_name(f".{place.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a directory with all that is in it, if it is there."""
        place = self.at(path)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    def remove_empty(self, directories: Iterable[Path]) -> None:
        """Remove those directories, innermost first, in which there is nothing."""
        for directory in sorted(directories, reverse=True):
            place = self.at(directory)
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()

    def _hidden(self, path: Path) -> Path:
        place = self.at(path)
        hidden = place.with_name(f".{place.name}.new")
        hidden.unlink(missing_ok=True)
        return hidden
