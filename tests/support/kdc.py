"""MIT's krb5kdc on a loopback port: a realm of its own, with users, services and tickets.

Whoever talks to it, client or server, needs `Kdc.environment` and nothing of the machine's Kerberos
configuration. No DNS is asked, and names are taken as they are written.

What can be wrong: `Kdc.stop` (nobody listens any more), `silent_port` with `Kdc.configuration`
(somebody listens and never answers; MIT gives up after some 25 seconds and has no setting for
that), `configuration(realm=...)` (a realm that nobody knows), `start(clock=...)` (the KDC has the
wrong time; clients follow it quietly unless they are configured with `kdc_timesync="0"`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from tests.support.clocks import shifted_clock
from tests.support.servers import (
    ODD_PASSWORD,
    ODD_USER,
    PASSWORD,
    USER,
    NotServing,
    free_ports,
    public_directory,
    require_program,
    start,
    stop,
)

REALM = "TRANSFERD.TEST"
#: Services that stand in the database; the keytab `Kdc.keytab` has the first of them.
SERVICES = ("HTTP/localhost", "HTTP/elsewhere.test")

_PROGRAMS = ("kadmin.local", "kdb5_util", "kinit", "krb5kdc")
_START_SECONDS = 10.0
_ATTEMPTS = 5
_NO_SHIFT = timedelta(0)

_CLIENT = """
[libdefaults]
    default_realm = {realm}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    qualify_shortname = ""
    udp_preference_limit = 1
{more}
[realms]
    {served} = {{
        kdc = 127.0.0.1:{port}
    }}
"""

_SERVER = """
[kdcdefaults]
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
    {realm} = {{
        database_name = {directory}/principals
        key_stash_file = {directory}/stash
        acl_file = {directory}/acl
        max_life = 1d
        max_renewable_life = 7d
        default_principal_flags = +preauth, +renewable
    }}
[logging]
    kdc = FILE:{directory}/kdc.log
    default = FILE:{directory}/library.log
