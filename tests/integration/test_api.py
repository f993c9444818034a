"""The API over a real Unix socket: every route, who may call it, and how faults are told."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import re
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.support.api import Api, Stranger, running_api
from tests.support.fake_service import FakeService
from transferd import __version__
from transferd.api import handlers
from transferd.api.identity import UserNames, admin_gid, user_name
from transferd.model.caller import Caller
from transferd.model.credentials import PASSWORD_SCHEMES, Scheme, Target
from transferd.model.errors import (
    ConfigError,
    LinkBroken,
    StoreDamaged,
    Unavailable,
    VaultError,
)
from transferd.model.job import JobId
from transferd.model.notices import NoticeKind

FILE = {"remote": "https://host/a.iso", "local": "/home/alice/a.iso"}
IDENTITY = {"username": "alice", "password": "hunter2"}
BASIC = {"scheme": "Basic", **IDENTITY}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """A running server."""
    async with running_api() as running:
        yield running


def job_path(job: dict[str, Any], *rest: str) -> str:
    """The path of a job, or of something of it."""
    return "/".join(["/v1/jobs", job["id"], *rest])


# ── jobs ───────────────────────────────────────────────────────────────────────────────────


async def test_a_created_job_is_found_where_location_says(api: Api) -> None:
    """201 comes with the job, and with its address."""
    reply = await api.send("POST", "/v1/jobs", {"name": "a job", "files": [FILE], "start": True})
    assert reply.status == 201
    assert reply.headers["Location"] == f"/v1/jobs/{reply.json['id']}"
    assert reply.json["state"] == "queued"
    assert reply.json["owner"] == {"uid": os.geteuid(), "name": user_name(os.geteuid())}
    found = await api.send("GET", reply.headers["Location"])
    assert (found.status, found.json) == (200, reply.json)


async def test_the_same_request_with_the_same_id_makes_one_job(api: Api) -> None:
    """A caller that lost the answer asks again."""
    body = {"name": "a job", "id": str(uuid4())}
    first = await api.send("POST", "/v1/jobs", body)
    second = await api.send("POST", "/v1/jobs", body)
    assert (first.status, second.status) == (201, 200)
    assert "Location" not in second.headers
    assert first.json == second.json
    other = await api.send("POST", "/v1/jobs", body | {"name": "another"})
    assert (other.status, other.code) == (409, "id_used")
    assert len(api.service.jobs) == 1


async def test_several_jobs_are_made_by_one_request(api: Api) -> None:
    """The answer is a list in the order of the request."""
    jobs = {"jobs": [{"name": name, "id": str(uuid4())} for name in "abc"]}
    reply = await api.send("POST", "/v1/jobs", jobs)
    assert reply.status == 201
    assert [job["name"] for job in reply.json["jobs"]] == ["a", "b", "c"]
    assert (await api.send("POST", "/v1/jobs", jobs)).status == 200


async def test_what_a_job_keeps_of_its_secrets_is_not_in_any_answer(api: Api) -> None:
    """They reach the service, and are told by name only."""
    job = await api.create(
        files=[FILE | {"remote": "https://alice:hunter2@host/a.iso"}],
        headers={"X-Token": "hunter2"},
        proxy="http://bob:hunter2@proxy:3128",
    )
    assert "hunter2" not in repr(job)
    assert job["headers"] == ["X-Token"]
    assert job["proxy"] == "http://proxy:3128"
    told = [(each["target"], each["scheme"], each["username"]) for each in job["credentials"]]
    assert told == [
        ("server", "basic", "alice"),
        *(("proxy", scheme, "bob") for scheme in PASSWORD_SCHEMES),
    ]
    kept = api.service
    assert set(kept.passwords.values()) | set(kept.header_values.values()) == {"hunter2"}
    files = await api.send("GET", job_path(job, "files"))
    assert files.json["files"][0]["remote"] == "https://host/a.iso"
    changed = await api.send(
        "PUT", job_path(job, "credentials/server/basic"), BASIC | {"scheme": 1}
    )
    assert changed.code == "unknown_field"


async def test_secrets_are_wiped_once_the_service_has_sealed_or_refused_them(api: Api) -> None:
    """The copies of the API live no longer than the request."""
    secrets = {"credentials": [BASIC], "headers": {"X-Token": "hunter2"}}
    job = await api.create(**secrets)
    await api.send("PUT", job_path(job, "credentials/server/basic"), IDENTITY)
    file = FILE | {"remote": "https://alice:hunter2@host/a.iso"}
    await api.send("POST", job_path(job, "files"), file)
    assert len(api.service.handed) == 4
    api.service.fault = StoreDamaged("cannot read page 7")
    assert (await api.send("POST", "/v1/jobs", {"name": "a job", **secrets})).status == 503
    assert [len(secret) for secret in api.service.handed] == [0] * 6


async def test_secrets_are_not_wiped_under_the_hands_of_the_service(api: Api) -> None:
    """A request that is cut off may be carried out all the same: with the password, not without."""
    api.service.gate.clear()
    asking = asyncio.ensure_future(
        api.send("POST", "/v1/jobs", {"name": "a job", "credentials": [BASIC]})
    )
    await api.service.held.wait()
    await api.server.stop(0.05)
    with pytest.raises(aiohttp.ClientError):
        await asking
    (secret,) = api.service.handed
    assert secret.reveal() == "hunter2"


async def test_jobs_are_listed_by_pages(api: Api) -> None:
    """`next` leads through all of them, oldest first."""
    made = [(await api.create(name=f"job {index}"))["id"] for index in range(5)]
    found: list[str] = []
    after = ""
    while after is not None:
        reply = await api.send("GET", f"/v1/jobs?limit=2{after and f'&after={after}'}")
        found += [job["id"] for job in reply.json["jobs"]]
        after = reply.json["next"]
    assert found == made


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["paused", "started"]),
        ("?state=queued", ["started"]),
        ("?state=Suspended,queued", ["paused", "started"]),
        ("?state=suspended&state=error", ["paused"]),
        ("?state=error", []),
    ],
)
async def test_a_list_is_narrowed_by_state(api: Api, query: str, names: list[str]) -> None:
    """States are separated by commas, or the parameter is repeated."""
    await api.create(name="paused")
    await api.create(name="started", files=[FILE], start=True)
    reply = await api.send("GET", f"/v1/jobs{query}")
    assert [job["name"] for job in reply.json["jobs"]] == names


async def test_a_patch_changes_a_job(api: Api) -> None:
    """The answer is the job as it is now."""
    job = await api.create(description="before")
    reply = await api.send("PATCH", job_path(job), {"name": "after", "priority": "low"})
    assert reply.status == 200
    changes = {"name": "after", "priority": "low"}
    assert reply.json == job | changes


async def test_the_four_verbs_answer_with_the_job(api: Api) -> None:
    """The last two with its last view; then it is gone."""
    for verb, state in (("complete", "acknowledged"), ("cancel", "cancelled")):
        job = await api.create(files=[FILE])
        for step, after in (("resume", "queued"), ("suspend", "suspended"), (verb, state)):
            reply = await api.send("POST", job_path(job, step))
            assert (reply.status, reply.json["state"]) == (200, after)
        gone = await api.send("POST", job_path(job, verb))
        assert (gone.status, gone.code) == (404, "job_not_found")


async def test_a_move_that_the_state_forbids_is_a_conflict(api: Api) -> None:
    """The request is right, but not now."""
    job = await api.create()
    reply = await api.send("POST", job_path(job, "resume"))
    assert (reply.status, reply.code) == (409, "job_empty")


async def test_a_job_says_why_it_does_not_move(api: Api) -> None:
    """The same blockers stand in the job."""
    job = await api.create()
    reply = await api.send("GET", job_path(job, "why"))
    assert reply.json["blockers"] == job["blockers"]
    assert reply.json["blockers"][0]["code"] == "suspended"


async def test_an_id_is_understood_in_any_case(api: Api) -> None:
    """A UUID has one meaning."""
    job = await api.create()
    assert (await api.send("GET", f"/v1/jobs/{job['id'].upper()}")).json == job


# ── files and credentials ──────────────────────────────────────────────────────────────────


async def test_files_are_added_and_listed_by_pages(api: Api) -> None:
    """One, or many; the first page begins at the first file."""
    job = await api.create()
    one = await api.send("POST", job_path(job, "files"), FILE)
    assert (one.status, one.json["files"][0]["index"]) == (201, 0)
    more = {"files": [FILE | {"local": f"/home/alice/{index}"} for index in range(3)]}
    assert (await api.send("POST", job_path(job, "files"), more)).status == 201
    pages = [
        await api.send("GET", job_path(job, f"files?limit=3{after}")) for after in ("", "&after=2")
    ]
    assert [[file["index"] for file in page.json["files"]] for page in pages] == [[0, 1, 2], [3]]
    assert [page.json["next"] for page in pages] == ["2", None]
    again = await api.send("POST", job_path(job, "files"), FILE)
    assert (again.status, again.code) == (409, "duplicate_destination")


async def test_a_password_in_the_url_of_an_added_file_goes_into_the_vault(api: Api) -> None:
    """The job has it before it has the file; adding another one with it changes nothing."""
    job = await api.create()
    for name in "ab":
        file = {"remote": f"https://alice:hunter2@host/{name}", "local": f"/home/alice/{name}"}
        reply = await api.send("POST", job_path(job, "files"), file)
        assert (reply.status, reply.json["files"][0]["remote"]) == (201, f"https://host/{name}")
    shown = await api.send("GET", job_path(job))
    assert [each["username"] for each in shown.json["credentials"]] == ["alice"]
    assert list(api.service.passwords.values()) == ["hunter2"]


@pytest.mark.parametrize(
    "held",
    [
        {"files": [FILE | {"remote": "https://other/a.iso"}]},
        {"files": [FILE | {"remote": "http://host/a.iso"}]},
        {"credentials": [BASIC | {"username": "bob"}]},
    ],
)
async def test_a_password_in_a_url_reaches_no_other_origin_and_replaces_no_other_user(
    api: Api, held: dict[str, Any]
) -> None:
    """The job would show it to all origins of its files."""
    job = await api.create(**held)
    before = dict(api.service.passwords)
    file = {"remote": "https://alice:hunter3@host/b", "local": "/home/alice/b"}
    reply = await api.send("POST", job_path(job, "files"), file)
    assert (reply.status, reply.code) == (409, "credentials_conflict")
    assert (await api.send("GET", job_path(job))).json == job
    assert api.service.passwords == before


@pytest.mark.parametrize(("held", "left"), [([], []), ([BASIC], ["alice"])])
async def test_the_password_of_refused_files_is_taken_back(
    api: Api, held: list[object], left: list[str]
) -> None:
    """Unless the job had that user before."""
    job = await api.create(files=[FILE], credentials=held)
    file = FILE | {"remote": "https://alice:hunter2@host/b"}
    reply = await api.send("POST", job_path(job, "files"), file)
    assert (reply.status, reply.code) == (409, "duplicate_destination")
    shown = await api.send("GET", job_path(job))
    assert [each["username"] for each in shown.json["credentials"]] == left


async def test_a_credential_is_set_replaced_and_removed(api: Api) -> None:
    """Scheme and target are read in any case, as the sample does."""
    job = await api.create()
    slot = job_path(job, "credentials/Server/DIGEST")
    for username in ("alice", "CORP\\bob"):
        reply = await api.send("PUT", slot, {"username": username, "password": "hunter2"})
        assert reply.status == 200
        assert reply.json["credentials"] == [
            {"target": "server", "scheme": "digest", "username": username}
        ]
        assert b"hunter2" not in reply.body
    key = (JobId(job["id"]), Target.SERVER, Scheme.DIGEST)
    assert api.service.passwords[key] == "hunter2"
    removed = await api.send("DELETE", slot)
    assert (removed.status, removed.json["credentials"]) == (200, [])
    again = await api.send("DELETE", slot)
    assert (again.status, again.code) == (404, "credential_not_found")


@pytest.mark.parametrize("scheme", Scheme)
async def test_a_credential_of_every_scheme_can_be_set(api: Api, scheme: Scheme) -> None:
    """The sample names five; each is shown without its password."""
    job = await api.create(credentials=[{"scheme": scheme.upper(), **IDENTITY, "target": "PROXY"}])
    reply = await api.send("PUT", job_path(job, f"credentials/server/{scheme.title()}"), IDENTITY)
    assert reply.json["credentials"] == [
        {"target": target, "scheme": scheme, "username": "alice"} for target in ("proxy", "server")
    ]


@pytest.mark.parametrize("body", [{}, {"username": None, "password": None}])
async def test_nobody_is_who_the_owner_is_already(api: Api, body: dict[str, None]) -> None:
    """BITS.md A9: for negotiate; it is listed, replaced and removed like any other."""
    job = await api.create(credentials=[{"scheme": "negotiate", "target": "proxy"}])
    slot = job_path(job, "credentials/proxy/negotiate")
    implicit = [{"target": "proxy", "scheme": "negotiate", "username": None}]
    assert job["credentials"] == implicit
    assert (await api.send("PUT", slot, IDENTITY)).json["credentials"][0]["username"] == "alice"
    assert (await api.send("PUT", slot, body)).json["credentials"] == implicit
    assert (await api.send("DELETE", slot)).json["credentials"] == []
    refused = await api.send("PUT", job_path(job, "credentials/server/ntlm"), body)
    assert (refused.status, refused.code) == (400, "credentials_incomplete")
    assert "Linux" in refused.json["detail"]


async def test_how_schemes_are_spoken_is_shown_and_changed(api: Api) -> None:
    """Members that are not named stay, null puts the default back."""
    job = await api.create(
        negotiate={"spn": "HTTP/w", "ntlm": True},
        passport={"configuration_url": "https://n/", "login_host": "L"},
    )
    nothing = {"proxy_spn": None, "keytab": None, "principal": None, "ccache": None}
    assert job["negotiate"] == nothing | {"spn": "HTTP/w", "ntlm": True}
    assert job["passport"] == {
        "configuration_url": "https://n/",
        "login_host": "l",
        "realm": None,
    }
    change = {"negotiate": {"spn": None, "keytab": "/k"}, "passport": None}
    after = (await api.send("PATCH", job_path(job), change)).json
    assert after["negotiate"] == nothing | {"spn": None, "keytab": "/k", "ntlm": True}
    assert set(after["passport"].values()) == {None}
    assert after == job | {name: after[name] for name in ("negotiate", "passport", "modified")}


# ── notices ────────────────────────────────────────────────────────────────────────────────


async def test_a_notice_is_acknowledged_once_and_again(api: Api) -> None:
    """Doing it again is success."""
    job = await api.create()
    notice = await api.service.post(NoticeKind.ERROR, JobId(job["id"]))
    for _ in range(2):
        reply = await api.send("POST", f"/v1/notices/{notice.number}/ack")
        assert reply.status == 200
        assert (reply.json["number"], reply.json["acknowledge"]) == (notice.number, False)
    missing = await api.send("POST", "/v1/notices/999/ack")
    assert (missing.status, missing.code) == (404, "notice_not_found")


async def test_many_notices_are_acknowledged_each_by_itself(api: Api) -> None:
    """What is refused is told as its own request would tell it, and keeps none of the others."""
    job = await api.create()
    first, last = [await api.service.post(NoticeKind.ERROR, JobId(job["id"])) for _ in range(2)]
    missing = await api.send("POST", "/v1/notices/999/ack")
    numbers = [first.number, 999, last.number, first.number]
    reply = await api.send("POST", "/v1/notices/ack", {"numbers": numbers})
    assert reply.status == 200
    assert reply.json["settled"] == [first.number, last.number]
    (refused,) = reply.json["refused"]
    assert refused == {"number": 999} | {
        name: missing.json[name] for name in ("status", "code", "detail")
    }
    assert all(notice.settled for notice in api.service.outbox)


@pytest.mark.parametrize("numbers", [[], [-1], [2**63], ["1"], list(range(1001)), None])
async def test_what_names_no_notices_is_refused(api: Api, numbers: object) -> None:
    """A request holds up the queue file for a moment only."""
    reply = await api.send("POST", "/v1/notices/ack", {"numbers": numbers})
    assert reply.status == 400
    assert reply.code in {"value_invalid", "wrong_type"}


# ── who calls ──────────────────────────────────────────────────────────────────────────────


async def test_the_caller_is_who_the_kernel_says(api: Api) -> None:
    """Not who a request claims to be."""
    await api.send("GET", "/v1/jobs", headers={"X-User": "1", "Authorization": "Basic cm9vdDo="})
    stranger = Stranger.any()
    await api.send_as(stranger, "GET", "/v1/jobs")
    mine, theirs = api.service.callers
    assert (mine.uid, mine.pid, mine.admin) == (os.geteuid(), os.getpid(), os.geteuid() == 0)
    assert (theirs.uid, theirs.gid, theirs.admin) == (stranger.uid, stranger.gid, False)


async def test_a_connection_is_asked_for_its_identity_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that changes its uid later does not change who it was."""
    identities = api.server._context.identities
    asked: list[asyncio.BaseTransport] = []
    ask = identities._ask

    def counting(peer: asyncio.BaseTransport) -> Caller:
        asked.append(peer)
        return ask(peer)

    monkeypatch.setattr(identities, "_ask", counting)
    for _ in range(3):
        await api.send("GET", "/v1/jobs")
    assert len(asked) == 1


