"""Apache httpd with mod_auth_gssapi: Kerberos by MIT's library, NTLM by gss-ntlmssp.

| place | manners |
|---|---|
| `/` | plain files |
| `/kerberos/` | Negotiate with Kerberos, each request on its own; a replayed token is refused |
| `/bound/` | Negotiate with Kerberos, once for a connection: `Persistent-Auth: true` |
| `/negotiate/` | Negotiate with Kerberos or NTLM, and raw NTLM, once for a connection |
| `/spnego/` | the same, but it offers Negotiate alone |
| `/ntlm/` | takes NTLM alone, and offers it raw |
| `/spnego-ntlm/` | takes NTLM alone, and offers Negotiate |
| `/closing/` | `/negotiate/`, but every answer closes its connection: NTLM cannot succeed |
| `/wordy/` | `/negotiate/`, but every refusal has 256 KiB to say |
| `/every/` | Negotiate, NTLM, Digest (MD5) and Basic at once, all of them accepted |

Each answer names the user in `X-User` and the client's port in `X-Port`. The first Digest nonce of
`/every/` is stale for everybody: mod_auth_digest makes its own only once it is addressed. On an
authenticated connection a further NTLM token is 401, with the offers of the beginning. No channel
binding is ever checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from tests.support.apache import httpd
from tests.support.clocks import shifted_clock
from tests.support.kdc import Kdc
from tests.support.servers import (
    PASSWORD,
    REALM,
    USER,
    Server,
    public_directory,
    require_library,
    write_htdigest,
    write_htpasswd,
)
from tests.support.tls import Authority

#: The domain in which gss-ntlmssp knows USER, who may leave it away.
NTLM_DOMAIN = "TRANSFERD"
#: Who has ODD_PASSWORD there, without a domain: gss-ntlmssp fails at names that are not ASCII.
NTLM_ODD_USER = "odd"
#: MD4 of ODD_PASSWORD in UTF-16: passwords with a colon can only be given so.
_ODD_HASH = "C2B8A2C2616550AD592E61E42C315A8E"
#: Every place, and every TLS port of `Server.tls_ports`.
PLACES = (
    "kerberos",
    "bound",
    "negotiate",
    "spnego",
    "ntlm",
    "spnego-ntlm",
    "closing",
    "wordy",
    "every",
)
CERTIFICATES = ("rsa-sha256", "rsa-sha384")

_MODULES = (
    "authn_file",
    "auth_basic",
    "auth_digest",
    "auth_gssapi",
    "setenvif",
    "ssl",
)

_EVERYWHERE = """
Header always set X-User "expr=%{REMOTE_USER}" "expr=%{REQUEST_STATUS} -lt 400"
Header always set X-Port "expr=%{REMOTE_PORT}"
SetEnvIf Request_URI ^/closing/ nokeepalive
SSLSessionCache none
"""

_TLS = """
Listen 127.0.0.1:{port} https
<VirtualHost 127.0.0.1:{port}>
    SSLEngine on
    SSLCertificateFile {identity}
</VirtualHost>
"""

_PLACE = """
Alias /{place}/ {root}/
<Location /{place}/>
    AuthType GSSAPI
    AuthName "{realm}"
    GssapiAllowedMech {mechanisms}
    Require valid-user
    {more}
</Location>
"""

_BOUND = """
    GssapiConnectionBound On
    GssapiSignalPersistentAuth On
"""

# What is offered can only be changed in a refusal that is a page of its own.
_REFUSAL = """
    ErrorDocument 401 /.refusal/{place}
</Location>
Alias /.refusal/{place} {state}/{page}
<Location /.refusal/{place}>
    {more}
"""

# Only an offer is changed, not a challenge with a token.
_BARE = "\"expr=%{resp:WWW-Authenticate} == 'Negotiate'\""

_EVERY = """
    <If "%{{HTTP:Authorization}} =~ /^Digest /i">
        AuthType Digest
        AuthUserFile {state}/htdigest
    </If>
    <If "%{{HTTP:Authorization}} =~ /^Basic /i">
        AuthType Basic
        AuthBasicProvider file
        AuthUserFile {state}/htpasswd
    </If>
