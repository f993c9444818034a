"""One service for all users of a machine: each transfer is its owner's, to the kernel as well.

Real processes of several uids; what the kernel says of them stands in /proc/PID/status.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import stat
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.support.daemon import CONFIG
from tests.support.kdc import Kdc
from tests.support.origin import Document, Fault, Origin, Version
from tests.support.people import Machine, Person, people
from tests.support.servers import PASSWORD, USER, Server, require_program
from tests.support.system_service import CANARY, POWERS, Client, SystemService, status

BODY = random.Random(4).randbytes(300_000)  # noqa: S311
#: Nothing in any of the five sets.
POWERLESS = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
#: CAP_SETUID, CAP_SETGID and CAP_KILL, and nothing that a child could inherit.
CONFINED = POWERLESS | dict.fromkeys(("CapPrm", "CapEff"), "00000000000000e0")

#: What another process could do to the one whose id it is told; prints what it has done.
_INTRUDE = """
import ctypes, os, sys
pid = int(sys.argv[1])
for name in ("mem", "environ", "maps", "fd", "cwd"):
    try:
        path = f"/proc/{pid}/{name}"
        os.listdir(path) if name == "fd" else os.readlink(path) if name == "cwd" else open(path)
        print(name)
    except PermissionError:
        pass
libc = ctypes.CDLL(None)
if libc.ptrace(0x4206, pid, None, None) == 0:  # PTRACE_SEIZE
    print("ptrace")
"""


@pytest.fixture(scope="module")
def built() -> Iterator[Machine]:
    """A machine with several users."""
    with people() as made:
        yield made


@pytest.fixture
def machine(built: Machine) -> Machine:
    """The machine as it was built: nobody has a limit or a umask of his own."""
    (built.etc / "security" / "limits.conf").write_text("")
    built.write_accounts()
    return built


@pytest.fixture
def service(machine: Machine) -> Iterator[SystemService]:
    """Its service; nobody has a worker yet."""
    with SystemService(machine).start() as running:
        yield running


@pytest.fixture
def url(nginx: Server) -> str:
    """A file that can be downloaded."""
    return nginx.url(nginx.put(BODY))


def download(client: Client, url: str, name: str = "a.iso") -> Path:
    """Download as somebody into his home, and return what has arrived."""
    target = client.person.home / name
    client.json("get", url, str(target))
    return target


def create(client: Client, url: str, local: Path) -> tuple[int, Any]:
    """Ask for a job that is named after its file; returns status and body of the answer."""
    files = [{"remote": url, "local": str(local)}]
    return client.curl("/v1/jobs", "POST", {"name": local.name, "files": files, "start": True})


def refusal(client: Client, url: str, local: Path) -> str:
    """Return the code with which a new job is refused."""
    code, body = create(client, url, local)
    assert code >= 400, body
    return str(body["code"])


def worker(service: SystemService, person: Person) -> int:
    """Return the process id of somebody's worker."""
    (pid,) = service.workers(person)
    return pid


def ended(client: Client, job: str) -> str:
    """Resume a job that will fail, and return the code and the text of why."""
    done = client.ctl("resume", job)
    assert done.returncode == 0, done.stderr
    assert client.ctl("wait", job).returncode == 1
    failure = client.json("show", job)["error"]
    return f"{failure['code']}: {failure['message']}"


# ── who they are ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("powers", [POWERS, None])
def test_the_daemon_keeps_three_powers_and_its_workers_have_none(
    machine: Machine, url: str, powers: tuple[str, ...] | None
) -> None:
    """All five sets of every process; as the unit starts it, and as root does by hand."""
    service = SystemService(machine, powers=powers, name=f"powers-{powers is None}")
    with service.start():
        daemon = status(service.pid)
        assert {name: daemon[name] for name in CONFINED} == CONFINED
        assert daemon["Uid"].split() == [str(service.person.uid)] * 4
        assert daemon["NoNewPrivs"] == "1"
        for person in (machine.alice, machine.bob, machine.root):
            download(service.client(person), url, f"powers-{powers is None}")
            told = status(worker(service, person))
            assert {name: told[name] for name in POWERLESS} == POWERLESS
            assert told["NoNewPrivs"] == "1"
            assert told["Uid"].split() == [str(person.uid)] * 4
            assert told["Gid"].split() == [str(person.gid)] * 4
            assert told["Groups"].split() == list(map(str, person.groups))
            assert told["Umask"] == "0022"
        assert len(service.workers()) == 3


