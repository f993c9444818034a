"""Prints what goes over the wire when a server asks for NTLM, and for Kerberos; as root.

`python -m tests.bench.exchanges`: two files each, so that a second request is seen. The numbers are
those of connections; tokens are described, not shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

from tests.support.apache_gssapi import apache_gssapi
from tests.support.daemon import DaemonProcess
from tests.support.kdc import kdc
from tests.support.relay import Relay
from tests.support.servers import PASSWORD, USER, Server, public_directory
from tests.support.transcript import transcript


def main() -> None:
    """Fetch, and print what was seen."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(public_directory())
        realm = stack.enter_context(kdc())
        server = stack.enter_context(apache_gssapi(root, realm))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(realm.environment(ccache=realm.kinit()))
        daemon = stack.enter_context(DaemonProcess(directory)).start()
        for title, place, who in (
            ("NTLM", "/ntlm", ("--auth", "ntlm", "--user", USER, "--password-file", "-")),
            ("Kerberos", "/kerberos", ("--auth", "negotiate", "--user", "NULL")),
        ):
            print(f"\n{title}\n{asyncio.run(_seen(server, place, daemon, who))}")


async def _seen(server: Server, place: str, daemon: DaemonProcess, who: tuple[str, ...]) -> str:
    paths = [server.put(os.urandom(10_000)) for _ in range(2)]
    async with Relay(server=server.port).running() as relay:
        name = place.strip("/")
        await _ctl(daemon, "create", name)
        for path in paths:
            url = f"http://localhost:{relay.port}{place}{path}"
            await _ctl(daemon, "add", name, url, str(daemon.directory / Path(path).name))
        await _ctl(daemon, "credentials", "set", name, *who, stdin=f"{PASSWORD}\n")
        await _ctl(daemon, "resume", name)
        await _ctl(daemon, "wait", name, "--complete")
    return transcript(relay.passed)


async def _ctl(daemon: DaemonProcess, *arguments: str, stdin: str | None = None) -> None:
    done = await asyncio.to_thread(daemon.ctl, *arguments, stdin=stdin)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr}{daemon.logged()}")


if __name__ == "__main__":
    main()
