"""A server that serves each connection as whoever authenticated it, whatever it is asked for.

So did the servers that schemes bound to connections were made for: a request that strays onto the
connection of somebody else gets the bytes of somebody else. It takes its time between the legs,
closes connections at every one of them, and has long refusals.

Paths are `/JOB/FILE?as=USER`: of which job a request is, and for whom it is meant. Every file tells
for whom it is.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.support.gss_acceptors import KerberosAcceptor, NtlmAcceptor
from tests.support.origin import Document, Fault, Origin, Seen, Version, Wire
from transferd.auth.flow import Attempt

#: Bytes of the refusals that a job gets, one after the other; the last one stays. More than 64 KiB
#: are not read for the sake of a connection.
REFUSALS = (3_000_000, 65_537, 500)
#: So many requests of a job may meet a closing.
TROUBLED = 8
_TALK = b"No. " * (REFUSALS[0] // 4)
_JITTER_SECONDS = 0.01
_FILE_BYTES = 40_000
_STALL = 10_000


class Closing(enum.Enum):
    """How a connection ends at a request."""

    #: It does not.
    NONE = enum.auto()
    #: Instead of the answer.
    INSTEAD = enum.auto()
    #: After the answer, which does not say so.
    SILENTLY = enum.auto()
    #: After the answer, which says so.
    TOLD = enum.auto()


class Leg(enum.Enum):
    """What a request is to the handshake of its connection."""

    BARE = enum.auto()
    FIRST = enum.auto()
    LAST = enum.auto()
    #: The connection is authenticated.
    WITHIN = enum.auto()


@dataclass(frozen=True, slots=True)
class Served:
    """A request that got its file."""

    job: int
    file: int
    #: For whom it was meant…
    wanted: str
    #: …and as whom it was served.
    user: str
    connection: int


@dataclass
class Line:
    """One connection."""

    acceptor: NtlmAcceptor | KerberosAcceptor
    user: str | None = None
    jobs: set[int] = field(default_factory=set)
    #: First tokens of handshakes.
    handshakes: int = 0

    def admit(self) -> str:
        """Return who was admitted, and keep him in mind where connections are authenticated."""
        if isinstance(self.acceptor, NtlmAcceptor):
            name = self.acceptor.user
        else:
            name = self.acceptor.users[-1]
            self.acceptor.known = self.acceptor.persistent == "true"
        assert name is not None
        return bare(name)


@dataclass
class Trouble:
    """What one job meets; made from a seed, so that it is the same in each run of the test."""

    closings: list[Closing]
    jitter: random.Random
    refusals: int = 0

    def closing(self) -> Closing:
        """Return what happens at the next request."""
        return self.closings.pop() if self.closings else Closing.NONE

    def refusal(self) -> bytes:
        """Return the body of the next refusal."""
        size = REFUSALS[min(self.refusals, len(REFUSALS) - 1)]
        self.refusals += 1
        return _TALK[:size]


def content(user: str, file: int) -> bytes:
    """Return a file of *user*."""
    line = f"file {file} for {user} and for nobody else\n".encode()
    return (line * (_FILE_BYTES // len(line) + 1))[:_FILE_BYTES]


class Doorkeeper:
    """The page of every file of every job."""

    def __init__(
        self, accept: Callable[[], NtlmAcceptor | KerberosAcceptor], *, holding: Iterable[int] = ()
    ) -> None:
        """Take what makes the acceptor of a connection; its users have names without a domain.

        The first answer with file 1 of the jobs *holding* stops in the midst of the file, for good.
        """
        self._accept = accept
        self._troubles: dict[int, Trouble] = {}
        self._documents: dict[tuple[int, str, int], Document] = {}
        self._holding = set(holding)
        #: Jobs whose file 1 stopped, in order.
        self.held: asyncio.Queue[int] = asyncio.Queue()
        self.lines: dict[int, Line] = {}
        self.served: list[Served] = []
        #: Which connections were closed at which leg, in which way.
        self.closed: Counter[tuple[Leg, Closing]] = Counter()
        #: Refusals that are too long to be read for the sake of a connection.
        self.long_refusals = 0
        #: Last tokens of handshakes that were begun on another connection.
        self.strays = 0
        #: Tokens that prove an identity, and how often they came.
        self.proofs: Counter[bytes] = Counter()

    def take(self, origin: Origin, jobs: int, files: int) -> None:
        """Stand before the files of so many jobs."""
        for job in range(jobs):
            for file in range(files):
                origin.pages[f"/{job}/{file}"] = self

    @property
    def handshakes(self) -> int:
        """How many were begun."""
        return sum(line.handshakes for line in self.lines.values())

    @property
    def errors(self) -> list[Exception]:
        """What the acceptors had against a token."""
        return [error for line in self.lines.values() for error in line.acceptor.errors]

    @property
    def losses(self) -> int:
        """How many connections were lost that had been of use, at most."""
        return sum(self.closed.values()) + self.long_refusals

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer one request."""
        job, file, wanted = _read(seen.target)
        line = self.lines.setdefault(seen.connection, Line(self._accept()))
        line.jobs.add(job)
        trouble = self._trouble(job)
        await asyncio.sleep(trouble.jitter.uniform(0, _JITTER_SECONDS))
        value = seen.get("authorization")
        leg = self._leg(line, value)
        closing = trouble.closing()
        if closing is not Closing.NONE:
            self.closed[leg, closing] += 1
        if closing is Closing.INSTEAD:
            return wire.close()
        if leg is Leg.LAST and not line.handshakes:
            self.strays += 1
            return await wire.answer(401)
        reply = line.acceptor.reply(Attempt(authorization=value))
        wire.extra = [("WWW-Authenticate", text) for text in reply.authenticate]
        wire.extra += reply.headers
        if closing is Closing.TOLD:
            wire.extra.append(("Connection", "close"))
        if reply.status == 401:
            await self._refuse(trouble, wire)
        else:
            line.user = line.admit()
            self.served.append(Served(job, file, wanted, line.user, seen.connection))
            await self._serve(job, line.user, file, seen, wire)
        if closing is not Closing.NONE:
            wire.close()
        return None

    async def _refuse(self, trouble: Trouble, wire: Wire) -> None:
        body = trouble.refusal()
        self.long_refusals += len(body) > 65536
        await wire.answer(401, body=body)

    async def _serve(self, job: int, user: str, file: int, seen: Seen, wire: Wire) -> None:
        key = job, user, file
        if key not in self._documents:
            version = Version(body=content(user, file), etag=f'"{user}"', last_modified=None)
            self._documents[key] = Document(version=version)
        document = self._documents[key]
        if file == 1 and job in self._holding:
            self._holding.discard(job)
            document.faults.append(Fault(stall=_STALL))
            self.held.put_nowait(job)
        await document(seen, wire)

    def _leg(self, line: Line, value: str | None) -> Leg:
        if value is None:
            return Leg.BARE if line.user is None else Leg.WITHIN
        token = base64.b64decode(value.partition(" ")[2])
        # NTLM's first one is always the same.
        self.proofs[token] += b"NTLMSSP\0\1\0\0\0" not in token
        if b"NTLMSSP\0\3\0\0\0" in token:
            return Leg.LAST
        line.handshakes += 1
        return Leg.FIRST

    def _trouble(self, job: int) -> Trouble:
        if job not in self._troubles:
            seeded = random.Random(job)  # noqa: S311
            closings = seeded.choices(list(Closing), weights=(7, 1, 1, 1), k=TROUBLED)
            self._troubles[job] = Trouble(closings, seeded)
        return self._troubles[job]


def _read(target: str) -> tuple[int, int, str]:
    parts = urlsplit(target)
    job, file = parts.path[1:].split("/")
    return int(job), int(file), parse_qs(parts.query)["as"][0]


def bare(name: str) -> str:
    """Return the name of a user without his domain or realm."""
    return name.rpartition("\\")[2].partition("@")[0]
