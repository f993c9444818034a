"""nginx as a server that a client can hardly outrun, and the files that it serves from memory.

| place | manners |
|---|---|
| `/` | plain files, over http and https |
| `/paced/` | the same at 1 MiB a second for each connection |
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.support.servers import Server, public_directory, require_server, serving

MIB = 1024 * 1024
SMALL_BYTES = 10 * 1024

_CONFIGURATION = """
daemon off;
worker_processes 2;
pid {state}/nginx.pid;
error_log {state}/error.log warn;
{user}
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {state}/client_body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    scgi_temp_path {state}/scgi;
    uwsgi_temp_path {state}/uwsgi;
    types {{ }}
    default_type application/octet-stream;
    sendfile on;
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
    program = require_server("nginx")
    with public_directory() as state:
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        authority.cert_pem.write_to_path(str(state / "ca.pem"))
        identity = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
        identity.private_key_and_cert_chain_pem.write_to_path(str(state / "server.pem"))

        def command(ports: Sequence[int]) -> Sequence[str]:
            configuration = _CONFIGURATION.format(
                state=state,
                root=root,
                port=ports[0],
                tls_port=ports[1],
                # Workers of a root's nginx are www-data otherwise, and see no private directory.
                user="user root;" if os.getuid() == 0 else "",
            )
            path = state / "nginx.conf"
            path.write_text(configuration, encoding="utf-8")
            return [program, "-e", f"{state}/error.log", "-c", str(path)]

        with serving(command, root=root, log=state / "error.log", ports=2) as (port, tls_port):
            yield Server(root=root, port=port, tls_port=tls_port, cacert=state / "ca.pem")


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
