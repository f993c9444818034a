"""Secrets at rest: what opens them, and what does not."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from transferd.model.credentials import Scheme, Secret, Target
from transferd.model.errors import VaultError
from transferd.model.job import Header, JobId
from transferd.store.vault import KEY_BYTES, Vault, key_id

KEY, OTHER = b"k" * KEY_BYTES, b"o" * KEY_BYTES
MARKER = b"m" * KEY_BYTES
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


def test_marks_depend_on_the_marker_alone() -> None:
    """Without it nobody can try passwords against a request; with it any sealing key will do."""
    old, new = Vault([KEY], _numbers(), [MARKER]), Vault([OTHER], _numbers(), [b"n" * 32, MARKER])
    assert old.marks(b"x")[0] == new.marks(b"x")[1]
    assert old.marks(b"x")[0] != new.marks(b"x")[0]
    assert old.marks(b"x") != old.marks(b"y")


def test_a_marker_is_sealed_as_a_secret_is() -> None:
    """It lies in the queue file, beside what is marked with it."""
    sealed = _vault(KEY).seal_marker(MARKER)
    assert MARKER not in sealed
    assert _vault(OTHER, KEY).open_marker(sealed) == MARKER
    with pytest.raises(VaultError):
        _vault(OTHER).open_marker(sealed)
    with pytest.raises(VaultError, match="another place"):
        _open(_vault(KEY), sealed)


def test_keys_can_be_changed_under_way() -> None:
    """What was sealed before opens after, and is sealed anew for its own place alone."""
    vault = _vault(KEY)
    sealed = _seal(vault)
    headers = vault.seal_headers(JOB, [Header(name="A", value=Secret("b"))])
    vault.change([OTHER, KEY], ())
    assert vault.sealing == key_id(OTHER)
    assert vault.retired == {key_id(KEY)}
    assert _open(vault, sealed) == PASSWORD
    with pytest.raises(VaultError, match="another place"):
        vault.reseal_password(ELSE, Target.SERVER, Scheme.BASIC, sealed)
    anew = vault.reseal_password(JOB, Target.SERVER, Scheme.BASIC, sealed)
    assert _open(_vault(OTHER), anew) == PASSWORD
    with pytest.raises(VaultError):
        _open(_vault(KEY), anew)
    (opened,) = _vault(OTHER).open_headers(JOB, vault.reseal_headers(JOB, headers))
    assert opened.value.reveal() == "b"
