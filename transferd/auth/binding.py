"""Names the TLS connection that a credential is bound to (RFC 5929)."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

_PREFIX = b"tls-server-end-point:"
#: Too weak to name anything; SHA-256 stands in for them (RFC 5929 4.1).
_WEAK = frozenset({"md5", "sha1"})


def tls_server_end_point(certificate_der: bytes) -> bytes | None:
    """Return the channel binding of a connection whose server showed that certificate.

    `tls-server-end-point:` and the certificate's hash, by the hash function of the signature on it
    (for RSA-PSS that of its parameters); SHA-256 in place of MD5 and SHA-1 (RFC 5929 4.1).

    None: the signature has no hash function of its own (Ed25519, Ed448), for which RFC 5929 4.1
    leaves the binding undefined, or none that is known here, or this is no certificate.
    """
    try:
        algorithm = x509.load_der_x509_certificate(certificate_der).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:
        return None
    digest = hashes.Hash(hashes.SHA256() if algorithm.name in _WEAK else algorithm)
    # As it came: parsing and encoding again need not give the same bytes.
    digest.update(certificate_der)
    return _PREFIX + digest.finalize()
