"""A user's own service, beside the machine's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.guest import Guest
from tests.support.guest_origin import BODY, GuestOrigin
from tests.support.guest_user import User
from tests.support.readme import commands


@pytest.fixture
async def own(machine: Guest, root: User, alice: User) -> AsyncIterator[User]:
    """Alice with a service manager of her own, where the README has enabled transferd for her."""
    uid = (await alice.run("id", "-u")).output.strip()
    runtime = f"/run/user/{uid}"
    bus = f"unix:path={runtime}/bus"
    user = User(machine, "alice", {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": bus})
    # She logs in, types the last two lines, and logs out.
    machine.put("/etc/sudoers.d/alice", "alice ALL=(ALL) NOPASSWD: ALL\n", mode=0o440)
    script = "\n".join(commands("For yourself")[-1].splitlines()[-2:])
    await root.run("runuser", "--login", "alice", "--command", script)
    yield user
    await root.run("rm", "/etc/sudoers.d/alice")
    await user.run("systemctl", "--user", "disable", "--now", "transferd.socket", check=False)
    await user.run("systemctl", "--user", "stop", "transferd.service", check=False)
    await user.run("rm", "-rf", f"{user.home}/.local/state/transferd")
    await root.run("loginctl", "disable-linger", "alice")


async def test_ones_own_service_is_asked_first_and_goes_on_after_a_reboot(
    machine: Guest, own: User, bob: User, origin: GuestOrigin
) -> None:
    """Rule: alice's jobs are in her own daemon's queue, and go on though she is not logged in."""
    document = origin.serve("/own", slow=True)
    job = await own.fetch(origin.url("/own"), "own")
    version = await own.json("version")
    assert version["socket"] == "/run/user/1000/transferd.sock"
    assert (await own.run("systemctl", "--user", "is-active", "transferd.service")).status == 0
    daemon = await own.run("pgrep", "-u", "alice", "-f", "transferd$")
    assert len(daemon.lines) == 1
    assert await bob.json("list") == {"jobs": []}
    await asyncio.to_thread(machine.reboot)
    await asyncio.wait_for(origin.saw(2), 30)
    document.drip = 0
    await own.gone(job)
    assert own.file("own").read_bytes() == BODY
