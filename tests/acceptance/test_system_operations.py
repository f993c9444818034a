"""A service of several users is looked after: whose jobs, whose processes, whose leftovers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.support.daemon import CONFIG
from tests.support.people import ADMIN_GROUP, Machine, people
from tests.support.system_service import SystemService

NOWHERE = "http://127.0.0.1:1/a"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with several users."""
    with people() as made:
        yield made


@pytest.fixture
def service(machine: Machine) -> Iterator[SystemService]:
    """Its service, with an empty queue and no admin beside root."""
    with SystemService(machine, name=f"service-{uuid4()}").start() as running:
        yield running


def test_status_tells_users_apart(service: SystemService, machine: Machine) -> None:
    """Rule: each user with jobs by state and the process that is his."""
    for person in (machine.alice, machine.bob):
        service.client(person).json("create", "a", "--file", NOWHERE, str(person.home / "a"))
    status = service.json("admin", "status")
    assert status["system"] is True
    users = {user["name"]: user for user in status["users"]}
    assert set(users) == {"alice", "bob"}
    for person in (machine.alice, machine.bob):
        user = users[person.name]
        assert (user["uid"], user["jobs"]) == (person.uid, {"suspended": 1})
        assert [user["worker_pid"]] == service.workers(person)
        assert user["worker_memory"] > 10_000_000


def test_leftovers_are_found_where_only_their_owner_can_look(
    service: SystemService, machine: Machine
) -> None:
    """Rule: each user's worker looks; the daemon could not look into a private home."""
    alice = machine.alice
    service.client(alice).json("create", "a", "--file", NOWHERE, str(alice.home / "a"))
    orphan = alice.home / f".b.transferd-{uuid4()}"
    orphan.write_bytes(b"half of it")
    os.chown(orphan, alice.uid, alice.gid)
    assert alice.home.stat().st_mode & 0o077 == 0
    done = service.ctl("admin", "check", "--json")
    assert done.returncode == 0, done.stdout
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["code"] == "temporary_orphaned"
    assert str(orphan) in finding["text"]
    orphan.unlink()


def test_a_reload_makes_admins_and_shuts_root_out(service: SystemService, machine: Machine) -> None:
    """Rule: who may do what follows the file, without a restart."""
    carol = service.client(machine.carol)
    assert carol.ctl("admin", "status").returncode == 4
    assert service.ctl("admin", "check").returncode == 0
    config = f"{CONFIG}[api]\nadmin_group = '{ADMIN_GROUP}'\n[worker]\nallow_root = false\n"
    (worker,) = service.workers(machine.root)
    service.reload(config)
    assert carol.json("admin", "status")["users"] is not None
    found = carol.ctl("admin", "check")
    assert found.returncode == 0, found.stdout
    done = service.ctl("admin", "check", "--json")
    assert "api.admin_group,worker.allow_root" in service.logged()
    codes = {finding["code"] for finding in json.loads(done.stdout)["findings"]}
    assert codes == {"worker_failed"}
    assert done.returncode == 1
    assert worker not in service.workers(machine.root)
