"""The service in the hands of its manager: readiness, watchdog, reload, restart, upgrade."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.daemon import CONFIG
from tests.support.guest import Guest
from tests.support.guest_origin import BODY, GuestOrigin
from tests.support.guest_package import renumber
from tests.support.guest_user import User

_SERVICE = "transferd.service"
_CONFIGURATION = "/etc/transferd/transferd.toml"
_CLIENTS = 200
#: So many clients ask for the list of jobs, each time on a new connection, until standard input
#: ends. Prints when all of them have had an answer, and in the end how often they had which.
_CROWD = """
import asyncio, collections, json, sys

clients = int(sys.argv[1])
seen, served = collections.Counter(), set()
request = "\\r\\n".join(["GET /v1/jobs HTTP/1.1", "Host: transferd", "Connection: close", "", ""])

async def ask():
    reader, writer = await asyncio.open_unix_connection("/run/transferd/transferd.sock")
    try:
        writer.write(request.encode())
        answer = await reader.read()
        return answer.partition(b"\\r\\n")[0].decode() or "closed without an answer"
    finally:
        writer.close()

async def client(number, ends):
    while not ends.is_set():
        try:
            async with asyncio.timeout(30):
                seen[await ask()] += 1
        except (OSError, TimeoutError) as error:
            seen[repr(error)] += 1
        served.add(number)
        if len(served) == clients:
            served.add("told")
            print("all", flush=True)

async def main():
    ends = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number, ends))
        await asyncio.to_thread(sys.stdin.read)
        ends.set()
    print(json.dumps(seen), flush=True)

asyncio.run(main())
"""


async def value(root: User, name: str) -> str:
    """Return a property of the service as its manager knows it."""
    shown = await root.run("systemctl", "show", f"--property={name}", "--value", _SERVICE)
    return shown.output.strip()


@contextlib.asynccontextmanager
async def drop_in(root: User, text: str) -> AsyncIterator[None]:
    """Run the service with more lines in its unit."""
    place = f"/run/systemd/system/{_SERVICE}.d"
    await root.run("mkdir", "-p", place)
    await root.run("tee", f"{place}/test.conf", say=f"[Service]\n{text}\n")
    await root.run("systemctl", "daemon-reload")
    await root.run("systemctl", "restart", _SERVICE)
    try:
        yield
    finally:
        await root.run("rm", "-r", place)
        await root.run("systemctl", "daemon-reload")
        await root.run("systemctl", "restart", _SERVICE)


async def test_started_means_ready(root: User, alice: User) -> None:
    """Rule: the manager waits for the daemon's word, and shows what it says of itself."""
    await root.run("systemctl", "restart", _SERVICE)
    assert await value(root, "ActiveState") == "active"
    assert await value(root, "StatusText") == "listening on /run/transferd/transferd.sock"
    assert await alice.json("list") == {"jobs": []}


