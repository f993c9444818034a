"""The life of credentials: set, replaced, removed, refused and mended.

A real daemon and real servers; what the daemon says is compared with what the servers saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import transferd
from tests.support.daemon import CONFIG
from tests.support.gate import WHO, Gate, Scene
from tests.support.kdc import Kdc
from tests.support.origin import Document, Fault, Origin, Version
from tests.support.owner import Machine, reach
from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER, Server
from tests.support.spots import (
    BASIC,
    BODY,
    NEGOTIATE,
    PATIENCE,
    SOME,
    SPOTS,
    Spot,
    Visitor,
    audits,
    visiting,
)
from tests.support.squid import Squid
from transferd import Job, JobFailed, JobState, NotFound, Scheme, Target

S = JobState


# ── in each state ──────────────────────────────────────────────────────────────────────────


async def _suspended(scene: Scene, held: str | None) -> Job:
    return await scene.make(held)


async def _queued(scene: Scene, held: str | None) -> Job:
    blocking = Document(version=Version(body=BODY))
    blocking.faults.append(Fault(stall=1000))
    scene.origin.pages["/blocking"] = blocking
    blocker = await scene.manager.create_job("blocker", priority="foreground", proxy="direct")
    scene.jobs.append(blocker)
    await scene.add(blocker, "/blocking")
    await blocker.resume()
    await blocking.stalled.wait()
    job = await scene.make(held)
    await job.resume()
    return job


async def _connecting(scene: Scene, held: str | None) -> Job:
    scene.gate.mute = True
    job = await scene.make(held)
    await job.resume()
    await scene.gate.heard.wait()
    await job.refresh()
    return job


async def _transferring(scene: Scene, held: str | None) -> Job:
    scene.gate.document.faults.append(Fault(stall=SOME))
    job = await scene.make(held)
    await job.resume()
    await reach(scene.machine, scene.manager, job, SOME)
    await job.refresh()
    return job


async def _transient_error(scene: Scene, held: str | None) -> Job:
    scene.gate.broken = True
    job = await scene.make(held)
    await job.resume()
    await scene.reach(job, S.TRANSIENT_ERROR)
    scene.gate.broken = False
    return job


async def _error(scene: Scene, held: str | None) -> Job:
    scene.gate.asks = True
    job = await scene.make(held, password="wrong")
    await job.resume()
    with pytest.raises(JobFailed):
        await job.wait(PATIENCE)
    return job


async def _transferred(scene: Scene, held: str | None) -> Job:
    job = await scene.make(held)
    await job.resume()
    await job.wait(PATIENCE)
    return job


REACHED: dict[JobState, Callable[[Scene, str | None], Awaitable[Job]]] = {
    S.SUSPENDED: _suspended,
    S.QUEUED: _queued,
    S.CONNECTING: _connecting,
    S.TRANSFERRING: _transferring,
    S.TRANSIENT_ERROR: _transient_error,
    S.ERROR: _error,
    S.TRANSFERRED: _transferred,
}
#: Who the job is before and after.
ACTS: dict[str, tuple[str | None, str | None]] = {
    "set": (None, "bob"),
    "replace": ("alice", "bob"),
    "remove": ("alice", None),
}


@pytest.fixture(scope="module")
def narrow(kdc: Kdc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A daemon that carries one job at a time."""
    directory = tmp_path_factory.mktemp("narrow")
    with Machine(directory, kdc) as machine:
        config = CONFIG.replace("[queue]", "[queue]\nforeground_slots = 1")
        (directory / "transferd.toml").write_text(config, encoding="utf-8")
        yield machine.start()


@pytest.fixture
async def scene(narrow: Machine, tmp_path: Path) -> AsyncIterator[Scene]:
    """A server, and a daemon with an empty queue."""
    gate = Gate(Document(version=Version(body=BODY)))
    async with Origin().running() as origin, transferd.connect(narrow.socket) as manager:
        origin.pages["/file"] = gate
        made = Scene(machine=narrow, manager=manager, origin=origin, gate=gate, directory=tmp_path)
        yield made
        for job in made.jobs:
            with contextlib.suppress(NotFound):
                await job.cancel()


def test_the_table_has_every_state() -> None:
    """BITS.md 1.3.2: credentials may change in all but the final ones."""
    assert set(REACHED) == {state for state in JobState if not state.final}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("state", REACHED, ids=lambda state: state.label)
