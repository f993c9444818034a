"""Which bytes of a file are there, and which are missing: arithmetic of ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transferd.model.job import File, Part, Seconds, covered


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Bytes of a file that are there: *offset* at the beginning, and *parts* as in File.parts."""

    offset: int = 0
    parts: tuple[Part, ...] = ()

    @property
    def size(self) -> int:
        """How many bytes are there."""
        return covered(self.offset, self.parts)

    @property
    def end(self) -> int:
        """Behind the last byte that is there."""
        return self.parts[-1].end if self.parts else self.offset

    def gap(self, total: int) -> Part | None:
        """Return the first bytes that are missing of a file of *total* bytes."""
        end = self.parts[0].start if self.parts else total
        return Part(start=self.offset, end=end) if self.offset < end else None

    def limited(self, most: int) -> Coverage:
        """Return what is there without the parts behind the first *most* ones."""
        return Coverage(offset=self.offset, parts=self.parts[:most])


#: Not a byte is there.
NOTHING = Coverage()


def coverage_of(file: File) -> Coverage:
    """Return what is on disk of a file, as the queue knows."""
    return Coverage(offset=file.bytes_transferred, parts=file.parts)


def cover(parts: Iterable[Part]) -> Coverage:
    """Put together what is there, given in any order, also what touches or overlaps."""
    joined: list[Part] = [Part(start=0, end=0)]
    for part in sorted(parts, key=lambda part: part.start):
        last = joined[-1]
        if part.start <= last.end:
            joined[-1] = Part(start=last.start, end=max(last.end, part.end))
        else:
            joined.append(part)
    first, *others = joined
    return Coverage(offset=first.end, parts=tuple(part for part in others if part.start < part.end))


@dataclass(frozen=True, slots=True, kw_only=True)
class Splitting:
    """When a file is fetched over one more connection."""

    #: How long the rate is measured, before and after.
    period: Seconds = 1.0
    #: Nobody begins with fewer bytes.
    smallest: int = 8 * 1024 * 1024
    #: What is left must take so long at the present rate.
    rest: Seconds = 3.0
    #: Each connection more must bring so much: else it is not connections that are missing.
    gain: float = 1.15

    def pays(self, left: int, rate: float) -> bool:
        """Whether *left* bytes, at *rate* bytes a second, are worth another connection."""
        return rate > 0 and left / rate >= self.rest

    def paid(self, before: float, after: float) -> bool:
        """Whether the last connection has made it faster, by the rates *before* and *after*."""
        return after >= before * self.gain


def halve(open_parts: Sequence[Part], smallest: int) -> tuple[int, int] | None:
    """Choose where somebody else could begin with the largest of the parts that are being fetched.

    Returns which of *open_parts* (what is still missing of each), and the offset in its middle;
    None where both halves would not have *smallest* bytes.
    """
    sizes = [part.end - part.start for part in open_parts]
    largest = max(range(len(sizes)), key=sizes.__getitem__, default=None)
    if largest is None or sizes[largest] < 2 * smallest:
        return None
    part = open_parts[largest]
    return largest, (part.start + part.end) // 2
