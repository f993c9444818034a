"""nginx: the well-behaved server, and the one that can leave single manners away.

| place | manners |
|---|---|
| `/` | plain files with Content-Length, ETag, Last-Modified and ranges |
| `/basic/` | the same files behind Basic |
| `/slow/` | 64 KiB a second, after the first 64 KiB |
| `/noranges/` | answers 200 to a range request |
| `/noetag/` | Last-Modified only |
| `/bare/` | neither ETag nor Last-Modified |
| `/gzip/` | compressed for who accepts it, and chunked then |
| `/moved/`, `/moved301/`, `/moved308/` | 302, 301, 308 to `/` on the same origin |
| `/away/` | 302 to `/` on the origin `localhost` |
| `/protected-away/` | behind Basic, then 302 to `/basic/` on the origin `localhost` |
| `/loop/` | 302 to itself |
| `/busy/`, `/throttled/` | 503 and 429 with `Retry-After: 7` |
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import trustme

from tests.support.netns import Network
from tests.support.servers import (
    REALM,
    Server,
    public_directory,
    require_server,
    serving,
    write_htpasswd,
)

#: What every configuration begins with…
_BEGINNING = """
daemon off;
pid {state}/nginx.pid;
error_log {state}/error.log warn;
{user}
"""
#: …and what its `http` takes in as `{common}`.
_COMMON = """
    access_log off;
    client_body_temp_path {state}/client_body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    scgi_temp_path {state}/scgi;
    uwsgi_temp_path {state}/uwsgi;
    types {{ }}
    default_type application/octet-stream;
    sendfile on;
"""

_CONFIGURATION = """
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    {common}
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {state}/server.pem;
        ssl_certificate_key {state}/server.pem;
        root {root};
        location /basic/ {{
            alias {root}/;
            auth_basic "{realm}";
            auth_basic_user_file {state}/htpasswd;
        }}
        location /slow/ {{ alias {root}/; limit_rate 64k; limit_rate_after 64k; }}
        location /noranges/ {{ alias {root}/; max_ranges 0; }}
        location /noetag/ {{ alias {root}/; etag off; }}
        location /bare/ {{ alias {root}/; etag off; add_header Last-Modified ""; }}
        location /gzip/ {{ alias {root}/; gzip on; gzip_types *; gzip_min_length 1; }}
        location /moved/ {{ rewrite ^/moved(/.*)$ $1 redirect; }}
        location /moved301/ {{ rewrite ^/moved301(/.*)$ $1 permanent; }}
        location ~ ^/moved308(/.*)$ {{ return 308 $1; }}
        location ~ ^/away(/.*)$ {{ return 302 http://localhost:{port}$1; }}
        location /protected-away/ {{
            auth_basic "{realm}";
            auth_basic_user_file {state}/htpasswd;
            # `return` would answer before authentication is asked for.
            error_page 403 404 = @away;
            alias {state}/nothing/;
        }}
        location @away {{
            rewrite ^/protected-away(/.*)$ http://localhost:{port}/basic$1 redirect;
        }}
        location /loop/ {{ return 302 $uri; }}
        location /busy/ {{ add_header Retry-After 7 always; return 503; }}
        location /throttled/ {{ add_header Retry-After 7 always; return 429; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(root: Path) -> Iterator[Server]:
    """Serve *root*, also with TLS for `localhost` and `127.0.0.1`."""
    authority = trustme.CA()
    identity = authority.issue_cert("localhost", "127.0.0.1")
    with configured(_CONFIGURATION, root, authority, identity) as server:
        yield server


@contextlib.contextmanager
def configured(
    configuration: str,
    root: Path,
    authority: trustme.CA,
    identity: trustme.LeafCert,
    network: Network | None = None,
) -> Iterator[Server]:
    """Serve *root* as a configuration says, in another *network* if one is given.

    It may name `common`, `state`, `root`, `realm`, and what it listens on: `port` and `tls_port`.
    """
    program = require_server("nginx")
    with public_directory() as state:
        write_htpasswd(state / "htpasswd")
        authority.cert_pem.write_to_path(str(state / "ca.pem"))
        identity.private_key_and_cert_chain_pem.write_to_path(str(state / "server.pem"))

        def command(ports: Sequence[int]) -> Sequence[str]:
            text = (_BEGINNING + configuration).format(
                common=_COMMON.format(state=state),
                state=state,
                root=root,
                realm=REALM,
                port=ports[0],
                tls_port=ports[1],
                # Workers of a root's nginx are www-data otherwise, and see no private directory.
                user="user root;" if os.getuid() == 0 else "",
            )
            path = state / "nginx.conf"
            path.write_text(text, encoding="utf-8")
            return [program, "-e", f"{state}/error.log", "-c", str(path)]

        log = state / "error.log"
        with serving(command, root=root, log=log, ports=2, network=network) as (port, tls_port):
            yield Server(root=root, port=port, tls_port=tls_port, cacert=state / "ca.pem")
