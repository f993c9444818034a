"""Acknowledgements: what waits at the same time goes to the daemon together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from transferd.client.connection import Connection, path
from transferd.client.crew import Crew
from transferd.client.errors import refusal
from transferd.wire.api import AcknowledgementAnswer
from transferd.wire.bodies import MOST_NOTICES, AcknowledgementBody


class Acknowledger:
    """Sends one request at a time, with all that has come since the last one."""

    def __init__(self, connection: Connection, crew: Crew) -> None:
        self._connection = connection
        self._crew = crew
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._sender: asyncio.Task[None] | None = None

    async def acknowledge(self, numbers: Iterable[int]) -> None:
        """Settle notices.

        Raises:
            CallerError, NoDaemon, DaemonFault: for the first that could not be; the others are.
        """
        loop = asyncio.get_running_loop()
        waiting = []
        for number in numbers:
            if number not in self._waiting:
                self._waiting[number] = loop.create_future()
            waiting.append(self._waiting[number])
        if waiting and (self._sender is None or self._sender.done()):
            self._sender = self._crew.start(self._send_all(), "acknowledgements")
        outcomes = await asyncio.gather(*map(asyncio.shield, waiting), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                numbers = list(self._waiting)[:MOST_NOTICES]
                await self._send({number: self._waiting.pop(number) for number in numbers})
        finally:
            for future in self._waiting.values():
                future.cancel()
            self._waiting.clear()

    async def _send(self, batch: dict[int, asyncio.Future[None]]) -> None:
        try:
            answer = await self._connection.call(
                "POST",
                path("notices", "ack"),
                AcknowledgementBody(numbers=list(batch)),
                answer=AcknowledgementAnswer,
                repeatable=True,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody waits for ever
            for future in batch.values():
                future.set_exception(error)
            return
        except asyncio.CancelledError:
            for future in batch.values():
                future.cancel()
            raise
        for each in answer.refused:
            if each.number in batch:
                said = refusal(each.status, each.code, each.detail)
                batch.pop(each.number).set_exception(said)
        for future in batch.values():
            future.set_result(None)
