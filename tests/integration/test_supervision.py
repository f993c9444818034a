"""Workers that hang, at their start, in their life or at their end; and owners who try again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

import pytest

from tests.support.hostile import Gang, eventually, rude, script
from tests.support.service import ScriptedWorker
from transferd.model.errors import OwnerRefused
from transferd.model.job import Seconds
from transferd.service import startup
from transferd.service.clock import SystemClock
from transferd.service.figures import Figures
from transferd.service.workers import (
    Launch,
    Patience,
    Process,
    WorkerGone,
    WorkerRefused,
    Workers,
)
from transferd.wire import chores, codec, link

OWNER, OTHER = 70001, 70002
SETTINGS = link.WorkerSettings(user_agent="test")
#: Waits that a test does not notice.
SHORT = Patience(grace=0.1, closing_grace=0.05, death=0.1)
HONEST = script("")

Open: TypeAlias = Callable[..., Coroutine[Any, Any, Workers]]


class Stepping(SystemClock):
    """A clock that a test sets ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: Seconds = 0.0

    def steady(self) -> Seconds:
        """Some time ahead of the real one."""
        return super().steady() + self.ahead


@pytest.fixture
async def gang() -> AsyncIterator[Gang]:
    """Programs for workers; everybody's is an honest one unless a test says otherwise."""
    running = Gang({OWNER: HONEST, OTHER: HONEST})
    yield running
    await running.end()


@contextlib.asynccontextmanager
async def supervised(
    launch: Launch, patience: Patience = SHORT, clock: SystemClock | None = None
) -> AsyncIterator[Workers]:
    """All workers, and their end."""
    workers = Workers(launch, SETTINGS, 60.0, clock or SystemClock(), Figures(), patience)
    try:
        yield workers
    finally:
        async with asyncio.timeout(20):
            await workers.close()


async def ask(workers: Workers, owner: int = OWNER) -> chores.Inspected:
    """Ask a worker whether nothing can be written."""
    return await workers.ask(owner, lambda number: chores.Inspect(number, ()), chores.Inspected)