async def test_a_change_is_seen_on_the_wire(scene: Scene, state: JobState, act: str) -> None:
    """BITS.md A1-A3, A7: the very next request is as the job is now; a run begins anew, at once."""
    held, left = ACTS[act]
    gate = scene.gate
    gate.asks = held is not None or state not in (S.TRANSFERRING, S.TRANSFERRED)
    job = await REACHED[state](scene, held)
    assert job.state is state
    gate.asks = True
    before = len(gate.came)
    if left is None:
        await job.remove_credentials(Target.SERVER, Scheme.BASIC)
    else:
        await job.set_credentials(Target.SERVER, Scheme.BASIC, left, WHO[left])
    await job.refresh()
    assert [each.username for each in job.answer.credentials] == ([left] if left else [])

    if not state.running:
        assert job.state is state
        assert len(gate.came) == before
    if state is S.QUEUED:
        await scene.jobs[0].cancel()
    elif not state.running:
        if state is S.TRANSFERRED:
            await scene.add(job, "/file")
        await job.resume()
    if left is None:
        with pytest.raises(JobFailed) as caught:
            await job.wait(PATIENCE)
        assert caught.value.error is not None
        assert caught.value.error.code == "http_401"
        assert gate.came[before:] == [None]
    else:
        await job.wait(PATIENCE)
        assert gate.came[before:] == [None, left]
    if state.running:
        older = {seen.connection for seen in gate.seen[:before]}
        assert older.isdisjoint(seen.connection for seen in gate.seen[before:])
    if state is S.TRANSFERRING:
        assert {seen.range_start for seen in gate.seen[before:]} == {SOME}


# ── scheme by scheme ───────────────────────────────────────────────────────────────────────


EACH = pytest.mark.parametrize("spot", SPOTS, ids=str)


@pytest.fixture
async def visitor(
    spot: Spot, machine: Machine, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Visitor]:
    """Somebody at the spot."""
    async with visiting(spot, machine, request, tmp_path) as made:
        yield made


@EACH
async def test_a_job_in_error_is_mended_from_the_command_line(visitor: Visitor, spot: Spot) -> None:
    """BITS.md A7, A22: refused, `credentials set`, `resume`; and both are on record."""
    job = await visitor.make(spot.user, "wrong")
    await job.resume()
    assert (await visitor.fail(job)).code == "http_401"
    await asyncio.to_thread(_mend, visitor, job)
    await visitor.finish(job)
    common = {
        "owner": str(os.getuid()),
        "host": "localhost",
        "target": "server",
        "scheme": str(spot.scheme),
        "mechanism": spot.mechanism,
    }
    records = visitor.audits(job)
    assert [what for what, _ in records] == ["rejected", "accepted"]
    for _, fields in records:
        assert fields == common


def _mend(visitor: Visitor, job: Job) -> None:
    """Do as a user would."""
    who = ("--auth", str(visitor.spot.scheme), "--user", visitor.spot.user, "--password-file", "-")
    answer = visitor.machine.json("credentials", "set", job.id, *who, stdin=PASSWORD + "\n")
    assert answer["state"] == "error"
    visitor.machine.json("resume", job.id)


@EACH
async def test_a_credential_is_replaced_in_mid_transfer(visitor: Visitor, spot: Spot) -> None:
    """Promise 6: the old connection is left first; the rest comes to who the job is now."""
    front = visitor.front
    front.hold = SOME
    job = await visitor.make(spot.user, PASSWORD)
    await job.resume()
    await reach(visitor.machine, visitor.manager, job, SOME)
    before, signed = len(front.visits), len(visitor.admitted())
    old = front.visits[-1].seen.connection
    await visitor.be(job, spot.other)
    await visitor.finish(job)
    assert job.answer.error_count == 0
    assert front.left == {old: before}
    later = front.visits[before:]
    assert {visit.seen.range_start for visit in later} == {SOME}
    assert later[-1].status == 206
    assert old not in {visit.seen.connection for visit in later}
    if visitor.passport is None:
        assert [spot.other in name for name in visitor.admitted(before)] == [True]
    else:
        assert len(visitor.admitted()) == signed + 1
    assert [what for what, _ in visitor.audits(job)] == ["accepted", "accepted"]


