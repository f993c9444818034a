"""Downloads of ordinary users: theirs alone, and going on whatever happens to the machine."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.guest import Guest
from tests.support.guest_origin import BODY, GuestOrigin
from tests.support.guest_user import User


async def test_a_download_needs_no_more_than_the_socket(
    root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: the first caller starts the service; the file is hers, with her umask."""
    await root.run("systemctl", "stop", "transferd.service")
    await root.run("systemctl", "start", "transferd.socket")
    origin.serve("/a")
    said = await alice.ctl("get", origin.url("/a"), f"{alice.home}/first")
    assert said.output == f"{alice.home}/first\n"
    assert alice.file("first").read_bytes() == BODY
    looked = await alice.run("stat", "-c", "%U:%G %a", f"{alice.home}/first")
    assert looked.output == "alice:alice 644\n"


async def test_an_ordinary_download_is_no_cause_for_warnings(
    root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: nothing that works is complained of, by the service or by PAM on its behalf."""
    await root.run("systemctl", "restart", "transferd.service")
    read = ("journalctl", "--unit=transferd.service", "--output=cat")
    begun = await root.run(*read, "--lines=0", "--show-cursor")
    cursor = begun.lines[-1].removeprefix("-- cursor: ")
    origin.serve("/a")
    await alice.ctl("get", origin.url("/a"), f"{alice.home}/quiet")
    await root.run("journalctl", "--sync")
    said = await root.run(*read, f"--after-cursor={cursor}")
    assert "worker.started" in said.output
    complaints = await root.run(*read, f"--after-cursor={cursor}", "--priority=warning")
    assert complaints.output == ""


@pytest.mark.parametrize("how", ["reboot", "reset"])
async def test_a_download_goes_on_by_itself_after_a(
    how: str, machine: Guest, alice: User, origin: GuestOrigin
) -> None:
    """Rule: nobody logs in, nobody asks: the service starts with the machine and goes on."""
    document = origin.serve(f"/{how}", slow=True)
    job = await alice.fetch(origin.url(f"/{how}"), how)
    durable = await alice.reach(job, 1)
    await asyncio.to_thread(getattr(machine, how))
    await asyncio.wait_for(origin.saw(2), 30)
    document.drip = 0
    await alice.gone(job)
    starts = origin.starts(f"/{how}")
    assert starts[0] is None
    assert starts[1] is not None
    assert durable <= starts[1] < len(BODY)
    assert alice.file(how).read_bytes() == BODY


async def test_a_private_home_is_open_to_its_owners_worker_alone(
    root: User, alice: User, bob: User, origin: GuestOrigin
) -> None:
    """Rule: into her 0700 home alice downloads; into bob's she is refused as by any program."""
    await root.run("chmod", "0700", str(alice.home), str(bob.home))
    origin.serve("/a")
    await alice.ctl("get", origin.url("/a"), f"{alice.home}/private")
    assert alice.file("private").read_bytes() == BODY
    theirs = f"{bob.home}/private"
    # The command line looks before it asks for a job; nobody relies on that.
    refused = await alice.ctl("get", origin.url("/a"), theirs, "--json", check=False)
    assert json.loads(refused.output)["error"]["code"] == "local_access_denied"
    job = {"name": "n", "files": [{"remote": origin.url("/a"), "local": theirs}], "start": True}
    status, problem = await alice.ask("POST", "/v1/jobs", job)
    assert (status, problem["code"]) == (400, "local_access_denied")
    assert not bob.file("private").exists()


async def test_the_owners_umask_and_groups_are_the_files(
    root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: the worker has the groups of the user database and the umask of a session."""
    await root.run("groupadd", "--force", "crew")
    await root.run("usermod", "--append", "--groups", "crew", "alice")
    await root.run("chfn", "--other", "umask=027", "alice")
    await root.run("install", "-d", "--group=crew", "--mode=2770", "/srv/crew")
    # A worker has what its owner had when it started.
    await root.run("systemctl", "restart", "transferd.service")
    try:
        origin.serve("/a")
        await alice.ctl("get", origin.url("/a"), "/srv/crew/shared")
        looked = await root.run("stat", "-c", "%U:%G %a", "/srv/crew/shared")
        assert looked.output == "alice:crew 640\n"
    finally:
        await root.run("chfn", "--other", "", "alice")
        await root.run("systemctl", "restart", "transferd.service")
