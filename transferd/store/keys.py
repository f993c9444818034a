"""The files of keys: credentials of the service manager, and those in the state directory.

A key that is lost cannot be made again, and its secrets with it. So no file is ever replaced whose
key may be needed, and a key that is not there, or cannot be used, keeps the service from nothing
but the secrets that it has sealed: new ones get a key of their own under another name, a stand-in,
and the lost one can still be put back beside it. The same holds for a key that others can reach:
it opens what it has sealed, and seals nothing any more. A service that would not start for it
would only add all users' jobs to the damage.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transferd.model.errors import StoreError
from transferd.model.upkeep import Finding, Severity
from transferd.store.directory import sync_directory
from transferd.store.vault import KEY_BYTES, key_id

#: The credential that seals (systemd.exec(5), LoadCredential=), and the one before it.
CREDENTIAL, OLD_CREDENTIAL = "vault.key", "vault.key.old"
#: The key in the state directory; stand-ins are vault-ID.key.
KEY_FILE = "vault.key"
_STAND_INS = "vault-*.key"
_DRAFT = "vault.key.new"
_READ_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key that was read, and where from."""

    path: Path
    key: bytes = field(repr=False)
    #: Given by the service manager, so that nobody here can change or remove it.
    credential: bool
    #: Whether it may seal: nobody else can reach it, and it is not the one before.
    seals: bool

    @property
    def id(self) -> bytes:
        """The key's name, which tells nothing of it."""
        return key_id(self.key)

    @property
    def primary(self) -> bool:
        """Whether it is the state directory's own key, not a stand-in."""
        return not self.credential and self.path.name == KEY_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """What was found."""

    #: Those that can be used, the one to seal with first.
    keys: tuple[StoredKey, ...]
    #: What is wrong with files.
    flaws: tuple[Finding, ...]

    @property
    def sealing(self) -> StoredKey | None:
        """The key to seal with; None: one has to be made."""
        return next((each for each in self.keys if each.seals), None)


def find_keys(state: Path, credentials: Path | None) -> KeyFiles:
    """Read every key; *credentials* is the directory that the service manager names.

    The caller holds the state directory's lock. Nothing is raised: a file that cannot be used is
    a flaw, and all others serve.
    """
    keys: list[StoredKey] = []
    flaws: list[Finding] = []
    for path, credential in _places(state, credentials):
        try:
            key, exposed = _read(path, credential=credential)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            flaws.append(_unusable(path, error))
            continue
        seals = not exposed and path.name != OLD_CREDENTIAL
        keys.append(StoredKey(path=path, key=key, credential=credential, seals=seals))
        if exposed:
            flaws.append(_exposed(path, exposed, credential=credential))
    return KeyFiles(
        keys=tuple(sorted(keys, key=lambda each: not each.seals)),
        flaws=tuple(flaws),
    )


def stand_in_path(state: Path, key: bytes) -> Path:
    """Where a key lies that is not, or not yet, or not any more, the state directory's own."""
    return state / f"vault-{key_id(key).hex()}.key"


def make_key(path: Path, key: bytes) -> None:
    """Write a key durably; one that is there is replaced.

    Raises:
        StoreError: it cannot be made.
    """
    # Written under another name first: a crash leaves no half of a key under its own.
    draft = path.with_name(_DRAFT)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _making(path):
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(key.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
        sync_directory(path.parent)


def install_key(state: Path, key: bytes, before: KeyFiles, *, lost: bool) -> None:
    """Put a new key in place, so that it seals after the next start too.

    It takes the place of the state directory's own key, which becomes a stand-in until nothing
    needs it. Where that key is *lost* (it has sealed something, and is not here) or cannot be
    read, its place is left alone, so that it can be put back or mended, and the new key is a
    stand-in itself. Each key has a name on the disk at every moment.

    Raises:
        StoreError: it cannot be made.
    """
    new, place = stand_in_path(state, key), state / KEY_FILE
    make_key(new, key)
    old = next((each for each in before.keys if each.primary), None)
    if old is not None:
        make_key(stand_in_path(state, old.key), old.key)
    elif lost or os.path.lexists(place):
        return
    with _making(place):
        os.rename(new, place)
        sync_directory(state)


def remove_key(path: Path) -> None:
    """Remove a key that nothing needs any more, durably.

    Raises:
        StoreError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot remove the key {path}, which nothing needs any more: {error.strerror};"
            " remove it by hand"
        ) from error


def forget_draft(state: Path) -> None:
    """Remove what a crash has left of a key that was being made: it has sealed nothing."""
    with _making(state / KEY_FILE):
        (state / _DRAFT).unlink(missing_ok=True)


@contextlib.contextmanager
def _making(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot make the key {path}: {error.strerror};"
            " make the directory writable and free some space"
        ) from error


def _places(state: Path, credentials: Path | None) -> Iterator[tuple[Path, bool]]:
    if credentials is not None:
        yield credentials / CREDENTIAL, True
    yield state / KEY_FILE, False
    for path in sorted(state.glob(_STAND_INS)):
        yield path, False
    if credentials is not None:
        yield credentials / OLD_CREDENTIAL, True


def _read(path: Path, *, credential: bool) -> tuple[bytes, str]:
    """Return a key, and how others can reach it, if they can.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a key.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(_READ_BYTES)
    return _key_of(content, raw=credential), _reach(status, credential=credential)


def _key_of(content: bytes, *, raw: bool) -> bytes:
    if raw and len(content) == KEY_BYTES:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        or_raw = f", nor {KEY_BYTES} bytes" if raw else ""
        raise ValueError(f"it does not hold {2 * KEY_BYTES} hexadecimal digits{or_raw}")
    return key


def _reach(status: os.stat_result, *, credential: bool) -> str:
    # systemd hands credentials over with 0400 or, from 257 on, 0440: its directory is 0500, and
    # the group's bits are the mask of an access list that names the service's user alone.
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o037 if credential else 0o077):
        return f"mode {mode:04o}"
    if status.st_uid not in {0, os.geteuid()}:
        return f"it belongs to user {status.st_uid}"
    return ""


def _unusable(path: Path, error: OSError | ValueError) -> Finding:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return Finding(
        code="key_unusable",
        severity=Severity.ERROR,
        text=f"the key {path} cannot be used: {reason}; what it has sealed stays closed",
        remedy="put the right file back, or move this one away to go on without the old secrets",
    )


def _exposed(path: Path, how: str, *, credential: bool) -> Finding:
    remedy = (
        "have the service manager hand it over to nobody but the service"
        if credential
        else f"run chmod 600 {path}, then `transferctl admin rotate-key`"
    )
    return Finding(
        code="key_exposed",
        severity=Severity.ERROR,
        text=f"others can reach the key {path} ({how}); it opens secrets, and seals no new ones",
        remedy=f"{remedy}, and set new passwords if somebody may have read it",
    )
