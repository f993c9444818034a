"""Who may do what with whose jobs: real processes of five users over every route and verb.

Alice owns the job; dave has the same first group; bob is anybody else; carol is a member of the
admin group, and root is root. What they may do stands in the table; what they could do is printed
at the end of the run.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import CONFIG
from tests.support.matrix import Cell
from tests.support.people import ADMIN_GROUP, Machine, people
from tests.support.speaker import Said, Speaker, speaking
from tests.support.system_service import SystemService
from transferd.api.routes import ROUTES, Access

ALLOWED, HIDDEN, REFUSED = "allowed", "hidden (404)", "refused (403)"

#: In this order stand the columns of the table below.
WHO = ("owner", "same group", "other", "member", "root")
_TITLE = "who may do what with alice's job"

_ONE = "/v1/jobs/{id}"
_CREDENTIAL = f"{_ONE}/credentials/{{target}}/{{scheme}}"
_PASSWORD = {"username": "mallory", "password": "guessed"}

_ALL = (ALLOWED,) * 5
#: What an admin sees and steers, whoever's it is.
_STEER = (ALLOWED, HIDDEN, HIDDEN, ALLOWED, ALLOWED)
#: What is done in the owner's name: admins take the job over first.
_OWN = (ALLOWED, HIDDEN, HIDDEN, REFUSED, REFUSED)
#: What concerns everybody's jobs, and names none.
_ADMINS = (REFUSED, REFUSED, REFUSED, ALLOWED, ALLOWED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing to do, and who may."""

    method: str
    path: str
    may: tuple[str, ...]
    #: What of it, where a route can do several things.
    what: str = ""
    query: str = ""
    body: Callable[[Path], object] | None = None

    @property
    def title(self) -> str:
        """How the table calls it."""
        return f"{self.path} {self.method} {self.what}".rstrip()


def _file(place: Path) -> dict[str, object]:
    return {"remote": "http://127.0.0.1:9/x", "local": str(place / str(uuid.uuid4()))}


def _patch(**body: object) -> Callable[[Path], object]:
    return lambda _: body


def _rows() -> Iterator[Row]:
    def new(place: Path) -> object:
        return {"name": "mine", "files": [_file(place)]}

    yield Row(method="POST", path="/v1/jobs", may=_ALL, body=new)
    yield Row(method="GET", path="/v1/jobs", may=_ALL, what="own")
    yield Row(method="GET", path="/v1/jobs", may=_ADMINS, what="everybody's", query="all_users=1")
    yield Row(method="GET", path=_ONE, may=_STEER)
    for name, value in (
        ("priority", "low"),
        ("cost", "always"),
        ("streams", 2),
        ("max_rate", 4096),
        ("min_retry_delay", 5),
        ("max_size", 1000),
    ):
        yield Row(method="PATCH", path=_ONE, may=_STEER, what=name, body=_patch(**{name: value}))
    for name, given in (
        ("name", "other"),
        ("description", "other"),
        ("notify", {"kinds": ["error"], "command": ["/bin/true"]}),
        ("proxy", "http://127.0.0.1:9"),
        ("cacert", "/etc/ssl/certs/mine.pem"),
        ("allow_cleartext", True),
        ("overwrite", False),
        ("auto_complete", True),
        ("on_error", "cancel"),
        ("negotiate", {"keytab": "/etc/krb5.keytab"}),
        ("passport", {"login_host": "login.example.org"}),
    ):
        yield Row(method="PATCH", path=_ONE, may=_OWN, what=name, body=_patch(**{name: given}))
    yield Row(method="GET", path=f"{_ONE}/files", may=_STEER)
    yield Row(method="POST", path=f"{_ONE}/files", may=_OWN, body=_file)
    yield Row(method="PUT", path=_CREDENTIAL, may=_OWN, body=_patch(**_PASSWORD))
    yield Row(method="DELETE", path=_CREDENTIAL, may=_OWN)
    for verb in ("resume", "suspend", "complete", "cancel"):
        yield Row(method="POST", path=f"{_ONE}/{verb}", may=_STEER)
    taking = (REFUSED, HIDDEN, HIDDEN, ALLOWED, ALLOWED)
    yield Row(method="POST", path=f"{_ONE}/take-ownership", may=taking)
    yield Row(method="GET", path=f"{_ONE}/why", may=_STEER)
    yield Row(method="GET", path="/v1/events", may=_ALL, what="own")
    yield Row(method="GET", path="/v1/events", may=_STEER, what="of the job", query="job={id}")
    yield Row(method="GET", path="/v1/events", may=_ADMINS, what="everybody's", query="all_users=1")
    yield Row(method="POST", path="/v1/notices/{number}/ack", may=_OWN)
    yield Row(method="POST", path="/v1/notices/ack", may=_ALL, body=_patch(numbers=[1]))
    for name in ("health", "version", "openapi.json"):
        yield Row(method="GET", path=f"/v1/{name}", may=_ALL)
    yield Row(method="GET", path="/v1/metrics", may=_ADMINS)
    yield Row(method="GET", path="/v1/admin/status", may=_ADMINS)
    yield Row(method="POST", path="/v1/admin/check", may=_ADMINS)
    yield Row(method="POST", path="/v1/admin/rotate-key", may=_ADMINS)


