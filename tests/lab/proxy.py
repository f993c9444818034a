"""squid in the home, behind the bottleneck: who downloads through it has no word about the link."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.topology import Role, Topology
from tests.support.servers import public_directory, require_program, start, stop
from tests.support.squid import no_leftovers

_PORT = 3128
_PATIENCE = 10.0
#: What it forwards it forgets; all else is as it comes.
_CONFIGURATION = """
http_port {address}:{port}
http_access allow all
cache deny all
workers 1
visible_hostname localhost
pid_filename {state}/squid.pid
cache_log {state}/cache.log
access_log none
netdb_filename none
coredump_dir {state}
pinger_enable off
dns_nameservers 127.0.0.1
max_filedescriptors 1024
"""


@contextlib.contextmanager
def proxy(topology: Topology) -> Iterator[str]:
    """Run it; yields what a client is configured with.

    Raises:
        TimeoutError: it did not start.
    """
    program, service = require_program("squid"), f"lab{secrets.token_hex(8)}"
    address = Role.PROXY.gateway
    with public_directory() as state, no_leftovers(service):
        # Its processes have another user than root.
        state.chmod(0o1777)
        path = state / "squid.conf"
        path.write_text(
            _CONFIGURATION.format(state=state, address=address, port=_PORT), encoding="utf-8"
        )
        command = [*topology.home.command, program, "-N", "-n", service, "-f", str(path)]
        process = start(command, state / "output.log")
        try:
            topology.home.within(lambda: _wait_for(address, state / "cache.log"))
            yield f"http://{address}:{_PORT}"
        finally:
            stop(process, graceful=False)


def _wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError), socket.create_connection((address, _PORT)):
            return
        time.sleep(0.05)
    raise TimeoutError(log.read_text(errors="replace")[-2000:] if log.exists() else "no squid")
