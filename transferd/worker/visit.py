"""One request at one door: what was said there, what was tried, and why there is no way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from transferd.auth.challenge import Challenge
from transferd.auth.choice import Choice, Method, choose, missing, refusal, remedy
from transferd.auth.flow import (
    Attempt,
    AuthError,
    AuthRejected,
    Conversation,
    Errand,
    Reply,
    Session,
    Step,
)
from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.worker.answer import Answer
from transferd.worker.door import Door
from transferd.worker.request import Request

#: So often a conversation may have the request sent, and somebody else asked in between. The
#: longest honest ones: five legs of Negotiate, or of Digest whose nonces go stale; a Passport login
#: with every redirect that it may have. BITS.md H2 bounds each scheme; this bounds what does not.
MAX_ATTEMPTS = 6
MAX_ERRANDS = 12

Send: TypeAlias = Callable[[Request], Awaitable[Answer]]


@dataclass(slots=True)
class Talk:
    """A conversation that has begun."""

    step: Step
    method: Method
    session: Session
    conversation: Conversation
    #: The connection of the last answer.
    connection: object = None
    #: The session succeeded before.
    known: bool = False
    #: The last answer to one of its attempts.
    answer: Answer | None = None
    #: Something that was made from the credential has been sent.
    sent: bool = False
    #: A thread is still busy with it, and has it to itself.
    abandoned: bool = False
    _attempts: int = 0
    _errands: int = 0

    def advance(self, reply: Reply | None) -> Attempt | Errand | None:
        """Take a step; None: it is over. May be called in a thread, which can hand on no
        StopIteration.
        """
        try:
            return next(self.conversation) if reply is None else self.conversation.send(reply)
        except StopIteration:
            return None

    def count(self, wish: Attempt | Errand) -> None:
        """Take note of what is going to be sent.

        Raises:
            AuthRejected: it is too much.
        """
        if isinstance(wish, Errand):
            self._errands += 1
        else:
            self._attempts += 1
        if self._attempts > MAX_ATTEMPTS or self._errands > MAX_ERRANDS:
            raise AuthRejected(f"{self.step[0]} comes to no end, and was given up")
        self.sent = self.sent or wish.authorization is not None

    def abandon(self, step: Future[Attempt | Errand | None]) -> None:
        """Leave everything to the thread that is busy with *step*; it ends when that is over."""
        self.abandoned = True
        step.add_done_callback(self._end)

    def close(self, *, keep: bool) -> None:
        """End the conversation, and the session unless it is to be kept."""
        if self.abandoned:
            return
        self.conversation.close()
        if not keep:
            self.session.close()

    def _end(self, _: Future[Attempt | Errand | None]) -> None:
        self.conversation.close()
        self.session.close()


@dataclass(slots=True)
class Visit:
    """One request at one door, and what was tried there."""

    door: Door
    send: Send
    #: What it answered already, without credentials.
    first: Answer | None = None
    #: What there was to choose from when a scheme was chosen.
    offered: tuple[Challenge, ...] = ()
    #: Not to be chosen again.
    steps: list[Step] = field(default_factory=list)
    #: Why schemes could not start.
    errors: list[AuthError] = field(default_factory=list)

    def choose(self, *tried: Step) -> Choice:
        """Choose among what was offered, but for what was tried."""
        return choose(
            self.offered,
            self.door.held,
            transit=self.door.transit,
            tried=[*self.steps, *tried],
        )

    def no_way(self, choice: Choice) -> TransferFailed:
        """Return the failure of a door for which nothing is left that can start.

        Of several reasons one that has a code of its own counts: it may be one that passes.
        """
        last = next(
            (error for error in reversed(self.errors) if error.code is not None),
            self.errors[-1] if self.errors else None,
        )
        if last is None and choice.cleartext_refused:
            return self._failed(choice, (), "cleartext_refused")
        return self._failed(choice, self.errors, None, last)

    def refused(self, step: Step, error: AuthError) -> TransferFailed:
        """Return the failure of a credential that was refused."""
        choice = self.choose(step)
        return self._failed(choice, [*self.errors, error], None, error)

    def _failed(
        self,
        choice: Choice,
        errors: Iterable[AuthError],
        code: str | None,
        last: AuthError | None = None,
    ) -> TransferFailed:
        """Make a failure with what *last* says of code and advice, where it says anything."""
        advice = None if last is None else last.advice
        own_code = None if last is None else last.code
        # Without advice of its own that of the error's code holds.
        usual = advice is None and own_code is None
        schemes = missing(choice) if usual else ()
        if usual and not schemes:
            advice = remedy(choice, self.door.target)
        code = code or own_code or f"http_{self.door.status}"
        return TransferFailed(
            Failure(
                code=code,
                message=refusal(self.door.name, choice, map(str, errors)),
                http_status=int(code.removeprefix("http_")) if code.startswith("http_") else None,
                advice=advice,
                missing=schemes,
            )
        )
