"""Steps in threads: what becomes of those that are late, cancelled, or fail."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from transferd.auth.flow import AuthRejected, CannotStart
from transferd.worker.security import Steps, open_security_threads


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """The threads of a worker."""
    made = open_security_threads()
    yield made
    made.shutdown(wait=True)


class Step:
    """A step that waits until it is told to end."""

    def __init__(self, outcome: Callable[[], str] = lambda: "done") -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()
        self.abandoned: list[Future[Any]] = []
        self._outcome = outcome

    def __call__(self) -> str:
        """Wait, and do what it is to do."""
        self.begun.set()
        assert self.go.wait(30)
        return self._outcome()

    def abandon(self, future: Future[Any]) -> None:
        """Take note."""
        self.abandoned.append(future)
        future.add_done_callback(lambda _: self.ended.set())

    async def over(self) -> None:
        """Let it end."""
        self.go.set()
        assert await asyncio.to_thread(self.ended.wait, 30)


def fail() -> str:
    """End badly."""
    raise AuthRejected("no")


def never(_: Future[Any]) -> None:
    """Take note of what must not happen."""
    raise AssertionError("nothing was to be abandoned")


async def test_a_step_returns_or_raises_as_it_does_here(threads: ThreadPoolExecutor) -> None:
    """In another thread, one after the other."""
    steps = Steps(threads, 30)
    assert await steps.take(threading.get_ident, never) != threading.get_ident()
    with pytest.raises(AuthRejected, match="no"):
        await steps.take(fail, never)
    assert await steps.take(lambda: 7, never) == 7


async def test_the_loop_goes_on_meanwhile(threads: ThreadPoolExecutor) -> None:
    """A step holds up its own run alone."""
    step = Step()
    taking = asyncio.create_task(Steps(threads, 30).take(step, never))
    assert await asyncio.to_thread(step.begun.wait, 30)
    assert await Steps(threads, 30).take(lambda: 7, never) == 7
    assert not taking.done()
    step.go.set()
    assert await taking == "done"


@pytest.mark.parametrize("outcome", [lambda: "too late", fail])
async def test_a_late_step_is_left_behind(
    threads: ThreadPoolExecutor, outcome: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    """kdc_unreachable; whatever it comes to is thrown away, and nobody complains of that."""
    steps, step = Steps(threads, 0.02), Step(outcome)
    with pytest.raises(CannotStart, match=r"did not answer within 0\.02 s") as caught:
        await steps.take(step, step.abandon)
    assert caught.value.code == "kdc_unreachable"
    with pytest.raises(CannotStart, match="still does not answer"):
        await steps.take(lambda: 7, never)
    assert len(step.abandoned) == 1
    await step.over()
    assert await steps.take(lambda: 7, never) == 7
    del caught, step
    gc.collect()
    assert caplog.records == []


async def test_a_cancelled_caller_leaves_at_once(
    threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """And what the step comes to is thrown away as well."""
    steps, step = Steps(threads, 30), Step(fail)
    taking = asyncio.create_task(steps.take(step, step.abandon))
    assert await asyncio.to_thread(step.begun.wait, 30)
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert not step.ended.is_set()
    await step.over()
    del taking
    gc.collect()
    assert caplog.records == []


async def test_a_step_that_never_began_is_over() -> None:
    """Where all threads are busy it waits for one, and not for ever; then nothing holds it."""
    with ThreadPoolExecutor(1) as threads:
        busy, late = Step(), Step()
        blocking = asyncio.create_task(Steps(threads, 30).take(busy, never))
        assert await asyncio.to_thread(busy.begun.wait, 30)
        steps = Steps(threads, 0.02)
        with pytest.raises(CannotStart):
            await steps.take(late, late.abandon)
        assert late.ended.is_set()
        assert not late.begun.is_set()
        busy.go.set()
        await blocking
        assert await Steps(threads, 30).take(lambda: 7, never) == 7
