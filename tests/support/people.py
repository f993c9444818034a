"""Users of a machine that exists for a test only: accounts, homes, and root's word about them.

    with people() as machine:
        done = machine.run(machine.alice, "id", "-un")          # CompletedProcess, text
        machine.python(machine.bob, "print(open('/etc/passwd').read())")
        (machine.alice.home / "a.iso").read_bytes()             # the test itself is still root

The users (alice, bob; carol is in the group `transferd-admins`; root) are in /etc/passwd and
/etc/group of a mount namespace of its own, which nobody else on the machine sees; so are
/etc/pam.d, /etc/security/limits.conf and /run. What stands there are the files under `machine.etc`:
edit them in place, at any time. Uids are far above real ones and differ between test processes.

Everything that is to see these users must be started by `machine.run`, `machine.python` or with
`machine.command` before it. Homes are 0700; their path can be walked by everybody. Interpreter and
checkout are readable for everybody in there, even where they lie in somebody's 0700 home.

It takes root: without it a test is skipped, or failed where the environment has CI set.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import public_directory, reject, require_program, require_root

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 60
ADMIN_GROUP = "transferd-admins"
#: A second group of alice's, to see that all of them are taken along.
CREW = "crew"

_PAM = """\
session optional pam_umask.so
session optional pam_limits.so
"""
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"

#: Mounts what its arguments say, in a namespace of its own, and keeps that until it is ended.
_HOLDER = """
set -e
while [ $# -gt 0 ]; do
    case $1 in
        bind) mkdir -p "$3" 2>/dev/null || :; mount --bind "$2" "$3" ;;
        file) mount --bind "$2" "$3" ;;
        empty) mount -t tmpfs -o mode=755 "$2" "$3" ;;
        make) mkdir -p "$3" ;;
    esac
    shift 3
