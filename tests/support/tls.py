"""A certificate authority for one test, and the contexts and files that it gives rise to."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Vouches for 127.0.0.1, 127.0.0.2 and localhost."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.cacert = str(directory / "ca.pem")
        self._ca.cert_pem.write_to_path(self.cacert)

    def server(self) -> ssl.SSLContext:
        """The context of a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert("127.0.0.1", "127.0.0.2", "localhost").configure_cert(context)
        return context