TABLE = tuple(_rows())


class Neighbours:
    """Everybody in front of the service."""

    def __init__(self, by_role: dict[str, Speaker], place: Path) -> None:
        self.by_role = by_role
        self.owner = by_role["owner"]
        #: A directory in which everybody may write.
        self.place = place

    def fresh(self) -> dict[str, Any]:
        """A job of the owner's."""
        return self.owner.make(
            name="hers",
            files=[_file(self.place)],
            credentials=[{"scheme": "basic", "username": "alice", "password": "hunter2"}],
            proxy="direct",
            no_progress_timeout=0,
        )

    def failed(self, job: dict[str, Any]) -> int:
        """Let a job of the owner's fail, and return the number of the notice of that."""
        assert self.owner.ask("POST", f"/v1/jobs/{job['id']}/resume").status == 200
        stream = f"/v1/events?job={job['id']}&kinds=error&after=0"
        (told,) = self.owner.ask("GET", stream, until=job["id"]).json
        return int(told["number"])

    def state(self, job: dict[str, Any]) -> Any:
        """How the owner finds a job."""
        return self.owner.ask("GET", f"/v1/jobs/{job['id']}").json


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with several users."""
    with people() as made:
        yield made


@pytest.fixture(scope="module")
def neighbours(machine: Machine) -> Iterator[Neighbours]:
    """A service for all of them, whose admins are a group."""
    place = machine.directory / "shared"
    place.mkdir()
    place.chmod(0o777)
    dave = machine.add_account("dave", machine.alice.uid + 4)
    dave = replace(dave, gid=machine.alice.gid, groups=(machine.alice.gid,))
    roles = dict(
        zip(WHO, (machine.alice, dave, machine.bob, machine.carol, machine.root), strict=True)
    )
    config = f'{CONFIG}[api]\nadmin_group = "{ADMIN_GROUP}"\n'
    with (
        SystemService(machine, config, name="matrix").start() as service,
        contextlib.ExitStack() as stack,
    ):
        speakers = {
            role: stack.enter_context(speaking(service, person)) for role, person in roles.items()
        }
        yield Neighbours(speakers, place)


def test_every_route_is_in_the_table() -> None:
    """A route that is added is judged here before it is served."""
    assert {(row.method, row.path) for row in TABLE} == {
        (route.method, route.path) for route in ROUTES
    }


def test_the_table_has_the_access_that_the_routes_have() -> None:
    """What is open is open to all, and what is for operators is for nobody else."""
    access = {(route.method, route.path): route.access for route in ROUTES}
    for row in TABLE:
        match access[row.method, row.path]:
            case Access.OPEN:
                assert row.may == _ALL
            case Access.OPERATOR:
                assert row.may == _ADMINS
            case Access.OWNER:
                assert row.may[1:3] == (HIDDEN, HIDDEN)
            case Access.SERVED:
                assert row.may[0] == ALLOWED or row.query


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.title)
def test_everybody_may_what_the_table_says(row: Row, neighbours: Neighbours, cell: Cell) -> None:
    """Promise 7; nothing of what is hidden or refused has an effect."""
    seen = {}
    for role in WHO:
        seen[role] = _tried(row, role, neighbours)
        cell(_TITLE, row.title, f"{WHO.index(role)} {role}", seen[role])
    assert seen == dict(zip(WHO, row.may, strict=True))


def _tried(row: Row, role: str, neighbours: Neighbours) -> str:
    """Try it with a job of its own; returns what came of it."""
    job = neighbours.fresh()
    needs_notice = "{number}" in row.path
    number = neighbours.failed(job) if needs_notice else 0
    before = neighbours.state(job)
    said = _say(row, neighbours.by_role[role], neighbours.place, job["id"], number)
    outcome = _judged(said)
    if outcome != ALLOWED:
        assert neighbours.state(job) == before
    if outcome == HIDDEN:
        nowhere = str(uuid.uuid4())
        missing = _say(row, neighbours.by_role[role], neighbours.place, nowhere, 10**9)
        told = said.text.replace(job["id"], nowhere).replace(
            f"notice {number}:", f"notice {10**9}:"
        )
        assert told == missing.text
    return outcome


def _say(row: Row, speaker: Speaker, place: Path, job: str, number: int) -> Said:
    names = {"id": job, "target": "server", "scheme": "basic", "number": number}
    path = row.path.format(**names) + (f"?{row.query.format(**names)}" if row.query else "")
    return speaker.ask(row.method, path, row.body(place) if row.body is not None else None)


def _judged(said: Said) -> str:
    if said.status < 300:
        return ALLOWED
    codes = {
        404: (HIDDEN, {"job_not_found", "notice_not_found"}),
        403: (REFUSED, {"not_allowed", "take_ownership_first"}),
    }
    outcome, expected = codes.get(said.status, ("", set()))
    return outcome if said.code in expected else f"{said.status} {said.code}"


# ── what leaks nowhere ─────────────────────────────────────────────────────────────────────


def _own(speaker: Speaker, neighbours: Neighbours) -> str:
    """Make a job, and let it end; returns its id."""
    job = speaker.make(name="own", files=[_file(neighbours.place)])
    assert speaker.ask("POST", f"/v1/jobs/{job['id']}/cancel").status == 200
    return str(job["id"])


@pytest.mark.parametrize("role", ["same group", "other", "member", "root"])
def test_a_stream_carries_ones_own_jobs_only(role: str, neighbours: Neighbours) -> None:
    """From the first notice there ever was, and of admins too unless they ask for everybody's."""
    neighbours.failed(neighbours.fresh())
    speaker = neighbours.by_role[role]
    own = _own(speaker, neighbours)
    kinds = "kinds=transferred,error,modification,file_transferred,ended"
    told = speaker.ask("GET", f"/v1/events?{kinds}&after=0", until=own).json
    assert {event["job"]["owner"]["uid"] for event in told} == {speaker.person.uid}