async def test_members_of_the_admin_group_are_admins() -> None:
    """By the first group or by another one, as they were when they connected."""
    stranger = Stranger.any()
    for gid in (stranger.gid, *stranger.groups):
        async with running_api(admin_gid=gid) as api:
            await api.send_as(stranger, "GET", "/v1/jobs?all_users=true")
            assert api.service.callers[0].admin
    async with running_api(admin_gid=77_777) as api:
        reply = await api.send_as(stranger, "GET", "/v1/jobs?all_users=1")
        if os.geteuid():
            assert reply.code == "not_allowed"
        assert not api.service.callers[0].admin or not stranger.uid


async def test_operators_are_admins_and_whose_daemon_it_is() -> None:
    """What the service does for all of its users is for nobody else to hear."""
    stranger = Stranger.any()
    async with running_api(operator=stranger.uid) as api:
        assert (await api.send_as(stranger, "GET", "/v1/metrics")).status == 200
        assert (await api.send_as(stranger, "GET", "/v1/admin/status")).status == 200
    async with running_api(operator=77_777) as api:
        for path in ("/v1/metrics", "/v1/admin/status"):
            reply = await api.send_as(stranger, "GET", path)
            assert (reply.status, reply.code) == (403, "not_allowed"), path
        await api.send_as(stranger, "GET", "/v1/health")
        assert not any(caller.operator for caller in api.service.callers if caller.uid)


