"""What the processes of the service may do, what others may do to them, and what they cost."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.support.guest import Guest
from tests.support.guest_origin import GuestOrigin
from tests.support.guest_user import User
from tests.support.matrix import Cell
from tests.support.origin import Document, Fault, Version

_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
#: Numbers of capabilities (capabilities(7)) that the daemon needs.
_NAMES = {5: "KILL", 6: "SETGID", 7: "SETUID"}
#: systemd-analyze's own score; more is worse.
EXPOSURE = 3.0
#: What keeps a worker busy.
_MUCH = bytes(64 * 1024 * 1024)
#: Resident bytes that no process of the service should need for one download.
_LARGE = 150_000_000
_TABLE = "processes in a guest"
#: Tries everything on a process; prints what succeeded.
_PRY = """
import ctypes, os, sys
pid, done = int(sys.argv[1]), []
for name in ("environ", "mem", "maps", "auxv", "stack"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            file.read(1) if name != "mem" else file.fileno()
        done.append(name)
    except OSError:
        pass
for name in ("cwd", "exe", "fd/0"):
    try:
        os.readlink(f"/proc/{pid}/{name}")
        done.append(name)
    except OSError:
        pass
libc = ctypes.CDLL(None)
if libc.ptrace(16, pid, 0, 0) == 0:
    os.waitpid(pid, 0)
    libc.ptrace(17, pid, 0, 0)
    done.append("ptrace")
try:
    os.kill(pid, 0)
    done.append("signal")
except OSError:
    pass
print(*done)
"""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Ids inside of the guest."""

    daemon: int
    #: Of alice and of root.
    worker: int
    roots_worker: int
    #: Of the job that keeps alice's worker busy.
    job: str


@pytest.fixture
async def busy(alice: User, root: User, origin: GuestOrigin) -> AsyncIterator[Processes]:
    """The daemon, and two workers in the middle of a download each."""
    jobs = []
    documents = []
    for user in (alice, root):
        documents.append(origin.serve(f"/{user.name}", held=True))
        jobs.append(await user.fetch(origin.url(f"/{user.name}"), "held"))
        await documents[-1].stalled.wait()
    yield Processes(
        daemon=await main_pid(root),
        worker=await worker_pid(alice),
        roots_worker=await worker_pid(root),
        job=jobs[0],
    )
    for document in documents:
        document.go.set()
    await alice.gone(jobs[0])
    await root.gone(jobs[1])


async def main_pid(root: User) -> int:
    """The daemon's process id."""
    said = await root.run("systemctl", "show", "--property=MainPID", "--value", "transferd.service")
    return int(said.output)


async def worker_pid(user: User) -> int:
    """The process id of somebody's worker."""
    said = await user.run("pgrep", "-u", user.name, "-f", "transferd.worker")
    return int(said.output)


async def status(root: User, pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    text = (await root.run("cat", f"/proc/{pid}/status")).output
    return dict(re.findall(r"(?m)^(\w+):[ \t]*(.*?)[ \t]*$", text))


def named(mask: str) -> str:
    """Return the capabilities of a set by their names."""
    bits = int(mask, 16)
    held = [number for number in range(64) if bits >> number & 1]
    return "+".join(_NAMES.get(number, str(number)) for number in held) or "-"


async def test_only_the_daemon_has_capabilities_and_three_of_them(
    root: User, busy: Processes, cell: Cell
) -> None:
    """Rule: SETUID, SETGID and KILL in the daemon; none in any set of a worker, root's too."""
    expected = {
        "daemon": (busy.daemon, ("-", "KILL+SETGID+SETUID", "KILL+SETGID+SETUID", "-", "-")),
        "worker of alice": (busy.worker, ("-",) * 5),
        "worker of root": (busy.roots_worker, ("-",) * 5),
    }
    for name, (pid, sets) in expected.items():
        said = await status(root, pid)
        found = tuple(named(said[each]) for each in _SETS)
        for title, seen in zip(_SETS, found, strict=True):
            cell(f"capabilities of {_TABLE}", name, title, seen)
        cell(f"capabilities of {_TABLE}", name, "NoNewPrivs", said["NoNewPrivs"])
        cell(f"capabilities of {_TABLE}", name, "Uid", said["Uid"].split()[0])
        assert (name, found, said["NoNewPrivs"]) == (name, sets, "1")
        # Real, effective, saved and for files: no way back.
        assert len(set(said["Uid"].split())) == len(set(said["Gid"].split())) == 1


async def test_others_see_nothing_of_a_worker(
    root: User, alice: User, bob: User, busy: Processes
) -> None:
    """Rule: no memory, no environment, no descriptor, no ptrace; and bob knows of no job."""
    pid = str(busy.worker)
    assert "environ" in await root.python(_PRY, pid), "nothing can be tried here"
    assert await bob.python(_PRY, pid) == "\n"
    # Not dumpable: a hole in another program of hers is none in her worker.
    assert await alice.python(_PRY, pid) == "signal\n"
    assert await bob.json("list") == {"jobs": []}
    shown = await bob.ctl("show", busy.job, check=False)
    assert shown.status == 4
    assert "alice" not in shown.output + shown.complaints


async def test_memory_is_what_a_small_machine_has(
    root: User, alice: User, origin: GuestOrigin, cell: Cell
) -> None:
    """Rule: daemon and worker need little, while much is moved and before; the table says it."""
    await root.run("systemctl", "restart", "transferd.service")
    origin.serve("/a")
    await alice.ctl("get", origin.url("/a"), f"{alice.home}/little")
    pids = {"daemon": await main_pid(root), "worker": await worker_pid(alice)}
    idle = {name: await measure(root, pid, f"{name}, idle", cell) for name, pid in pids.items()}
    fault = Fault(stall=len(_MUCH) - 1)
    document = Document(version=Version(body=_MUCH), faults=deque([fault]))
    origin.pages["/much"] = document
    job = await alice.fetch(origin.url("/much"), "much")
    await document.stalled.wait()
    busy = {name: await measure(root, pid, f"{name}, busy", cell) for name, pid in pids.items()}
    document.go.set()
    await alice.gone(job)
    assert max(*idle.values(), *busy.values()) < _LARGE


async def measure(root: User, pid: int, row: str, cell: Cell) -> int:
    """Put the memory of a process into the table; returns the most that it had, in bytes."""
    rollup = (await root.run("cat", f"/proc/{pid}/smaps_rollup")).output
    sizes = dict(re.findall(r"(?m)^(Rss|Pss):\s+(\d+) kB$", rollup))
    most = (await status(root, pid))["VmHWM"].split()[0]
    for title, kilobytes in (*sizes.items(), ("most", most)):
        cell(f"memory of {_TABLE}", row, f"{title}, MiB", f"{int(kilobytes) / 1024:.0f}")
    return int(most) * 1024


async def test_systemd_finds_the_service_little_exposed(machine: Guest, cell: Cell) -> None:
    """Rule: systemd's own score of the unit that runs is 3.0 or less."""
    said = await asyncio.to_thread(
        machine.run, "systemd-analyze", "security", "--no-pager", "transferd.service", check=False
    )
    found = re.search(r"Overall exposure level for transferd.service: (\d+\.\d)", said.output)
    assert found is not None, said
    cell("systemd-analyze security in a guest", "transferd.service", "exposure", found[1])
    assert float(found[1]) <= EXPOSURE
