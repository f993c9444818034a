"""nginx as a server that a client can hardly outrun, and the files that it serves from memory.

| place | manners |
|---|---|
| `/` | plain files, over http and https |
| `/paced/` | the same at 1 MiB a second for each connection |
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.support.nginx import configured
from tests.support.servers import Server

MIB = 1024 * 1024
SMALL_BYTES = 10 * 1024

_CONFIGURATION = """
worker_processes 2;
events {{ worker_connections 2048; }}
http {{
    {common}
    tcp_nopush on;
    keepalive_requests 10000000;
    ssl_session_cache shared:sessions:8m;
    server {{
        listen 127.0.0.1:{port} backlog=4096 reuseport;
        listen 127.0.0.1:{tls_port} ssl backlog=4096 reuseport;
        ssl_certificate {state}/server.pem;
        ssl_certificate_key {state}/server.pem;
        root {root};
        location /paced/ {{ alias {root}/; limit_rate 1m; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(root: Path) -> Iterator[Server]:
    """Serve *root*, also with TLS for `localhost`."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    identity = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    with configured(_CONFIGURATION, root, authority, identity) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Files:
    """Files under a root, made when they are asked for first."""

    root: Path

    def body(self, name: str, size: int) -> Path:
        """Return a file of *size* bytes that compress no better than noise."""
        path = self.root / name
        if not path.exists():
            block = os.urandom(64 * MIB)
            with path.open("wb") as file:
                for left in range(size, 0, -len(block)):
                    # No two blocks are alike, so that a swapped one would show.
                    file.write((left.to_bytes(8, "big") + block[8:])[:left])
        return path

    def twin(self, path: Path, name: str) -> Path:
        """Return the same bytes under another name."""
        other = self.root / name
        if not other.exists():
            os.link(path, other)
        return other

    def small(self, count: int) -> list[str]:
        """Return the names of so many small files, `small/00000` and on."""
        (self.root / "small").mkdir(exist_ok=True)
        names = [f"small/{index:05}" for index in range(count)]
        if not (self.root / names[-1]).exists():
            block = os.urandom(SMALL_BYTES)
            for index, name in enumerate(names):
                (self.root / name).write_bytes(index.to_bytes(8, "big") + block[8:])
        return names