@EACH
async def test_a_credential_is_removed_in_mid_transfer(visitor: Visitor, spot: Spot) -> None:
    """The next request is nobody's and refused; what is there stays, and is gone on with."""
    front = visitor.front
    front.hold = SOME
    job = await visitor.make(spot.user, PASSWORD)
    await job.resume()
    await reach(visitor.machine, visitor.manager, job, SOME)
    before = len(front.visits)
    await job.remove_credentials(Target.SERVER, spot.scheme)
    assert (await visitor.fail(job)).code == "http_401"
    (refused,) = front.visits[before:]
    assert refused.seen.get("authorization") is refused.seen.get("cookie") is None
    assert list(front.left.values()) == [before]
    assert visitor.machine.durable(job) == SOME
    assert job.answer.error_count == 1
    (kept,) = visitor.directory.glob(".*.transferd-*")
    assert kept.read_bytes()[:SOME] == BODY[:SOME]

    await job.set_credentials(Target.SERVER, spot.scheme, spot.user, PASSWORD)
    await job.resume()
    await visitor.finish(job)
    assert {visit.seen.range_start for visit in front.visits[before:]} == {SOME}
    assert [what for what, _ in visitor.audits(job)] == ["accepted", "accepted"]


@pytest.mark.parametrize("spot", [NEGOTIATE], ids=str)
async def test_a_job_is_its_owner_or_somebody_else_as_it_is_told(
    visitor: Visitor, machine: Machine, kdc: Kdc
) -> None:
    """BITS.md A9: a password, the owner's own ticket, and a password again, in one job."""
    kdc.kinit(ODD_USER, password=ODD_PASSWORD, ccache=machine.ccache)
    try:
        job = await visitor.make(USER, PASSWORD)
        await job.resume()
        await job.wait(PATIENCE)
        for user, password in ((None, None), (USER, PASSWORD)):
            await job.set_credentials(Target.SERVER, Scheme.NEGOTIATE, user, password)
            await visitor.add(job)
            await job.resume()
            await job.wait(PATIENCE)
        await visitor.finish(job)
    finally:
        machine.ccache.unlink()
    names = [name.partition("@")[0] for name in visitor.admitted()]
    assert names == [USER, ODD_USER, USER]


#: What the server offers, strongest first.
LADDER = (Scheme.NEGOTIATE, Scheme.NTLM, Scheme.DIGEST, Scheme.BASIC)


@pytest.mark.parametrize("spot", [BASIC], ids=str)
async def test_schemes_are_removed_one_by_one(visitor: Visitor) -> None:
    """BITS.md A6: of what is offered and left the strongest is spoken; at last there is none."""
    job = await visitor.make(USER, PASSWORD)
    for scheme in LADDER[:-1]:
        await job.set_credentials(Target.SERVER, scheme, USER, PASSWORD)
    for scheme in LADDER:
        before = len(visitor.front.visits)
        await job.resume()
        await job.wait(PATIENCE)
        spoken = {visit.seen.get("authorization") for visit in visitor.front.visits[before:]}
        names = {value.partition(" ")[0].lower() for value in spoken if value is not None}
        assert names == {str(scheme)}
        await job.remove_credentials(Target.SERVER, scheme)
        await visitor.add(job)
    await job.resume()
    assert (await visitor.fail(job)).code == "http_401"
    accepted = [fields["scheme"] for what, fields in visitor.audits(job) if what == "accepted"]
    assert accepted == [str(scheme) for scheme in LADDER]


@pytest.mark.parametrize("scheme", [Scheme.BASIC, Scheme.DIGEST, Scheme.NTLM, Scheme.NEGOTIATE])
async def test_a_job_that_a_proxy_refused_is_mended(
    machine: Machine, squid: Squid, nginx: Server, tmp_path: Path, scheme: Scheme
) -> None:
    """BITS.md A7: http_407, `credentials set --target proxy`, `resume`; both are on record."""
    url, proxy = nginx.url(nginx.put(BODY)), squid.url(str(scheme))
    async with transferd.connect(machine.socket) as manager:
        job = await manager.create_job("proxied", priority="foreground", proxy=proxy)
        await job.add_file(url, tmp_path / "file")
        await job.set_credentials(Target.PROXY, scheme, USER, "wrong")
        await job.resume()
        with pytest.raises(JobFailed) as caught:
            await job.wait(PATIENCE)
        assert caught.value.error is not None
        assert caught.value.error.code == "http_407"
        who = ("--target", "proxy", "--auth", str(scheme), "--user", USER, "--password-file", "-")
        await asyncio.to_thread(
            machine.json, "credentials", "set", job.id, *who, stdin=PASSWORD + "\n"
        )
        await job.resume()
        await job.wait(PATIENCE)
        await job.complete()
    assert (tmp_path / "file").read_bytes() == BODY
    records = audits(machine.logged(), job.id)
    assert [what for what, _ in records] == ["rejected", "accepted"]
    assert {(f["target"], f["scheme"], f["host"]) for _, f in records} == {
        ("proxy", str(scheme), "localhost")
    }