# ── hangs ──────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_whose_loop_does_not_turn_is_cut_off(
    gang: Gang, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked for a sign of life, and gives none."""
    gang.programs[OWNER] = script("hear('ping'); hear('ping')")
    async with supervised(gang.launch, Patience(silence=0.05)) as workers:
        await ask(workers)
        assert await gang.ended(OWNER) == -9
    assert "no sign of life" in _reasons(caplog)[0]


async def test_a_worker_that_gives_signs_of_life_is_left_alone(gang: Gang) -> None:
    """An idle worker has nothing to say but that it is there."""
    async with supervised(gang.launch, Patience(silence=0.01, grace=0.1)) as workers:
        await ask(workers)
        (worker,) = workers._workers.values()
        for _ in range(3):
            turns = worker.turns
            await eventually(lambda: worker.turns > turns)  # noqa: B023
        assert workers.pids == {OWNER: gang.processes[OWNER][0].pid}


async def test_a_worker_that_reads_nothing_is_cut_off(
    gang: Gang, caplog: pytest.LogCaptureFixture
) -> None:
    """What it is to be told fills the link, and nobody waits for ever."""
    gang.programs[OWNER] = script("time.sleep(1000)")
    paths = tuple(f"/{number:04}{'x' * 4000}" for number in range(500))
    async with supervised(gang.launch, Patience(read=0.1, grace=0.1)) as workers:
        with pytest.raises(WorkerGone, match="reads nothing"):
            await workers.ask(OWNER, lambda n: chores.Inspect(n, paths), chores.Inspected)
        assert await gang.ended(OWNER) == -9
    assert "read nothing" in _reasons(caplog)[0]


async def test_questions_wait_as_questions_not_as_bytes(gang: Gang) -> None:
    """However many are asked of a worker that reads nothing, one of them is in the link."""
    gang.programs[OWNER] = script("time.sleep(1000)")
    paths = tuple(f"/{number:04}{'x' * 4000}" for number in range(500))
    async with supervised(gang.launch, Patience(grace=0.1)) as workers:
        worker = await workers.hold(OWNER, 1)
        asked = [
            asyncio.create_task(
                workers.ask(OWNER, lambda n: chores.Inspect(n, paths), chores.Inspected)
            )
            for _ in range(20)
        ]
        for _ in range(50):
            await asyncio.sleep(0)
        assert worker.channel._writer.transport.get_write_buffer_size() < 3_000_000
        worker.cut_off("the test is over")
        await asyncio.wait(asked)
        assert all(isinstance(task.exception(), WorkerGone) for task in asked)


async def test_a_question_that_nobody_waits_for_while_it_is_sent_is_still_one(gang: Gang) -> None:
    """Some of it is in the link, so that the worker reads and answers it, and is no liar."""
    gang.programs[OWNER] = script(
        """
        signal.sigwait([signal.SIGUSR1])
        for _ in range(2):
            say("inspected", request=hear("inspect")["request"])
        """
    ).replace("hello()\n", "signal.pthread_sigmask(0, [signal.SIGUSR1])\nhello()\n", 1)
    paths = tuple(f"/{number:04}{'x' * 4000}" for number in range(500))
    async with supervised(gang.launch) as workers:
        worker = await workers.hold(OWNER, 1)
        asking = asyncio.create_task(
            workers.ask(OWNER, lambda n: chores.Inspect(n, paths), chores.Inspected)
        )
        await eventually(lambda: worker.channel.behind)
        asking.cancel()
        await asyncio.wait([asking])
        gang.processes[OWNER][0].send_signal(signal.SIGUSR1)
        await ask(workers)
        assert worker.fault is None


async def test_an_answer_that_comes_late_is_no_lie(gang: Gang) -> None:
    """Whoever asked may have left meanwhile; the worker has done nothing wrong."""
    gang.programs[OWNER] = script(
        """
        first = hear("inspect")["request"]
        second = hear("inspect")["request"]
        say("inspected", request=first)
        say("inspected", request=second)
        """
    )
    async with supervised(gang.launch) as workers:
        await workers.hold(OWNER, 1)
        leaving = asyncio.create_task(ask(workers))
        staying = asyncio.create_task(ask(workers))
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
        assert gang.starts(OWNER) == 1
        assert OWNER in workers.pids


# ── half-dead starts ───────────────────────────────────────────────────────────────────────


async def test_what_a_worker_complains_of_is_why_it_did_not_start(
    gang: Gang, caplog: pytest.LogCaptureFixture
) -> None:
    """An interpreter that cannot begin writes text where Hello should be."""
    gang.programs[OWNER] = rude(
        r"""
        print("first\x1b[2J line\r\n" * 50, "cannot \x07 begin", file=sys.stderr, end="")
        raise SystemExit(3)
        """
    )
    async with supervised(gang.launch) as workers:
        with pytest.raises(WorkerGone, match=r"cannot . begin") as caught:
            await ask(workers)
    assert len(str(caught.value)) < 1500
    (reason,) = _reasons(caplog)
    assert reason.isprintable()
    assert "cannot \N{REPLACEMENT CHARACTER} begin" in reason


async def test_a_worker_that_starts_with_a_warning_starts_all_the_same(
    gang: Gang, caplog: pytest.LogCaptureFixture
) -> None:
    """What it wrote before its first word is in the log."""
    gang.programs[OWNER] = rude("print('a warning', file=sys.stderr)\nhello()\nforever()")
    async with supervised(gang.launch) as workers:
        await ask(workers)
    (line,) = (record for record in caplog.records if record.message == "worker.complained")
    assert getattr(line, "fields")["detail"] == "a warning"  # noqa: B009


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("time.sleep(1000)", "did not say Hello within"),
        ("print('hm', file=sys.stderr); time.sleep(1000)", "it wrote: hm"),
        ("say('pong', request=1); time.sleep(1000)", "something else than Hello"),
        ("while True: raw(b'chatter chatter chatter' + bytes([10]))", "bytes before it said Hello"),
        ("raw(b'x' * 2_000_000)", "longer than"),
    ],
)
async def test_a_worker_that_never_says_hello_is_ended(
    gang: Gang, program: str, reason: str
) -> None:
    """Its owner hears why, and nobody waits for it."""
    gang.programs[OWNER] = rude(program)
    async with supervised(gang.launch, Patience(hello=0.7, death=0.1)) as workers:
        with pytest.raises(WorkerGone, match=reason):
            await ask(workers)
        assert await gang.ended(OWNER) != 0


async def test_a_refused_owner_is_told_so(gang: Gang) -> None:
    """That is no accident of a worker's: nothing is tried again by itself."""

    async def launch(owner: int, end: socket.socket) -> Process:
        raise OwnerRefused("no jobs of root here")

    async with supervised(launch) as workers:
        with pytest.raises(WorkerRefused, match="no jobs of root"):
            await ask(workers)
        assert workers.barred_until(OWNER) is None


