"""How long an owner waits for another worker after one that fell: ended unasked, or by force."""

from __future__ import annotations

from dataclasses import dataclass

from transferd.model.job import Seconds

#: One fall is an accident; after the second one the next worker waits so long, doubling…
_FIRST: Seconds = 1.0
#: …up to this.
_LONGEST: Seconds = 60.0
#: A worker that lived so long had not fallen because of what its owner does at each start.
_GOOD_LIFE: Seconds = 60.0
_DOUBLINGS = 8


@dataclass(frozen=True, slots=True)
class _Falls:
    """The falls of one owner's workers, one soon after the other."""

    count: int
    until: Seconds
    reason: str


class Restraint:
    """Keeps owners from starting one worker after the other. Times are of the steady clock."""

    def __init__(self) -> None:
        self._owners: dict[int, _Falls] = {}

    def fell(self, owner: int, lived: Seconds, now: Seconds, reason: str) -> None:
        """Take that a worker fell, after a life of so many seconds."""
        self._owners = {
            other: falls for other, falls in self._owners.items() if now - falls.until < _GOOD_LIFE
        }
        before = self._owners.get(owner)
        count = 1 if before is None or lived >= _GOOD_LIFE else before.count + 1
        delay = min(_FIRST * 2 ** min(count - 2, _DOUBLINGS), _LONGEST) if count > 1 else 0.0
        self._owners[owner] = _Falls(count, now + delay, reason)

    def until(self, owner: int, now: Seconds) -> Seconds | None:
        """Return when the owner may start another worker; None: now."""
        falls = self._owners.get(owner)
        return falls.until if falls is not None and falls.until > now else None

    def explain(self, owner: int, now: Seconds) -> str:
        """Say why the owner has to wait, who has to."""
        falls = self._owners[owner]
        return (
            f"the workers of uid {owner} ended {falls.count} times in a row, at last like this:"
            f" {falls.reason}; the next one may start in {max(1.0, falls.until - now):.0f} s"
        )
