"""Which file a path leads to, as a worker sees it."""

from __future__ import annotations

import os
from pathlib import Path

from transferd.model.job import Inode
from transferd.worker.inode import inode_of


def inode_at(path: Path | str) -> Inode:
    """Return which file *path* leads to."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return inode_of(descriptor)
    finally:
        os.close(descriptor)
