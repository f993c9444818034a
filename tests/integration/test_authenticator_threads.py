"""Steps that may wait for a KDC: in a thread, with a deadline, and left behind when late."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.support.origin import Origin, in_turn
from tests.support.scripted import (
    FILE,
    NTLM,
    Scripted,
    Stage,
    asking,
    behind_legs,
    identity,
    once,
    open_gate,
    refused,
    values,
)
from transferd.auth.challenge import Challenge
from transferd.auth.flow import (
    Attempt,
    Conversation,
    RequestLine,
)
from transferd.model.credentials import Scheme


async def test_a_step_that_may_wait_is_taken_in_a_thread(stage: Stage, origin: Origin) -> None:
    """And only such a step; the loop goes on meanwhile."""
    where: dict[str, list[int]] = {"waits": [], "does not": []}

    def script(name: str) -> Callable[..., Conversation]:
        def play(*_: object) -> Conversation:
            for number in range(2):
                where[name].append(threading.get_ident())
                yield Attempt(authorization=f"{name} {number}")

        return play

    for name, blocks in (("waits", True), ("does not", False)):
        stage.play(Scheme.NTLM, script(name), blocks=blocks)
        origin.pages["/f"] = in_turn(asking(), asking(), FILE)
        async with open_gate(NTLM) as gate:
            assert await gate.status(origin.url("/f")) == 200
    here = threading.get_ident()
    assert here not in where["waits"]
    assert set(where["does not"]) == {here}


class Library:
    """A security library that waits until it is told to go on."""

    def __init__(self, *, before: int = 0) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()
        self._before = before

    def script(
        self, session: Scripted, line: RequestLine, challenge: Challenge | None
    ) -> Conversation:
        """Send so many tokens, then wait."""
        try:
            for number in range(self._before):
                yield Attempt(authorization=f"Negotiate {number}")
            self.begun.set()
            assert self.go.wait(30)
            yield Attempt(authorization="Negotiate late")
        finally:
            self.ended.set()

    async def over(self) -> None:
        """Let the library go on, and wait until the conversation is closed."""
        self.go.set()
        await asyncio.to_thread(self.ended.wait, 30)


async def test_a_library_that_does_not_answer_is_left_behind(stage: Stage, origin: Origin) -> None:
    """The next scheme is tried; what the library says in the end is thrown away, and closed."""
    library = Library()
    stage.play(Scheme.NEGOTIATE, library.script, blocks=True)
    page = behind_legs(FILE)
    origin.pages["/f"] = in_turn(asking("Negotiate, NTLM"), page)
    async with open_gate(identity(Scheme.NEGOTIATE), NTLM, patience=0.05) as gate:
        assert await gate.status(origin.url("/f")) == 200
        late = stage.sessions[0]
        assert late.closed == 0
        await library.over()
    assert late.closed == 1
    assert values(origin) == [None, "NTLM one", "NTLM three"]


async def test_a_silent_kdc_is_told_as_such(stage: Stage, origin: Origin) -> None:
    """kdc_unreachable: transient, and the message says how long it was waited for."""
    library = Library()
    stage.play(Scheme.NEGOTIATE, library.script, blocks=True)
    origin.pages["/f"] = asking("Negotiate")
    async with open_gate(identity(Scheme.NEGOTIATE), patience=0.05) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
        again = (await refused(gate, origin.url("/f"))).failure
        await library.over()
    assert (failure.code, failure.kind.transient) == ("kdc_unreachable", True)
    assert "the Kerberos library did not answer within 0.05 s" in failure.message
    # One step at a time: the run does not pile up threads.
    assert "the Kerberos library still does not answer" in again.message
    assert values(origin) == [None, None]


async def test_a_library_that_stops_in_mid_conversation_fails_the_run(
    stage: Stage, origin: Origin
) -> None:
    """Something was sent already: no other scheme, but another time."""
    library = Library(before=1)
    stage.play(Scheme.NEGOTIATE, library.script, blocks=True)
    origin.pages["/f"] = asking("Negotiate, NTLM")
    async with open_gate(identity(Scheme.NEGOTIATE), NTLM, patience=0.05) as gate:
        failure = (await refused(gate, origin.url("/f"))).failure
        await library.over()
    assert failure.code == "kdc_unreachable"
    assert gate.audits == []
    assert values(origin) == [None, "Negotiate 0"]


async def test_a_known_session_that_is_left_behind_is_not_used_again(
    stage: Stage, origin: Origin
) -> None:
    """A thread may still be busy with it; the next request begins from nothing."""
    library = Library()
    calls = iter([None, library])

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        slow = next(calls, None)
        if slow is not None:
            return slow.script(session, line, challenge)
        return once(Attempt(authorization="Negotiate quick"))

    stage.play(Scheme.NEGOTIATE, script, blocks=True)
    asks = asking("Negotiate")
    origin.pages["/f"] = in_turn(asks, FILE, asks, FILE)
    async with open_gate(identity(Scheme.NEGOTIATE), patience=0.2) as gate:
        assert await gate.status(origin.url("/f")) == 200
        failure = (await refused(gate, origin.url("/f"))).failure
        assert failure.code == "kdc_unreachable"
        assert stage.sessions[0].closed == 0
        await library.over()
    assert stage.sessions[0].closed == 1


async def test_nobody_waits_for_a_library_to_be_cancelled(stage: Stage, origin: Origin) -> None:
    """A job that is stopped leaves at once, and takes nothing back from the thread."""
    library = Library()
    stage.play(Scheme.NEGOTIATE, library.script, blocks=True)
    origin.pages["/f"] = asking("Negotiate")
    async with open_gate(identity(Scheme.NEGOTIATE), patience=60) as gate:
        asking_ = asyncio.create_task(gate.ask(origin.url("/f")))
        while not stage.sessions:  # noqa: ASYNC110
            await asyncio.sleep(0)
        asking_.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking_
        assert asking_.cancelled()
        assert stage.sessions[0].closed == 0
        await library.over()
    assert stage.sessions[0].closed == 1


async def test_a_known_session_that_is_cancelled_is_the_threads(
    stage: Stage, origin: Origin
) -> None:
    """The end of the run does not close it while a thread is busy with it."""
    library = Library()
    calls = iter([None, library])

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        slow = next(calls)
        if slow is not None:
            return slow.script(session, line, challenge)
        return once(Attempt(authorization="Negotiate quick"))

    stage.play(Scheme.NEGOTIATE, script, blocks=True)
    origin.pages["/f"] = in_turn(asking("Negotiate"), FILE)
    async with open_gate(identity(Scheme.NEGOTIATE), patience=60) as gate:
        assert await gate.status(origin.url("/f")) == 200
        later = asyncio.create_task(gate.ask(origin.url("/f")))
        assert await asyncio.to_thread(library.begun.wait, 30)
        later.cancel()
        await asyncio.wait([later])
    assert stage.sessions[0].closed == 0
    await library.over()
    assert stage.sessions[0].closed == 1


async def test_other_runs_move_on_while_a_library_waits(stage: Stage, origin: Origin) -> None:
    """Threads are shared by runs, but there are enough of them, and the loop is free."""
    library = Library()
    stage.play(Scheme.NEGOTIATE, library.script, blocks=True)
    origin.pages["/slow"] = asking("Negotiate")
    origin.pages["/f"] = behind_legs(FILE)
    threads = ThreadPoolExecutor(2)
    async with (
        open_gate(identity(Scheme.NEGOTIATE), patience=60, threads=threads) as slow,
        open_gate(NTLM, threads=threads) as quick,
    ):
        waiting = asyncio.create_task(slow.ask(origin.url("/slow")))
        assert await quick.status(origin.url("/f")) == 200
        assert not waiting.done()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await library.over()
    threads.shutdown(wait=False)
