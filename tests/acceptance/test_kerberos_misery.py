"""Kerberos that does not work, as the owner of a job is told; and nobody else's misery."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.acceptors import Basic, Digest, guarded
from tests.support.apache_gssapi import NTLM_DOMAIN
from tests.support.apache_gssapi import apache_gssapi as new_apache
from tests.support.gss_acceptors import KerberosAcceptor
from tests.support.kdc import REALM, Kdc
from tests.support.kdc import kdc as new_kdc
from tests.support.member import Gate, Member, Person, Trouble, person
from tests.support.origin import Document, Origin, Page, Seen, Version, Wire
from tests.support.realm import join
from tests.support.scripted import asking
from tests.support.servers import ODD_USER, PASSWORD, USER, Server, free_ports
from transferd import Job, JobState
from transferd.auth.flow import Attempt
from transferd.model.credentials import NegotiateOptions, Scheme

BODY = b"for who proves who he is\n" * 1000

UNKNOWN_REALM = 'the realm is not known here (Cannot find KDC for realm "NO.WHERE")'
UNKNOWN_CLIENT = f"the KDC does not know the user (Client 'nobody@{REALM}' not found"
WRONG_PASSWORD = "the KDC refuses it, it is wrong (Preauthentication failed)"
UNREACHABLE = "no KDC answers (Cannot contact any KDC for realm 'DOWN.TEST')"
SILENT = "the Kerberos library did not answer within 1 s: its KDC or a name server is silent"
UNKNOWN_SERVICE = "the KDC does not know the service HTTP/nowhere.test (Server "
OTHER_SERVICE = "The ticket isn't for us (GSS status "
EXPIRED = "the ticket has expired (Ticket expired (GSS status "
NO_TICKET = "there is no ticket (No credentials cache found (filename: "
NO_KEY = "there is no key for that principal in it (Keytab contains no suitable keys for "
UNREADABLE = "the job's owner may not read the file (Permission denied)"
ADDRESS = "Kerberos knows servers by their names, and 127.0.0.1 is an address"
KDC_CLOCK = "the clocks of this machine and of the KDC differ too much (Clock skew too great"
SERVER_CLOCK = f"got with the password of '{USER}': Clock skew too great (GSS status "
MISSING = "Kerberos is not installed: No module named 'gssapi'"
#: What only one misery is called.
TEXTS = (
    UNKNOWN_REALM,
    UNKNOWN_CLIENT,
    WRONG_PASSWORD,
    UNREACHABLE,
    SILENT,
    UNKNOWN_SERVICE,
    OTHER_SERVICE,
    EXPIRED,
    NO_TICKET,
    NO_KEY,
    UNREADABLE,
    ADDRESS,
    KDC_CLOCK,
    SERVER_CLOCK,
    MISSING,
)

_SPN = "name the service that runs there with --spn (negotiate.spn)"
_NTLM = "; or allow NTLM inside Negotiate with --allow-ntlm (negotiate.ntlm)"
_THEN = f"{_NTLM}; then resume"
_WAIT = "wait: it is tried again by itself, or `resume` tries at once"
_REALM = """
[realms]
    DOWN.TEST = {{
        kdc = 127.0.0.1:{port}
    }}
"""
_BLOCKED = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gssapi", "krb5"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
"""


def told(trouble: Trouble, text: str) -> None:
    """The owner is told this, and nothing that is called otherwise."""
    assert text in trouble.text
    assert [other for other in TEXTS if other in trouble.text] == [text]


