"""Keys that are lost, put back, handed over and changed, while the queue is used."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.rotator import JOBS, check, wishes
from tests.support.store import ALICE, NOW, Queue, credential, open_queue, spec
from transferd.model.credentials import Scheme
from transferd.model.errors import Conflict, StoreError, VaultError
from transferd.model.job import JobId
from transferd.model.limits import Quota
from transferd.model.upkeep import Severity
from transferd.store import credentials as secrets
from transferd.store import rotation
from transferd.store.keys import KEY_FILE
from transferd.store.vault import KEY_BYTES, key_id

_QUOTA = Quota(jobs_per_user=1000)
_ROOT = Path(__file__).parents[2]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where a state directory will be."""
    return tmp_path / "state"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """Where the service manager puts what it hands over."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    return directory


def _hand_over(credentials: Path, number: int, name: str = "vault.key") -> bytes:
    """Have the service manager hand a key over; return the key's name."""
    key = bytes([number]) * KEY_BYTES
    (credentials / name).unlink(missing_ok=True)
    (credentials / name).write_bytes(key)
    (credentials / name).chmod(0o400)
    return key_id(key)


def _key_files(state: Path) -> list[str]:
    return sorted(path.name for path in state.iterdir() if "key" in path.name)


async def _fill(queue: Queue) -> None:
    await queue.jobs.create(ALICE, wishes(), NOW, quota=_QUOTA)


async def _codes(queue: Queue) -> list[str]:
    return [finding.code for finding in await queue.keys.findings()]


def _blobs(state: Path, table: str) -> list[bytes]:
    with closing(sqlite3.connect(f"file:{state}/queue.db?mode=ro", uri=True)) as cx:
        return [row[0] for row in cx.execute(f"SELECT sealed FROM {table}")]  # noqa: S608


# ── opening ──────────────────────────────────────────────────────────────────────────────────


async def test_the_first_start_makes_a_key_of_its_own(state: Path) -> None:
    """Only its owner can read it, later starts find it, and nothing is wrong with it."""
    async with open_queue(state) as queue:
        await _fill(queue)
        assert queue.keys.source == str(state / KEY_FILE)
        assert await _codes(queue) == []
    assert stat.S_IMODE((state / KEY_FILE).stat().st_mode) == 0o600
    (state / "vault.key.new").write_bytes(b"12")
    async with open_queue(state) as queue:
        await check(queue)
        assert await _codes(queue) == []
    assert _key_files(state) == [KEY_FILE]


async def test_a_key_that_cannot_be_made_is_told(state: Path) -> None:
    """Without any key nothing could be sealed: that is the one thing that stops a start."""
    async with open_queue(state):
        pass
    (state / KEY_FILE).unlink()
    (state / "vault.key.new").mkdir()
    with pytest.raises(StoreError, match=r"cannot make the key .*vault\.key"):
        async with open_queue(state):
            pass


def _lose(path: Path) -> None:
    path.rename(path.with_name("kept"))


def _spoil(path: Path) -> None:
    path.rename(path.with_name("kept"))
    path.write_text("ab" * 31)


def _link(path: Path) -> None:
    path.rename(path.with_name("kept"))
    path.symlink_to("elsewhere")


