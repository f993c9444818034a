"""The name of a TLS connection, from the certificate that its server showed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from transferd.auth.binding import tls_server_end_point

_Hash: TypeAlias = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | hashes.SHA3_256
_Key: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP384R1())

#: The signatureAlgorithm of the same certificate with another one: sha256WithRSAEncryption, and
#: those of the same length that cryptography signs with no more.
_SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")
_WEAK = {
    "md5": bytes.fromhex("06092a864886f70d010104"),
    "sha1": bytes.fromhex("06092a864886f70d010105"),
}


def certificate(
    key: _Key, algorithm: _Hash | None, rsa_padding: padding.PSS | None = None
) -> bytes:
    """Sign a certificate for that key, with it."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "h")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    signed = builder.sign(key, algorithm, rsa_padding=rsa_padding)
    return signed.public_bytes(Encoding.DER)


def pss(algorithm: _Hash) -> padding.PSS:
    """RSA-PSS with one hash throughout."""
    return padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)


@pytest.mark.parametrize(
    ("key", "algorithm", "rsa_padding", "name"),
    [
        (RSA, hashes.SHA224(), None, "sha224"),
        (RSA, hashes.SHA256(), None, "sha256"),
        (RSA, hashes.SHA384(), None, "sha384"),
        (RSA, hashes.SHA512(), None, "sha512"),
        (EC, hashes.SHA256(), None, "sha256"),
        (EC, hashes.SHA384(), None, "sha384"),
        (EC, hashes.SHA3_256(), None, "sha3_256"),
        (RSA, hashes.SHA384(), pss(hashes.SHA384()), "sha384"),
        (RSA, hashes.SHA512(), pss(hashes.SHA512()), "sha512"),
    ],
)
def test_the_hash_is_that_of_the_signature(
    key: _Key, algorithm: _Hash, rsa_padding: padding.PSS | None, name: str
) -> None:
    """RFC 5929 4.1: not a hash of our choice; for RSA-PSS it is in the parameters."""
    made = certificate(key, algorithm, rsa_padding)
    expected = b"tls-server-end-point:" + hashlib.new(name, made).digest()
    assert tls_server_end_point(made) == expected


@pytest.mark.parametrize("weak", _WEAK)
def test_sha256_stands_in_for_weak_hashes(weak: str) -> None:
    """RFC 5929 4.1: MD5 and SHA-1 name nothing."""
    made = certificate(RSA, hashes.SHA256()).replace(_SHA256_WITH_RSA, _WEAK[weak])
    algorithm = x509.load_der_x509_certificate(made).signature_hash_algorithm
    assert algorithm is not None
    assert algorithm.name == weak
    expected = b"tls-server-end-point:" + hashlib.sha256(made).digest()
    assert tls_server_end_point(made) == expected


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()]
)
def test_a_signature_without_a_hash_gives_no_binding(key: _Key) -> None:
    """RFC 5929 4.1 leaves it undefined: better none than one that the server computes otherwise."""
    assert tls_server_end_point(certificate(key, None)) is None


def test_an_unknown_signature_gives_no_binding() -> None:
    """What the library cannot name is no reason to give the connection up."""
    made = certificate(RSA, hashes.SHA256())
    assert (
        tls_server_end_point(made.replace(_SHA256_WITH_RSA, _SHA256_WITH_RSA[:-1] + b"\x7f"))
        is None
    )
    assert tls_server_end_point(b"no certificate") is None
    assert tls_server_end_point(b"") is None
