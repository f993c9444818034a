"""Many jobs of several users at one host, which does all it can to mix them up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.apache_gssapi import NTLM_DOMAIN, NTLM_ODD_USER
from tests.support.caseload import Case, Caseload, Identity
from tests.support.doorkeeper import Closing, Doorkeeper, Leg, Served, bare, content
from tests.support.gss_acceptors import KerberosAcceptor, NtlmAcceptor
from tests.support.kdc import Kdc
from tests.support.origin import Origin, Seen, Wire, in_turn
from tests.support.realm import Realm
from tests.support.relay import Passed, Relay
from tests.support.scripted import Scripted, Stage, asking, identity, open_gate
from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER, Server
from tests.support.worker import worker_process
from transferd.auth.challenge import Challenge
from transferd.auth.flow import Attempt, Conversation, RequestLine
from transferd.model.credentials import NegotiateOptions, Scheme
from transferd.worker.authenticator import RENEWALS

JOBS, FILES = 100, 3
#: These jobs become the other user's while they run.
CHANGING = range(0, JOBS, 7)

BODY = b"who is there?\n" * 3000

_PASSWORDS = {"alice": "opensesame", "bob": "correct horse"}


@dataclass(frozen=True)
class Manner:
    """How the server asks, and who comes."""

    host: str
    accept: Callable[[], NtlmAcceptor | KerberosAcceptor]
    users: tuple[Identity, Identity]
    #: What there is to be disturbed.
    legs: frozenset[Leg] = frozenset(Leg)

    @property
    def bound(self) -> bool:
        """Whether connections are authenticated, and not requests."""
        return Leg.WITHIN in self.legs


def _ntlm(name: str, scheme: Scheme = Scheme.NTLM) -> Identity:
    return Identity(
        name=name,
        scheme=scheme,
        username=f"CORP\\{name}",
        password=_PASSWORDS[name],
        options=NegotiateOptions(ntlm=True),
    )


def _kerberos(kdc: Kdc) -> tuple[Identity, Identity]:
    """One has a password and the other a ticket."""
    ticket = kdc.kinit(ODD_USER, password=ODD_PASSWORD)
    return (
        Identity(name=USER, scheme=Scheme.NEGOTIATE, username=USER, password=PASSWORD),
        Identity(
            name=ODD_USER,
            scheme=Scheme.NEGOTIATE,
            username=None,
            options=NegotiateOptions(ccache=f"FILE:{ticket}"),
        ),
    )


def ntlm(realm: Realm) -> Manner:
    """NTLM as such."""
    return Manner("127.0.0.1", NtlmAcceptor, (_ntlm("alice"), _ntlm("bob")))


def ntlm_inside(realm: Realm) -> Manner:
    """NTLM in SPNEGO: nobody has a ticket for a server without a name."""
    users = _ntlm("alice", Scheme.NEGOTIATE), _ntlm("bob", Scheme.NEGOTIATE)
    return Manner("127.0.0.1", lambda: NtlmAcceptor(scheme="Negotiate"), users)


def kerberos(realm: Realm) -> Manner:
    """Kerberos, each request on its own."""
    return Manner(
        "localhost",
        lambda: KerberosAcceptor(realm.kdc.keytab),
        _kerberos(realm.kdc),
        frozenset({Leg.BARE, Leg.FIRST}),
    )


def kerberos_bound(realm: Realm) -> Manner:
    """Kerberos, once for a connection."""
    return Manner(
        "localhost",
        lambda: KerberosAcceptor(realm.kdc.keytab, persistent="true"),
        _kerberos(realm.kdc),
        frozenset({Leg.BARE, Leg.FIRST, Leg.WITHIN}),
    )


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whom acceptors of NTLM know."""
    path = tmp_path / "users"
    path.write_text("".join(f"CORP:{name}:{word}\n" for name, word in _PASSWORDS.items()))
    monkeypatch.setenv("NTLM_USER_FILE", str(path))


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("manner", [ntlm, ntlm_inside, kerberos, kerberos_bound])
async def test_no_request_is_served_under_another_identity(
    realm: Realm,
    manner: Callable[[Realm], Manner],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Promise 6, over 100 jobs of two users, with every connection in danger at every leg.

    Every seventh job becomes the other user's in the midst of a file.
    """
    how = manner(realm)
    keeper = Doorkeeper(how.accept, holding=CHANGING)
    async with Origin().running() as origin, worker_process() as desk:
        keeper.take(origin, JOBS, FILES)
        load = Caseload(
            desk,
            lambda job, file, user: (
                f"http://{how.host}:{origin.port}/{job}/{file}?as={quote(user)}"
            ),
        )
        for number in range(JOBS):
            who, other = how.users if number % 2 else how.users[::-1]
            case = load.add(number, tmp_path / str(number), FILES, who)
            case.other = other if number in CHANGING else None
        await load.carry(keeper.held)
    assert [served for served in keeper.served if served.user != served.wanted] == []
    assert {len(line.jobs) for line in keeper.lines.values()} == {1}
    assert (keeper.errors, keeper.strays) == ([], 0)
    for case in load.cases.values():
        check(case, [served for served in keeper.served if served.job == case.number])
    check_bounds(keeper, load, how)
    # Whoever was stopped has left nothing open.
    assert " error " not in capfd.readouterr().err


def check(case: Case, served: list[Served]) -> None:
    """Every file is whole and its user's, and nothing came for who the job was before."""
    assert case.changed is (case.number in CHANGING)
    before = case.who if case.other is None else case.other
    users = [request.user for request in served]
    changed = users.index(case.who.name)
    assert set(users[:changed]) == ({before.name} if case.changed else set())
    assert set(users[changed:]) == {case.who.name}
    for file in range(FILES):
        # The first one was there before the job changed hands.
        owner = case.who if file else before
        assert case.book.temporary(file).read_bytes() == content(owner.name, file)
    assert {audit.accepted for audit in case.audits} == {True}


def check_bounds(keeper: Doorkeeper, load: Caseload, how: Manner) -> None:
    """Every connection that was lost costs one more handshake at most; no token is sent twice."""
    assert set(keeper.closed) == {
        (leg, closing) for leg in how.legs for closing in Closing if closing is not Closing.NONE
    }
    assert {failure.code for failure in load.failures} == {"connection_lost"}
    assert max(keeper.proofs.values()) == 1
    if how.bound:
        assert max(line.handshakes for line in keeper.lines.values()) == 1
        assert keeper.handshakes <= JOBS + len(CHANGING) + keeper.losses
    else:
        unanswered = keeper.closed[Leg.FIRST, Closing.INSTEAD]
        assert keeper.handshakes == len(keeper.served) + unanswered


# ── at Apache ──────────────────────────────────────────────────────────────────────────────


@dataclass
class Visit:
    """A place of Apache's with a relay before it, and jobs that go there."""

    relay: Relay
    load: Caseload

    def heard(self, case: Case) -> list[Passed]:
        """The requests of a job that were answered."""
        mark = f"job={case.number}"
        return [
            passed
            for passed in self.relay.passed
            if passed.status is not None and passed.seen.target.endswith(mark)
        ]

    def users(self, case: Case) -> set[str | None]:
        """As whom a job was served."""
        found = [heard.user for heard in self.heard(case) if heard.status == 200]
        return {None if user is None else bare(user) for user in found}

    def handshakes(self, case: Case) -> int:
        """How many connections of a job have seen credentials."""
        return len(
            {
                heard.seen.connection
                for heard in self.heard(case)
                if heard.seen.get("authorization") is not None
            }
        )


@contextlib.asynccontextmanager
async def visiting(server: Server, place: str) -> AsyncIterator[Visit]:
    """Let jobs go to a place of *server*; none is begun again."""
    path = f"/{place}{server.put(BODY)}"
    async with Relay(server=server.port).running() as relay, worker_process() as desk:

        def remote(job: int, file: int, user: str) -> str:
            return f"http://localhost:{relay.port}{path}?file={file}&job={job}"

        yield Visit(relay, Caseload(desk, remote, again=False))


def apache_users(kdc: Kdc) -> tuple[Identity, ...]:
    """Two users by NTLM, one of them also inside SPNEGO, and two by Kerberos."""
    # Kerberos knows no such realm.
    named = f"{NTLM_DOMAIN}\\{USER}"
    inside = NegotiateOptions(ntlm=True)
    return (
        Identity(name=USER, scheme=Scheme.NTLM, username=named, password=PASSWORD),
        Identity(
            name=NTLM_ODD_USER, scheme=Scheme.NTLM, username=NTLM_ODD_USER, password=ODD_PASSWORD
        ),
        Identity(
            name=USER, scheme=Scheme.NEGOTIATE, username=named, password=PASSWORD, options=inside
        ),
        *_kerberos(kdc),
    )


async def test_apache_serves_every_job_as_its_user(
    kdc: Kdc, realm: Realm, apache_gssapi: Server, tmp_path: Path
) -> None:
    """A server that others wrote, users and schemes side by side: a handshake for each job."""
    users = apache_users(kdc)
    async with visiting(apache_gssapi, "negotiate") as visit:
        for number in range(8 * len(users)):
            who = users[number % len(users)]
            visit.load.add(number, tmp_path / str(number), FILES, who)
        await visit.load.carry()
    assert visit.load.failures == []
    for case in visit.load.cases.values():
        assert visit.users(case) == {case.who.name}
        assert visit.handshakes(case) == 1
        assert {case.book.temporary(file).read_bytes() for file in range(FILES)} == {BODY}


async def test_a_place_that_closes_every_connection_is_left_soon(
    kdc: Kdc, realm: Realm, apache_gssapi: Server, tmp_path: Path
) -> None:
    """NTLM is never admitted there; Kerberos gets through.

    The failure says so, after as many handshakes as are ever begun anew.
    """
    users = apache_users(kdc)
    async with visiting(apache_gssapi, "closing") as visit:
        for number, who in enumerate(users * 2):
            visit.load.add(number, tmp_path / str(number), FILES, who)
        await visit.load.carry()
    for case in visit.load.cases.values():
        if case.who.scheme is Scheme.NTLM:
            (failure,) = case.failures
            assert failure.code == "connection_lost"
            assert "between the legs of the handshake, or refuses with more" in failure.message
            assert visit.handshakes(case) == 1 + RENEWALS
            # Each of them takes two requests, and the last token is never sent.
            assert len(visit.heard(case)) == 2 * (1 + RENEWALS)
            assert visit.users(case) == set()
        elif case.who.options.ntlm:
            assert visit.users(case) == set()
        else:
            assert case.failures == []
            assert visit.users(case) == {case.who.name}


async def test_a_refusal_of_any_length_is_read_where_a_leg_hangs_on_it(
    kdc: Kdc, realm: Realm, apache_gssapi: Server, tmp_path: Path
) -> None:
    """256 KiB with every 401, also with the one that brings the challenge of NTLM."""
    users = apache_users(kdc)
    async with visiting(apache_gssapi, "wordy") as visit:
        for number, who in enumerate(users):
            visit.load.add(number, tmp_path / str(number), FILES, who)
        await visit.load.carry()
    assert visit.load.failures == []
    for case in visit.load.cases.values():
        assert visit.users(case) == {case.who.name}


# ── who is stopped ─────────────────────────────────────────────────────────────────────────


async def test_who_is_stopped_before_the_last_token_is_read_leaves_no_answer_open(
    stage: Stage,
) -> None:
    """The file's answer is there, and a thread still reads what came with it."""
    reading, gone, read = asyncio.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def script(session: Scripted, line: RequestLine, challenge: Challenge | None) -> Conversation:
        yield Attempt(authorization="Negotiate token")
        loop.call_soon_threadsafe(reading.set)
        assert read.wait(30)

    async def endless(seen: Seen, wire: Wire) -> None:
        await wire.head(200, [("Content-Length", "1000000")])
        await wire.reader.read()
        gone.set()

    stage.play(Scheme.NEGOTIATE, script, blocks=True)
    async with (
        Origin().running() as origin,
        open_gate(identity(Scheme.NEGOTIATE)) as gate,
        asyncio.TaskGroup() as group,
    ):
        origin.pages["/f"] = in_turn(asking("Negotiate"), endless)
        job = group.create_task(gate.ask(origin.url("/f")))
        await reading.wait()
        job.cancel()
        async with asyncio.timeout(10):
            await gone.wait()
        read.set()
