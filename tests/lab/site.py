"""nginx behind the bottleneck: a file without an end worth mentioning, and a short one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.lab.link import Link
from tests.lab.topology import Role, Topology
from tests.support.nginx import configured
from tests.support.servers import Server

#: No scenario takes longer than this.
_SECONDS = 60
SHORT_BYTES = 64 * 1024

_CONFIGURATION = """
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    {common}
    tcp_nopush on;
    server {{
        listen {port} backlog=4096;
        listen {tls_port} ssl backlog=4096;
        ssl_certificate {state}/server.pem;
        ssl_certificate_key {state}/server.pem;
        root {root};
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The server, at the addresses of all roles."""

    server: Server
    tls: bool

    @property
    def cacert(self) -> str:
        """Who vouches for it."""
        return str(self.server.cacert)

    @property
    def port(self) -> int:
        """Where it speaks plain HTTP."""
        return self.server.port

    def long(self, role: Role) -> str:
        """Return the URL of the long file, over TLS where background downloads use that."""
        return self._url("/long", role)

    def short(self, role: Role) -> str:
        """Return the URL of the short file."""
        return self._url("/short", role)

    def _url(self, path: str, role: Role) -> str:
        if self.tls and role in (Role.BACKGROUND, Role.SECOND):
            return self.server.tls_url(path, host=role.server)
        return self.server.url(path, host=role.server)


@contextlib.contextmanager
def site(topology: Topology, directory: Path, *, tls: bool) -> Iterator[Site]:
    """Serve from a directory in memory."""
    root = directory / "root"
    root.mkdir()
    _sparse(root / "long", long_bytes(topology.link))
    _sparse(root / "short", SHORT_BYTES)
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    names = [role.server for role in Role]
    identity = authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA)
    with configured(_CONFIGURATION, root, authority, identity, topology.server) as server:
        yield Site(server=server, tls=tls)


def long_bytes(link: Link) -> int:
    """Return more than a link carries in a scenario."""
    return int(link.capacity * _SECONDS * 1.1)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
