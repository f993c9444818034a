"""An admin takes jobs over, with real files of real users: what he gets, and what he cannot get."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import CONFIG
from tests.support.people import ADMIN_GROUP, Machine, people
from tests.support.servers import Server
from tests.support.speaker import Speaker, speaking
from tests.support.system_service import SystemService

BODY = random.Random(5).randbytes(3_000_000)  # noqa: S311


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with several users."""
    with people() as made:
        yield made


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[SystemService]:
    """Its service, whose admins are a group."""
    config = f'{CONFIG}[api]\nadmin_group = "{ADMIN_GROUP}"\n'
    with SystemService(machine, config, name="taking").start() as running:
        yield running


@pytest.fixture
def alice(service: SystemService) -> Iterator[Speaker]:
    """Whose jobs are taken."""
    with speaking(service, service.machine.alice) as speaker:
        yield speaker


@pytest.fixture
def carol(service: SystemService) -> Iterator[Speaker]:
    """A member of the admin group."""
    with speaking(service, service.machine.carol) as speaker:
        yield speaker


@pytest.fixture
def root(service: SystemService) -> Iterator[Speaker]:
    """Root."""
    with speaking(service, service.machine.root) as speaker:
        yield speaker


@pytest.fixture
def shared(machine: Machine, request: pytest.FixtureRequest) -> Path:
    """A directory in which everybody may write and rename."""
    place = machine.directory / "shared" / str(request.node.name)
    place.mkdir(parents=True)
    place.chmod(0o777)
    return place


@pytest.fixture
def url(nginx: Server) -> str:
    """A file that can be downloaded."""
    return nginx.url(nginx.put(BODY))


def one(job: dict[str, Any], verb: str = "") -> str:
    """The address of a job, or of a verb."""
    return f"/v1/jobs/{job['id']}" + (f"/{verb}" if verb else "")


def partial(speaker: Speaker, url: str, local: Path) -> dict[str, Any]:
    """Make a job of somebody's, and let it fetch its file; it is not completed."""
    files = [{"remote": url, "local": str(local)}]
    job = speaker.make(name="x", files=files, proxy="direct", start=True)
    stream = f"/v1/events?job={job['id']}&kinds=transferred,error&after=0"
    (told,) = speaker.ask("GET", stream, until=job["id"]).json
    assert told["kind"] == "transferred", told
    return job


def fetched(speaker: Speaker, job: dict[str, Any]) -> None:
    """Wait until a job that was resumed is transferred, and complete it."""
    stream = f"/v1/events?job={job['id']}&kinds=transferred,error&after=0"
    (told,) = speaker.ask("GET", stream, until=job["id"]).json
    assert told["kind"] == "transferred", told["job"]["error"]
    assert speaker.ask("POST", one(job, "complete")).status == 200


def test_a_taken_job_is_carried_by_its_new_owner(
    alice: Speaker, carol: Speaker, shared: Path, url: str
) -> None:
    """The file is his who took the job, since his worker has fetched it."""
    local = shared / "a.iso"
    job = alice.make(name="x", files=[{"remote": url, "local": str(local)}], proxy="direct")
    taken = carol.ask("POST", one(job, "take-ownership"))
    assert taken.status == 200, taken.text
    assert taken.json["owner"] == {"uid": carol.person.uid, "name": "carol"}
    assert alice.ask("GET", one(job)).status == 404
    assert carol.ask("POST", one(job, "resume")).status == 200
    fetched(carol, job)
    assert local.read_bytes() == BODY
    assert local.stat().st_uid == carol.person.uid