"""

_STALE = f"AAAAAAAAAAA={40 * '0'}"

#: Further schemes, weakest last, that a refusal of `/every/` offers.
_FURTHER = (
    f'Digest realm=\\"{REALM}\\", nonce=\\"{_STALE}\\", algorithm=MD5, qop=\\"auth\\"',
    f'Basic realm=\\"{REALM}\\"',
)

_NO_SHIFT = timedelta(0)
_BOTH = "krb5 ntlmssp"


@contextlib.contextmanager
def apache_gssapi(
    root: Path, kdc: Kdc, *, config: Path | None = None, clock: timedelta = _NO_SHIFT
) -> Iterator[Server]:
    """Serve *root* with the key of HTTP/localhost, also with TLS.

    *config* is the acceptor's Kerberos configuration instead of the KDC's usual one. Its clock is
    fast by *clock*.
    """
    with public_directory() as state:
        authority = Authority(state)
        identities = [authority.identity(kind) for kind in CERTIFICATES]
        write_htpasswd(state / "htpasswd")
        write_htdigest(state / "htdigest")
        (state / "short").write_bytes(b"no\n")
        (state / "long").write_bytes(b"no\n" * 87382)

        def configure(ports: Sequence[int]) -> str:
            hosts = [
                _TLS.format(port=port, identity=identity)
                for port, identity in zip(ports[1:], identities, strict=True)
            ]
            return _EVERYWHERE + "".join(hosts) + _places(state, root)

        with httpd(
            state,
            root,
            configure,
            modules=_MODULES,
            ports=1 + len(CERTIFICATES),
            environment={
                **gssapi_environment(state, kdc, config),
                **(shifted_clock(state, clock) if clock else {}),
            },
        ) as (port, *tls_ports):
            yield Server(
                root=root,
                port=port,
                tls_port=tls_ports[0],
                cacert=Path(authority.cacert),
                tls_ports=dict(zip(CERTIFICATES, tls_ports, strict=True)),
            )


def gssapi_environment(state: Path, kdc: Kdc, config: Path | None = None) -> dict[str, str]:
    """Write the users of NTLM and return what an acceptor needs in its environment."""
    require_library("mod_auth_gssapi.so")
    require_library("gssntlmssp.so")
    users = state / "ntlm-users"
    odd = f"{NTLM_ODD_USER}:1000:{'X' * 32}:{_ODD_HASH}:[U          ]:LCT-00000000:"
    users.write_text(f"{NTLM_DOMAIN}:{USER}:{PASSWORD}\n{odd}\n", encoding="utf-8")
    replays = state / "replays"
    replays.mkdir()
    # The server's processes have another user than root's tests.
    replays.chmod(0o1777)
    return {
        # With GssapiCredStore instead, mod_auth_gssapi crashes as soon as NTLM is allowed.
        **kdc.environment(keytab=kdc.keytab, config=config),
        "KRB5RCACHENAME": f"file2:{replays}/seen",
        "NTLM_USER_FILE": str(users),
    }


def _places(state: Path, root: Path) -> str:
    def offering(place: str, *lines: str, page: str = "short") -> str:
        return _REFUSAL.format(place=place, state=state, page=page, more="\n    ".join(lines))

    def alone(scheme: str) -> str:
        return f"Header always set WWW-Authenticate {scheme} {_BARE}"

    further = [f'Header always add WWW-Authenticate "{offer}" {_BARE}' for offer in _FURTHER]
    every = _EVERY.format(state=state) + offering("every", *further)
    places = {
        "kerberos": ("krb5", ""),
        "bound": ("krb5", _BOUND + offering("bound", alone("Negotiate"))),
        "negotiate": (_BOTH, _BOUND),
        "spnego": (_BOTH, _BOUND + offering("spnego", alone("Negotiate"))),
        "ntlm": ("ntlmssp", _BOUND + offering("ntlm", alone("NTLM"))),
        "spnego-ntlm": ("ntlmssp", _BOUND + offering("spnego-ntlm", alone("Negotiate"))),
        "closing": (_BOTH, _BOUND),
        "wordy": (_BOTH, _BOUND + offering("wordy", page="long")),
        "every": (_BOTH, _BOUND + every),
    }
    return "".join(
        _PLACE.format(place=place, root=root, realm=REALM, mechanisms=mechanisms, more=more)
        for place, (mechanisms, more) in places.items()
    )
