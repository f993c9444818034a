"""lighttpd: Digest with SHA-256, SHA-512-256 and userhash, which Apache and nginx do not have.

| place | manners |
|---|---|
| `/` | plain files |
| `/basic/` | behind Basic |
| `/md5/`, `/sha256/`, `/sha512-256/` | behind Digest with that algorithm |
| `/both/` | Digest, offered with SHA-256 and with MD5 |
| `/userhash/` | Digest SHA-256 with userhash=true |
| `/kerberos/` | Negotiate with Kerberos, each request on its own; needs a KDC |

A wrong password costs a second: lighttpd delays that answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.kdc import REALM as KERBEROS_REALM
from tests.support.kdc import Kdc
from tests.support.servers import (
    REALM,
    Server,
    public_directory,
    require_library,
    require_server,
    serving,
    write_htdigest,
    write_htpasswd,
)

_CONFIGURATION = """
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{state}/error.log"
server.upload-dirs = ("{state}")
server.modules = ({modules})
server.max-keep-alive-requests = 65535
mimetype.assign = ("" => "application/octet-stream")
auth.backend.htpasswd.userfile = "{state}/htpasswd"
{places}
"""

_BASIC = """
$HTTP["url"] =^ "/basic/" {{
    alias.url = ("/basic/" => "{root}/")
    auth.backend = "htpasswd"
    auth.require = ("/basic/" => (
        "method" => "basic", "realm" => "{realm}", "require" => "valid-user"
    ))
}}
"""

_DIGEST = """
$HTTP["url"] =^ "/{place}/" {{
    alias.url = ("/{place}/" => "{root}/")
    auth.backend = "htdigest"
    auth.backend.htdigest.userfile = "{state}/htdigest-{place}"
    auth.require = ("/{place}/" => (
        "method" => "digest", "realm" => "{realm}", "require" => "valid-user",
        "algorithm" => "{offered}", "userhash" => "{userhash}"
    ))
}}
"""

_KERBEROS = """
auth.backend.gssapi.keytab = "{keytab}"
# Otherwise who does not delegate is refused.
auth.backend.gssapi.store-creds = "disable"
auth.backend.gssapi.principal = "HTTP/localhost@{realm}"
$HTTP["url"] =^ "/kerberos/" {{
    alias.url = ("/kerberos/" => "{root}/")
    auth.backend = "gssapi"
    auth.require = ("/kerberos/" => (
        "method" => "gssapi", "realm" => "{realm}", "require" => "valid-user"
    ))
}}
"""

_MODULES = ("mod_alias", "mod_auth", "mod_authn_file")

#: Place → what is offered, the hashes for it in Python's names, whether names are hashed.
_DIGEST_PLACES = {
    "md5": ("MD5", ("md5",), False),
    "sha256": ("SHA-256", ("sha256",), False),
    "sha512-256": ("SHA-512-256", ("sha512_256",), False),
    "both": ("SHA-256|MD5", ("sha256", "md5"), False),
    "userhash": ("SHA-256", ("sha256",), True),
}


@contextlib.contextmanager
def lighttpd(root: Path, kdc: Kdc | None = None) -> Iterator[Server]:
    """Serve *root*; with a KDC, behind Kerberos too, with the key of HTTP/localhost."""
    program = require_server("lighttpd")
    if kdc is not None:
        require_library("mod_authn_gssapi.so")
    environment = kdc.environment(keytab=kdc.keytab) if kdc else {}
    with public_directory() as state:
        write_htpasswd(state / "htpasswd")
        for place, (_, hashes, _) in _DIGEST_PLACES.items():
            write_htdigest(state / f"htdigest-{place}", algorithms=hashes)

        def command(ports: Sequence[int]) -> Sequence[str]:
            path = state / "lighttpd.conf"
            path.write_text(_configuration(state, root, ports[0], kdc), encoding="utf-8")
            return [program, "-D", "-f", str(path)]

        with serving(command, root=root, log=state / "error.log", environment=environment) as (
            port,
        ):
            yield Server(root=root, port=port)


def _configuration(state: Path, root: Path, port: int, kdc: Kdc | None) -> str:
    modules = [*_MODULES]
    places = [_BASIC.format(root=root, realm=REALM)]
    places += [
        _DIGEST.format(
            place=place,
            root=root,
            realm=REALM,
            state=state,
            offered=offered,
            userhash="enable" if userhash else "disable",
        )
        for place, (offered, _, userhash) in _DIGEST_PLACES.items()
    ]
    if kdc is not None:
        modules.append("mod_authn_gssapi")
        places.append(_KERBEROS.format(root=root, realm=KERBEROS_REALM, keytab=kdc.keytab))
    return _CONFIGURATION.format(
        root=root,
        port=port,
        state=state,
        modules=", ".join(f'"{module}"' for module in modules),
        places="".join(places),
    )
