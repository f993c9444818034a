"""A certificate authority for one test, and the contexts and files that it gives rise to.

The hash of a certificate's signature decides about the channel binding (RFC 5929 section 4.1), so
there is a certificate for each kind of it: `KINDS`.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_SHA256 = hashes.SHA256()
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)

#: Kind of certificate → type of the signing key, hash of the signature, its padding.
KINDS: dict[str, tuple[trustme.KeyType, _Hash, padding.PSS | None]] = {
    "rsa-sha256": (trustme.KeyType.RSA, hashes.SHA256(), None),
    "rsa-sha384": (trustme.KeyType.RSA, hashes.SHA384(), None),
    "rsa-sha512": (trustme.KeyType.RSA, hashes.SHA512(), None),
    "rsa-pss": (trustme.KeyType.RSA, hashes.SHA256(), _PSS),
    "ecdsa-sha256": (trustme.KeyType.ECDSA, hashes.SHA256(), None),
    "ecdsa-sha384": (trustme.KeyType.ECDSA, hashes.SHA384(), None),
}

_NAMES = ("127.0.0.1", "127.0.0.2", "localhost")


class Authority:
    """Vouches for 127.0.0.1, 127.0.0.2 and localhost."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authorities: dict[trustme.KeyType, trustme.CA] = {}
        self._ca = self._authority(trustme.KeyType.ECDSA)
        self.cacert = str(directory / "ca.pem")

    def server(self, kind: str | None = None) -> ssl.SSLContext:
        """The context of a server; its certificate is one of KINDS, or just any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if kind is None:
            self._ca.issue_cert(*_NAMES).configure_cert(context)
        else:
            context.load_cert_chain(self.identity(kind))
        return context

    def custom(
        self,
        *,
        names: tuple[str, ...] = _NAMES,
        valid: tuple[datetime, datetime] | None = None,
        client_only: bool = False,
        self_signed: bool = False,
    ) -> ssl.SSLContext:
        """The context of a server whose certificate is not as it should be."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        signer = load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        unsigned = _unsigned(subject if self_signed else issuer.subject, key, names, valid, subject)
        if client_only:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
            unsigned = unsigned.add_extension(usage, critical=True)
        path = self._write("custom", key, unsigned, key if self_signed else signer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def identity(self, kind: str) -> Path:
        """Write a key and its certificate of one of KINDS to a file for a server.

        The file `cacert` vouches for it from then on.
        """
        key_type, algorithm, rsa_padding = KINDS[kind]
        authority = self._authority(key_type)
        issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
        signer = load_pem_private_key(authority.private_key_pem.bytes(), None)
        assert isinstance(signer, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        unsigned = _unsigned(issuer.subject, key)
        return self._write(kind, key, unsigned, signer, algorithm, rsa_padding)

    def _write(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        unsigned: x509.CertificateBuilder,
        signer: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
        algorithm: _Hash = _SHA256,
        rsa_padding: padding.PSS | None = None,
    ) -> Path:
        """Sign a certificate, and write it and its key to a file for a server."""
        # Who checks strictly, as Python does from 3.13 on, wants to hear whose signature that is.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        named = unsigned.add_extension(issuer, critical=False)
        certificate = named.sign(signer, algorithm, rsa_padding=rsa_padding)
        path = self._directory / f"{name}.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
        return path

    def _authority(self, key_type: trustme.KeyType) -> trustme.CA:
        """Make the authority with that type of key when it is first asked for, and trust it."""
        if key_type not in self._authorities:
            self._authorities[key_type] = trustme.CA(key_type=key_type)
            certificates = [each.cert_pem.bytes() for each in self._authorities.values()]
            (self._directory / "ca.pem").write_bytes(b"".join(certificates))
        return self._authorities[key_type]


def _unsigned(
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...] = _NAMES,
    valid: tuple[datetime, datetime] | None = None,
    subject: x509.Name | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    begin, end = valid or (now - timedelta(days=1), now + timedelta(days=1))
    alternatives = [
        x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        for name in names
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(
            x509.SubjectAlternativeName(alternatives),
            critical=subject is None,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
