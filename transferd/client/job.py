"""One job, as its owner's program sees it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Literal, TypeAlias, Unpack

from msgspec import UNSET, UnsetType

from transferd.client.callbacks import Callback, Callbacks, Listener, inside_callback
from transferd.client.connection import Connection, path
from transferd.client.errors import JobFailed, JobGone
from transferd.client.options import JobChanges, absolute, fields_of, resolved_files
from transferd.client.stream import PATIENCE, Interest, Pulse, hear
from transferd.model.choices import (
    DEFAULT_KINDS,
    TERMINAL,
    NoticeKind,
    Scheme,
    Target,
    kind_labels,
    parse_kinds,
    parse_scheme,
    parse_target,
)
from transferd.model.credentials import Secret
from transferd.model.errors import NoDaemon, NotFound, Unavailable
from transferd.model.states import JobState
from transferd.model.units import Seconds
from transferd.wire.api import (
    BlockerAnswer,
    BlockersAnswer,
    ErrorAnswer,
    FileAnswer,
    FilesAnswer,
    JobAnswer,
    NoticeAnswer,
)
from transferd.wire.bodies import FileBody, FilesBody, IdentityBody, JobPatch, NotifyBody

#: `transferred`: until every file is whole; `ended`: until the job has left the queue.
Until = Literal["transferred", "ended"]

#: How long `wait` waits for a notice that may not come, since somebody else acknowledged it.
CALLBACK_GRACE: Seconds = 2.0

_CALLBACK_KINDS = {
    JobState.TRANSFERRED.label: NoticeKind.TRANSFERRED,
    JobState.ERROR.label: NoticeKind.ERROR,
}

#: Verbs that change nothing the second time.
_REPEATABLE = frozenset({"resume", "suspend"})

#: Makes what runs a job's callbacks.
ListenerMaker: TypeAlias = Callable[["Job"], Listener]


class Job:
    """A handle on a job; it stays valid as long as its Manager is open.

    Every method that talks to the daemon raises CallerError (NotFound once the job has left the
    queue), NoDaemon or DaemonFault. The attributes are those of the last answer, `answer`.
    """

    def __init__(self, connection: Connection, answer: JobAnswer, listener: ListenerMaker) -> None:
        self._connection = connection
        self._make_listener = listener
        self._listener: Listener | None = None
        self.answer = answer

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name!r} {self.answer.state}>"

    # ── what is known ────────────────────────────────────────────────────────────────────

    @property
    def id(self) -> str:
        """The job's identity, for ever."""
        return self.answer.id

    @property
    def name(self) -> str:
        """For people."""
        return self.answer.name

    @property
    def state(self) -> JobState:
        """Where the job stood when it was last looked at."""
        return JobState[self.answer.state.upper()]

    @property
    def error(self) -> ErrorAnswer | None:
        """Why it was interrupted last; None once bytes move again."""
        return self.answer.error

    @property
    def bytes_transferred(self) -> int:
        """Bytes so far, of all files."""
        return self.answer.bytes_transferred

    @property
    def bytes_total(self) -> int | None:
        """Bytes of all files; None while some size is unknown."""
        return self.answer.bytes_total

    @property
    def answered(self) -> bool:
        """Whether a daemon answered when it was last asked; the job waits in its queue if not."""
        return self._connection.answered

    @property
    def starts(self) -> bool:
        """Whether a daemon is started when none answers."""
        return self._connection.starts

    def learn(self, answer: JobAnswer) -> None:
        """Take over what the daemon says of the job, unless something newer is known."""
        # RFC 3339 in UTC, always written alike: the order of the texts is that of the times.
        if answer.modified >= self.answer.modified:
            self.answer = answer

    async def refresh(self) -> JobAnswer:
        """Look at the job anew."""
        return await self._ask("GET")

    async def why(self) -> list[BlockerAnswer]:
        """Say what keeps the job from moving; nothing, if it moves or has nothing to do."""
        answer = await self._connection.call(
            "GET", path("jobs", self.id, "why"), answer=BlockersAnswer
        )
        return answer.blockers

    async def files(self) -> AsyncIterator[FileAnswer]:
        """Yield the job's files, in order."""
        params: dict[str, str] = {}
        while True:
            page = await self._connection.call(
                "GET", path("jobs", self.id, "files"), params=params, answer=FilesAnswer
            )
            for file in page.files:
                yield file
            if page.next is None:
                return
            params["after"] = page.next

    # ── what is wanted ───────────────────────────────────────────────────────────────────

    async def add_file(
        self, remote: str, local: str | os.PathLike[str], checksum: str | None = None
    ) -> None:
        """Add a file; *local* may be relative or begin with `~`, *checksum* is `algorithm:hex`."""
        await self.add_files([FileBody(remote=remote, local=absolute(local), checksum=checksum)])

    async def add_files(self, files: Iterable[FileBody]) -> None:
        """Add several files, all or none."""
        body = FilesBody(files=resolved_files(files))
        await self._connection.send("POST", path("jobs", self.id, "files"), body)

    async def set_credentials(
        self,
        target: Target | str,
        scheme: Scheme | str,
        username: str | None,
        password: str | Secret | None,
    ) -> None:
        """Set who the job is to a server or a proxy, in place of what was set for that scheme.

        Both None: the implicit identity of the job's owner, for `negotiate` only. A job that runs
        begins anew with it; one in error waits for `resume`.
        """
        secret = password.reveal() if isinstance(password, Secret) else password
        place = path("jobs", self.id, "credentials", parse_target(target), parse_scheme(scheme))
        await self._ask("PUT", place, IdentityBody(username=username, password=secret))

    async def remove_credentials(self, target: Target | str, scheme: Scheme | str) -> None:
        """Forget a credential, the implicit one as well.

        Raises:
            NotFound: `credential_not_found`: there was none, and nothing has changed.
        """
        place = path("jobs", self.id, "credentials", parse_target(target), parse_scheme(scheme))
        await self._connection.send("DELETE", place)

    async def change(self, **changes: Unpack[JobChanges]) -> JobAnswer:
        """Change settings; what is not named stays."""
        return await self._ask("PATCH", body=JobPatch(**fields_of(changes)))

    async def set_notify(
        self,
        *,
        on_transferred: Callback | None = None,
        on_error: Callback | None = None,
        on_file: Callback | None = None,
        on_modification: Callback | None = None,
        kinds: Iterable[str] | None = None,
        command: Sequence[str] | UnsetType | None = UNSET,
    ) -> None:
        """Say who is told of what; replaces all callbacks that were registered here before.

        A callback gets the job and the notice. It is a plain function, which must not block, or a
        coroutine function. When it returns, the notice is acknowledged; when it raises, a terminal
        notice (transferred, error) counts as not delivered and comes again. It may use the job as
        it likes, `complete` and `cancel` included. Callbacks last as long as the Manager, and do
        not survive the program: register them again, and what is owed is delivered.

        Args:
            kinds: What the daemon writes down for the job, by name; None: transferred, error and
                whatever has a callback.
            command: Program and arguments that the daemon runs when no callback acknowledges;
                None for none; left out: as it was.
        """
        callbacks = Callbacks(
            on_transferred=on_transferred,
            on_error=on_error,
            on_file=on_file,
            on_modification=on_modification,
        )
        wanted = DEFAULT_KINDS | callbacks.kinds if kinds is None else parse_kinds(kinds)
        kept = self.answer.notify.command if command is UNSET else command
        body = NotifyBody(kinds=kind_labels(wanted), command=None if kept is None else list(kept))
        await self._ask("PATCH", body=JobPatch(notify=body))
        if self._listener is None:
            self._listener = self._make_listener(self)
        await self._listener.use(callbacks)

    # ── what is to be done ───────────────────────────────────────────────────────────────

    async def resume(self) -> JobAnswer:
        """Start the job, or go on with it."""
        if self._listener is not None:
            self._listener.forget()
        return await self._act("resume")

    async def suspend(self) -> JobAnswer:
        """Pause the job."""
        return await self._act("suspend")

    async def complete(self) -> JobAnswer:
        """Give the files their names and take the job out of the queue; returns its last view."""
        return await self._act("complete")

    async def cancel(self) -> JobAnswer:
        """Take the job out of the queue and remove what was fetched; returns its last view."""
        return await self._act("cancel")

    async def take_ownership(self) -> JobAnswer:
        """Become the job's owner, as an admin; it has lost what was the former one's alone.

        These are credentials, headers, the notification command, Negotiate and Passport options,
        the CA file and leave to use cleartext. A job that runs begins anew. For who owns it
        already nothing changes.

        Raises:
            NotAllowed: the caller is no admin.
            Conflict: `owner_no_access`; he may not write to where the job's files are, or the
                former owner, who has chosen that, may not.
        """
        return await self._act("take-ownership")

    async def wait(self, timeout: Seconds | None = None, until: Until = "transferred") -> JobAnswer:
        """Wait until the job is transferred, or has left the queue by being completed.

        Where a callback is registered for the outcome, it is called before this returns. Waiting
        acknowledges nothing, and bears a restart of the daemon.

        Raises:
            JobFailed: the job is in error.
            NotFound: there is no such job (any more).
            JobGone: the job was cancelled or taken over, or left the queue in a way that nobody
                could tell.
            TimeoutError: *timeout* seconds are over; the job goes on.
        """
        async with asyncio.timeout(timeout):
            answer = await self._outcome(until)
            await self._called_back(answer)
        if answer.state == JobState.ERROR.label:
            raise JobFailed(answer, answer.error)
        if answer.state == JobState.CANCELLED.label:
            raise JobGone(self.id, answer.state)
        return answer

    async def _outcome(self, until: Until) -> JobAnswer:
        """Return the job in a state that ends the waiting."""
        interest = Interest(job=self.id, kinds=_waiting_kinds(self.answer))
        seen = gone = False
        async with aclosing(hear(self._connection, interest, patience=PATIENCE)) as heard:
            try:
                async for event in heard:
                    if isinstance(event, NoticeAnswer) and event.kind == NoticeKind.ENDED.label:
                        self.answer = event.job
                        if not self.state.final:
                            raise JobGone(self.id, "taken over")
                        return event.job
                    if gone and isinstance(event, Pulse):
                        break  # its end was told to nobody here
                    # A notice tells how the job was, perhaps long ago; a look tells how it is.
                    alive = await self._look()
                    gone, seen = alive is False, seen or bool(alive)
                    if alive and _ends_waiting(self.answer, until):
                        return self.answer
            except NotFound:  # no stream for a job that has ended
                if not seen:
                    raise
        raise JobGone(self.id, None)

    async def _look(self) -> bool | None:
        """Look at the job anew: whether it is in the queue; None: nobody answers."""
        try:
            await self.refresh()
        except NotFound:
            return False
        except (NoDaemon, Unavailable):
            return None
        return True

    async def _called_back(self, answer: JobAnswer) -> None:
        """Let the callback for a terminal state have its turn."""
        kind = _CALLBACK_KINDS.get(answer.state)
        if kind is None or self._listener is None or inside_callback():
            return
        try:
            async with asyncio.timeout(CALLBACK_GRACE):
                await self._listener.heard(kind)
        except TimeoutError:
            return
        await self._listener.attempted(kind)

    async def _act(self, verb: str) -> JobAnswer:
        again = verb in _REPEATABLE
        return await self._ask("POST", path("jobs", self.id, verb), repeatable=again)

    async def _ask(
        self,
        method: str,
        place: str | None = None,
        body: JobPatch | IdentityBody | None = None,
        *,
        repeatable: bool = False,
    ) -> JobAnswer:
        where = place or path("jobs", self.id)
        self.answer = await self._connection.call(
            method, where, body, answer=JobAnswer, repeatable=repeatable
        )
        return self.answer


def _ends_waiting(answer: JobAnswer, until: Until) -> bool:
    state = answer.state
    return state == JobState.ERROR.label or (
        until == "transferred" and state == JobState.TRANSFERRED.label
    )


def _waiting_kinds(answer: JobAnswer) -> NoticeKind:
    """Return what to listen to while waiting.

    Changes of state are modifications, merged and a moment late; the terminal notices are not, but
    hearing one without acknowledging it would hold back the job's command (BITS.md M5).
    """
    kinds = NoticeKind.MODIFICATION | NoticeKind.ENDED
    return kinds if answer.notify.command is not None else kinds | TERMINAL