@pytest.mark.parametrize("role", ["member", "root"])
def test_an_admin_hears_everybody_when_he_asks_for_it(role: str, neighbours: Neighbours) -> None:
    """The owner's delivery is not the admin's: the notice still waits for her."""
    job = neighbours.fresh()
    number = neighbours.failed(job)
    speaker = neighbours.by_role[role]
    stream = "/v1/events?all_users=true&kinds=error&after=0"
    told = speaker.ask("GET", stream, until=job["id"]).json
    assert number in {event["number"] for event in told}
    (again,) = neighbours.owner.ask(
        "GET", f"/v1/events?job={job['id']}&kinds=error", until=job["id"]
    ).json
    assert (again["number"], again["acknowledge"]) == (number, True)


def test_lists_and_figures_are_of_ones_own(neighbours: Neighbours) -> None:
    """How much others have in the queue is theirs and the admins' business."""
    hers = neighbours.fresh()
    other, root = neighbours.by_role["other"], neighbours.by_role["root"]
    mine = other.make(name="own", files=[_file(neighbours.place)])
    listed = other.ask("GET", "/v1/jobs").json["jobs"]
    assert {job["owner"]["uid"] for job in listed} == {other.person.uid}
    assert mine["id"] in {job["id"] for job in listed}
    counted = other.ask("GET", "/v1/health").json
    assert sum(counted["jobs"].values()) == len(listed)
    assert counted["workers"] <= 1
    everything = root.ask("GET", "/v1/health").json
    assert everything.keys() == counted.keys()
    assert sum(everything["jobs"].values()) > sum(counted["jobs"].values())
    everybody = root.ask("GET", "/v1/jobs?all_users=true&limit=1000").json["jobs"]
    assert {hers["id"], mine["id"]} <= {job["id"] for job in everybody}


def test_a_cursor_leads_nobody_to_others_jobs(neighbours: Neighbours) -> None:
    """Cursors run over all users; what they lead to does not."""
    neighbours.fresh()
    other = neighbours.by_role["other"]
    page = other.ask("GET", "/v1/jobs?after=0&limit=1000").json
    assert {job["owner"]["uid"] for job in page["jobs"]} <= {other.person.uid}


def test_an_id_that_is_taken_tells_nothing_of_whose_it_is(neighbours: Neighbours) -> None:
    """Ids are chosen at random by callers: who knows one has got it from its owner."""
    other = neighbours.by_role["other"]
    texts = set()
    for verb in (None, "cancel"):
        job = neighbours.fresh()
        if verb is not None:
            assert neighbours.owner.ask("POST", f"/v1/jobs/{job['id']}/{verb}").status == 200
        said = other.ask("POST", "/v1/jobs", {"name": "mine", "id": job["id"]})
        assert (said.status, said.code) == (409, "id_used")
        texts.add(said.text.replace(job["id"], "ID"))
    assert len(texts) == 1


def test_nobody_is_root_who_says_so(neighbours: Neighbours) -> None:
    """The kernel vouches for callers; what they write of themselves counts for nothing."""
    other = neighbours.by_role["other"]
    said = other.ask("POST", "/v1/jobs", {"name": "mine", "owner": {"uid": 0}})
    assert (said.status, said.code) == (400, "unknown_field")