async def test_health_tells_strangers_of_their_own_jobs_only() -> None:
    """How many jobs others have is none of their business; the answer has the same members."""
    stranger = Stranger.any()
    async with running_api(operator=77_777) as api:
        await api.create()
        reply = await api.send_as(stranger, "GET", "/v1/health")
        if os.geteuid() == 0:
            assert reply.json == {"status": "ok", "jobs": {}, "workers": 0}
    async with running_api(operator=77_777, serves=lambda uid: uid == 77_777) as api:
        reply = await api.send_as(stranger, "GET", "/v1/health")
        assert set(reply.json["jobs"].values()) == {0}
        assert (reply.json["status"], reply.json["workers"]) == ("ok", 0)


async def test_an_admin_takes_ownership_of_a_job(api: Api) -> None:
    """The answer is the job as it is then."""
    job = await api.create(notify={"kinds": ["error"], "command": ["/bin/true"]})
    api.service.put(JobId(job["id"]), owner=77_777)
    reply = await api.send("POST", job_path(job, "take-ownership"))
    if os.geteuid():
        assert (reply.status, reply.code) == (404, "job_not_found")
    else:
        assert reply.status == 200
        assert (reply.json["owner"]["uid"], reply.json["notify"]["command"]) == (0, None)


def test_an_admin_group_must_exist() -> None:
    """A misspelt group must not mean nobody."""
    assert admin_gid("") is None
    assert admin_gid("root") == 0
    with pytest.raises(ConfigError, match=re.escape("api.admin_group 'no such group'")):
        admin_gid("no such group")