done
echo ready
exec sleep infinity
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user."""

    name: str
    uid: int
    gid: int
    #: All of them, the first one too.
    groups: tuple[int, ...]
    home: Path


class Machine:
    """The machine that these users live on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        #: What stands in /etc there; files are edited in place.
        self.etc = directory / "etc"
        base = 1_000_000_000 + os.getpid() * 16
        self.admin_gid, crew = base + 10, base + 11
        self.alice = self._person("alice", base + 1, crew)
        self.bob = self._person("bob", base + 2)
        self.carol = self._person("carol", base + 3, self.admin_gid)
        self.root = self._person("root", 0)
        #: Who a system service is.
        self.service = self._person("transferd", base + 4)
        self._groups = {ADMIN_GROUP: self.admin_gid, CREW: crew}
        self._holder: subprocess.Popen[str] | None = None

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody who has an account."""
        return (self.alice, self.bob, self.carol, self.root, self.service)

    def command(self, person: Person | None = None) -> list[str]:
        """Return what to put before a command, so that it runs in there; None: as root, as it is.

        The command starts in its home.
        """
        assert self._holder is not None
        inside = [require_program("nsenter"), f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]
        if person is None:
            return inside
        return [*inside, *become(person), "sh", "-c", 'cd "$HOME" && exec "$@"', "sh"]

    def environment(self, person: Person, **more: str) -> dict[str, str]:
        """Return the variables of a login, and *more*."""
        return {
            "HOME": str(person.home),
            "USER": person.name,
            "LOGNAME": person.name,
            "SHELL": "/bin/sh",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            **more,
        }

    def run(
        self,
        person: Person,
        *argv: str,
        stdin: str = "",
        variables: Mapping[str, str] | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as a person to its end; *check*: it must succeed."""
        done = subprocess.run(
            [*self.command(person), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment(person, **(variables or {})),
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.stderr}{done.stdout}"
        return done

    def python(
        self,
        person: Person,
        code: str,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """Run Python code as a person, which must succeed, and return what it printed."""
        argv = (sys.executable, "-I", "-c", code, *arguments)
        return self.run(person, *argv, variables=variables, check=True).stdout

    def add_account(self, name: str, uid: int, *, gecos: str = "") -> Person:
        """Make another user, with a home."""
        person = self._person(name, uid)
        self.enter(person, gecos=gecos)
        return person

    def enter(self, person: Person, *, gecos: str = "") -> None:
        """Put a user into the user database, until it is written anew."""
        with (self.etc / "passwd").open("a") as file:
            file.write(_entry(person, gecos))

    def write_accounts(self, gecos: Mapping[str, str] | None = None) -> None:
        """Write passwd and group; *gecos* by name: `umask=077` there is pam_umask's."""
        given = gecos or {}
        lines = [_entry(person, given.get(person.name, "")) for person in self.people]
        (self.etc / "passwd").write_text("".join(lines))
        groups = {person.name: person.gid for person in self.people}
        lines = [f"{name}:x:{gid}:\n" for name, gid in groups.items()]
        for name, gid in self._groups.items():
            members = [person.name for person in self.people if gid in person.groups]
            lines.append(f"{name}:x:{gid}:{','.join(members)}\n")
        (self.etc / "group").write_text("".join(lines))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let it exist until the block ends."""
        self._furnish()
        argv = [
            *(require_program("unshare"), "--mount", "--propagation", "private", "--"),
            *(require_program("setpriv"), "--pdeathsig", "KILL", "--"),
            *("sh", "-c", _HOLDER, "sh", *self._mounts()),
        ]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True) as self._holder:
            assert self._holder.stdout is not None
            assert self._holder.stderr is not None
            try:
                ready = self._holder.stdout.readline()
                assert ready == "ready\n", self._holder.stderr.read()
                yield
            finally:
                self._holder.kill()
                self._holder.wait()

    def _person(self, name: str, uid: int, *more: int) -> Person:
        home = self.directory / "home" / name
        home.parent.mkdir(exist_ok=True)
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        return Person(name=name, uid=uid, gid=uid, groups=(uid, *more), home=home)

    def _furnish(self) -> None:
        self.etc.mkdir()
        self.write_accounts()
        (self.etc / "nsswitch.conf").write_text(_NSSWITCH)
        for name in ("pam.d", "security"):
            shutil.copytree(Path("/etc") / name, self.etc / name)
        (self.etc / "pam.d" / "transferd").write_text(_PAM)
        (self.etc / "security" / "limits.conf").write_text("")
        shutil.rmtree(self.etc / "security" / "limits.d", ignore_errors=True)

    def _mounts(self) -> Iterator[str]:
        yield from self._unveiled()
        for name in ("passwd", "group", "nsswitch.conf"):
            yield from ("file", str(self.etc / name), f"/etc/{name}")
        for name in ("pam.d", "security"):
            yield from ("bind", str(self.etc / name), f"/etc/{name}")
        yield from ("empty", "run", "/run")
        yield from ("make", "", "/run/user")

    def _unveiled(self) -> Iterator[str]:
        """Lead everybody to what tests need: an empty directory stands in for what is closed."""
        needed = _outermost([*_interpreter(), _ROOT, self.directory])
        for number, closed in enumerate(_outermost(filter(None, map(_closed_above, needed)))):
            inside = [path for path in needed if path.is_relative_to(closed)]
            aside = [self.directory / "aside" / f"{number}.{place}" for place in range(len(inside))]
            for path, stage in zip(inside, aside, strict=True):
                yield from ("bind", str(path), str(stage))
            yield from ("empty", "open", str(closed))
            for path, stage in zip(inside, aside, strict=True):
                yield from ("bind", str(stage), str(path))


def become(person: Person) -> list[str]:
    """Return what to put before a command, so that root runs it as *person*, with all groups."""
    ids = [f"--reuid={person.uid}", f"--regid={person.gid}"]
    groups = f"--groups={','.join(map(str, person.groups))}"
    # Root keeps what root has; nobody else could keep or regain any of it.
    caps = [] if person.uid == 0 else ["--inh-caps=-all", "--bounding-set=-all"]
    return [require_program("setpriv"), *ids, groups, *caps, "--"]


@contextlib.contextmanager
def people() -> Iterator[Machine]:
    """Make a machine with its users, for as long as the block takes.

    Skips the test, or fails it, as require_program, where it does not run as root.
    """
    require_root("becoming several users")
    for program in ("nsenter", "setpriv", "unshare"):
        require_program(program)
    for path in (_ROOT, *_interpreter()):
        if path.stat().st_mode & 0o005 != 0o005:
            reject(f"other users cannot read {path}: chmod go+rX it")
    with public_directory() as directory:
        machine = Machine(directory)
        with machine.running():
            yield machine


def _entry(person: Person, gecos: str) -> str:
    return f"{person.name}:x:{person.uid}:{person.gid}:{gecos}:{person.home}:/bin/sh\n"


def _interpreter() -> list[Path]:
    """Return the directories of everything that the interpreter of these tests is made of."""
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.base_prefix).resolve()]
    link = Path(sys.executable)
    while link.is_symlink():
        link = link.parent / link.readlink()
        found.append(link.parent)
    return found


def _closed_above(path: Path) -> Path | None:
    """Return the first directory on the way to *path* that others cannot pass."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & 0o001:
            return directory
    return None


def _outermost(paths: Iterable[Path]) -> Sequence[Path]:
    """Leave out what lies in another one of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept
