"""Requests that are carried out together: those that came while the ones before were under way."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """Gathers what several callers ask for; each gets its own answer."""

    def __init__(
        self, carry: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]], most: int
    ) -> None:
        """Take who carries out at most so many requests at once; one answer each, in order."""
        self._carry = carry
        self._most = most
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """Return the answer. A caller that is cancelled stops waiting, and nothing else.

        Raises: the answer, where it is an exception, or what kept all of them from an answer.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answer))
        if self._task is None:
            self._task = loop.create_task(self._work(), name="together")
        return await answer

    async def _work(self) -> None:
        """Carry out what waits, and what comes meanwhile."""
        while self._waiting:
            asked, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            answers: Sequence[A | Exception]
            try:
                answers = await self._carry([question for question, _ in asked])
            except Exception as error:  # noqa: BLE001 - belongs to all of them
                # One of its own for each: raising one in several tasks mixes their traces.
                answers = [copy.copy(error) for _ in asked]
            for (_, future), answer in zip(asked, answers, strict=True):
                _settle(future, answer)
        self._task = None


def _settle(future: asyncio.Future[A], answer: A | Exception) -> None:
    if future.done():  # its caller was cancelled
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