def test_a_uid_without_a_name_is_told_by_number() -> None:
    """A job outlives its owner's account."""
    assert user_name(0) == "root"
    assert user_name(4_000_000_001) == "4000000001"


def test_a_user_database_that_hangs_holds_up_nobody() -> None:
    """The loop asks for a name that it does not know yet: it waits for a moment, and once."""
    answered, asked = threading.Event(), list[int]()

    def find(uid: int) -> str:
        asked.append(uid)
        answered.wait(60)
        return "alice"

    names = UserNames(find, 0.01)
    assert [names(1000), names(1000)] == ["1000", "1000"]
    assert asked == [1000]
    answered.set()
    while names(1000) != "alice":
        pass
    assert asked == [1000]


async def test_a_caller_that_the_daemon_does_not_serve_learns_only_what_it_is() -> None:
    """A user's own daemon works for that user."""
    async with running_api(serves=lambda uid: False) as api:
        for path in ("/v1/health", "/v1/version", "/v1/openapi.json"):
            assert (await api.send("GET", path)).status == 200
        one = f"/v1/jobs/{uuid4()}"
        refused = [
            ("GET", "/v1/jobs"),
            ("POST", "/v1/jobs"),
            ("GET", one),
            ("PATCH", one),
            ("GET", f"{one}/why"),
            ("GET", "/v1/events"),
            ("GET", "/v1/metrics"),
            ("POST", "/v1/notices/1/ack"),
            ("POST", "/v1/notices/ack"),
        ]
        for method, path in refused:
            reply = await api.send(method, path)
            assert (reply.status, reply.code) == (403, "not_allowed"), path
        assert api.service.callers == []


