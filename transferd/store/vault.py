"""Secrets at rest: AES-256-GCM under a key that lies beside the queue file, never in it.

A sealed secret is bound to its place (job, target and scheme), so that it opens nowhere else:

    format (1) | key id (8) | nonce (12) | ciphertext and tag

The key id tells a wrong key from damage. Nonces are random; 2**32 of them may be used under one
key (NIST SP 800-38D section 8.3), which is more than a queue ever seals.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

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


class Vault:
    """Seals secrets and opens them again.

    The first key seals; every key opens what it has sealed.
    """

    __slots__ = ("_ciphers", "_markers", "_random", "_sealing")

    def __init__(self, keys: Sequence[bytes], random: Callable[[int], bytes]) -> None:
        """Take keys of KEY_BYTES each, and a source of unpredictable bytes."""
        self._random = random
        self._sealing = key_id(keys[0])
        self._ciphers = {key_id(key): AESGCM(_derive(key, b"seal")) for key in keys}
        self._markers = tuple(_derive(key, b"fingerprint") for key in keys)

    def __repr__(self) -> str:
        return "Vault(…)"

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

    def marks(self, fingerprint: bytes) -> tuple[bytes, ...]:
        """Return what may stand in the queue file for the fingerprint of a request, newest first.

        A request can hold a password; its plain digest would let a reader of the file guess it.
        """
        return tuple(hmac.digest(marker, fingerprint, "sha256") for marker in self._markers)

    def _seal(self, text: bytes | bytearray, place: bytes) -> bytes:
        head = _FORMAT + self._sealing
        nonce = self._random(_NONCE_BYTES)
        return head + nonce + self._ciphers[self._sealing].encrypt(nonce, text, head + place)

    def _open(self, sealed: bytes, place: bytes) -> bytes:
        head, rest = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        sealer = head[len(_FORMAT) :]
        if head[: len(_FORMAT)] != _FORMAT:
            raise VaultError(f"cannot open a stored secret: its format is unknown; {_REMEDY}")
        cipher = self._ciphers.get(sealer)
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
