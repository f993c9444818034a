"""Apache httpd as forward proxy (mod_proxy, mod_proxy_connect), with a port for each scheme.

| port | asks for |
|---|---|
| `open` | nothing |
| `basic`, `digest` | that scheme; Digest with MD5, qop=auth |
| `shortnonce` | Digest with nonces that are stale after a second |
| `kerberos` | Negotiate with Kerberos, each request on its own |
| `negotiate` | Negotiate with Kerberos or NTLM, and raw NTLM, once for a connection |

Answers to plain http name the user in `X-Proxy-User`. mod_proxy_connect answers 200 without
headers, hence without Kerberos' last token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.apache import httpd
from tests.support.apache_gssapi import gssapi_environment
from tests.support.kdc import Kdc
from tests.support.servers import (
    REALM,
    Proxies,
    public_directory,
    write_htdigest,
    write_htpasswd,
)

_MODULES = (
    "authn_file",
    "auth_basic",
    "auth_digest",
    "auth_gssapi",
    "proxy",
    "proxy_http",
    "proxy_connect",
)

_HOST = """
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    ProxyRequests On
    ProxyVia Off
    AllowCONNECT 1-65535
    Header always set X-Proxy-User "expr=%{{REMOTE_USER}}" "expr=%{{REQUEST_STATUS}} -lt 400"
    <Proxy "*">
        {access}
    </Proxy>
</VirtualHost>
"""

_BASIC = """
        AuthType Basic
        AuthName "{realm}"
        AuthUserFile {state}/htpasswd
        Require valid-user
"""

_DIGEST = """
        AuthType Digest
        AuthName "{realm}"
        AuthUserFile {state}/htdigest
        AuthDigestQop auth
        AuthDigestNonceLifetime {lifetime}
        Require valid-user
"""

_GSSAPI = """
        AuthType GSSAPI
        AuthName "{realm}"
        GssapiAllowedMech {mechanisms}
        GssapiConnectionBound {bound}
        Require valid-user
"""


@contextlib.contextmanager
def apache_proxy(root: Path, kdc: Kdc) -> Iterator[Proxies]:
    """Run the proxy, with the key of HTTP/localhost; *root* shows that it has started."""
    with public_directory() as state:
        write_htpasswd(state / "htpasswd")
        write_htdigest(state / "htdigest")
        access = _access(state)

        def configure(ports: Sequence[int]) -> str:
            return "".join(
                _HOST.format(port=port, access=text)
                for port, text in zip(ports[1:], access.values(), strict=True)
            )

        with httpd(
            state,
            root,
            configure,
            modules=_MODULES,
            ports=1 + len(access),
            environment=gssapi_environment(state, kdc),
        ) as (_, *ports):
            yield Proxies(ports=dict(zip(access, ports, strict=True)))


def _access(state: Path) -> dict[str, str]:
    """Return what stands in each port's configuration."""

    def gssapi(mechanisms: str, bound: str) -> str:
        return _GSSAPI.format(realm=REALM, mechanisms=mechanisms, bound=bound)

    return {
        "open": "Require all granted",
        "basic": _BASIC.format(realm=REALM, state=state),
        "digest": _DIGEST.format(realm=REALM, state=state, lifetime=300),
        "shortnonce": _DIGEST.format(realm=REALM, state=state, lifetime=1),
        "kerberos": gssapi("krb5", "Off"),
        "negotiate": gssapi("krb5 ntlmssp", "On"),
    }