async def test_a_caller_without_a_uid_is_refused() -> None:
    """A socket that is no Unix socket has no identity to offer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        service = FakeService()
        async with running_api(service=service) as api:
            await api.server.stop()
            await api.server.start(listening)
            port = listening.getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
    assert b" 403 Forbidden" in answer
    assert b"not_allowed" in answer


# ── the service ────────────────────────────────────────────────────────────────────────────


async def test_health_counts_jobs_by_state(api: Api) -> None:
    """Programs look here whether the daemon works."""
    await api.create()
    reply = await api.send("GET", "/v1/health")
    assert reply.json == {"status": "ok", "jobs": {"suspended": 1}, "workers": 1}


async def test_version_tells_the_schemes_that_work(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client refuses others before a job exists, and Kerberos is an extra."""
    for found in (None, object()):
        handlers.kerberos_available.cache_clear()
        monkeypatch.setattr(importlib.util, "find_spec", {"gssapi": found}.__getitem__)
        features = (await api.send("GET", "/v1/version")).json["features"]
        assert ("kerberos" in features) is (found is not None)
    handlers.kerberos_available.cache_clear()
    reply = await api.send("GET", "/v1/version")
    assert reply.json["version"] == __version__
    assert reply.json["api"] == "v1"
    assert reply.json["schemes"] == ["basic", "digest", "ntlm", "negotiate", "passport"]


