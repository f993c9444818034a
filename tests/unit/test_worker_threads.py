"""A worker gets by with the threads that its owner may have."""

from __future__ import annotations

import os
import threading

import pytest

from transferd.worker.threads import Threads, stand_back


def refuse(_: threading.Thread) -> None:
    """What threads do where the kernel has no more of them."""
    raise RuntimeError("can't start new thread")


def test_work_waits_for_a_thread_where_there_are_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one does it all, one after the other, and no result is lost."""
    with Threads(8, "test") as threads:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        done = [threads.submit(threading.get_ident) for _ in range(20)]
        assert len({future.result(10) for future in done}) == 1


def test_threads_are_made_as_they_are_needed() -> None:
    """Work that waits for other work does not stop it."""
    met = threading.Barrier(4)
    with Threads(8, "test") as threads:
        done = [threads.submit(met.wait, 10) for _ in range(4)]
        assert sorted(future.result(10) for future in done) == [0, 1, 2, 3]


def test_a_worker_without_any_thread_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could touch no file."""
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Threads(8, "test")


def test_threads_that_stand_back_leave_the_processors_to_others() -> None:
    """Bodies at full speed keep no answer waiting; whoever started the threads is as before."""
    here = os.getpriority(os.PRIO_PROCESS, 0)
    with Threads(1, "test", stand_back) as threads:
        there = threads.submit(os.getpriority, os.PRIO_PROCESS, 0).result()
    assert there == min(here + 10, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == here