def _mend(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name("kept").rename(path)


@pytest.mark.parametrize("harm", [_lose, _spoil, _link])
async def test_a_key_that_is_not_there_costs_nothing_but_its_secrets(
    state: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    """The service starts, says so, seals new secrets; the key is put back under way."""
    path = state / KEY_FILE
    async with open_queue(state) as queue:
        await _fill(queue)
    harm(path)
    async with open_queue(state) as queue:
        codes = [] if harm is _lose else ["key_unusable"]
        assert await _codes(queue) == [*codes, "key_missing", "key_stand_in"]
        job = JobId(str(wishes()[0].id))
        with pytest.raises(VaultError, match="put the key file back"):
            await queue.jobs.secrets(job, NOW)
        new = await queue.make(spec(job_id="6f1c9a52-0d6e-4b1b-9b06-00000000beef"))
        await queue.jobs.set_credentials(new.id, [credential("new")], NOW)
        _mend(path)
        assert (await queue.jobs.secrets(job, NOW)).credentials[0].password.reveal() == "hunter2"
        await check(queue)
    faults = [each for each in caplog.records if each.message == "key.flawed"]
    assert [each.levelno for each in faults][-2:] == [logging.ERROR, logging.WARNING]
    async with open_queue(state) as queue:
        await check(queue)
        assert queue.keys.source == str(path)
        assert await _codes(queue) == ["key_unremoved"]
        opened = await queue.jobs.secrets(new.id, NOW)
        assert opened.credentials[0].password.reveal() == "new"
        await queue.keys.rotate()
        assert await _codes(queue) == []
        await check(queue)
    assert _key_files(state) == [KEY_FILE]


async def test_a_key_that_others_can_reach_seals_nothing_any_more(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said loudly at each start; a rotation does away with it."""
    async with open_queue(state) as queue:
        await _fill(queue)
    exposed = (state / KEY_FILE).read_bytes()
    (state / KEY_FILE).chmod(0o644)
    async with open_queue(state) as queue:
        await check(queue)
        assert await _codes(queue) == ["key_exposed", "key_stand_in"]
        assert (await queue.keys.rotate()).resealed == 2 * JOBS
        await check(queue)
        assert await _codes(queue) == []
    (fault, *_) = [each for each in caplog.records if each.message == "key.flawed"]
    assert fault.levelno == logging.ERROR
    assert _key_files(state) == [KEY_FILE]
    assert (state / KEY_FILE).read_bytes() != exposed


# ── rotating ─────────────────────────────────────────────────────────────────────────────────


async def test_a_rotation_leaves_nothing_under_the_old_key(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every secret is sealed anew, in batches; the old file is gone; nobody notices else."""
    monkeypatch.setattr(rotation, "_BATCH", 3)
    async with open_queue(state) as queue:
        await _fill(queue)
        old = bytes.fromhex((state / KEY_FILE).read_text())
        done = await queue.keys.rotate()
        new = bytes.fromhex((state / KEY_FILE).read_text())
        assert (done.resealed, done.unreadable) == (2 * JOBS, 0)
        assert done.key == key_id(new).hex() != key_id(old).hex()
        await check(queue)
    sealed = [each for table in ("credentials", "headers") for each in _blobs(state, table)]
    assert {each[1:9] for each in sealed} == {key_id(new)}
    assert {each[1:9] for each in _blobs(state, "markers")} == {key_id(new)}
    assert _key_files(state) == [KEY_FILE]
    async with open_queue(state) as queue:
        await check(queue)


@pytest.mark.parametrize(
    "kind", [secrets._PASSWORDS, secrets._HEADERS], ids=["passwords", "headers"]
)
async def test_secrets_are_found_by_their_keys(state: Path, kind: secrets._Kind) -> None:
    """A million of them cost a start nothing, and each batch is one look into an index."""
    async with open_queue(state):
        pass
    with closing(sqlite3.connect(state / "queue.db")) as cx:
        for statement, values in ((kind.keys, []), (kind.count, [b""]), (kind.select, [b"", 1, 0])):
            plan = [row[3] for row in cx.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert [step for step in plan if "_by_key" in step]
            assert not [step for step in plan if step.startswith(("SCAN cred", "SCAN head"))]


async def test_a_rotation_goes_on_beside_whatever_is_written(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sealed and waits to be written when the key changes is sealed anew as well."""
    monkeypatch.setattr(rotation, "_BATCH", 1)
    async with open_queue(state) as queue:
        await _fill(queue)
        jobs = [(await queue.make()).id for _ in range(8)]
        rotating = asyncio.create_task(queue.keys.rotate())

        async def write(job: JobId) -> None:
            for number in range(50):
                scheme = (Scheme.BASIC, Scheme.DIGEST)[number % 2]
                given = [credential(f"{job} {scheme}", scheme)]
                await queue.jobs.set_credentials(job, given, NOW)
                if number == 40:
                    await rotating

        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(write(job))
        assert await _codes(queue) == []
    async with open_queue(state) as queue:
        await check(queue)
        for job in jobs:
            found = (await queue.jobs.secrets(job, NOW)).credentials
            assert {each.password.reveal() for each in found} == {
                f"{job} {Scheme.BASIC}",
                f"{job} {Scheme.DIGEST}",
            }
        assert await _codes(queue) == []


async def test_one_rotation_runs_at_a_time(state: Path) -> None:
    """The second is told so, and changes nothing."""
    async with open_queue(state) as queue:
        await _fill(queue)
        rotating = asyncio.create_task(queue.keys.rotate())
        await asyncio.sleep(0)
        with pytest.raises(Conflict) as refused:
            await queue.keys.rotate()
        assert refused.value.code == "rotation_running"
        await rotating
        await queue.keys.rotate()
        await check(queue)


async def test_what_no_key_opens_stays_and_is_counted(state: Path) -> None:
    """Its key may be put back one day; until then its place is left alone."""
    async with open_queue(state) as queue:
        await _fill(queue)
    (state / KEY_FILE).rename(state / "kept")
    async with open_queue(state) as queue:
        new = await queue.make()
        await queue.jobs.set_credentials(new.id, [credential()], NOW)
        for _ in range(2):
            done = await queue.keys.rotate()
            assert (done.resealed, done.unreadable) == (1, 2 * JOBS)
            assert not (state / KEY_FILE).exists()
            assert len(_key_files(state)) == 1
    (state / "kept").rename(state / KEY_FILE)
    async with open_queue(state) as queue:
        await check(queue)
        assert (await queue.keys.rotate()).unreadable == 0
        await check(queue)
    assert _key_files(state) == [KEY_FILE]


async def test_a_damaged_secret_keeps_no_other_from_being_sealed_anew(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left as it is, counted, and its key with it."""
    monkeypatch.setattr(rotation, "_BATCH", 1)
    async with open_queue(state) as queue:
        await _fill(queue)
    old = key_id(bytes.fromhex((state / KEY_FILE).read_text()))
    with closing(sqlite3.connect(state / "queue.db")) as cx:
        cx.execute("UPDATE credentials SET sealed = substr(sealed, 1, 40) WHERE job IN (1, 3)")
        cx.commit()
    async with open_queue(state) as queue:
        done = await queue.keys.rotate()
        assert (done.resealed, done.unreadable) == (2 * JOBS - 2, 2)
        assert _key_files(state) == sorted([f"vault-{old.hex()}.key", KEY_FILE])
        assert await _codes(queue) == ["key_unremoved"]
        for wish in (wishes()[0], wishes()[2]):
            await queue.jobs.set_credentials(JobId(str(wish.id)), [credential()], NOW)
        await queue.keys.rotate()
        await check(queue)
    assert _key_files(state) == [KEY_FILE]


async def test_a_key_that_was_removed_under_way_takes_nothing_with_it(state: Path) -> None:
    """The service still knows it: a rotation seals everything with a key that is there."""
    async with open_queue(state) as queue:
        await _fill(queue)
        (state / KEY_FILE).unlink()
        assert "key_missing" in await _codes(queue)
        assert (await queue.keys.rotate()).unreadable == 0
        await check(queue)
    async with open_queue(state) as queue:
        await check(queue)
        await queue.keys.rotate()
        assert await _codes(queue) == []
    assert _key_files(state) == [KEY_FILE]


async def test_requests_are_marked_anew_and_the_old_ones_recognised(state: Path) -> None:
    """Who knew the old key can try nothing against new requests; old markers go with their jobs."""
    async with open_queue(state) as queue:
        await _fill(queue)
        await queue.keys.rotate()
        assert len(_blobs(state, "markers")) == 2
        await queue.keys.rotate()
        assert len(_blobs(state, "markers")) == 2, "nothing was marked with the second"
        await check(queue)
        with closing(sqlite3.connect(state / "queue.db")) as cx:
            cx.execute("PRAGMA foreign_keys = ON")
            cx.execute("DELETE FROM jobs")
            cx.execute("DELETE FROM job_ids")
            cx.commit()
        await _fill(queue)
        await queue.keys.rotate()
        assert len(_blobs(state, "markers")) == 2, "those of the jobs that are gone are gone"
        await check(queue)
        other = spec(job_id=str(wishes()[0].id))
        with pytest.raises(Conflict):
            await queue.jobs.create(ALICE, [other], NOW, quota=_QUOTA)


async def test_requests_are_recognised_again_when_the_key_is_back(state: Path) -> None:
    """Meanwhile their ids are used, by a request that nobody can tell from another."""
    async with open_queue(state) as queue:
        await _fill(queue)
    (state / KEY_FILE).rename(state / "kept")
    async with open_queue(state) as queue:
        with pytest.raises(Conflict) as refused:
            await queue.jobs.create(ALICE, wishes(), NOW, quota=_QUOTA)
        assert refused.value.code == "id_used"
    (state / "kept").rename(state / KEY_FILE)
    async with open_queue(state) as queue:
        await check(queue)


@pytest.mark.parametrize("what", [(), ("credential",)], ids=["file", "credential"])
def test_a_rotation_that_is_cut_off_anywhere_loses_nothing(
    tmp_path: Path, what: tuple[str, ...]
) -> None:
    """Killed before each rename, flush, removal and commit; what is left goes on, and again."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.rotator", str(tmp_path), *what],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


# ── credentials of the service manager ───────────────────────────────────────────────────────


async def test_a_credential_seals_and_no_file_is_made(state: Path, credentials: Path) -> None:
    """The state directory holds nothing that would open the queue file beside it."""
    name = _hand_over(credentials, 1)
    async with open_queue(state, credentials=credentials) as queue:
        await _fill(queue)
        assert "credential" in queue.keys.source
        assert str(credentials / "vault.key") in queue.keys.source
    assert _key_files(state) == []
    assert {each[1:9] for each in _blobs(state, "credentials")} == {name}


async def test_without_a_credential_there_is_a_file(state: Path, credentials: Path) -> None:
    """Other credentials of the unit are none of our business."""
    (credentials / "other").write_bytes(b"x")
    async with open_queue(state, credentials=credentials) as queue:
        await _fill(queue)
        assert queue.keys.source == str(state / KEY_FILE)


async def test_moving_to_a_credential_loses_nothing(state: Path, credentials: Path) -> None:
    """The file opens what it has sealed, until a rotation has done away with it."""
    async with open_queue(state) as queue:
        await _fill(queue)
    name = _hand_over(credentials, 1)
    async with open_queue(state, credentials=credentials) as queue:
        await check(queue)
        assert await _codes(queue) == ["key_unremoved"]
        done = await queue.keys.rotate()
        assert (done.key, done.resealed, done.unreadable) == (name.hex(), 2 * JOBS, 0)
        assert await _codes(queue) == []
        await check(queue)
    assert _key_files(state) == []
    async with open_queue(state, credentials=credentials) as queue:
        await check(queue)


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_changed_credential_opens_what_the_one_before_has_sealed(
    state: Path, credentials: Path, elsewhere: bool
) -> None:
    """The one before is handed over as vault.key.old, or lies in the state directory."""
    _hand_over(credentials, 1)
    async with open_queue(state, credentials=credentials) as queue:
        await _fill(queue)
    if elsewhere:
        (state / KEY_FILE).write_text((b"\x01" * KEY_BYTES).hex())
        (state / KEY_FILE).chmod(0o600)
    else:
        _hand_over(credentials, 1, "vault.key.old")
    name = _hand_over(credentials, 2)
    async with open_queue(state, credentials=credentials) as queue:
        await check(queue)
        assert (await queue.keys.rotate()).key == name.hex()
    (credentials / "vault.key.old").unlink(missing_ok=True)
    assert _key_files(state) == []
    async with open_queue(state, credentials=credentials) as queue:
        await check(queue)
        assert await _codes(queue) == []


async def test_markers_alone_are_worth_a_rotation(state: Path, credentials: Path) -> None:
    """Jobs without secrets are recognised after the old credential is gone, too."""
    plain = spec(job_id=str(wishes()[0].id))
    _hand_over(credentials, 1)
    async with open_queue(state, credentials=credentials) as queue:
        await queue.jobs.create(ALICE, [plain], NOW, quota=_QUOTA)
    _hand_over(credentials, 1, "vault.key.old")
    _hand_over(credentials, 2)
    async with open_queue(state, credentials=credentials) as queue:
        await queue.keys.rotate()
    (credentials / "vault.key.old").unlink()
    async with open_queue(state, credentials=credentials) as queue:
        (again,) = await queue.jobs.create(ALICE, [plain], NOW, quota=_QUOTA)
        assert not again.new


async def test_a_credential_is_not_ours_to_change(state: Path, credentials: Path) -> None:
    """Whoever asks is told the commands that do."""
    _hand_over(credentials, 1)
    async with open_queue(state, credentials=credentials) as queue:
        await _fill(queue)
        with pytest.raises(Conflict) as refused:
            await queue.keys.rotate()
        assert refused.value.code == "key_not_ours"
        assert refused.value.detail.count("systemd-creds encrypt --name=vault.key") == 2
        assert "--name=vault.key.old" in refused.value.detail
        await check(queue)
        _hand_over(credentials, 1, "vault.key.old")
        _hand_over(credentials, 2)
        assert (await queue.keys.rotate()).resealed == 2 * JOBS, "it was handed over under way"
        await check(queue)


@pytest.mark.parametrize("mode", [None, 0o444], ids=["gone", "exposed"])
async def test_a_credential_that_is_gone_or_exposed_costs_nothing_but_its_secrets(
    state: Path, credentials: Path, mode: int | None
) -> None:
    """A unit that was edited must not stop the service; what is sealed waits for the key."""
    _hand_over(credentials, 1)
    async with open_queue(state, credentials=credentials) as queue:
        await _fill(queue)
    if mode is None:
        (credentials / "vault.key").unlink()
    else:
        (credentials / "vault.key").chmod(mode)
    async with open_queue(state, credentials=credentials) as queue:
        found = await queue.keys.findings()
        assert found[0].severity is Severity.ERROR
        assert found[0].code == ("key_missing" if mode is None else "key_exposed")
        if mode is not None:
            await check(queue)
    _hand_over(credentials, 1)
    async with open_queue(state, credentials=credentials) as queue:
        await check(queue)
