"""Downloads of an ordinary user go on by themselves, whatever happens to the machine."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path

import pytest

from tests.bench.survival import query
from tests.support.guest import Guest
from tests.support.guest_origin import GuestOrigin
from tests.support.guest_user import User
from tests.support.origin import Document, Fault, Version

BODY = os.urandom(3_000_000)
#: Where an origin holds a download.
HALF = 2_000_000
_STATE = Path("/var/lib/transferd")
_OFFSET = "SELECT sum(bytes_transferred) FROM jobs"


def held(origin: GuestOrigin, path: str) -> Document:
    """Serve a file whose first answer stops in the middle."""
    document = Document(version=Version(body=BODY), faults=deque([Fault(stall=HALF)]))
    origin.pages[path] = document
    return document


async def reach(user: User, job: str, offset: int) -> None:
    """Wait until so many bytes of the only job in the queue are durable."""
    state = user.guest.path(_STATE)
    async with user.lines("transferctl", "events", job, "--json") as events:
        # What the events tell is ahead of what is durable; another one follows when it is.
        async for _ in events:
            if query(state, _OFFSET) == (offset,):
                return


async def test_a_download_needs_no_more_than_the_socket(
    machine: Guest, alice: User, origin: GuestOrigin
) -> None:
    """Rule: the first caller starts the service; the file is hers, with her umask."""
    await asyncio.to_thread(machine.run, "systemctl", "stop", "transferd.service")
    await asyncio.to_thread(machine.run, "systemctl", "start", "transferd.socket")
    origin.pages["/a"] = Document(version=Version(body=BODY))
    said = await alice.ctl("get", origin.url("/a"), str(alice.home / "first"))
    assert said.output == f"{alice.home}/first\n"
    assert alice.file("first").read_bytes() == BODY
    of = await alice.run("stat", "-c", "%U:%G %a", str(alice.home / "first"))
    assert of.output == "alice:alice 644\n"


@pytest.mark.parametrize("how", ["reboot", "reset"])
async def test_a_download_goes_on_by_itself_after_a(
    how: str, machine: Guest, alice: User, origin: GuestOrigin
) -> None:
    """Rule: nobody logs in, nobody asks: the service starts with the machine and goes on."""
    document = held(origin, f"/{how}")
    job = await alice.fetch(origin.url(f"/{how}"), how)
    await document.stalled.wait()
    await reach(alice, job, HALF)
    await asyncio.to_thread(getattr(machine, how))
    await asyncio.wait_for(origin.saw(2), 30)
    document.go.set()
    await alice.gone(job)
    assert [seen.range_start for seen in origin.requests(f"/{how}")][:2] == [None, HALF]
    assert alice.file(how).read_bytes() == BODY
