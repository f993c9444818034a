"""How a flow takes more: pure functions of where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transferd.model.units import Seconds

#: The time from one step to the next.
INTERVAL: Seconds = 0.05

#: What a window does shows after two base delays, as long as those of paths over satellites; a base
#: that was measured over a queue is not to make that longer.
_LONGEST: Seconds = 1.6

#: The growth in such a time while nothing is known of the line: double, or less when bytes come in
#: bunches, as they do before the line is full; and when it has seemed full once.
_GAIN_AT_FIRST = 1.0
_GAIN_WHEN_WARNED = 1 / 2
#: The largest growth while it looks for the target; among rivals, until they seem to have gone.
_GAIN = 1 / 8
_GAIN_AMONG_RIVALS = 1 / 16
#: Their growth in a round after that.
_GAIN_AFTER_RIVALS = 1 / 4
#: From such a part of the window that filled the line on the target is near.
_NEAR = 0.97

#: The part of that window to which a flow doubles again, and below which it does.
_RISE, _RISE_AMONG_RIVALS = 0.9, 0.75
_FAR, _FAR_OF_SEVERAL = 0.7, 0.5
#: Below such a part of its goal it doubles with each step: what it is allowed at once is little.
_LOW = 1 / 8
#: So often at most from one look to the next.
_DOUBLINGS = 2.0

#: A window that is so many times what comes in a round does not grow: it is not the limit.
_UNUSED, _UNUSED_AT_FIRST = 1.25, 4.0

#: Each doubling of the rate lowers the target by this part: short requests of others pay for the
#: queue that stands with each of their rounds, and on a fast line a short one is seen as well.
_HASTE = 0.5
#: Of several flows of one machine the slower grows and the faster shrinks at the same queue (the
#: idea of Swift's flow scaling, SIGCOMM 2020): one in which that shows is longer.
_HASTE_OF_SEVERAL = 0.1
_SLOW_RATE = 62_500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where a flow stands that may take more."""

    #: In bytes.
    window: float
    #: Time since it last grew.
    past: Seconds
    base: Seconds
    queue: Seconds
    #: The queue that it looks for.
    target: Seconds
    #: Background flows of this machine.
    flows: int
    #: The window that filled the line, as far as that was ever seen; 0: it was not.
    known: float
    #: Somebody else uses the line, or did a moment ago.
    rivals: bool
    #: There has been no queue for a while.
    calm: bool
    #: How many times what comes in a round the window is.
    unused: float
    #: Segments were lost of late: what comes in bunches that long does not fit into the buffer.
    lossy: bool

    @property
    def goal(self) -> float:
        """The window to which it doubles again; 0: nothing is known of one."""
        if self.lossy:
            return _LOW * self.known
        return (_RISE_AMONG_RIVALS if self.rivals else _RISE) * self.known

    @property
    def far(self) -> bool:
        """Whether it may do so now."""
        part = _FAR if self.flows == 1 else _FAR_OF_SEVERAL
        return self.calm and self.window < part * self.goal

    @property
    def near(self) -> bool:
        """Whether it has about the whole line, as far as that was ever seen."""
        return self.window >= _NEAR * self.known


def period(base: Seconds) -> Seconds:
    """Return the time in which a change of the window shows."""
    return min(max(INTERVAL, 2 * base), _LONGEST)


def sought(target: Seconds, rate: float, flows: int) -> Seconds:
    """Return the queue that a flow looks for: lower for a fast one."""
    doublings = math.log2(max(rate / _SLOW_RATE, 1.0))
    return target / (1 + (_HASTE if flows == 1 else _HASTE_OF_SEVERAL) * doublings)


def back(window: float) -> float:
    """Return what a flow doubles to after a slow-down from *window*."""
    return _RISE * window


def started(course: Course, *, warned: bool) -> float:
    """Return the next window of a flow that has never seen a queue, or only a doubtful one."""
    if course.unused >= _UNUSED_AT_FIRST:
        return course.window
    gain = _GAIN_WHEN_WARNED if warned and course.flows == 1 else _GAIN_AT_FIRST
    return _grown(course, gain, period(course.base))


def risen(course: Course, goal: float) -> float:
    """Return the next window of a flow that doubles to a goal that was good before.

    One of several goes beyond it by what remains of a step.
    """
    if course.flows > 1:
        return _grown(course, 1.0, max(INTERVAL, course.base))
    if course.window < _LOW * goal:
        grown = _grown(course, 1.0, INTERVAL, _DOUBLINGS)
    else:
        grown = _grown(course, 1.0, max(INTERVAL, course.base))
    return max(course.window, min(grown, goal))


def crept(course: Course) -> float:
    """Return the next window of a flow that looks for the target: the nearer, the less it grows."""
    if course.flows == 1 and course.unused >= _UNUSED:
        return course.window
    gain, tempo, most = _GAIN, period(course.base), math.inf
    if course.calm and (course.rivals or course.lossy):
        gain, tempo = _GAIN_AFTER_RIVALS, max(INTERVAL, course.base)
    elif course.rivals:
        gain = _GAIN_AMONG_RIVALS
    if course.flows == 1 and course.near:
        gain = min(gain, course.target / (course.base + course.target))
    elif course.flows == 1:
        most = _NEAR * course.known
    distance = max(0.0, 1 - course.queue / course.target)
    return min(_grown(course, gain * distance, tempo), most)


def _grown(course: Course, gain: float, tempo: Seconds, times: float = 1.0) -> float:
    part = min(course.past / tempo, times)
    return course.window * float((1 + gain / course.flows) ** part)
