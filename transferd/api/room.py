"""How connections, and the bytes of requests, are shared out between callers: pure counting.

One rule for every uid, whether this daemon works for it or not: nobody holds more than he leaves
free. The first gets a half of all, a second one a half of the rest; however many one takes,
somebody who comes later finds room, and no share lies idle for somebody who never comes.
"""

from __future__ import annotations

from collections import Counter

from transferd.model.errors import Unavailable

#: One in so many connections is for operators alone.
_RESERVE = 16
#: So many bytes of each body are nobody's concern: small requests are never refused.
FREE_BYTES = 16 * 1024
#: So many of the largest bodies are in memory at once, over all callers.
_BODIES = 4


class Room:
    """Who may have another connection."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._open = most - max(1, most // _RESERVE)
        self._held: Counter[int] = Counter()
        self._total = 0

    @property
    def full(self) -> bool:
        """Whether not even an operator can come in."""
        return self._total >= self.most

    def held(self, uid: int) -> int:
        """Return how many connections somebody has."""
        return self._held[uid]

    def admits(self, uid: int) -> bool:
        """Whether somebody who is no operator may have one more."""
        return self._held[uid] < self._open - self._total

    def enter(self, uid: int) -> None:
        """Count a connection."""
        self._held[uid] += 1
        self._total += 1

    def leave(self, uid: int) -> None:
        """Count a connection no more."""
        self._total -= 1
        self._held[uid] -= 1
        if not self._held[uid]:
            del self._held[uid]


class Bodies:
    """How many bytes of requests are in memory, and whose."""

    def __init__(self) -> None:
        self._held: Counter[int] = Counter()
        self._total = 0

    def ration(self, uid: int) -> Ration:
        """Begin to count one request."""
        return Ration(self, uid)

    def take(self, uid: int, count: int, largest: int) -> None:
        """Count more bytes, whether there is room for them or not.

        Raises:
            Unavailable: `too_much_at_once`; the caller's requests together have more than the
                *largest* body may have, or those of all callers more than a few of these.
        """
        self._held[uid] += count
        self._total += count
        if self._held[uid] > largest:
            raise Unavailable(
                "too_much_at_once",
                f"cannot read the body beside others of yours: {largest} bytes of them are read"
                " at once; send one after the other",
            )
        if self._total > _BODIES * largest:
            raise Unavailable(
                "too_much_at_once",
                "cannot read the body: too many large ones are being read; try again in a moment",
            )

    def give_back(self, uid: int, count: int) -> None:
        """Count bytes no more."""
        self._total -= count
        self._held[uid] -= count
        if not self._held[uid]:
            del self._held[uid]


class Ration:
    """The bytes of one request, counted until it is answered."""

    def __init__(self, bodies: Bodies, uid: int) -> None:
        self._bodies = bodies
        self._uid = uid
        self._read = 0
        self._counted = 0

    def take(self, count: int, largest: int) -> None:
        """Count more bytes of the body; *largest* is what one body may have.

        Raises:
            Unavailable: `too_much_at_once`.
        """
        self._read += count
        more = max(0, self._read - FREE_BYTES) - self._counted
        if more:
            self._counted += more
            self._bodies.take(self._uid, more, largest)

    def close(self) -> None:
        """Give all of it back."""
        self._bodies.give_back(self._uid, self._counted)
        self._counted = 0