"""


class Kdc:
    """A KDC that can be stopped and started; it keeps its port and its database."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        #: What a client is configured with, `KRB5_CONFIG`.
        self.config = directory / "krb5.conf"
        #: The key of HTTP/localhost.
        self.keytab = directory / "services.keytab"
        self._process: subprocess.Popen[bytes] | None = None
        self._programs = {program: require_program(program) for program in _PROGRAMS}

    def create(self) -> None:
        """Make the database with both users and the services, and start on a free port.

        Raises:
            NotServing: it never came up.
        """
        self._move(free_ports(1)[0])
        self._run("kdb5_util", "create", "-s", "-P", secrets.token_hex(16))
        self.add_user(USER, PASSWORD)
        self.add_user(ODD_USER, ODD_PASSWORD)
        self.add_services(*SERVICES)
        self.export(SERVICES[0], path=self.keytab)
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(NotServing):
                return self.start()
            # Another process took the port.
            self._move(free_ports(1)[0])
        return self.start()

    def start(self, *, clock: timedelta = _NO_SHIFT) -> None:
        """Serve, with a clock that is fast by *clock*.

        Raises:
            NotServing: it did not come up; says what it logged.
        """
        assert self._process is None, "it runs already"
        self._process = self._launch(self.directory / "kdc.conf", clock)

    def stop(self) -> None:
        """Be unreachable: connections are refused at once."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def add_user(self, name: str, password: str) -> None:
        """Add a principal with a password."""
        self._run("kadmin.local", "addprinc", "-pw", password, name)

    def limit(self, name: str, lifetime: timedelta) -> None:
        """Give no ticket of a principal's a longer life."""
        seconds = f"{lifetime.total_seconds():.0f} seconds"
        self._run("kadmin.local", "modprinc", "-maxlife", seconds, name)

    def add_services(self, *names: str) -> None:
        """Add principals with random keys, such as `HTTP/localhost`."""
        for name in names:
            self._run("kadmin.local", "addprinc", "-randkey", name)

    def export(self, *principals: str, path: Path | None = None) -> Path:
        """Write the keys of principals, users among them, to a keytab; passwords stay valid."""
        path = path or self.directory / f"{secrets.token_hex(8)}.keytab"
        self._run("kadmin.local", "ktadd", "-norandkey", "-k", str(path), *principals)
        # Servers read it under another user when the tests are root's.
        path.chmod(0o644)
        return path

    def kinit(
        self,
        principal: str = USER,
        *,
        password: str = PASSWORD,
        keytab: Path | None = None,
        lifetime: timedelta = timedelta(hours=1),
        renewable: timedelta | None = None,
        ccache: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Path:
        """Get a ticket by password, or by *keytab*, and return the file of the ticket cache."""
        path = ccache or self.directory / f"{secrets.token_hex(8)}.ccache"
        argv = ["-c", f"FILE:{path}", "-l", f"{lifetime.total_seconds():.0f}s"]
        if renewable is not None:
            argv += ["-r", f"{renewable.total_seconds():.0f}s"]
        if keytab is not None:
            argv += ["-k", "-t", f"FILE:{keytab}"]
        self._run("kinit", *argv, principal, stdin=f"{password}\n", environment=environment)
        return path

    def expired_ticket(self) -> Path:
        """Return a ticket cache of USER whose ticket ended an hour ago.

        It comes from a second KDC on the same database, in which it was earlier. Clients take the
        end of a ticket at its word, but servers accept it for five minutes more (clockskew).
        """
        earlier = timedelta(hours=-2)
        (port,) = free_ports(1)
        profile = self._profile(port)
        process = self._launch(profile, earlier)
        try:
            environment = {
                **self.environment(config=self.configuration(port=port)),
                **shifted_clock(self.directory, earlier),
            }
            return self.kinit(lifetime=timedelta(hours=1), environment=environment)
        finally:
            stop(process)

    def environment(
        self,
        *,
        ccache: Path | None = None,
        keytab: Path | None = None,
        client_keytab: Path | None = None,
        config: Path | None = None,
    ) -> dict[str, str]:
        """Return what a client or server needs in its environment; without *ccache*, no ticket."""
        nothing = self.directory / "nothing"
        return {
            "KRB5_CONFIG": str(config or self.config),
            "KRB5CCNAME": f"FILE:{ccache or nothing}",
            "KRB5_KTNAME": f"FILE:{keytab or nothing}",
            "KRB5_CLIENT_KTNAME": f"FILE:{client_keytab or nothing}",
        }

    def configuration(
        self,
        *,
        port: int | None = None,
        realm: str = REALM,
        path: Path | None = None,
        **more: str,
    ) -> Path:
        """Write a client's configuration with another KDC, default realm or further defaults."""
        path = path or self.directory / f"{secrets.token_hex(8)}.conf"
        text = _CLIENT.format(
            realm=realm,
            served=REALM,
            port=port or self.port,
            more="".join(f"    {key} = {value}\n" for key, value in more.items()),
        )
        path.write_text(text, encoding="utf-8")
        return path

    def _move(self, port: int) -> None:
        self.port = port
        self.configuration(path=self.config)
        self._profile(port).rename(self.directory / "kdc.conf")

    def _profile(self, port: int) -> Path:
        path = self.directory / f"{secrets.token_hex(8)}-kdc.conf"
        text = _SERVER.format(realm=REALM, port=port, directory=self.directory)
        path.write_text(text, encoding="utf-8")
        return path

    def _launch(self, profile: Path, clock: timedelta) -> subprocess.Popen[bytes]:
        log = self.directory / f"{secrets.token_hex(8)}.log"
        shift = shifted_clock(self.directory, clock) if clock else {}
        process = start(
            [self._programs["krb5kdc"], "-n", "-P", f"{log}.pid"],
            log,
            environment={**self.environment(), **shift, "KRB5_KDC_PROFILE": str(profile)},
        )
        deadline = time.monotonic() + _START_SECONDS
        while b"starting..." not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                stop(process)
                raise NotServing((self.directory / "kdc.log").read_text(errors="replace")[-2000:])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
        return process

    def _administration(self) -> dict[str, str]:
        return {**self.environment(), "KRB5_KDC_PROFILE": str(self.directory / "kdc.conf")}

    def _run(
        self,
        program: str,
        *arguments: str,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        ended = subprocess.run(
            [self._programs[program], *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **self._administration(), **(environment or {})},
            check=False,
        )
        # Old kadmin.local ends with 0 although it failed.
        if ended.returncode or "while" in ended.stdout:
            raise KerberosRefused(f"{program} {arguments[0]}: {ended.stdout.strip()}")


class KerberosRefused(Exception):
    """A Kerberos program did not do what it was asked for; says what it printed."""


@contextlib.contextmanager
def kdc() -> Iterator[Kdc]:
    """Run a KDC until the block ends."""
    with public_directory() as directory:
        served = Kdc(directory)
        try:
            served.create()
            yield served
        finally:
            served.stop()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Hold a port at which, by UDP and TCP, everything arrives and nothing is answered."""
    with contextlib.ExitStack() as stack:
        while True:
            (port,) = free_ports(1)
            stream = stack.enter_context(socket.socket())
            datagrams = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):
                stream.bind(("127.0.0.1", port))
                stream.listen(128)
                datagrams.bind(("127.0.0.1", port))
                break
        yield port
