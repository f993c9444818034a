"""Requests that are carried out together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from transferd.model.errors import StoreError
from transferd.store.together import Together


class Halves:
    """Halves even numbers, group by group, once it is let."""

    def __init__(self, most: int = 9) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.let = asyncio.Event(), asyncio.Event()
        self.together: Together[int, int] = Together(self._carry, most)

    async def _carry(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.groups.append(list(numbers))
        self.begun.set()
        await self.let.wait()
        if 0 in numbers:
            raise StoreError("all of them")
        return [ValueError(number) if number % 2 else number // 2 for number in numbers]


async def test_what_comes_meanwhile_is_carried_out_together() -> None:
    """One group is under way at a time, of so many at most."""
    halves = Halves(most=3)
    asked = [asyncio.create_task(halves.together.ask(2))]
    await halves.begun.wait()
    asked += [asyncio.create_task(halves.together.ask(number)) for number in (4, 6, 8, 10)]
    await asyncio.sleep(0)
    halves.let.set()
    assert await asyncio.gather(*asked) == [1, 2, 3, 4, 5]
    assert halves.groups == [[2], [4, 6, 8], [10]]
    assert await halves.together.ask(12) == 6


async def test_each_gets_its_own_answer() -> None:
    """One that fails alone fails for nobody else."""
    halves = Halves()
    halves.let.set()
    asked = [halves.together.ask(number) for number in (2, 3, 4)]
    even, odd, other = await asyncio.gather(*asked, return_exceptions=True)
    assert (even, other) == (1, 2)
    assert isinstance(odd, ValueError)


async def test_a_failure_of_all_is_each_ones() -> None:
    """Nobody raises an exception that another task raises too."""
    halves = Halves()
    halves.let.set()
    asked = [halves.together.ask(number) for number in (0, 2)]
    first, second = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(first, StoreError)
    assert isinstance(second, StoreError)
    assert first is not second
    assert str(first) == str(second) == "all of them"


async def test_a_caller_that_is_cancelled_stops_nothing() -> None:
    """Rule: a caller's cancellation reaches no statement."""
    halves = Halves()
    leaving = asyncio.create_task(halves.together.ask(2))
    staying = asyncio.create_task(halves.together.ask(4))
    await halves.begun.wait()
    leaving.cancel()
    halves.let.set()
    assert await staying == 2
    assert halves.groups == [[2, 4]]
    with pytest.raises(asyncio.CancelledError):
        await leaving
