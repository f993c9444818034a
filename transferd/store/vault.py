"""Secrets at rest: AES-256-GCM under a key that lies beside the queue file, never in it.

A sealed secret is bound to its place (job, target and scheme), so that it opens nowhere else:

    format (1) | key id (8) | nonce (12) | ciphertext and tag

The key id tells a wrong key from damage. Nonces are random; 2**32 of them may be used under one
key (NIST SP 800-38D section 8.3), which is more than a queue ever seals.

Requests are recognised by marks, which are made with markers: keys of their own that lie sealed in
the queue file, since marks that were made cannot be made anew when the sealing key changes.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from transferd.model.credentials import Scheme, Secret, Target
from transferd.model.errors import VaultError
from transferd.model.job import Header, JobId

KEY_BYTES = 32
_FORMAT = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_HEAD_BYTES = len(_FORMAT) + _ID_BYTES
_REMEDY = "put the key file back, or set the credentials again"


@dataclass(frozen=True, slots=True)
class _Keys:
    """What a vault works with; replaced as a whole, since another thread may be using it."""

    sealing: bytes
    ciphers: Mapping[bytes, AESGCM]
    markers: tuple[bytes, ...]


class Vault:
    """Seals secrets and opens them again.

    The first key seals; every key opens what it has sealed. The first marker marks.
    """

    __slots__ = ("_keys", "_random")

    def __init__(
        self,
        keys: Sequence[bytes],
        random: Callable[[int], bytes],
        markers: Sequence[bytes] = (),
    ) -> None:
        """Take keys of KEY_BYTES each, a source of unpredictable bytes, and keys of marks."""
        self._random = random
        self.change(keys, markers)

    def __repr__(self) -> str:
        return "Vault(…)"

    def change(self, keys: Sequence[bytes], markers: Sequence[bytes]) -> None:
        """Go on with other keys.

        Whatever was sealed before this, and waits to be written, is written before what is asked
        of the queue file after it.
        """
        self._keys = _Keys(
            key_id(keys[0]),
            {key_id(key): AESGCM(_derive(key, b"seal")) for key in keys},
            tuple(markers),
        )

    @property
    def sealing(self) -> bytes:
        """Name of the key that seals."""
        return self._keys.sealing

    @property
    def retired(self) -> frozenset[bytes]:
        """Names of the keys that only open."""
        return frozenset(self._keys.ciphers) - {self._keys.sealing}

    @property
    def markers(self) -> tuple[bytes, ...]:
        """Keys of marks, the one that marks first."""
        return self._keys.markers

    def new_marker(self) -> bytes:
        """Make a key of marks."""
        return self._random(KEY_BYTES)

    def seal_password(
        self, job_id: JobId, target: Target, scheme: Scheme, password: Secret
    ) -> bytes:
        """Seal a password for its place."""
        return self._seal(password.reveal_bytes(), _place("password", job_id, target, scheme))

    def open_password(self, job_id: JobId, target: Target, scheme: Scheme, sealed: bytes) -> Secret:
        """Open what seal_password has made for the same place.

        Raises:
            VaultError: another key sealed it, or it is damaged.
        """
        return Secret(self._open(sealed, _place("password", job_id, target, scheme)))

    def seal_headers(self, job_id: JobId, headers: Sequence[Header]) -> bytes:
        """Seal all headers of a job as one text."""
        text = bytearray()
        try:
            pairs = [(header.name, header.value.reveal()) for header in headers]
            msgspec.json.Encoder().encode_into(pairs, text)
            return self._seal(text, _place("headers", job_id))
        finally:
            text[:] = bytes(len(text))

    def open_headers(self, job_id: JobId, sealed: bytes) -> tuple[Header, ...]:
        """Open what seal_headers has made for the same job.

        Raises:
            VaultError: another key sealed it, or it is damaged.
        """
        text = self._open(sealed, _place("headers", job_id))
        pairs = msgspec.json.decode(text, type=list[tuple[str, str]])
        return tuple(Header(name=name, value=Secret(value)) for name, value in pairs)

    def reseal_password(
        self, job_id: JobId, target: Target, scheme: Scheme, sealed: bytes
    ) -> bytes:
        """Seal with the key of today what seal_password has made for the same place.

        Raises:
            VaultError: no key here has sealed it, or it is damaged.
        """
        return self._reseal(sealed, _place("password", job_id, target, scheme))

    def reseal_headers(self, job_id: JobId, sealed: bytes) -> bytes:
        """Seal with the key of today what seal_headers has made for the same job.

        Raises:
            VaultError: no key here has sealed it, or it is damaged.
        """
        return self._reseal(sealed, _place("headers", job_id))

    def seal_marker(self, marker: bytes) -> bytes:
        """Seal a key of marks."""
        return self._seal(marker, _place("marker"))

    def open_marker(self, sealed: bytes) -> bytes:
        """Open what seal_marker has made.

        Raises:
            VaultError: another key sealed it, or it is damaged.
        """
        return self._open(sealed, _place("marker"))

    def marks(self, fingerprint: bytes) -> tuple[bytes, ...]:
        """Return what may stand in the queue file for the fingerprint of a request, newest first.

        A request can hold a password; its plain digest would let a reader of the file guess it.
        """
        return tuple(hmac.digest(marker, fingerprint, "sha256") for marker in self._keys.markers)

    def _reseal(self, sealed: bytes, place: bytes) -> bytes:
        return self._seal(self._open(sealed, place), place)

    def _seal(self, text: bytes | bytearray, place: bytes) -> bytes:
        keys = self._keys
        head = _FORMAT + keys.sealing
        nonce = self._random(_NONCE_BYTES)
        return head + nonce + keys.ciphers[keys.sealing].encrypt(nonce, text, head + place)

    def _open(self, sealed: bytes, place: bytes) -> bytes:
        head, rest = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        sealer = head[len(_FORMAT) :]
        if head[: len(_FORMAT)] != _FORMAT:
            raise VaultError(f"cannot open a stored secret: its format is unknown; {_REMEDY}")
        cipher = self._keys.ciphers.get(sealer)
        if cipher is None:
            raise VaultError(
                f"cannot open a stored secret: it was sealed with key {sealer.hex()},"
                f" which is not here; {_REMEDY}"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head + place)
        except (InvalidTag, ValueError):
            raise VaultError(
                "cannot open a stored secret: it is damaged or was moved here from another place;"
                " set the credentials again"
            ) from None


def key_id(key: bytes) -> bytes:
    """Name a key without telling anything of it."""
    return _derive(key, b"id")[:_ID_BYTES]


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"transferd " + purpose, "sha256")


def _place(*parts: str) -> bytes:
    # None of the parts can hold a NUL, so no two places read the same.
    return "\0".join(parts).encode()
