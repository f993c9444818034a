"""One body whose pace changes while a thread moves it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from transferd.model.job import Priority
from transferd.worker.caps import Caps, RunCaps
from transferd.worker.handler import Handler
from transferd.worker.manners import Conduct
from transferd.worker.pace import Pace, Unpaced


@dataclass
class Steering(Unpaced):
    """A pace that takes its time to steer after a read, and notes when it is done."""

    said: list[str]
    begun: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def took(self, now: float, count: int) -> None:
        """See Pace.took."""
        self.begun.set()
        assert self.go_on.wait(10)
        self.said.append("window steered")

    def close(self) -> None:
        """See Pace.close."""
        self.said.append("closed")


def test_a_pace_that_is_left_steers_nothing_after_its_successor_has_begun() -> None:
    """A window that is opened for a job that comes to the front stays open."""
    said: list[str] = []
    before = Steering(said)
    run = RunCaps(Caps(), Priority.LOW, None)
    conduct = Conduct(None, before, run.body(), set())

    def open_window(_: Handler | None) -> Pace:
        said.append("window opened")
        return Unpaced()

    reading = threading.Thread(target=conduct.took, args=(0.0, 1))
    reading.start()
    assert before.begun.wait(10)
    changing = threading.Thread(target=conduct.change, args=(open_window,))
    changing.start()
    changing.join(0.05)  # long enough for whoever does not wait
    before.go_on.set()
    reading.join()
    changing.join()
    conduct.close()
    assert said == ["window steered", "closed", "window opened"]