def test_a_daemon_without_the_right_to_empty_its_bounding_set_is_confined_too(
    machine: Machine, url: str
) -> None:
    """Root's worker could have had the daemon's three powers: it has dropped them."""
    service = SystemService(machine, powers=("setuid", "setgid", "kill"), name="no-setpcap")
    with service.start():
        daemon = status(service.pid)
        assert {name: daemon[name] for name in CONFINED if name != "CapBnd"} == {
            name: value for name, value in CONFINED.items() if name != "CapBnd"
        }
        download(service.client(machine.root), url, "no-setpcap")
        told = status(worker(service, machine.root))
        assert {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert told["NoNewPrivs"] == "1"


def test_a_worker_inherits_neither_variables_nor_descriptors(machine: Machine, url: str) -> None:
    """The environment is a login's and the configuration's; the link is all that is passed on."""
    config = CONFIG + '[worker]\nenvironment = { no_proxy = "example.org" }\n'
    service = SystemService(machine, config, name="inherits")
    with service.start(before=["sh", "-c", 'exec "$@" 9</etc/passwd', "sh"]):
        client = service.client(machine.alice)
        download(client, url)
        pid = worker(service, machine.alice)
        assert os.readlink(f"/proc/{service.pid}/fd/9") == "/etc/passwd"
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
        opened = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
        assert CANARY.encode() in Path(f"/proc/{service.pid}/environ").read_bytes()
    home = str(machine.alice.home)
    assert dict(line.split("=", 1) for line in variables) == {
        "HOME": home,
        "LANG": "C.UTF-8",
        "LOGNAME": "alice",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SHELL": "/bin/sh",
        "USER": "alice",
        "no_proxy": "example.org",
    }
    # The link, a connection that the next job may use, and what the event loop made for itself: its
    # selector, and a pair to wake it with.
    kinds = sorted(place.partition(":")[0] for place in opened)
    assert kinds == ["/dev/null"] * 3 + ["anon_inode"] + ["socket"] * 4


def test_a_worker_has_not_the_terminal_that_the_service_was_started_in(machine: Machine) -> None:
    """Its owner could type into it, as whoever sits there."""
    terminal = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(os.open(sys.argv[1], os.O_RDWR), termios.TIOCSCTTY, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""
    ours, theirs = os.openpty()
    before = [sys.executable, "-I", "-c", terminal, os.ttyname(theirs)]
    try:
        with SystemService(machine, powers=None, name="terminal").start(before=before) as service:
            client = service.client(machine.alice)
            assert client.curl("/v1/jobs", "POST", {"name": "x"})[0] == 201
            assert _terminal(service.pid) == os.stat(theirs).st_rdev
            assert _terminal(worker(service, machine.alice)) == 0
    finally:
        os.close(ours)
        os.close(theirs)


def _terminal(pid: int) -> int:
    """Return the number of a process's controlling terminal; 0: it has none."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


def test_nobody_sees_into_a_worker_not_even_its_owner(
    machine: Machine, service: SystemService, url: str
) -> None:
    """Neither ptrace nor /proc/PID/mem, environ or descriptors: passwords pass through it."""
    download(service.client(machine.alice), url)
    pid = worker(service, machine.alice)
    for person in (machine.alice, machine.bob):
        assert machine.python(person, _INTRUDE, str(pid)) == ""
        assert machine.python(person, _INTRUDE, str(service.pid)) == ""
    argv = [*machine.command(machine.alice), "sleep", "60"]
    with subprocess.Popen(argv, env=machine.environment(machine.alice)) as plain:
        try:
            seen = machine.python(machine.alice, _INTRUDE, str(plain.pid)).split()
            assert {"mem", "environ", "ptrace"} <= set(seen)  # so the test can tell
            assert machine.python(machine.bob, _INTRUDE, str(plain.pid)) == ""
        finally:
            plain.kill()


def test_the_state_of_the_service_is_closed_to_its_users(
    machine: Machine, service: SystemService
) -> None:
    """The queue and the key are the service's."""
    for person in (machine.alice, machine.bob, machine.carol):
        assert machine.run(person, "ls", str(service.state)).returncode != 0


# ── what they may write ──────────────────────────────────────────────────────────────────────


def test_files_are_their_owners_in_a_home_that_nobody_else_can_enter(
    machine: Machine, service: SystemService, url: str
) -> None:
    """uid, gid and umask of the file are its owner's; the daemon could not even look there."""
    for person in (machine.alice, machine.bob, machine.root):
        assert stat.S_IMODE(person.home.stat().st_mode) == 0o700
        made = download(service.client(person), url)
        found = made.stat()
        assert (found.st_uid, found.st_gid) == (person.uid, person.gid)
        assert stat.S_IMODE(found.st_mode) == 0o644
        assert made.read_bytes() == BODY


def test_a_directory_of_another_user_is_closed(
    machine: Machine, service: SystemService, url: str
) -> None:
    """Neither when a job is made, nor when the directory was closed afterwards."""
    alice = service.client(machine.alice)
    assert refusal(alice, url, machine.bob.home / "a") == "local_access_denied"
    shared = machine.directory / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    made = alice.json("create", "closed")
    alice.ctl("add", "closed", url, str(shared / "a"))
    shared.chmod(0o755)
    assert ended(alice, made["id"]).startswith("local_access_denied: ")
    assert list(shared.iterdir()) == []


def test_a_directory_of_ones_second_group_is_open(
    machine: Machine, service: SystemService, url: str
) -> None:
    """All groups of the user database are taken along."""
    place = machine.directory / "crew"
    place.mkdir()
    os.chown(place, 0, machine.alice.groups[1])
    place.chmod(0o770)
    service.client(machine.alice).json("get", url, str(place / "a"))
    assert (place / "a").stat().st_uid == machine.alice.uid
    bob = service.client(machine.bob)
    assert refusal(bob, url, place / "b") == "local_access_denied"


def test_roots_worker_is_bound_by_permissions(
    machine: Machine, service: SystemService, url: str
) -> None:
    """It is uid 0 without any power to override: a directory of alice's is hers."""
    root = service.client(machine.root)
    assert refusal(root, url, machine.alice.home / "a") == "local_access_denied"


# ── umask, limits, tickets ───────────────────────────────────────────────────────────────────


def test_the_umask_is_the_owners(machine: Machine, service: SystemService, url: str) -> None:
    """pam_umask takes it from the account, as for a login."""
    machine.write_accounts({"alice": "Alice,,,,umask=077", "bob": "Bob,,,,umask=002"})
    made = {
        person: download(service.client(person), url, "umask")
        for person in (machine.alice, machine.bob, machine.carol)
    }
    modes = [stat.S_IMODE(path.stat().st_mode) for path in made.values()]
    assert modes == [0o600, 0o664, 0o644]
    assert status(worker(service, machine.alice))["Umask"] == "0077"


def test_the_limits_are_the_owners(machine: Machine, service: SystemService, url: str) -> None:
    """pam_limits: a file that would be larger than the owner may make is a named error."""
    limits = machine.etc / "security" / "limits.conf"
    limits.write_text("alice hard fsize 100\nbob hard nofile 300\nbob soft nofile 250\n")
    alice, bob = service.client(machine.alice), service.client(machine.bob)
    made = alice.json("create", "large")
    alice.ctl("add", "large", url, str(machine.alice.home / "large"))
    assert ended(alice, made["id"]).startswith("local_too_large: ")
    pid = worker(service, machine.alice)  # it lives: the signal did not end it
    os.kill(pid, 0)
    download(bob, url, "large")
    text = Path(f"/proc/{worker(service, machine.bob)}/limits").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("Max open files"))
    assert line.split()[3:5] == ["300", "300"]  # the worker takes all that its owner may have


def wait_for_end(pid: int) -> None:
    """Wait until a process that is about to end has ended, and its parent has heard of it."""
    deadline = monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert monotonic() < deadline, f"process {pid} goes on"
        os.sched_yield()


def test_a_limit_on_processes_makes_a_worker_slow_or_says_why(
    machine: Machine, service: SystemService, url: str
) -> None:
    """Threads count as processes: with a few the worker gets by, with none it says what to do."""
    limits = machine.etc / "security" / "limits.conf"
    limits.write_text("alice hard nproc 8\nbob hard nproc 1\n")
    assert download(service.client(machine.alice), url, "few").read_bytes() == BODY
    bob = service.client(machine.bob)
    status_code, body = create(bob, url, machine.bob.home / "none")
    assert (status_code, body["code"]) == (503, "worker_lost")
    for pid in service.workers(machine.bob):
        wait_for_end(pid)
    assert service.workers(machine.bob) == []
    assert "ulimit -u" in body["detail"]


def test_a_notification_command_is_the_owners(
    machine: Machine, service: SystemService, url: str
) -> None:
    """Identity, umask and limits of a login, and no power at all."""
    machine.write_accounts({"alice": ",,,,umask=027"})
    (machine.etc / "security" / "limits.conf").write_text("alice - nofile 200\n")
    alice = service.client(machine.alice)
    told = machine.alice.home / "told"
    os.mkfifo(told)
    os.chown(told, machine.alice.uid, machine.alice.gid)
    script = f"(umask; ulimit -n; env; cat /proc/self/status) > {told}"
    alice.json("create", "tells")
    alice.ctl("notify", "tells", "--command", f"/bin/sh -c '{script}'")
    alice.ctl("add", "tells", url, str(machine.alice.home / "tells"))
    alice.ctl("resume", "tells")
    text = told.read_text()
    assert text.startswith("0027\n200\n")
    assert f"\nHOME={machine.alice.home}\n" in text
    assert CANARY not in text
    for name in POWERLESS:
        assert f"\n{name}:\t{'0' * 16}\n" in text
    assert f"\nUid:\t{machine.alice.uid}\t{machine.alice.uid}\t" in text


def test_a_broken_session_is_said_and_stops_nobody(
    machine: Machine, service: SystemService, url: str
) -> None:
    """PAM that refuses leaves the usual umask, and a line in the log that names the owner."""
    configuration = machine.etc / "pam.d" / "transferd"
    before = configuration.read_text()
    configuration.write_text("session required pam_deny.so\n")
    try:
        made = download(service.client(machine.carol), url, "denied")
    finally:
        configuration.write_text(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o644
    assert "worker.session" in service.logged()
    assert str(machine.carol.uid) in service.logged()


def test_the_owners_ticket_cache_is_used_and_nobody_elses(
    machine: Machine, kdc: Kdc, apache_gssapi: Server
) -> None:
    """A FILE: cache of the owner's, 0600, found by the owner's uid; others have no ticket."""
    config = kdc.configuration(default_ccache_name="FILE:/tmp/transferd-test-krb5cc_%{uid}")
    given = f'KRB5_CONFIG = "{config}"'
    service = SystemService(machine, f"{CONFIG}[worker]\nenvironment = {{ {given} }}\n", name="krb")
    url = apache_gssapi.url("/kerberos" + apache_gssapi.put(BODY), host="localhost")
    cache = Path(f"/tmp/transferd-test-krb5cc_{machine.alice.uid}")
    wish = ("--auth", "negotiate", "--user", "NULL")
    try:
        machine.run(
            machine.alice,
            *(require_program("kinit"), USER),
            stdin=f"{PASSWORD}\n",
            variables={"KRB5_CONFIG": str(config)},
            check=True,
        )
        assert (stat.S_IMODE(cache.stat().st_mode), cache.stat().st_uid) == (
            0o600,
            machine.alice.uid,
        )
        with service.start():
            alice, bob = service.client(machine.alice), service.client(machine.bob)
            target = machine.alice.home / "ticket"
            alice.json("get", url, str(target), *wish)
            assert target.read_bytes() == BODY
            done = bob.ctl("get", url, str(machine.bob.home / "ticket"), *wish)
            assert done.returncode == 1
            assert "there is no ticket" in done.stderr
    finally:
        cache.unlink(missing_ok=True)


def test_the_daemon_ends_a_worker_of_another_user(
    machine: Machine, service: SystemService, url: str
) -> None:
    """CAP_KILL is kept for this: one that does not leave is killed, and waited for."""
    download(service.client(machine.alice), url)
    pid = worker(service, machine.alice)
    os.kill(pid, signal.SIGSTOP)
    assert service.stop() == 0
    (line,) = (line for line in service.logged().splitlines() if f"pid={pid} status=" in line)
    assert line.endswith("status=-9")


# ── who may not ──────────────────────────────────────────────────────────────────────────────


def test_root_is_refused_where_the_configuration_says_so(machine: Machine, url: str) -> None:
    """A job of root's from before goes to error with the reason; other users' go on."""
    name = "rootless"
    with SystemService(machine, name=name).start() as service:
        root = service.client(machine.root)
        made = root.json("create", "before")
        root.ctl("add", "before", url, str(machine.root.home / "before"))
    config = f"{CONFIG}[worker]\nallow_root = false\n"
    with SystemService(machine, config, name=name).start() as service:
        root = service.client(machine.root)
        assert ended(root, made["id"]).startswith("owner_refused: ")
        assert "worker.allow_root" in root.json("show", made["id"])["error"]["message"]
        assert refusal(root, url, machine.root.home / "new") == "owner_refused"
        assert download(service.client(machine.alice), url, name).read_bytes() == BODY
        assert service.workers(machine.root) == []


def test_jobs_of_a_user_who_is_gone_wait_with_the_reason(
    machine: Machine, service: SystemService, url: str
) -> None:
    """Nobody else runs them; they go on when the account is back."""
    dave = machine.add_account("dave", machine.alice.uid + 7)
    client = service.client(dave)
    made = client.json("create", "orphan")
    client.ctl("add", "orphan", url, str(dave.home / "a"))
    for pid in service.workers(dave):
        os.kill(pid, signal.SIGKILL)
    machine.write_accounts()
    why = ended(client, made["id"])
    assert why.startswith("owner_refused: ")
    assert f"no user with uid {dave.uid}" in why
    machine.enter(dave)
    client.ctl("resume", made["id"])
    assert client.ctl("wait", made["id"]).returncode == 0


async def test_the_death_of_a_worker_is_its_owners_business_only(
    machine: Machine, service: SystemService
) -> None:
    """Its jobs are interrupted and go on where they were; another owner's notice nothing."""
    alice, bob = service.client(machine.alice), service.client(machine.bob)
    async with Origin().running() as origin:
        version = Version(body=BODY)
        stalls = Document(version=version, faults=deque([Fault(stall=200_000)]))
        drips = Document(version=version, drip=0.1, drip_bytes=1_000)
        origin.pages |= {"/alice": stalls, "/bob": drips}
        for client in (alice, bob):
            remote = origin.url(f"/{client.person.name}")
            await asyncio.to_thread(create, client, remote, client.person.home / "slow")
        await origin.saw(2)
        killed, other = worker(service, machine.alice), worker(service, machine.bob)
        os.kill(killed, signal.SIGKILL)
        await origin.saw(3)
        assert worker(service, machine.alice) != killed
        assert worker(service, machine.bob) == other
        drips.drip = 0.0
        for client in (alice, bob):
            done = await asyncio.to_thread(client.ctl, "wait", "slow", "--complete")
            assert done.returncode == 0, done.stderr
            assert (client.person.home / "slow").read_bytes() == BODY
        assert worker(service, machine.bob) == other
    stumbled = [line for line in service.logged().splitlines() if "job.stumbled" in line]
    assert len(stumbled) == 1
    assert "code=worker_lost" in stumbled[0]
    assert f"owner={machine.alice.uid}" in stumbled[0]


def test_a_uid_that_is_no_users_has_no_job(machine: Machine, service: SystemService) -> None:
    """Who has subordinate uids would else fill the queue with jobs of thousands of users."""
    nobody = replace(machine.bob, uid=machine.bob.uid + 500, home=machine.directory)
    client = service.client(nobody)
    status, problem = client.curl("/v1/jobs", "POST", {"name": "x"})
    assert (status, problem["code"]) == (403, "owner_refused")
    assert client.curl("/v1/jobs") == (200, {"jobs": [], "next": None})