def test_partial_data_that_is_out_of_reach_is_named(
    alice: Speaker, carol: Speaker, shared: Path, url: str
) -> None:
    """0x80200016; once it is out of the way the file is fetched anew."""
    local = shared / "a.iso"
    job = partial(alice, url, local)
    (temporary,) = shared.iterdir()
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o644
    refused = carol.ask("POST", one(job, "take-ownership"))
    assert (refused.status, refused.code) == (409, "owner_no_access")
    assert str(temporary) in refused.json["detail"]
    assert f"let user {carol.person.uid} write there" in refused.json["detail"]
    assert alice.ask("GET", one(job)).json["state"] == "transferred"
    temporary.chmod(0o666)
    assert carol.ask("POST", one(job, "take-ownership")).status == 200
    assert carol.ask("POST", one(job, "complete")).status == 200
    assert local.read_bytes() == BODY


def test_root_has_no_more_access_than_the_mode_bits_give(
    alice: Speaker, root: Speaker, shared: Path, url: str
) -> None:
    """Root's worker has no CAP_DAC_OVERRIDE, and is told so before it has the job."""
    job = partial(alice, url, shared / "a.iso")
    assert root.ask("POST", one(job, "take-ownership")).code == "owner_no_access"
    (temporary,) = shared.iterdir()
    temporary.unlink()
    assert root.ask("POST", one(job, "take-ownership")).status == 200


def test_partial_data_that_nobody_else_may_rename_is_out_of_reach(
    machine: Machine, alice: Speaker, carol: Speaker, url: str
) -> None:
    """In a directory like /tmp the mode of a file does not decide who renames it."""
    place = machine.directory / "sticky"
    place.mkdir()
    place.chmod(0o1777)
    job = partial(alice, url, place / "a.iso")
    (temporary,) = place.iterdir()
    temporary.chmod(0o666)
    refused = carol.ask("POST", one(job, "take-ownership"))
    assert (refused.status, refused.code) == (409, "owner_no_access")
    assert "mode +t" in refused.json["detail"]


@pytest.mark.parametrize("whose", ["root", "alice"])
def test_a_member_gains_nothing_by_taking(
    service: SystemService, carol: Speaker, whose: str
) -> None:
    """Into others' homes he writes as little with their job as without it."""
    person = getattr(service.machine, whose)
    with speaking(service, person) as owner:
        local = person.home / "a.iso"
        job = owner.make(name="x", files=[{"remote": "http://127.0.0.1:9/x", "local": str(local)}])
        refused = carol.ask("POST", one(job, "take-ownership"))
        assert (refused.status, refused.code) == (409, "owner_no_access")
        assert owner.ask("GET", one(job)).json == job


def test_a_former_owner_cannot_lead_the_new_one_by_a_link(
    machine: Machine, alice: Speaker, root: Speaker, url: str
) -> None:
    """She chose the destination; whether it is root's to write to was never hers to say."""
    hers, roots = machine.alice.home / "way", machine.root.home / "secret"
    roots.mkdir()
    # Everybody may pass through her home, or root's worker could not either.
    machine.alice.home.chmod(0o755)
    hers.mkdir(exist_ok=True)
    hers.chmod(0o777)
    with contextlib.ExitStack() as after:
        after.callback(machine.alice.home.chmod, 0o700)
        job = alice.make(
            name="x",
            files=[{"remote": url, "local": str(hers / "authorized_keys")}],
            proxy="direct",
        )
        assert root.ask("POST", one(job, "take-ownership")).status == 200
        hers.rename(machine.alice.home / "aside")
        machine.python(machine.alice, f"import os; os.symlink({str(roots)!r}, {str(hers)!r})")
        assert os.readlink(hers) == str(roots)
        assert root.ask("POST", one(job, "resume")).status == 200
        stream = f"/v1/events?job={job['id']}&kinds=transferred,error&after=0"
        (told,) = root.ask("GET", stream, until=job["id"]).json
    error = told["job"]["error"]
    assert (told["kind"], error["code"]) == ("error", "local_forbidden")
    assert f"a symbolic link of user {alice.person.uid}" in error["message"]
    assert list(roots.iterdir()) == []