async def test_a_daemon_that_hangs_is_replaced_and_its_jobs_go_on(
    root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: the watchdog kills it, its workers with it, and the next one takes up every job."""
    async with drop_in(root, "WatchdogSec=2\nRestartSec=100ms"):
        document = origin.serve("/a", slow=True)
        job = await alice.fetch(origin.url("/a"), "watched")
        durable = await alice.reach(job, 1)
        hung = await value(root, "MainPID")
        await root.run("kill", "-STOP", hung)
        await asyncio.wait_for(origin.saw(2), 30)
        document.drip = 0
        await alice.gone(job)
        assert await value(root, "NRestarts") == "1"
        assert await value(root, "MainPID") != hung
    start = origin.starts("/a")[1]
    assert start is not None
    assert start >= durable
    assert alice.file("watched").read_bytes() == BODY


async def test_reload_takes_a_changed_configuration(
    machine: Guest, root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: `systemctl reload` changes limits at once and costs no job a byte; so does its undoing.

    A file that is wrong makes it fail, changes nothing, and is refused at a start for good: the
    unit is failed, `transferctl` says so in time, and starts when the file is mended.
    """
    document = origin.serve("/a", slow=True)
    job = await alice.fetch(origin.url("/a"), "reloaded")
    await alice.reach(job, 1)
    before = await value(root, "MainPID")
    for text, allowed in ((f"{CONFIG}[limits]\njobs_per_user = 1\n", 1), (CONFIG, 10_000)):
        machine.put(_CONFIGURATION, text)
        await reload(root, "config.reloaded")
        status, answer = await alice.ask("POST", "/v1/jobs", {"name": "one more"})
        assert (status == 201) == (allowed > 1), answer
    machine.put(_CONFIGURATION, f"{CONFIG}[no_such]\n")
    assert (await root.run("systemctl", "reload", _SERVICE, check=False)).status != 0
    assert await value(root, "MainPID") == before
    await root.run("systemctl", "kill", "--signal=HUP", "--kill-who=main", _SERVICE)
    checked = await root.ctl("admin", "check", "--json", check=False)
    assert "configuration_refused" in checked.output
    machine.put(_CONFIGURATION, CONFIG)
    await reload(root, "config.reloaded")
    document.drip = 0
    await alice.gone(job)
    assert await value(root, "MainPID") == before
    assert origin.starts("/a")[:1] == [None]
    assert alice.file("reloaded").read_bytes() == BODY


async def test_a_wrong_configuration_fails_the_unit_and_tells_who_calls(
    machine: Guest, root: User, alice: User
) -> None:
    """Rule: who watches units sees it, who calls is told in time, and a mended file is enough."""
    machine.put(_CONFIGURATION, f"{CONFIG}[no_such]\n")
    try:
        assert (await root.run("systemctl", "restart", _SERVICE, check=False)).status != 0
        assert await value(root, "ActiveState") == "failed"
        told = await alice.ctl("list", check=False)
        assert (told.status, "systemctl status transferd" in told.complaints) == (3, True)
    finally:
        machine.put(_CONFIGURATION, CONFIG)
        await root.run("systemctl", "restart", _SERVICE)
    assert (await alice.ctl("list")).status == 0


async def reload(root: User, event: str) -> None:
    """Reload, and wait for that event in the journal."""
    follow = ("journalctl", "--follow", "--lines=0", "--output=json", f"--unit={_SERVICE}")
    async with root.lines(*follow) as lines:
        await root.run("systemctl", "reload", _SERVICE)
        async for line in lines:
            if json.loads(line).get("TRANSFERD_EVENT") == event:
                return


async def test_a_restart_under_two_hundred_clients_fails_no_connection(
    root: User, alice: User, origin: GuestOrigin
) -> None:
    """Rule: the socket stays; who comes meanwhile waits, and every request is answered."""
    document = origin.serve("/a", slow=True)
    job = await alice.fetch(origin.url("/a"), "restarted")
    durable = await alice.reach(job, 1)
    argv = alice.guest.command("python3", "-c", _CROWD, str(_CLIENTS), user="alice")
    pipe = asyncio.subprocess.PIPE
    crowd = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
    assert crowd.stdout is not None
    assert await crowd.stdout.readline() == b"all\n"
    for _ in range(2):
        await root.run("systemctl", "restart", _SERVICE)
    output, _ = await crowd.communicate(b"")
    seen = json.loads(output)
    assert set(seen) == {"HTTP/1.1 200 OK"}, seen
    document.drip = 0
    await alice.gone(job)
    start = origin.starts("/a")[1]
    assert start is not None
    assert start >= durable
    assert alice.file("restarted").read_bytes() == BODY


async def test_an_upgrade_in_the_middle_of_a_download_loses_nothing(
    root: User, alice: User, origin: GuestOrigin, package: Path, tmp_path: Path
) -> None:
    """Rule: a newer package is installed over the running one, and the job goes on from there."""
    document = origin.serve("/a", slow=True)
    job = await alice.fetch(origin.url("/a"), "upgraded")
    durable = await alice.reach(job, 1)
    before = await value(root, "MainPID")
    newer = renumber(package, "9.9-1", tmp_path)
    root.guest.put(f"/root/{newer.name}", newer.read_bytes())
    await root.run("apt-get", "install", "--yes", f"/root/{newer.name}")
    document.drip = 0
    await alice.gone(job)
    shown = await root.run("dpkg-query", "--show", "--showformat=${Version}", "transferd")
    assert shown.output == "9.9-1"
    assert await value(root, "MainPID") != before
    start = origin.starts("/a")[1]
    assert start is not None
    assert start >= durable
    assert alice.file("upgraded").read_bytes() == BODY
