"""The key file: made on the first start, refused when others can read it, never replaced.

A key that is lost cannot be made again, and its secrets with it. When secrets are sealed and no
key is there, new ones get a key of their own under another name, and the lost one can still be
put back beside it: nothing that was ever sealed is given up, and the queue stays usable meanwhile.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from transferd.model.errors import StoreError
from transferd.store.directory import sync_directory
from transferd.store.vault import KEY_BYTES, key_id

log = logging.getLogger(__name__)


def load_keys(path: Path, random: Callable[[int], bytes], *, in_use: bool) -> tuple[bytes, ...]:
    """Read the key at *path* (64 hexadecimal digits) and those that once stood in for it.

    The caller holds the state directory's lock; *in_use* says whether anything is sealed.

    Returns: keys, the one to seal with first.
    Raises:
        StoreError: a file is not a key, can be read by others, or cannot be read or made.
    """
    others = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
    keys = tuple(_read(file) for file in (path, *others) if file.exists())
    if keys:
        return keys
    key = random(KEY_BYTES)
    if in_use:
        stand_in = path.with_name(f"{path.stem}-{key_id(key).hex()}{path.suffix}")
        log.warning(
            "the key %s is missing: stored secrets cannot be opened until it is put back;"
            " new ones are sealed with %s",
            path,
            stand_in,
        )
        path = stand_in
    _make(path, key)
    return (key,)


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(4096)
    except OSError as error:
        raise StoreError(
            f"cannot read the key {path}: {error.strerror}; make it a readable file of this user"
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise StoreError(
            f"cannot use the key {path}: others can reach it"
            f" (mode {stat.S_IMODE(status.st_mode):04o}); run chmod 600 on it,"
            " and set new passwords if somebody may have read it"
        )
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"cannot use the key {path}: it does not hold {2 * KEY_BYTES} hexadecimal digits;"
            " put the right file back, or move this one away to go on without the old secrets"
        )
    return key


def _make(path: Path, key: bytes) -> None:
    # Written under another name first: a crash leaves no half of a key under its own.
    draft = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(key.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot make the key {path}: {error.strerror};"
            " make the directory writable and free some space"
        ) from error
