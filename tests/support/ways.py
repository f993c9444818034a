"""The ways that a long body may go from its connection to its file, each made to be gone."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.support.origin import Document, Fault, Origin, Version
from tests.support.runs import BODY
from tests.support.tls import Authority
from tests.support.worker import LIMITS, PLAIN, Book, Desk, worker_task
from transferd.model.job import Settings
from transferd.wire import link
from transferd.worker.flow import Flow, PlainFlow
from transferd.worker.pump import Pump

#: `parser` and `tls-parser`: no thread is free, so that aiohttp reads the body. `splice`: as it
#: should be. `copy`: the file system does not splice. `copy-socket`: the connection does not.
WAYS = ("parser", "splice", "copy", "copy-socket", "tls", "tls-parser")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One of WAYS, with an origin whose `/f` is BODY."""

    name: str
    origin: Origin
    #: For jobs with the origin.
    settings: Settings
    #: Threads for bodies.
    bodies: int
    #: What bodies were taken from by threads; True: and they were spliced.
    flows: list[tuple[type[Flow], bool]] = field(default_factory=list)

    @property
    def pumped(self) -> bool:
        """Whether threads move long bodies."""
        return bool(self.bodies)

    def worker(
        self, limits: link.WorkerSettings = LIMITS
    ) -> contextlib.AbstractAsyncContextManager[Desk]:
        """A worker whose bodies go this way."""
        return worker_task(limits, bodies=self.bodies)

    def serve(
        self, body: bytes = BODY, *faults: Fault, path: str = "/f", **knobs: float
    ) -> Document:
        """Serve a document."""
        document = Document(version=Version(body=body), **knobs)  # type: ignore[arg-type]
        document.faults.extend(faults)
        self.origin.pages[path] = document
        return document

    def book(self, directory: Path, path: str = "/f", *others: str) -> Book:
        """A job for documents of the origin."""
        return Book.of(directory, *(self.origin.url(each) for each in (path, *others)))

    async def carry(self, desk: Desk, book: Book) -> link.Drained | link.Failed | link.Stopped:
        """Begin a run and see it to its end."""
        return await desk.carry(book, settings=self.settings)

    async def start(self, desk: Desk, book: Book) -> None:
        """Begin a run."""
        await desk.start(book, settings=self.settings)


@contextlib.asynccontextmanager
async def on_the_way(
    name: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Way]:
    """Make bodies go one of WAYS."""
    authority = Authority(directory) if name.startswith("tls") else None
    if name.startswith("copy"):
        monkeypatch.setattr("os.splice", _refusing(socket=name == "copy-socket"))
    async with Origin(tls=None if authority is None else authority.server()).running() as origin:
        way = Way(
            name=name,
            origin=origin,
            settings=replace(
                PLAIN, cacert=None if authority is None else authority.cacert, streams=1
            ),
            bodies=0 if name.endswith("parser") else 8,
        )
        way.serve()
        _note_flows(way, monkeypatch)
        yield way


def _refusing(*, socket: bool) -> Callable[..., int]:
    splice = os.splice

    def refuse(source: int, target: int, count: int, offset_dst: int | None = None) -> int:
        if socket or offset_dst is not None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return splice(source, target, count)

    return refuse


def _note_flows(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    close = Pump.close

    def noting(pump: Pump) -> None:
        flow = pump._flow
        way.flows.append((type(flow), isinstance(flow, PlainFlow) and flow._spliced))
        close(pump)

    monkeypatch.setattr(Pump, "close", noting)