def test_a_former_owner_cannot_have_the_new_one_replace_a_file_of_his(
    machine: Machine, alice: Speaker, carol: Speaker, url: str
) -> None:
    """In a directory like /tmp she may put his partial file beside it, but not in its place."""
    hers, place = machine.alice.home / "turn", machine.directory / "everybodys"
    place.mkdir()
    place.chmod(0o1777)
    machine.alice.home.chmod(0o755)
    machine.python(machine.alice, f"import os; os.mkdir(p := {str(hers)!r}); os.chmod(p, 0o777)")
    machine.python(machine.carol, f"open({str(place / 'notes')!r}, 'w').write('carol was here')")
    with contextlib.ExitStack() as after:
        after.callback(machine.alice.home.chmod, 0o700)
        files = [{"remote": url, "local": str(hers / "notes")}]
        job = alice.make(name="x", files=files, proxy="direct")
        assert carol.ask("POST", one(job, "take-ownership")).status == 200
        assert carol.ask("POST", one(job, "resume")).status == 200
        stream = f"/v1/events?job={job['id']}&kinds=transferred,error&after=0"
        (told,) = carol.ask("GET", stream, until=job["id"]).json
        assert told["kind"] == "transferred", told
        (temporary,) = hers.iterdir()
        assert temporary.stat().st_uid == carol.person.uid
        moves = [(temporary, place / temporary.name), (hers, machine.alice.home / "turned")]
        code = "".join(f"os.rename({str(old)!r}, {str(new)!r}); " for old, new in moves)
        machine.python(machine.alice, f"import os; {code}os.symlink({str(place)!r}, {str(hers)!r})")
        refused = carol.ask("POST", one(job, "complete"))
    assert (refused.status, refused.code) == (409, "local_forbidden")
    assert (place / "notes").read_text() == "carol was here"


def test_an_admin_writes_nothing_into_his_home_for_a_former_owner(
    machine: Machine, alice: Speaker, carol: Speaker, url: str
) -> None:
    """Her worker is in her hands, and calls any destination right: it is asked about no other."""
    place = machine.carol.home / "open"
    machine.carol.home.chmod(0o755)
    machine.python(machine.carol, f"import os; os.mkdir(p := {str(place)!r}); os.chmod(p, 0o777)")
    files = [{"remote": url, "local": str(place / "profile")}]
    job = alice.make(name="x", files=files, proxy="direct")
    place.chmod(0o755)  # as if her worker had lied
    refused = carol.ask("POST", one(job, "take-ownership"))
    assert (refused.status, refused.code) == (409, "owner_no_access")
    assert refused.json["detail"].endswith(
        f"user {alice.person.uid} has chosen {place}, where he may not write himself;"
        " have the files in a new job, whose destinations you choose"
    )
    place.chmod(0o777)
    assert carol.ask("POST", one(job, "take-ownership")).status == 200
    machine.carol.home.chmod(0o700)


def test_a_job_whose_way_is_anothers_link_is_not_taken(
    machine: Machine, alice: Speaker, root: Speaker
) -> None:
    """What would be refused later is refused before the job changes hands."""
    machine.alice.home.chmod(0o755)
    place, link = machine.alice.home / "real", machine.alice.home / "linked"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    machine.python(machine.alice, f"import os; os.symlink({str(place)!r}, {str(link)!r})")
    try:
        local = str(link / "x")
        job = alice.make(name="x", files=[{"remote": "http://127.0.0.1:9/x", "local": local}])
        refused = root.ask("POST", one(job, "take-ownership"))
    finally:
        machine.alice.home.chmod(0o700)
    assert (refused.status, refused.code) == (409, "owner_no_access")
    assert "symbolic link" in refused.json["detail"]


