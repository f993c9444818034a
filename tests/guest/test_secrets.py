"""The key of all secrets, sealed to the machine or in a file; and where no secret may be."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.guest_origin import BODY, GuestOrigin
from tests.support.guest_user import User
from tests.support.origin import Document, Seen, Version, Wire
from tests.support.readme import commands_in_row

_SERVICE = "transferd.service"
_STATE = "/var/lib/transferd"
#: What must be nowhere but in one process's memory.
_PASSWORD = "canary-7c1f0e"
#: `alice:canary-7c1f0e`, as Basic sends it.
_BASIC = "YWxpY2U6Y2FuYXJ5LTdjMWYwZQ=="


@pytest.fixture
async def queue(root: User) -> AsyncIterator[None]:
    """The queue may be changed in any way, and so may its keys; what was before comes back."""
    await root.run("systemctl", "stop", "transferd.socket", _SERVICE)
    await root.run("cp", "-a", _STATE, f"{_STATE}.before")
    await root.run("systemctl", "start", "transferd.socket", _SERVICE)
    yield
    await root.run("systemctl", "stop", "transferd.socket", _SERVICE)
    await root.run("rm", "-rf", _STATE, "/etc/credstore.encrypted")
    await root.run("mv", f"{_STATE}.before", _STATE)
    await root.run("systemctl", "start", "transferd.socket", _SERVICE)


def protected(origin: GuestOrigin, path: str) -> None:
    """Serve a file to alice only."""
    document = Document(version=Version(body=BODY))

    async def page(seen: Seen, wire: Wire) -> None:
        if seen.get("authorization") == f"Basic {_BASIC}":
            await document(seen, wire)
        else:
            await wire.answer(401, [("WWW-Authenticate", 'Basic realm="guest"')])

    origin.pages[path] = page


async def begin(user: User, origin: GuestOrigin, name: str) -> str:
    """Make a job whose password the service keeps; returns its id."""
    protected(origin, f"/{name}")
    made = await user.ctl("create", name, "--auto-complete")
    job = made.output.strip()
    options = ("--scheme", "basic", "--user", "alice", "--password-file", "-")
    await user.ctl("credentials", "set", job, *options, say=_PASSWORD)
    await user.ctl("add", job, origin.url(f"/{name}"), f"{user.home}/{name}")
    return job


async def test_a_key_file_is_the_daemons_alone(root: User, alice: User, bob: User) -> None:
    """Rule: without a credential of systemd's, the key is a 0600 file in a 0700 directory."""
    await alice.json("list")
    looked = await root.run("stat", "-c", "%U %a", _STATE, f"{_STATE}/vault.key")
    assert looked.lines == ["transferd 700", "transferd 600"]
    for user in (alice, bob):
        assert (await user.run("cat", f"{_STATE}/vault.key", check=False)).status == 1


async def test_a_key_that_systemd_has_sealed_opens_what_was_kept_before(
    queue: None, root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: by the README's commands the key is the machine's, and no other one is needed."""
    job = await begin(alice, origin, "sealed")
    for command in commands_in_row("seal the key of all secrets to the machine"):
        await root.run("bash", "-ec", command)
    assert (await root.run("find", _STATE, "-name", "*.key")).output == ""
    await root.run("systemctl", "restart", _SERVICE)
    await alice.ctl("resume", job)
    await alice.gone(job)
    assert alice.file("sealed").read_bytes() == BODY
    shown = await root.json("admin", "status")
    assert shown["key"].startswith("/run/credentials/")
    assert (await root.json("admin", "check"))["findings"] == []


async def test_a_password_is_in_no_log_no_file_and_no_environment(
    root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: a secret is sealed in the queue, and in the worker's memory; nothing tells it."""
    job = await begin(alice, origin, "secret")
    await alice.ctl("resume", job)
    await alice.gone(job)
    assert alice.file("secret").read_bytes() == BODY
    await root.run("journalctl", "--sync")
    journal = (await root.run("journalctl", "--output=export", "--all")).output
    assert f"TRANSFERD_JOB={job}" in journal
    environments = await root.run("sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline")
    for secret in (_PASSWORD, _BASIC):
        assert secret not in journal
        assert secret not in environments.output
        found = await root.run("grep", "-rl", secret, _STATE, "/etc", "/home", check=False)
        assert found.output == ""
