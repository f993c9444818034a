"""The files of keys: which of them open, which one seals, and what is said of the others."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from transferd.model.errors import StoreError
from transferd.model.upkeep import Severity
from transferd.store.keys import KeyFiles, find_keys, install_key, make_key, stand_in_path
from transferd.store.vault import KEY_BYTES

FIRST, SECOND, THIRD = (bytes([number]) * KEY_BYTES for number in (1, 2, 3))


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """Where the service manager puts what it hands over."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    return directory


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    return directory


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def _keys(files: KeyFiles) -> list[bytes]:
    return [each.key for each in files.keys]


def _codes(files: KeyFiles) -> list[str]:
    for flaw in files.flaws:
        assert flaw.severity is Severity.ERROR
        assert flaw.remedy
    return [flaw.code for flaw in files.flaws]


def test_a_key_is_written_for_its_owner_alone(state: Path) -> None:
    """What is left of one that was being made is in nobody's way."""
    _write(state / "vault.key.new", b"12")
    make_key(state / "vault.key", FIRST)
    assert [each.name for each in state.iterdir()] == ["vault.key"]
    assert stat.S_IMODE((state / "vault.key").stat().st_mode) == 0o600
    assert _keys(find_keys(state, None)) == [FIRST]


def test_a_key_shows_itself_nowhere(state: Path) -> None:
    """Neither in a repr nor in what is said of files."""
    _write(state / "vault.key", FIRST.hex().encode(), 0o644)
    files = find_keys(state, None)
    assert FIRST.hex() not in repr(files)
    assert repr(FIRST)[2:-1] not in repr(files)


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(StoreError, match=r"cannot make the key .*vault\.key"):
        make_key(tmp_path / "missing" / "vault.key", FIRST)


@pytest.mark.parametrize(
    "content",
    [FIRST, FIRST.hex().encode(), FIRST.hex().upper().encode() + b"\n"],
    ids=["bytes", "digits", "a line"],
)
@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
def test_a_credential_seals_first(
    state: Path, credentials: Path, mode: int, content: bytes
) -> None:
    """systemd 252 hands it over with mode 0400, systemd 257 with 0440."""
    _write(credentials / "vault.key", content, mode)
    make_key(state / "vault.key", SECOND)
    files = find_keys(state, credentials)
    assert _keys(files) == [FIRST, SECOND]
    assert files.sealing is not None
    assert files.sealing.credential
    assert not files.flaws


def test_the_credential_before_opens_and_never_seals(state: Path, credentials: Path) -> None:
    """It is handed over beside its successor, until everything is sealed with that one."""
    _write(credentials / "vault.key.old", FIRST, 0o400)
    assert _keys(find_keys(state, credentials)) == [FIRST]
    assert find_keys(state, credentials).sealing is None
    _write(credentials / "vault.key", SECOND, 0o400)
    assert _keys(find_keys(state, credentials)) == [SECOND, FIRST]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_reach_only_opens(state: Path, mode: int) -> None:
    """What it has sealed is not lost for that, and nothing more is sealed with it."""
    _write(state / "vault.key", FIRST.hex().encode(), mode)
    make_key(stand_in_path(state, SECOND), SECOND)
    files = find_keys(state, None)
    assert _keys(files) == [SECOND, FIRST]
    assert _codes(files) == ["key_exposed"]
    assert "chmod 600" in files.flaws[0].remedy


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o450, 0o404])
def test_a_credential_that_others_can_reach_only_opens(
    state: Path, credentials: Path, mode: int
) -> None:
    """Reading by the group is systemd's access list; anything more is somebody else."""
    _write(credentials / "vault.key", FIRST, mode)
    files = find_keys(state, credentials)
    assert files.sealing is None
    assert _codes(files) == ["key_exposed"]


def test_a_key_of_somebody_else_only_opens(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner can read it, whatever its mode; root's is as good as ours."""
    make_key(state / "vault.key", FIRST)
    own = os.stat(state / "vault.key").st_uid
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    files = find_keys(state, None)
    assert (_codes(files) == ["key_exposed"]) is (own != 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"zz" * 32, b"ab" * 31, b"ab" * 33, b"ab" * 4000, "\u00e4".encode() * 64, FIRST],
    ids=["empty", "no digits", "short", "long", "very long", "no ASCII", "bytes"],
)
def test_a_file_that_is_no_key_is_left_as_it_is(state: Path, content: bytes) -> None:
    """It may be all that is left of the real one; others serve meanwhile."""
    _write(state / "vault.key", content)
    make_key(stand_in_path(state, SECOND), SECOND)
    files = find_keys(state, None)
    assert _keys(files) == [SECOND]
    assert _codes(files) == ["key_unusable"]
    assert "64 hexadecimal digits" in files.flaws[0].text
    install_key(state, THIRD, files, lost=False)
    assert (state / "vault.key").read_bytes() == content
    assert sorted(_keys(find_keys(state, None))) == [SECOND, THIRD]


def test_a_key_is_a_file_of_its_own(state: Path) -> None:
    """Neither a link that somebody has put there, nor a directory, a FIFO or a socket."""
    path = state / "vault.key"
    make_key(state / "elsewhere", FIRST)
    path.symlink_to("elsewhere")
    assert _codes(find_keys(state, None)) == ["key_unusable"]
    path.unlink()
    path.mkdir(mode=0o700)
    assert _codes(find_keys(state, None)) == ["key_unusable"]
    path.rmdir()
    os.mkfifo(path, 0o600)
    assert _codes(find_keys(state, None)) == ["key_unusable"]
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert _codes(find_keys(state, None)) == ["key_unusable"]


def test_a_new_key_takes_the_place_of_the_old_one(state: Path) -> None:
    """The old one opens until nothing needs it."""
    make_key(state / "vault.key", FIRST)
    install_key(state, SECOND, find_keys(state, None), lost=False)
    assert _keys(find_keys(state, None)) == [SECOND, FIRST]
    assert sorted(each.name for each in state.iterdir()) == sorted(
        ["vault.key", stand_in_path(state, FIRST).name]
    )


@pytest.mark.parametrize("lost", [True, False])
def test_the_place_of_a_lost_key_is_left_for_it(state: Path, lost: bool) -> None:
    """Whoever puts it back must not have to replace the key that seals by then."""
    install_key(state, FIRST, find_keys(state, None), lost=lost)
    assert (state / "vault.key").exists() is not lost
    assert _keys(find_keys(state, None)) == [FIRST]