async def test_metrics_speak_prometheus(api: Api) -> None:
    """Routes are counted by template, so that ids make no series of their own."""
    job = await api.create()
    await api.send("GET", job_path(job))
    await api.send("GET", "/nowhere")
    reply = await api.send("GET", "/v1/metrics")
    text = reply.body.decode()
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert 'transferd_jobs{state="suspended"} 1.0' in text
    assert 'transferd_jobs{state="transferring"} 0.0' in text
    assert "transferd_workers 1.0" in text
    counted = 'transferd_requests_total{method="GET",route="%s",status="%d"} 1.0'
    assert counted % ("/v1/jobs/{id}", 200) in text
    assert counted % ("none", 404) in text
    assert f'version="{__version__}"' in text
    assert job["id"] not in text


# ── HTTP ───────────────────────────────────────────────────────────────────────────────────


async def test_head_is_get_without_a_body(api: Api) -> None:
    """For every GET but the event stream, which has no end."""
    await api.create()
    get, head = [await api.send(method, "/v1/jobs") for method in ("GET", "HEAD")]
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert (await api.send("HEAD", "/v1/events")).status == 405


async def test_options_and_other_methods_say_what_is_allowed(api: Api) -> None:
    """204 for who asks, 405 for who guesses."""
    options = await api.send("OPTIONS", "/v1/jobs")
    assert (options.status, options.body) == (204, b"")
    assert options.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    wrong = await api.send("DELETE", "/v1/jobs")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == options.headers["Allow"]
    assert (await api.send("OPTIONS", "/nowhere")).code == "route_not_found"


