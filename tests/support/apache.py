"""Apache httpd: Basic, and Digest as mod_auth_digest speaks it.

| place | manners |
|---|---|
| `/` | plain files |
| `/basic/` | behind Basic |
| `/digest/` | behind Digest, MD5, qop=auth |
| `/shortnonce/` | the same with nonces that are stale after a second |
| `/either/` | takes Digest alone, but offers Basic in a header line before it |

Nonces are signed with a key that is made at each start: those of another start are stale at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.servers import (
    REALM,
    Server,
    public_directory,
    require_server,
    serving,
    write_htdigest,
    write_htpasswd,
)

_MODULES = ("mpm_event", "authn_core", "authz_core", "authz_user", "alias", "headers")

_PASSWORD_MODULES = ("authn_file", "auth_basic", "auth_digest")

_CONFIGURATION = """
ServerRoot {state}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {state}/apache.pid
DefaultRuntimeDir {state}
Mutex file:{state} default
ErrorLog {state}/error.log
LogLevel warn
User daemon
Group daemon
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
KeepAlive On
KeepAliveTimeout 60
MaxKeepAliveRequests 0
Timeout 60
AuthDigestShmemSize 1M
{modules}
<Directory />
    Require all granted
    AllowOverride None
</Directory>
DocumentRoot {root}
{rest}
"""

_BASIC = """
Alias /basic/ {root}/
<Location /basic/>
    AuthType Basic
    AuthName "{realm}"
    AuthUserFile {state}/htpasswd
    Require valid-user
</Location>
"""

_DIGEST = """
Alias /{place}/ {root}/
<Location /{place}/>
    AuthType Digest
    AuthName "{realm}"
    AuthUserFile {state}/htdigest
    AuthDigestQop auth
    AuthDigestNonceLifetime {lifetime}
    Require valid-user
    {more}
</Location>
"""

_OFFER_BASIC = (
    'Header always set WWW-Authenticate "Basic realm=other" "expr=%{REQUEST_STATUS} == 401"'
)

#: Place → nonce lifetime in seconds, further directives.
_DIGEST_PLACES = {"digest": (300, ""), "shortnonce": (1, ""), "either": (300, _OFFER_BASIC)}


@contextlib.contextmanager
def apache(root: Path) -> Iterator[Server]:
    """Serve *root*, which must be readable for everybody."""
    with public_directory() as state:
        write_htpasswd(state / "htpasswd")
        write_htdigest(state / "htdigest")
        with httpd(state, root, lambda _: _places(state, root), modules=_PASSWORD_MODULES) as ports:
            yield Server(root=root, port=ports[0])


@contextlib.contextmanager
def httpd(
    state: Path,
    root: Path,
    configure: Callable[[Sequence[int]], str],
    *,
    modules: Sequence[str],
    ports: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[list[int]]:
    """Run an Apache that serves *root* on its first port; yields its ports.

    *configure* gets the ports and returns what is configured besides; its `Listen` lines are its
    own for every port but the first.
    """
    program = require_server("apache")

    def command(chosen: Sequence[int]) -> Sequence[str]:
        path = state / "apache.conf"
        text = _CONFIGURATION.format(
            state=state,
            root=root,
            port=chosen[0],
            modules="\n".join(map(_load, (*_MODULES, *modules))),
            rest=configure(chosen),
        )
        path.write_text(text, encoding="utf-8")
        return [program, "-D", "FOREGROUND", "-f", str(path)]

    with serving(
        command, root=root, log=state / "error.log", ports=ports, environment=environment
    ) as chosen:
        yield chosen


def _load(module: str) -> str:
    return f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so"


def _places(state: Path, root: Path) -> str:
    places = [_BASIC.format(root=root, realm=REALM, state=state)]
    places += [
        _DIGEST.format(
            place=place, root=root, realm=REALM, state=state, lifetime=lifetime, more=more
        )
        for place, (lifetime, more) in _DIGEST_PLACES.items()
    ]
    return "".join(places)
