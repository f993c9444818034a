"""Real web servers from Debian as child processes on free loopback ports.

Every test may ask for one: `with nginx(directory) as server: server.url("/file")`. What they share
is here; a server's own configuration is in the module that bears its name. A directory that is
served must be readable for everybody, since Apache refuses to serve as root: `public_directory`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.support.programs import LIBRARIES, PACKAGES, find_library, find_program

if TYPE_CHECKING:
    from tests.support.netns import Network

#: What every protected place accepts.
USER = "alice"
PASSWORD = "opensesame"
#: A second identity, with everything in it that quoting can get wrong.
ODD_USER = "jürgen"
ODD_PASSWORD = 'p:ä, "q\\ ß%+='
REALM = "transferd tests"

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_ATTEMPTS = 5

#: Given ports, writes the configuration and returns the command that serves in the foreground.
Command = Callable[[Sequence[int]], Sequence[str]]


class NotServing(Exception):
    """The server did not come up; carries the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers."""

    #: What it serves under `/` and, with other manners, under its other places.
    root: Path
    port: int
    #: Where TLS is served, and the certificate authority that vouches for it.
    tls_port: int | None = None
    cacert: Path | None = None
    #: Where it is served with other certificates: kind (`tests.support.tls.KINDS`) → port.
    tls_ports: Mapping[str, int] = field(default_factory=dict)

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        """Return the URL of an absolute path; `localhost` as host makes it another origin."""
        return f"http://{host}:{self.port}{path}"

    def tls_url(self, path: str, *, host: str = "localhost", kind: str | None = None) -> str:
        """Return the https URL of an absolute path; *kind* chooses another certificate."""
        port = self.tls_port if kind is None else self.tls_ports[kind]
        assert port is not None, "this server has no TLS"
        return f"https://{host}:{port}{path}"

    def put(self, content: bytes, *, name: str | None = None, age: float = 3600.0) -> str:
        """Place a file under the root and return its path, `/name`; names are fresh by default.

        Servers make ETags of size and modification time, in seconds: a new version of a file needs
        another *age* (seconds). Old files have strong ETags; Apache's are weak for a second.
        """
        name = name or f"{secrets.token_hex(8)}.bin"
        path = self.root / name
        fresh = path.with_name(f"{name}.new")
        fresh.write_bytes(content)
        modified = time.time() - age
        os.utime(fresh, (modified, modified))
        # Replaced, not overwritten: an answer that is under way goes on with the old bytes.
        fresh.rename(path)
        return f"/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """The ports of a forward proxy that answers, by what it asks for there."""

    ports: Mapping[str, int]

    def url(self, asks_for: str, *, host: str = "localhost") -> str:
        """Return what a client is configured with; Kerberos knows it as `localhost` alone."""
        return f"http://{host}:{self.ports[asks_for]}"


def require_program(program: str) -> str:
    """Return the path of a program that a test needs.

    Skips the test where the program is missing, or fails it where the environment has CI set.
    """
    return find_program(program) or _miss(program, PACKAGES.get(program, program))


def require_library(library: str) -> Path:
    """Return the path of a library that a test's server loads, as require_program."""
    return find_library(library) or _miss(library, LIBRARIES[library][1])


def require_module(module: str, extra: str) -> None:
    """Skip the test, or fail it, as require_program, where an extra of transferd is missing."""
    if importlib.util.find_spec(module) is None:
        reject(f"{module} is not installed: pip install 'transferd[{extra}]'")


def require_root(purpose: str) -> None:
    """Skip the test, or fail it, as require_program, where it does not run as root."""
    if os.geteuid() != 0:
        reject(f"{purpose} takes root")


def _miss(name: str, package: str) -> NoReturn:
    reject(f"{name} is not installed: apt-get install {package}")


def reject(reason: str) -> NoReturn:
    """Skip the test for that *reason*, or fail it where the environment has CI set."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def require_server(name: str) -> str:
    """Return the path of the program of nginx, apache or lighttpd, as require_program."""
    return require_program({"apache": "apache2"}.get(name, name))


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    """Make a directory that every user may read, and remove it in the end."""
    with tempfile.TemporaryDirectory(prefix="transferd-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on at the moment.

    They lie below the range that the kernel gives to outgoing connections. The choice must not come
    from `random`: parallel test processes are seeded alike.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = 15000 + secrets.randbelow(17000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


@contextlib.contextmanager
def serving(
    command: Command,
    *,
    root: Path,
    log: Path,
    ports: int = 1,
    environment: Mapping[str, str] | None = None,
    graceful: bool = True,
    network: Network | None = None,
) -> Iterator[list[int]]:
    """Run a server until the block ends; yields its ports, the first of them plain HTTP.

    A server that does not answer with its own files (another process took the port) is started
    again on other ports. The *environment* comes on top of that of the tests, and a *network* takes
    the place of theirs. In the end the server is asked to go, or, not *graceful*, ended at once
    with all that it started.

    Raises:
        NotServing: it never did.
    """
    with contextlib.ExitStack() as stack:
        beacon = root / f".ready-{secrets.token_hex(8)}"
        beacon.write_bytes(b"")
        stack.callback(beacon.unlink)
        for _ in range(_ATTEMPTS):
            chosen = free_ports(ports)
            before = network.command if network is not None else ()
            process = start([*before, *command(chosen)], log, environment=environment)
            if _answers(f"http://127.0.0.1:{chosen[0]}/{beacon.name}", process, network):
                stack.callback(stop, process, graceful=graceful)
                break
            stop(process, graceful=graceful)
        else:
            raise NotServing(log.read_text(errors="replace")[-2000:])
        yield chosen


def start(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Run a program that stays in the foreground, in a process group of its own."""
    # The kernel ends the server when the test process dies without having a chance to.
    argv = [require_program("setpriv"), "--pdeathsig", "TERM", "--", *command]
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )


def _answers(url: str, process: subprocess.Popen[bytes], network: Network | None) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ask = partial(opener.open, url, timeout=_START_SECONDS)
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with ask() if network is None else network.within(ask):
                return True
        except urllib.error.HTTPError:
            return False
        except OSError:
            # Not yet. Look again soon, or at once when it has ended.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
    return False


def stop(process: subprocess.Popen[bytes], *, graceful: bool = True) -> None:
    """End a program that `start` began; by force when it does not go, or not *graceful*."""
    if graceful:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_htpasswd(path: Path) -> Path:
    """Write both users for Basic, in the one format that all three servers read."""
    lines = []
    for user, password in ((USER, PASSWORD), (ODD_USER, ODD_PASSWORD)):
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
        lines.append(f"{user}:{{SHA}}{base64.b64encode(digest).decode()}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_htdigest(path: Path, *, algorithms: Sequence[str] = ("md5",)) -> Path:
    """Write both users for Digest, H(user:realm:password), with lighttpd's optional userhash."""
    lines = []
    for algorithm in algorithms:
        for user, password in ((USER, PASSWORD), (ODD_USER, ODD_PASSWORD)):
            fields = [user, REALM, _hash(algorithm, f"{user}:{REALM}:{password}")]
            if algorithm != "md5":
                fields.append(_hash(algorithm, f"{user}:{REALM}"))
            lines.append(":".join(fields) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _hash(algorithm: str, text: str) -> str:
    return hashlib.new(algorithm, text.encode(), usedforsecurity=False).hexdigest()