@pytest.fixture(scope="module")
def member(kdc: Kdc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A daemon that knows the KDC and another one, which is down; nobody has a ticket."""
    config = kdc.configuration(kdc_timesync="0")
    with config.open("a") as file:
        file.write(_REALM.format(port=free_ports(1)[0]))
    with Member(tmp_path_factory.mktemp("member"), kdc.environment(config=config)) as running:
        yield running.begin()


@pytest.fixture
async def owner(member: Member, tmp_path: Path) -> AsyncIterator[Person]:
    """Somebody on that machine."""
    async with person(member, tmp_path) as somebody:
        yield somebody


@pytest.fixture
def url(apache_gssapi: Server) -> str:
    """A file that Apache gives to whoever has a ticket."""
    return apache_gssapi.url("/kerberos" + apache_gssapi.put(BODY), host="localhost")


# ── each misery has its message ────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Misery:
    """What a job asks for, and what its owner is told."""

    text: str
    #: What was tried, and with what; {path} is what `make` made.
    tried: str
    advice: str
    username: str | None = USER
    password: str | None = PASSWORD
    make: Callable[[Kdc], Path] | None = None
    options: Callable[[str], NegotiateOptions] = lambda _: NegotiateOptions()
    state: JobState = JobState.ERROR
    code: str = "http_401"


def _locked(kdc: Kdc) -> Path:
    keytab = kdc.export(USER)
    keytab.chmod(0)
    return keytab


MISERIES = {
    "a realm that nobody knows": Misery(
        username=f"{USER}@NO.WHERE",
        text=UNKNOWN_REALM,
        tried=f"a Kerberos ticket for HTTP/localhost with the password of '{USER}@NO.WHERE'",
        advice="give the user as user@REALM, mostly in capitals, and name the realm in krb5.conf"
        f"{_THEN}",
    ),
    "a user whom the KDC does not know": Misery(
        username="nobody",
        text=UNKNOWN_CLIENT,
        tried="a Kerberos ticket for HTTP/localhost with the password of 'nobody'",
        advice=f"set the right credentials, with the right realm (user@REALM){_THEN}",
    ),
    "a wrong password": Misery(
        password="wrong",
        text=WRONG_PASSWORD,
        tried=f"a Kerberos ticket for HTTP/localhost with the password of '{USER}'",
        advice="set the right credentials, then resume",
    ),
    "a KDC that is down": Misery(
        username=f"{USER}@DOWN.TEST",
        text=UNREACHABLE,
        tried=f"a Kerberos ticket for HTTP/localhost with the password of '{USER}@DOWN.TEST'",
        advice=f"{_WAIT}{_NTLM}",
        state=JobState.TRANSIENT_ERROR,
        code="kdc_unreachable",
    ),
    "a service that the KDC does not know": Misery(
        options=lambda _: NegotiateOptions(spn="HTTP/nowhere.test"),
        text=UNKNOWN_SERVICE,
        tried=f"a Kerberos ticket for HTTP/nowhere.test with the password of '{USER}'",
        advice=f"{_SPN}{_THEN}",
    ),
    "a service that the server is not": Misery(
        options=lambda _: NegotiateOptions(spn="HTTP/elsewhere.test"),
        text=OTHER_SERVICE,
        tried="the server refused the Kerberos ticket for HTTP/elsewhere.test, got with the"
        f" password of '{USER}'",
        advice="have the server's keytab renewed, or name the service that it runs as with"
        " --spn (negotiate.spn), then resume",
    ),
    "a ticket that has expired": Misery(
        username=None,
        password=None,
        make=Kdc.expired_ticket,
        options=lambda path: NegotiateOptions(ccache=f"FILE:{path}"),
        text=EXPIRED,
        tried="a Kerberos ticket for HTTP/localhost with the ticket cache FILE:{path}",
        advice="get a ticket with `kinit -c FILE:{path}`, then resume",
    ),
    "no ticket at all": Misery(
        username=None,
        password=None,
        make=lambda kdc: kdc.directory / "nothing",
        text=NO_TICKET,
        tried="a Kerberos ticket for HTTP/localhost with the ticket cache FILE:{path}",
        advice="get a ticket with `kinit`, then resume",
    ),
    "a keytab of somebody else": Misery(
        username=None,
        password=None,
        make=lambda kdc: kdc.export(ODD_USER),
        options=lambda path: NegotiateOptions(keytab=path, principal=USER),
        text=NO_KEY,
        tried=f"a Kerberos ticket for HTTP/localhost with the keytab {{path}} of '{USER}'",
        advice="name one that is in it with --principal (`klist -k {path}` lists them), or export"
        " the key anew, then resume",
    ),
    "a keytab that is not to be read": Misery(
        username=None,
        password=None,
        make=_locked,
        options=lambda path: NegotiateOptions(keytab=path),
        text=UNREADABLE,
        tried="a Kerberos ticket for HTTP/localhost with the keytab {path}",
        advice="make the file readable for the job's owner, then resume",
    ),
}


@pytest.mark.parametrize("misery", MISERIES.values(), ids=MISERIES)
async def test_each_misery_has_its_message(
    owner: Person, kdc: Kdc, url: str, misery: Misery
) -> None:
    """What was tried with what, what happened, what to do; and whether time may heal it."""
    path = str(misery.make(kdc)) if misery.make else ""
    job = await owner.job(
        url,
        username=misery.username,
        password=misery.password,
        negotiate=misery.options(path),
    )
    trouble = await owner.trouble(job)
    told(trouble, misery.text)
    assert misery.tried.format(path=path) in trouble.text
    assert trouble.remedy == misery.advice.format(path=path)
    assert (trouble.state, trouble.code) == (misery.state, misery.code)


async def test_a_server_without_a_name_has_no_ticket(owner: Person, url: str) -> None:
    """NG6: no service is known by an address; nothing is sent, neither of whoever has a ticket."""
    job = await owner.job(url.replace("localhost", "127.0.0.1"), username=USER, password=PASSWORD)
    trouble = await owner.trouble(job)
    told(trouble, ADDRESS)
    assert trouble.remedy == (
        f"use the server's host name, or name its service with --spn (negotiate.spn){_THEN}"
    )
    # Who it is for all that can be told.
    await job.change(negotiate={"spn": "HTTP/localhost"})
    assert await owner.fetch(job) == [BODY]


async def test_a_server_with_another_time_is_told_from_a_wrong_password(
    owner: Person, kdc: Kdc, served: Path
) -> None:
    """NG9: the server's own word for it, and that it is its clock as well."""
    with new_apache(served, kdc, clock=timedelta(hours=1)) as late:
        place = late.url("/kerberos" + late.put(BODY), host="localhost")
        trouble = await owner.trouble(await owner.job(place, username=USER, password=PASSWORD))
    told(trouble, SERVER_CLOCK)
    assert "the server refused the Kerberos ticket for HTTP/localhost" in trouble.text
    assert trouble.remedy == (
        "set the clocks of this machine, of the KDC and of the server right, then resume"
    )
    assert (trouble.state, trouble.code) == (JobState.ERROR, "http_401")


async def test_a_kdc_with_another_time_is_told_from_a_wrong_password(
    url: str, tmp_path: Path
) -> None:
    """NG9: on a machine that is not to follow the clock of a KDC (kdc_timesync)."""
    with contextlib.ExitStack() as stack:
        fast = stack.enter_context(new_kdc())
        fast.stop()
        fast.start(clock=timedelta(hours=1))
        config = fast.configuration(kdc_timesync="0")
        member = stack.enter_context(Member(tmp_path, fast.environment(config=config)))
        async with person(member.begin(), tmp_path) as owner:
            trouble = await owner.trouble(await owner.job(url, username=USER, password=PASSWORD))
    told(trouble, KDC_CLOCK)
    assert f"HTTP/localhost with the password of '{USER}'" in trouble.text
    assert trouble.remedy == f"set the clocks of this machine and of the KDC right{_THEN}"
    assert (trouble.state, trouble.code) == (JobState.ERROR, "http_401")


async def test_without_the_extra_it_is_said_what_to_install(
    kdc: Kdc, url: str, apache_gssapi: Server, tmp_path: Path
) -> None:
    """Whatever is not Kerberos works all the same, NTLM inside Negotiate as well."""
    (tmp_path / "sitecustomize.py").write_text(_BLOCKED, encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    member = Member(tmp_path, kdc.environment() | {"PYTHONPATH": paths})
    with member:
        async with person(member.begin(), tmp_path) as owner:
            job = await owner.job(url, username=USER, password=PASSWORD)
            trouble = await owner.trouble(job)
            inside = await owner.job(
                apache_gssapi.url("/spnego" + apache_gssapi.put(BODY), host="localhost"),
                username=USER,
                password=PASSWORD,
                negotiate=NegotiateOptions(ntlm=True),
            )
            assert await owner.fetch(inside) == [BODY]
    told(trouble, MISSING)
    assert trouble.remedy == (
        f"install it with `{sys.executable} -m pip install gssapi krb5` (needs gcc, python3-dev and"
        f" libkrb5-dev; a running daemon notices){_THEN}"
    )
    assert (trouble.state, trouble.code) == (JobState.ERROR, "http_401")


# ── NTLM instead ───────────────────────────────────────────────────────────────────────────


def test_ntlm_inside_negotiate_is_spoken_by_permission_alone(
    member: Member, apache_gssapi: Server, tmp_path: Path
) -> None:
    """What cannot be Kerberos is refused with the option's name; with it, the audit tells NTLM."""
    place = apache_gssapi.url("/spnego" + apache_gssapi.put(BODY), host="localhost")
    # Kerberos knows no such realm.
    who = ("--auth", "negotiate", "--user", f"{NTLM_DOMAIN}\\{USER}", "--password-file", "-")
    command = ("get", place, str(tmp_path / "x"), "--proxy", "direct", *who)
    before = member.logged()
    refused = member.ctl(*command, stdin=f"{PASSWORD}\n")
    assert refused.returncode == 1
    assert f"with the password of '{USER}@{NTLM_DOMAIN}': the realm is not known" in refused.stderr
    assert "allow NTLM inside Negotiate with --allow-ntlm (negotiate.ntlm)" in refused.stderr
    assert " auth." not in member.logged()[len(before) :]
    done = member.ctl(*command, "--allow-ntlm", stdin=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x").read_bytes() == BODY
    (audit,) = [line for line in member.logged()[len(before) :].splitlines() if " auth." in line]
    assert "auth.accepted" in audit
    assert "scheme=negotiate" in audit
    assert "mechanism=ntlm" in audit


# ── a silent KDC ───────────────────────────────────────────────────────────────────────────


@dataclass
class Silence:
    """A machine whose KDC is silent so far, its owner, and a server."""

    gate: Gate
    member: Member
    owner: Person
    origin: Origin

    async def hung(self, count: int) -> list[Job]:
        """Make jobs that want a ticket, and wait until they wait for it."""
        self.origin.pages["/hung"] = asking("Negotiate")
        url = f"http://localhost:{self.origin.port}/hung"
        jobs = [await self.owner.job(url, username=USER, password=PASSWORD) for _ in range(count)]
        for job in jobs:
            await job.resume()
        await self.origin.saw(count)
        return jobs

    async def others(self, count: int) -> list[list[bytes]]:
        """Fetch a file in so many jobs that want none."""
        page: Page = Document(version=Version(body=BODY))
        schemes = (Scheme.BASIC, Scheme.DIGEST, None)
        self.origin.pages["/basic"] = guarded(page, Basic(USER, PASSWORD))
        self.origin.pages["/digest"] = guarded(page, Digest(USER, PASSWORD))
        self.origin.pages["/None"] = page
        jobs = [
            await self.owner.job(
                self.origin.url(f"/{scheme}"), username=USER, password=PASSWORD, scheme=scheme
            )
            for scheme in (schemes * count)[:count]
        ]
        for job in jobs:
            await job.resume()
        return [content for job in jobs for content in [await self.owner.fetched(job)]]


@contextlib.asynccontextmanager
async def silence(kdc: Kdc, directory: Path, *, kerberos_timeout: float) -> AsyncIterator[Silence]:
    """Be on a machine whose KDC is silent."""
    async with Gate(kdc.port).running() as gate, Origin().running() as origin:
        config = kdc.configuration(port=gate.port)
        member = Member(
            directory,
            kdc.environment(config=config),
            kerberos_timeout=kerberos_timeout,
            foreground_slots=200,
        )
        with member:
            async with person(member.begin(), directory) as owner:
                yield Silence(gate, member, owner, origin)


async def test_a_silent_kdc_is_waited_for(kdc: Kdc, url: str, tmp_path: Path) -> None:
    """The job goes on by itself when the KDC answers again, and not before."""
    async with silence(kdc, tmp_path, kerberos_timeout=1.0) as machine:
        job = await machine.owner.job(url, username=USER, password=PASSWORD)
        trouble = await machine.owner.trouble(job)
        told(trouble, SILENT)
        assert trouble.remedy == _WAIT
        assert (trouble.state, trouble.code) == (JobState.TRANSIENT_ERROR, "kdc_unreachable")
        machine.gate.open = True
        assert await machine.owner.fetched(job) == [BODY]


async def test_nobody_else_waits_for_a_silent_kdc(kdc: Kdc, tmp_path: Path) -> None:
    """Of the jobs of one worker, those without Kerberos overtake the one that hangs."""
    async with silence(kdc, tmp_path, kerberos_timeout=60.0) as machine:
        (hung,) = await machine.hung(1)
        await machine.gate.asked(1)
        assert await machine.others(20) == [[BODY]] * 20
        await hung.refresh()
        assert hung.state is JobState.CONNECTING
        assert len(machine.member.workers()) == 1


async def test_more_jobs_than_threads_may_wait_for_a_silent_kdc(kdc: Kdc, tmp_path: Path) -> None:
    """All threads for security libraries hang: whoever needs none moves on, and who goes, goes."""
    async with silence(kdc, tmp_path, kerberos_timeout=60.0) as machine:
        hung = await machine.hung(70)
        await machine.gate.asked(64)
        assert await machine.others(20) == [[BODY]] * 20
        for job in hung:
            await job.refresh()
            assert job.state is JobState.CONNECTING
        machine.owner.jobs.clear()
        began = time.monotonic()
        assert await asyncio.to_thread(machine.member.stop) == 0
        # The libraries would hang for some 25 seconds.
        assert time.monotonic() - began < 5


# ── tickets that end while the job goes on ─────────────────────────────────────────────────


@dataclass
class Ward:
    """Files behind Kerberos, each request on its own; files `/b` wait until they may go on."""

    acceptor: KerberosAcceptor
    go: asyncio.Event = field(default_factory=asyncio.Event)
    #: One for each request with a token that waits.
    waiting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    #: What was served.
    served: list[str] = field(default_factory=list)

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer a request."""
        value = seen.get("authorization")
        if value is not None and seen.path.endswith("/b") and not self.go.is_set():
            self.waiting.release()
            await self.go.wait()
        reply = self.acceptor.reply(Attempt(authorization=value))
        wire.extra = [("WWW-Authenticate", text) for text in reply.authenticate]
        if reply.status == 401:
            return await wire.answer(401)
        # What is asked in addition is whether a file that took so long is still the same.
        if seen.get("range") is None and seen.method == "GET":
            self.served.append(seen.path)
        return await Document(version=Version(body=seen.path.encode()))(seen, wire)


async def test_tickets_end_and_are_renewed_in_the_midst_of_a_job(
    owner: Person, member: Member, kdc: Kdc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """NG5: keys and passwords get new ones, a cache is read anew; one that is not renewed is told.

    The server takes its time with the second file: its token was made before the end, and both
    ends read what the other one sent after it.
    """
    ward = Ward(join(kdc, monkeypatch, tmp_path).acceptor())
    life = timedelta(seconds=3)
    hasty = f"hasty-{secrets.token_hex(8)}"
    kdc.add_user(hasty, PASSWORD)
    kdc.limit(hasty, life)
    keytab = NegotiateOptions(keytab=str(kdc.export(hasty)))

    async with Origin().running() as origin:

        async def job(name: str, options: NegotiateOptions, username: str | None = None) -> Job:
            urls = []
            for file in "abc":
                origin.pages[f"/{name}/{file}"] = ward
                urls.append(f"http://localhost:{origin.port}/{name}/{file}")
            secret = None if username is None else PASSWORD
            return await owner.job(*urls, username=username, password=secret, negotiate=options)

        kept, left = kdc.kinit(lifetime=life), kdc.kinit(lifetime=life)
        password = await job("password", NegotiateOptions(), hasty)
        key = await job("key", keytab)
        renewed = await job("renewed", NegotiateOptions(ccache=f"FILE:{kept}"))
        forgotten = await job("forgotten", NegotiateOptions(ccache=f"FILE:{left}"))
        jobs = [password, key, renewed, forgotten]
        for each in jobs:
            await each.resume()
        for _ in jobs:
            await ward.waiting.acquire()
        # Nothing but time ends a ticket, and MIT counts whole seconds.
        await asyncio.sleep(life.total_seconds() + 1)
        kdc.kinit(ccache=kept)
        ward.go.set()
        trouble = await owner.next_trouble(forgotten)
        for name, each in (("password", password), ("key", key), ("renewed", renewed)):
            files = [f"/{name}/{file}".encode() for file in "abc"]
            assert await owner.fetched(each) == files
            assert each.answer.error_count == 0
        told(trouble, EXPIRED)
        assert f"with the ticket cache FILE:{left}: " in trouble.text
        assert trouble.remedy == f"get a ticket with `kinit -c FILE:{left}`, then resume"
        assert (trouble.state, trouble.code) == (JobState.ERROR, "http_401")
        kdc.kinit(ccache=left)
        assert await owner.fetch(forgotten) == [f"/forgotten/{file}".encode() for file in "abc"]
    assert sorted(ward.served) == sorted(set(ward.served))
    assert ward.acceptor.errors == []
