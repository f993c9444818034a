"""squid as forward proxy and as accelerator, with a port for each way to ask who is there.

| port | asks for |
|---|---|
| `open` | nothing |
| `basic`, `digest`, `negotiate`, `ntlm` | that scheme |
| `every` | Negotiate, NTLM, Digest (MD5) and Basic at once |
| `origin-…` | the same as a server: squid stands before the files, and asks with 401 |

It takes every scheme at each port but offers what the table says. NTLM is judged by Samba's
ntlm_auth, Kerberos by MIT's library, both for the connection. ntlm_auth knows PASSWORD alone, for
whatever user. Each answer names the user in `X-User`, but for what goes through CONNECT.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.kdc import Kdc
from tests.support.servers import (
    ODD_PASSWORD,
    ODD_USER,
    PASSWORD,
    REALM,
    USER,
    Proxies,
    Server,
    public_directory,
    require_program,
    serving,
    write_htdigest,
)

_HELPERS = "/usr/lib/squid"

#: Port → what is offered there.
_OFFERS = {
    "open": "",
    "basic": "basic",
    "digest": "digest",
    "negotiate": "negotiate",
    "ntlm": "ntlm",
    "every": "negotiate,ntlm,digest,basic",
}

_CONFIGURATION = """
http_port 127.0.0.1:{port} accel name=files defaultsite=127.0.0.1 no-vhost
{ports}
cache_peer 127.0.0.1 parent {backend} 0 no-query originserver name=files no-digest
visible_hostname localhost
workers 1
pid_filename {state}/squid.pid
cache_log {state}/cache.log
access_log none
netdb_filename none
coredump_dir {state}
cache deny all
cache_mem 0 MB
memory_pools off
pinger_enable off
icp_port 0
snmp_port 0
dns_nameservers 127.0.0.1
dns_timeout 1 second
hosts_file /etc/hosts
max_filedescriptors 1024
shutdown_lifetime 0 seconds
via off
forwarded_for delete
client_dst_passthru off

auth_param negotiate program {helpers}/negotiate_kerberos_auth -s GSS_C_NO_NAME -k {keytab}
auth_param negotiate children 4 startup=0 idle=1
auth_param negotiate keep_alive on
auth_param ntlm program {ntlm_auth} --helper-protocol=squid-2.5-ntlmssp \
    --configfile={state}/smb.conf --username=any --password={password}
auth_param ntlm children 16 startup=0 idle=1
auth_param ntlm keep_alive on
auth_param digest program {helpers}/digest_file_auth -c {state}/htdigest
auth_param digest children 1 startup=0 idle=1
auth_param digest realm {realm}
auth_param digest utf8 on
auth_param basic program {helpers}/basic_ncsa_auth {state}/passwords
auth_param basic children 1 startup=0 idle=1
auth_param basic realm {realm}
auth_param basic utf8 on

acl known proxy_auth REQUIRED
acl unguarded myportname files open origin-open
acl connect method CONNECT
acl files myportname files {origins}
{schemes}
http_access allow unguarded
http_access deny !known
http_access allow all
cache_peer_access files allow files
cache_peer_access files deny all
never_direct allow files
always_direct allow !files
reply_header_add X-User "%un" known
"""

_SAMBA = """
[global]
    workgroup = TRANSFERD
    netbios name = PEER
    private dir = {state}/samba
    lock directory = {state}/samba
    state directory = {state}/samba
    cache directory = {state}/samba
    pid directory = {state}/samba
    ncalrpc dir = {state}/samba/ncalrpc
    log file = {state}/samba/log
    server role = standalone server
    ntlm auth = ntlmv2-only
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Squid(Proxies):
    """A squid that answers."""

    def origin(self, asks_for: str, path: str, *, host: str = "localhost") -> str:
        """Return the URL of an absolute path where squid is the server."""
        return f"http://{host}:{self.ports[f'origin-{asks_for}']}{path}"


@contextlib.contextmanager
def squid(backend: Server, kdc: Kdc) -> Iterator[Squid]:
    """Run squid with the key of HTTP/localhost; its origin ports serve the files of *backend*."""
    program = require_program("squid")
    service = f"test{secrets.token_hex(8)}"
    names = [*_OFFERS, *(f"origin-{name}" for name in _OFFERS)]
    with public_directory() as state, no_leftovers(service):
        # Its processes have another user than root's tests.
        state.chmod(0o1777)
        (state / "samba").mkdir(mode=0o777)
        (state / "samba").chmod(0o777)
        (state / "smb.conf").write_text(_SAMBA.format(state=state), encoding="utf-8")
        write_htdigest(state / "htdigest")
        _write_passwords(state / "passwords")

        def command(ports: Sequence[int]) -> Sequence[str]:
            path = state / "squid.conf"
            chosen = dict(zip(names, ports[1:], strict=True))
            text = _configuration(state, kdc, backend.port, ports[0], chosen)
            path.write_text(text, encoding="utf-8")
            return [program, "-N", "-n", service, "-f", str(path)]

        with serving(
            command,
            root=backend.root,
            log=state / "output.log",
            ports=1 + len(names),
            # Its own way out takes more than a second.
            graceful=False,
            environment={**kdc.environment(keytab=kdc.keytab), "KRB5RCACHENAME": "none:"},
        ) as (_, *ports):
            yield Squid(ports=dict(zip(names, ports, strict=True)))


@contextlib.contextmanager
def no_leftovers(service: str) -> Iterator[None]:
    """Remove the shared memory that squid would remove on its own way out."""
    try:
        yield
    finally:
        for path in Path("/dev/shm").glob(f"{service}-*"):
            path.unlink(missing_ok=True)


def _write_passwords(path: Path) -> None:
    """Write both users for Basic; squid's helper does not know Apache's format."""
    lines = []
    for user, password in ((USER, PASSWORD), (ODD_USER, ODD_PASSWORD)):
        digest = hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
        lines.append(f"{user}:{digest}\n")
    path.write_text("".join(lines), encoding="utf-8")


def _configuration(
    state: Path, kdc: Kdc, backend: int, first: int, ports: Mapping[str, int]
) -> str:
    lines = []
    for name, port in ports.items():
        mode = "accel defaultsite=localhost no-vhost" if name.startswith("origin-") else ""
        lines.append(f"http_port 127.0.0.1:{port} {mode} name={name}")
    schemes = []
    for name, offer in _OFFERS.items():
        if offer:
            schemes.append(f"acl {name} myportname {name} origin-{name}")
            schemes.append(f"auth_schemes {offer} {name}")
    return _CONFIGURATION.format(
        state=state,
        port=first,
        ports="\n".join(lines),
        backend=backend,
        helpers=_HELPERS,
        keytab=kdc.keytab,
        ntlm_auth=require_program("ntlm_auth"),
        password=PASSWORD,
        realm=REALM,
        origins=" ".join(name for name in ports if name.startswith("origin-")),
        schemes="\n".join(schemes),
    )