async def test_several_requests_share_a_connection(api: Api) -> None:
    """Also after a refusal."""
    one = b"GET /v1/%s HTTP/1.1\r\nHost: x\r\n%s\r\n"
    answer = await api.raw(
        one % (b"version", b"") + one % (b"nope", b"") + one % (b"health", b"Connection: close\r\n")
    )
    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)] == [200, 404, 200]


# ── faults ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (StoreDamaged("cannot read page 7"), 503, "store_unavailable"),
        (VaultError("cannot open the key"), 503, "vault_unavailable"),
        (LinkBroken("gone"), 503, "worker_unavailable"),
        (Unavailable("stopping", "cannot do that now"), 503, "stopping"),
        (RuntimeError("hunter2"), 500, "internal"),
        (KeyError("hunter2"), 500, "internal"),
        (OSError(28, "hunter2"), 500, "internal"),
    ],
)
async def test_a_fault_is_told_without_details(
    api: Api, fault: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has them; the next request is served."""
    api.service.fault = fault
    reply = await api.send("GET", "/v1/jobs")
    assert (reply.status, reply.code) == (status, code)
    assert b"hunter2" not in reply.body
    assert b"page 7" not in reply.body
    if status == 500:
        (record,) = [record for record in caplog.records if record.getMessage() == "api.fault"]
        assert record.exc_info is not None
        assert record.exc_info[1] is fault
    assert (await api.send("GET", "/v1/jobs")).status == 200


async def test_requests_are_logged_by_route_and_uid(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that a caller wrote stands in the log."""
    caplog.set_level(logging.DEBUG, logger="transferd")
    await api.send("GET", f"/v1/jobs/{uuid4()}?hunter2=1")
    (fields,) = [
        vars(record)["fields"] for record in caplog.records if record.getMessage() == "api.request"
    ]
    assert fields.pop("ms") >= 0
    assert fields == {
        "method": "GET",
        "route": "/v1/jobs/{id}",
        "status": 400,
        "uid": os.geteuid(),
    }


# ── stopping ───────────────────────────────────────────────────────────────────────────────


async def test_stopping_lets_a_request_end() -> None:
    """Whoever was heard gets an answer."""
    async with running_api() as api:
        api.service.gate.clear()
        asking = asyncio.ensure_future(api.send("GET", "/v1/jobs"))
        await api.service.held.wait()
        stopping = asyncio.ensure_future(api.server.stop(10.0))
        await asyncio.sleep(0)
        api.service.gate.set()
        assert (await asking).status == 200
        await stopping


async def test_stopping_cuts_off_what_takes_too_long() -> None:
    """A stuck request does not hold up the shutdown, and idle connections never do."""
    async with running_api() as api:
        await api.send("GET", "/v1/version")  # leaves an idle connection behind
        api.service.gate.clear()
        asking = asyncio.ensure_future(api.raw(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n"))
        await api.service.held.wait()
        async with asyncio.timeout(5):
            await api.server.stop(0.05)
        assert await asking == b""
        await api.server.stop()


@pytest.mark.parametrize("turns", range(8))
async def test_who_connects_while_the_server_stops_is_let_go(turns: int) -> None:
    """However far its connection had come: the socket is closed when `stop` returns."""
    async with running_api() as api:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(api.path))
            for _ in range(turns):
                await asyncio.sleep(0)
            await api.server.stop(1.0)
            caller.setblocking(False)
            with contextlib.suppress(ConnectionResetError):
                assert caller.recv(1) == b""
