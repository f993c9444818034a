"""The state directory: its mode, and names in it that survive power loss."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from transferd.model.errors import StoreError


def prepare_directory(directory: Path) -> Path:
    """Make the directory (mode 0700), or make sure that nobody else can put files into it.

    Returns: its absolute path.
    Raises:
        StoreError: it cannot be made, is no directory, or others can write to it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise StoreError(
            f"cannot make the state directory {directory}: {error.strerror};"
            " make its parent writable for this user or choose another one"
        ) from error
    # Not mended here: this may well be a directory that was named by mistake, such as /tmp.
    if status.st_uid not in {0, os.geteuid()} or stat.S_IMODE(status.st_mode) & 0o022:
        raise StoreError(
            f"cannot use the state directory {directory}: others can write to it;"
            " run chmod 700 on it as its owner, or choose another one"
        )
    return directory.absolute()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
