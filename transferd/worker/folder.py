"""The open directory of a partial file, or of many; everything here blocks."""

from __future__ import annotations

import os

from transferd.worker.directory import flush_directory, open_directory
from transferd.worker.local_faults import translating


class Folder:
    """A directory that names are looked up in, wherever it is by now."""

    def __init__(self, descriptor: int, path: str) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, path: str, local: str, *, wary: bool = False) -> Folder:
        """Open the directory of *local*; *wary* as for `open_directory`.

        Raises:
            TransferFailed: `local_directory_missing`, `local_access_denied`, `local_forbidden`.
        """
        with translating("open the directory", path, local):
            return cls(open_directory(path, wary=wary), path)

    def flush(self) -> None:
        """Make the names in it durable.

        Raises:
            OSError: the disk failed; the names may be lost.
        """
        flush_directory(self.descriptor)

    def same(self, other: Folder) -> bool:
        """Whether it is the same directory."""
        return os.path.sameopenfile(self.descriptor, other.descriptor)

    def close(self) -> None:
        """Let go of it; doing it again is nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
