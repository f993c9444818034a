"""Secrets at rest: what opens them, what does not, and the file of the key."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from transferd.model.credentials import Scheme, Secret, Target
from transferd.model.errors import StoreError, VaultError
from transferd.model.job import Header, JobId
from transferd.store.keys import load_keys
from transferd.store.vault import KEY_BYTES, Vault, key_id

KEY, OTHER = b"k" * KEY_BYTES, b"o" * KEY_BYTES
JOB, ELSE = JobId("00000000-0000-4000-8000-000000000001"), JobId("another job")
PASSWORD = "käse \U0001f600 \0 " + "x" * 70_000


def _numbers() -> Callable[[int], bytes]:
    """A source that never gives the same bytes twice."""
    count = itertools.count()
    return lambda size: next(count).to_bytes(size, "big")


def _vault(*keys: bytes) -> Vault:
    return Vault(keys or (KEY,), _numbers())


def _seal(vault: Vault, password: str = PASSWORD) -> bytes:
    return vault.seal_password(JOB, Target.SERVER, Scheme.BASIC, Secret(password))


def _open(vault: Vault, sealed: bytes) -> str:
    return vault.open_password(JOB, Target.SERVER, Scheme.BASIC, sealed).reveal()


@pytest.mark.parametrize("password", ["", "x", PASSWORD])
def test_a_sealed_password_opens_at_its_place(password: str) -> None:
    """Every text comes back, the empty one too."""
    vault = _vault()
    assert _open(vault, _seal(vault, password)) == password


def test_a_sealed_password_shows_nothing() -> None:
    """Neither the text nor that two texts are the same."""
    vault = _vault()
    first, second = _seal(vault, "hunter2"), _seal(vault, "hunter2")
    assert b"hunter2" not in first
    assert first != second
    assert "k" * 8 not in repr(vault)


@pytest.mark.parametrize(
    ("job", "target", "scheme"),
    [
        (ELSE, Target.SERVER, Scheme.BASIC),
        (JOB, Target.PROXY, Scheme.BASIC),
        (JOB, Target.SERVER, Scheme.DIGEST),
    ],
)
def test_a_sealed_password_opens_nowhere_else(job: JobId, target: Target, scheme: Scheme) -> None:
    """Who can write to the file cannot move alice's password into a job to his own server."""
    vault = _vault()
    with pytest.raises(VaultError, match="another place"):
        vault.open_password(job, target, scheme, _seal(vault))
    with pytest.raises(VaultError):
        vault.open_headers(JOB, _seal(vault))


def test_another_key_is_told_from_damage() -> None:
    """The remedy differs: put the key back, or set the credentials again."""
    sealed = _seal(_vault(KEY))
    with pytest.raises(VaultError, match=f"key {key_id(KEY).hex()}.*put the key file back"):
        _open(_vault(OTHER), sealed)
    assert _open(_vault(OTHER, KEY), sealed) == PASSWORD


def test_the_first_key_seals() -> None:
    """A stand-in that is kept beside the real key only opens."""
    assert _open(_vault(KEY), _seal(_vault(KEY, OTHER))) == PASSWORD


def test_damage_anywhere_is_noticed() -> None:
    """Each byte is covered: format, key, nonce, text and tag."""
    vault = _vault()
    sealed = _seal(vault, "hunter2")
    for index in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[index] ^= 1
        with pytest.raises(VaultError):
            _open(vault, bytes(damaged))
    for length in range(len(sealed)):
        with pytest.raises(VaultError):
            _open(vault, sealed[:length])


def test_headers_come_back_in_their_order() -> None:
    """One name may be there twice."""
    vault = _vault()
    headers = [Header(name=name, value=Secret(f"väl {name}")) for name in ("B", "A", "B")]
    opened = vault.open_headers(JOB, vault.seal_headers(JOB, headers))
    assert [(each.name, each.value.reveal()) for each in opened] == [
        ("B", "väl B"),
        ("A", "väl A"),
        ("B", "väl B"),
    ]


def test_marks_depend_on_the_key() -> None:
    """Without it nobody can try passwords against the fingerprint of a request."""
    assert _vault(KEY).marks(b"x") != _vault(OTHER).marks(b"x")
    assert _vault(KEY).marks(b"x")[0] in _vault(OTHER, KEY).marks(b"x")
    assert _vault(KEY).marks(b"x") != _vault(KEY).marks(b"y")


# ── the file of the key ──────────────────────────────────────────────────────────────────────


def _load(path: Path, *, in_use: bool = False) -> tuple[bytes, ...]:
    return load_keys(path, os.urandom, in_use=in_use)


def test_the_first_start_makes_a_key_of_its_own(tmp_path: Path) -> None:
    """Only its owner can read it, and later starts find it."""
    path = tmp_path / "vault.key"
    (key,) = _load(path)
    assert len(key) == KEY_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _load(path, in_use=True) == (key,)
    assert [each.name for each in tmp_path.iterdir()] == ["vault.key"]


def test_a_crash_while_the_key_was_made_is_forgotten(tmp_path: Path) -> None:
    """A key has its name only when it is whole."""
    (tmp_path / "vault.key.new").write_bytes(b"12")
    _load(tmp_path / "vault.key")
    assert [each.name for each in tmp_path.iterdir()] == ["vault.key"]


def test_a_lost_key_is_not_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stand-in takes over under another name, so that the lost one can be put back."""
    path = tmp_path / "vault.key"
    (lost,) = _load(path)
    path.rename(tmp_path / "kept")
    (stand_in,) = _load(path, in_use=True)
    assert "missing" in caplog.text
    assert not path.exists()
    assert _load(path, in_use=True) == (stand_in,)
    (tmp_path / "kept").rename(path)
    assert _load(path, in_use=True) == (lost, stand_in)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """The message says what to do about it."""
    path = tmp_path / "vault.key"
    _load(path)
    path.chmod(mode)
    with pytest.raises(StoreError, match="chmod 600"):
        _load(path)


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31, "ab" * 33, "ab" * 4000, "\u00e4" * 64])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    """It is not replaced either: it may be all that is left of the real one."""
    path = tmp_path / "vault.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="64 hexadecimal digits"):
        _load(path)
    assert path.read_text() == text


def test_a_key_is_a_file_of_its_own(tmp_path: Path) -> None:
    """Neither a link that somebody has put there, nor a directory."""
    path = tmp_path / "vault.key"
    (key_file := tmp_path / "elsewhere").write_text("ab" * 32)
    path.symlink_to(key_file)
    with pytest.raises(StoreError, match="cannot read the key"):
        _load(path)
    path.unlink()
    path.mkdir(mode=0o700)
    with pytest.raises(StoreError, match="cannot read the key"):
        _load(path)


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(StoreError, match=r"cannot make the key .*vault\.key"):
        _load(tmp_path / "missing" / "vault.key")