def test_the_command_line_takes_a_job_over(
    service: SystemService, alice: Speaker, shared: Path
) -> None:
    """By a piece of its id, and with the names of users in the list."""
    local = str(shared / "x")
    job = alice.make(name="nightly", files=[{"remote": "http://127.0.0.1:9/x", "local": local}])
    admin = service.client(service.machine.carol)
    listed = admin.ctl("list", "--all-users").stdout.splitlines()
    (row,) = [line.split() for line in listed if line.startswith(job["id"][:8])]
    assert row[-2:] == ["alice", "nightly"]
    done = admin.ctl("take-ownership", job["id"][:13])
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith("took over nightly of alice, now carol's")
    assert admin.json("show", "nightly")["owner"]["name"] == "carol"
    stranger = service.client(service.machine.bob)
    for reference in (job["id"], job["id"][:13], "nightly"):
        assert stranger.ctl("take-ownership", reference).returncode == 4
    assert stranger.ctl("list", "--all-users").returncode == 4
    assert f"job={job['id']}" in service.logged()
    (line,) = [
        line
        for line in service.logged().splitlines()
        if "owner_changed" in line and job["id"] in line
    ]
    for word in (f"from={alice.person.uid}", f"to={service.machine.carol.uid}", "by="):
        assert word in line


def test_a_crash_leaves_each_job_one_owners_with_all_of_it(machine: Machine, shared: Path) -> None:
    """The old owner's with the secrets, or the new owner's without them; nothing in between."""
    config = f'{CONFIG}[api]\nadmin_group = "{ADMIN_GROUP}"\n'
    service = SystemService(machine, config, name="crashes").start()
    with contextlib.ExitStack() as stack:
        stack.callback(service.stop)
        alice, carol = (
            stack.enter_context(speaking(service, person))
            for person in (machine.alice, machine.carol)
        )
        jobs = [
            alice.make(
                name="x",
                files=[{"remote": "http://127.0.0.1:9/x", "local": str(shared / str(number))}],
                credentials=[{"scheme": "basic", "username": "alice", "password": "hunter2"}],
                headers={"X-Key": "hunter2"},
                notify={"kinds": ["error"], "command": ["/bin/true"]},
            )
            for number in range(60)
        ]
        with ThreadPoolExecutor(1) as pool:
            taking = pool.submit(_take_all, carol, jobs)
            while _owned(service, machine.carol.uid) < 5:
                pass
            service.kill()
            taken = taking.result()
        service.start()
        found = _kept(service)
        assert 0 < len(taken) < len(jobs)
        for job in jobs:
            owner, credentials, headers, command = found[job["id"]]
            hers = owner == machine.alice.uid
            assert (credentials, headers, command) == ((1, 1, 1) if hers else (0, 0, 0))
            assert not hers or job["id"] not in taken


def _take_all(carol: Speaker, jobs: list[dict[str, Any]]) -> list[str]:
    """Take jobs over until the daemon is gone; returns those that it said yes to."""
    taken = []
    with contextlib.suppress(AssertionError):
        for job in jobs:
            assert carol.ask("POST", one(job, "take-ownership")).status == 200
            taken.append(str(job["id"]))
    return taken


def _queue(service: SystemService) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{service.state / 'queue.db'}?mode=ro", uri=True, timeout=10)


def _owned(service: SystemService, uid: int) -> int:
    with contextlib.closing(_queue(service)) as queue:
        statement = "SELECT count(*) FROM jobs WHERE owner = ?"
        return int(queue.execute(statement, [uid]).fetchone()[0])


def _kept(service: SystemService) -> dict[str, tuple[int, int, int, int]]:
    """Whose each job is, and how many credentials, headers and commands it has."""
    with contextlib.closing(_queue(service)) as queue:
        rows = queue.execute(
            """
            SELECT id, owner,
                   (SELECT count(*) FROM credentials WHERE job = number),
                   (SELECT count(*) FROM headers WHERE job = number),
                   coalesce(json_array_length(settings, '$.notify_command') > 0, 0)
            FROM jobs
            """
        )
        return {row[0]: row[1:] for row in rows}