async def test_a_fault_of_the_launcher_is_a_worker_that_did_not_start() -> None:
    """Whatever it raises, the daemon goes on."""

    async def launch(owner: int, end: socket.socket) -> Process:
        raise ZeroDivisionError

    async with supervised(launch) as workers:
        with pytest.raises(WorkerGone, match="cannot start"):
            await ask(workers)


# ── many owners, many starts ───────────────────────────────────────────────────────────────


async def test_a_slow_start_delays_nobody_else(gang: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user database may hang for one owner; even those who wait behind many such get through."""
    monkeypatch.setattr(startup, "_TURN", 0.01)
    hangs = asyncio.Event()
    begun: list[int] = []

    async def launch(owner: int, end: socket.socket) -> Process:
        begun.append(owner)
        if owner != OTHER:
            await hangs.wait()
        return await gang.launch(owner, end)

    async with supervised(launch) as workers:
        slow = [asyncio.create_task(ask(workers, owner)) for owner in range(80_000, 80_030)]
        await eventually(lambda: len(begun) == startup._AT_ONCE)
        async with asyncio.timeout(20):
            await ask(workers, OTHER)
        assert not any(task.done() for task in slow)
        await workers.close()
        await asyncio.wait(slow)
        assert all(isinstance(task.exception(), WorkerGone) for task in slow)


async def test_not_everybody_starts_at_once(gang: Gang) -> None:
    """A hundred interpreters at once would all be too late."""
    starting = most = 0

    async def launch(owner: int, end: socket.socket) -> Process:
        nonlocal starting, most
        starting += 1
        most = max(most, starting)
        for _ in range(5):
            await asyncio.sleep(0)
        starting -= 1
        raise OSError("that is enough")

    async with supervised(launch) as workers:
        asked = [asyncio.create_task(ask(workers, owner)) for owner in range(80_000, 80_100)]
        await asyncio.wait(asked)
        assert most == startup._AT_ONCE
        assert all(isinstance(task.exception(), WorkerGone) for task in asked)


async def test_a_worker_that_is_just_starting_behaves_as_configured_meanwhile() -> None:
    """It was to be told the former settings, and nobody would tell it others."""
    gate, started = asyncio.Event(), list[ScriptedWorker]()

    async def launch(owner: int, end: socket.socket) -> Process:
        worker = ScriptedWorker(end.dup())
        started.append(worker)

        async def serve() -> None:
            await gate.wait()
            await worker.serve()

        worker.task = asyncio.create_task(serve())
        return worker

    async with supervised(launch) as workers:
        asking = asyncio.create_task(ask(workers))
        await eventually(lambda: bool(started))
        for _ in range(10):
            await asyncio.sleep(0)
        workers.configure(link.WorkerSettings(user_agent="another"), 60.0)
        gate.set()
        await asking
        (worker,) = started
        told = [heard for heard in worker.heard if isinstance(heard, link.Configure)]
        assert told[-1].settings.user_agent == "another"


async def test_renewed_workers_end_when_they_are_done_and_new_ones_take_over(gang: Gang) -> None:
    """A worker keeps the variables that it was started with, and the user it was allowed to be."""
    async with supervised(gang.launch) as workers:
        before = await workers.hold(OWNER, 1)
        await ask(workers, OTHER)
        workers.renew()
        assert await gang.ended(OTHER) == 0
        after = await workers.hold(OWNER, 2)
        assert after.process.pid != before.process.pid
        assert gang.processes[OWNER][0].returncode is None
        workers.release(before, 1)
        assert await gang.ended(OWNER) == 0
        assert workers.pids == {OWNER: after.process.pid}


async def test_a_worker_that_is_started_while_all_are_renewed_is_so_too(gang: Gang) -> None:
    """It was started as it should not be any more."""
    gates = [asyncio.Event(), asyncio.Event()]
    calls = iter(gates)
    entered = asyncio.Event()

    async def launch(owner: int, end: socket.socket) -> Process:
        entered.set()
        await next(calls).wait()
        return await gang.launch(owner, end)

    async with supervised(launch) as workers:
        holding = asyncio.create_task(workers.hold(OWNER, 1))
        await entered.wait()
        workers.renew()
        for gate in gates:
            gate.set()
        worker = await holding
        assert gang.starts(OWNER) == 2
        assert worker.process.pid == gang.processes[OWNER][1].pid


async def test_a_configuration_that_keeps_changing_starts_no_worker_after_the_other(
    gang: Gang,
) -> None:
    """Whoever needs one is told so, and may try again."""

    async def launch(owner: int, end: socket.socket) -> Process:
        workers.renew()
        return await gang.launch(owner, end)

    async with supervised(launch) as workers:
        with pytest.raises(WorkerGone, match="keeps changing"):
            await ask(workers)
        assert gang.starts(OWNER) == 3


async def test_whoever_asks_at_once_shares_a_start(gang: Gang) -> None:
    """One worker for an owner; whoever stops waiting does not end it for the others."""
    async with supervised(gang.launch) as workers:
        asked = [asyncio.create_task(ask(workers)) for _ in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()
        await asyncio.gather(*asked[1:])
        assert gang.starts(OWNER) == 1


async def test_a_worker_that_dies_at_each_start_is_not_started_without_an_end(gang: Gang) -> None:
    """Whoever asks again and again hears when it is worth while; the waits double."""
    gang.programs[OWNER] = rude("hello(); raise SystemExit(0)")
    clock, waits = Stepping(), []
    async with supervised(gang.launch, clock=clock) as workers:
        for _ in range(10):
            # The first question of each round starts a worker, unless it is too early.
            for _ in range(20):
                with pytest.raises(WorkerGone):
                    await ask(workers)
            until = workers.barred_until(OWNER)
            assert until is not None
            waits.append(round(until - clock.steady()))
            clock.ahead += until - clock.steady()
        with pytest.raises(WorkerGone):
            await ask(workers)
        with pytest.raises(WorkerGone, match=r"in a row, .* the next one may start in 60 s"):
            await ask(workers)
        await ask(workers, OTHER)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert gang.starts(OWNER) == 12


# ── ends that do not come ──────────────────────────────────────────────────────────────────


class Undead:
    """A process in an uninterruptible wait: it takes no notice of SIGKILL. Fits Process."""

    def __init__(self, end: socket.socket) -> None:
        self.pid = 1
        self.kills = 0
        self.gone: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._end = end.dup()
        self._end.sendall(codec.encode(link.Hello(self.pid)))

    def kill(self) -> None:
        """Nothing happens."""
        self.kills += 1

    def terminate(self) -> None:
        """Nothing happens."""

    async def wait(self) -> int:
        """Wait, most likely for ever."""
        return await asyncio.shield(self.gone)

    def leave(self) -> None:
        """Be gone in the end."""
        self._end.close()
        self.gone.set_result(-9)


async def test_a_process_that_does_not_die_holds_up_nobody() -> None:
    """Its owner gets another worker at once, but not one after the other without an end."""
    undead: list[Undead] = []

    async def launch(owner: int, end: socket.socket) -> Process:
        undead.append(Undead(end))
        return undead[-1]

    clock = Stepping()
    async with supervised(launch, Patience(death=0.01, close=0.1), clock) as workers:
        for number in range(3):
            worker = await workers.hold(OWNER, number)
            worker.cut_off("the test says so")
            assert OWNER not in workers.pids
            clock.ahead += 100
            await eventually(lambda: workers._burials.undead(OWNER) > number)  # noqa: B023
        with pytest.raises(WorkerGone, match="wait in the kernel"):
            await workers.hold(OWNER, 4)
        undead[0].leave()
        await eventually(lambda: workers._burials.undead(OWNER) < 3)
        await workers.hold(OWNER, 5)
        assert len(undead) == 4
        assert [process.kills for process in undead[:3]] == [1, 1, 1]
    for process in undead[1:]:
        process.leave()


async def test_the_end_is_bounded_with_two_hundred_workers() -> None:
    """Most of them hang: the daemon leaves all the same."""
    undead: list[Undead] = []

    async def launch(owner: int, end: socket.socket) -> Process:
        undead.append(Undead(end))
        return undead[-1]

    patience = Patience(closing_grace=0.01, death=0.01, close=0.1)
    async with supervised(launch, patience) as workers:
        for owner in range(80_000, 80_200):
            await workers.hold(owner, owner)
        async with asyncio.timeout(20):
            await workers.close()
        assert len(workers) == 0
        assert all(process.kills for process in undead)
    for process in undead:
        process.leave()


def _reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record for record in caplog.records if record.message == "worker.cut_off"]
    return [getattr(line, "fields")["reason"] for line in lines]  # noqa: B009
