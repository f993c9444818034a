"""Passport past its three servers, over real sockets: every knob of theirs, and who heard what."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.acceptors import Basic, guarded
from tests.support.identities import BODY, audited, document, failed
from tests.support.origin import Fault, Origin, Seen, Wire, fixed, redirect
from tests.support.passport import (
    KIM,
    Cookies,
    Passport,
    cookies,
    passport_servers,
    read_message,
)
from tests.support.proxy import ForwardProxy
from tests.support.tls import Authority
from tests.support.worker import PASSWORD, PLAIN, Book, Desk, End, credential, worker_task
from transferd.model.credentials import PassportOptions, Scheme, Target
from transferd.model.failures import Failure
from transferd.wire import link

ACCEPTED = (True, Scheme.PASSPORT, "127.0.0.1")
REFUSED = (False, Scheme.PASSPORT, "127.0.0.1")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


@pytest.fixture
async def servers() -> AsyncIterator[Passport]:
    """The three servers, on loopback without TLS."""
    async with passport_servers(document(), PASSWORD) as running:
        yield running


def holding(
    password: str = PASSWORD, username: str = KIM, age: float = 0.0
) -> list[link.LinkCredential]:
    """The credential."""
    held = credential(Scheme.PASSPORT, username, password)
    return [link.LinkCredential(held.target, held.scheme, username, held.password, age)]


async def carry(
    desk: Desk,
    servers: Passport,
    book: Book,
    *,
    credentials: Iterable[link.LinkCredential] | None = None,
    options: PassportOptions | None = None,
    cacert: str | None = None,
) -> End:
    """Run a job that trusts the servers."""
    settings = replace(PLAIN, passport=options or servers.options, cacert=cacert)
    held = holding() if credentials is None else credentials
    return await desk.carry(book, credentials=held, settings=settings)


async def fetch(desk: Desk, servers: Passport, directory: Path, files: int = 1) -> Book:
    """Fetch the file, so many times in one job, and compare the bytes."""
    book = Book.of(directory, *[servers.url] * files)
    assert isinstance(await carry(desk, servers, book), link.Drained)
    for index in range(files):
        assert book.temporary(index).read_bytes() == BODY
    return book


async def refusal(desk: Desk, servers: Passport, directory: Path) -> Failure:
    """Fail to fetch the file; nobody but the login host has heard the password then either."""
    end = failed(await carry(desk, servers, Book.of(directory, servers.url)))
    assert_kept(servers)
    return end.failure


class Moving:
    """A configuration server whose login server moves to /new with the second answer."""

    def __init__(self, servers: Passport) -> None:
        self.asked = 0
        self._configuration = servers.configuration
        self._login_url = servers.login_origin.url("/new")
        servers.login.serve(servers.login_origin, "/new")
        servers.configuration_origin.pages["/cfg"] = self

    async def __call__(self, seen: Seen, wire: Wire) -> None:
        """Answer, and move."""
        self.asked += 1
        await self._configuration(seen, wire)
        self._configuration.version = 4
        self._configuration.login_url = self._login_url


def spoken(password: str = PASSWORD) -> str:
    """A password as it is on the wire."""
    return f"pwd={quote(password, safe='')}"


def assert_kept(servers: Passport, *others: Origin, password: str = PASSWORD) -> None:
    """Nobody but the login host has heard the password, or anything that looks like one."""
    assert servers.login_origin.said.count(spoken(password)) == servers.login_origin.said.count(
        "pwd="
    )
    for origin in (servers.partner_origin, servers.configuration_origin, *others):
        assert "pwd=" not in origin.said
        assert password not in origin.said


# ── the whole way ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("secure", [True, False])
async def test_each_server_hears_what_is_for_it(desk: Desk, tmp_path: Path, secure: bool) -> None:
    """Challenge, configuration, token request, sign-in, ticket, cookie: on https and loopback."""
    authority = Authority(tmp_path)
    async with passport_servers(
        document(), PASSWORD, authority.server() if secure else None
    ) as servers:
        book = Book.of(tmp_path, servers.url, servers.url)
        end = await carry(desk, servers, book, cacert=authority.cacert if secure else None)
        assert isinstance(end, link.Drained), end
        assert book.temporary(1).read_bytes() == BODY

        asked, configured, signed = (
            [seen.get("authorization") for seen in origin.seen]
            for origin in (
                servers.partner_origin,
                servers.configuration_origin,
                servers.login_origin,
            )
        )
        ticket = next(iter(servers.login.tickets))
        assert asked == [None, f"Passport1.4 from-PP={ticket}", None]
        assert configured == [None]
        assert [next(iter(read_message(value) or []))[0] for value in signed] == [
            "tname",
            "sign-in",
        ]
        # The second file is the cookie's.
        assert cookies(servers.partner_origin.seen[2]) == {"LabPP": "LabPP1"}
        assert "LabAS" not in servers.partner_origin.said
        assert "LabPP" not in servers.login_origin.said
        assert "cookie" not in servers.configuration_origin.said
        assert servers.login.tickets == {ticket: 1}
        assert servers.partner.replays == 0
        assert audited(desk) == [ACCEPTED]
        assert_kept(servers)


PASSWORDS = [
    "a,b",
    "50%",
    "%2C",
    "1+1 = 2",
    "Grün µ 日本",
    "a:b",
    'q"u\\o',
    "pwd=,OrgUrl=x",
    " a b ",
]


@pytest.mark.parametrize("password", PASSWORDS)
async def test_every_password_arrives_whole(desk: Desk, tmp_path: Path, password: str) -> None:
    """Escaped once, and unescaped to the same text (MS-PASS 2.2.7)."""
    async with passport_servers(document(), password) as servers:
        book = Book.of(tmp_path, servers.url)
        end = await carry(desk, servers, book, credentials=holding(password))
        assert isinstance(end, link.Drained)
        assert_kept(servers, password=password)


async def test_a_wrong_password_is_shown_once(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """One attempt, one refusal, one record; the job waits for its owner."""
    book = Book.of(tmp_path, servers.url)
    end = failed(await carry(desk, servers, book, credentials=holding("wrong")))
    assert end.failure.code == "http_401"
    assert "refused user name or password of 'kim@lab.test' (Passport)" in end.failure.message
    assert "set the right credentials" in end.failure.remedy
    assert (len(servers.login.sign_ins), servers.login.token_requests) == (1, 1)
    assert audited(desk) == [REFUSED]
    assert_kept(servers, password="wrong")


async def test_nothing_is_kept_from_one_run_to_the_next(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Cookies live and die with a run: another password is another user."""
    await fetch(desk, servers, tmp_path)
    book = Book.of(tmp_path, servers.url)
    failed(await carry(desk, servers, book, credentials=holding("wrong")))
    end = failed(await carry(desk, servers, book, credentials=[]))
    assert end.failure.code == "http_401"
    assert [cookies(seen) for seen in servers.login_origin.seen] == [{}] * 4


async def test_a_resumed_file_is_asked_for_with_its_range(desk: Desk, tmp_path: Path) -> None:
    """What is there stays; the rest comes with the ticket of the second run."""
    page = document()
    page.faults = deque([Fault(cut=1000)])
    async with passport_servers(page, PASSWORD) as servers:
        book = Book.of(tmp_path, servers.url)
        assert failed(await carry(desk, servers, book)).failure.code == "connection_lost"
        assert book.files[0].bytes_transferred == 1000
        assert isinstance(await carry(desk, servers, book), link.Drained)
        assert book.temporary().read_bytes() == BODY
        starts = [seen.range_start for seen in servers.partner_origin.seen]
        assert starts == [None, None, 1000, 1000]
        assert len(servers.login.sign_ins) == 2


# ── the partner ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [302, 401])
async def test_a_challenge_comes_with_302_or_401(
    desk: Desk, servers: Passport, tmp_path: Path, status: int
) -> None:
    """MS-PASS 2.2.8; where a 302 would send a browser is nothing to us."""
    servers.partner.status = status
    servers.partner.location = servers.configuration_origin.url("/for/browsers")
    await fetch(desk, servers, tmp_path)
    assert servers.configuration_origin.requests("/for/browsers") == []


async def test_a_challenge_with_another_status_is_none(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """A 301 is a redirect, whatever else is written on it."""
    servers.partner.status = 301
    servers.partner_origin.pages["/for/browsers"] = document()
    await fetch(desk, servers, tmp_path)
    assert servers.login_origin.seen == []


@pytest.mark.parametrize("status", [302, 401])
async def test_other_schemes_may_stand_beside_it(
    desk: Desk, servers: Passport, tmp_path: Path, status: int
) -> None:
    """In fields of their own, before and after; what is held is used."""
    servers.partner.status = status
    servers.partner.before = ("Negotiate", 'Digest realm="r", nonce="n", algorithm=MD5')
    servers.partner.after = ('Basic realm="r"', "NTLM")
    await fetch(desk, servers, tmp_path)
    assert audited(desk) == [ACCEPTED]


async def test_the_password_of_passport_is_not_for_basic(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """A scheme that is offered but not held gets nothing."""
    servers.partner_origin.pages["/kit/app.bin"] = guarded(document(), Basic(KIM, PASSWORD))
    failure = await refusal(desk, servers, tmp_path)
    assert failure.code == "http_401"
    assert [seen.get("authorization") for seen in servers.partner_origin.seen] == [None]
    assert servers.login_origin.seen == servers.configuration_origin.seen == []


@pytest.mark.parametrize("status", [302, 401])
async def test_without_credentials_nobody_is_asked(
    desk: Desk, servers: Passport, tmp_path: Path, status: int
) -> None:
    """The refusal names what was offered."""
    servers.partner.status = status
    end = failed(await carry(desk, servers, Book.of(tmp_path, servers.url), credentials=[]))
    assert end.failure.code == "http_401"
    assert "offered: Passport1.4" in end.failure.message
    assert "set credentials for passport" in end.failure.remedy
    assert servers.login_origin.seen == servers.configuration_origin.seen == []


async def test_a_partner_that_refuses_its_ticket_is_asked_once(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """A second challenge is the end (MS-PASS 3.1.5.1)."""
    servers.partner.refuses = True
    failure = await refusal(desk, servers, tmp_path)
    assert failure.code == "http_401"
    assert "the server 127.0.0.1 refused the ticket" in failure.message
    assert (servers.partner.challenges, len(servers.login.sign_ins)) == (2, 1)


async def test_a_cookie_of_the_partner_lasts_as_long_as_it_may(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Expired in the middle of a job: a new ticket for the login server's cookie, silently."""
    servers.partner.cookies = Cookies("LabPP", uses=1)
    await fetch(desk, servers, tmp_path, files=5)
    # Ticket, cookie, challenge and ticket, cookie, challenge and ticket.
    assert servers.partner.challenges == 3
    assert (servers.login.token_requests, len(servers.login.sign_ins)) == (3, 1)
    assert list(servers.login.tickets.values()) == [1, 1, 1]
    assert servers.partner.replays == 0
    assert len(servers.configuration_origin.seen) == 1
    assert audited(desk) == [ACCEPTED]


async def test_a_redirect_to_a_partner_elsewhere_gets_nothing(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Credentials go to the origin of the file's own URL only, tickets too."""
    async with Origin("127.0.0.2").running() as other:
        servers.partner_origin.pages["/away"] = redirect(other.url("/kit/app.bin"))
        other.pages["/kit/app.bin"] = servers.partner
        book = Book.of(tmp_path, servers.partner_origin.url("/away"))
        end = failed(await carry(desk, servers, book))
        assert end.failure.code == "http_401"
        assert [seen.get("authorization") for seen in other.seen] == [None]
        assert servers.login_origin.seen == []
        assert_kept(servers, other)


async def test_cookies_of_the_partner_go_nowhere_else(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Another port of the same host is another origin, whatever RFC 6265 allows."""
    async with Origin("127.0.0.1").running() as other:
        servers.partner_origin.pages["/away"] = redirect(other.url("/f"))
        other.pages["/f"] = document()
        book = Book.of(tmp_path, servers.url, servers.partner_origin.url("/away"))
        assert isinstance(await carry(desk, servers, book), link.Drained)
        assert cookies(servers.partner_origin.seen[-1]) == {"LabPP": "LabPP1"}
        assert "cookie" not in other.said


# ── the configuration server ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [200, 302, 404, 500])
async def test_a_configuration_counts_with_any_status(
    desk: Desk, servers: Passport, tmp_path: Path, status: int
) -> None:
    """MS-PASS 2.2.12."""
    servers.configuration.status = status
    await fetch(desk, servers, tmp_path)


async def test_a_newer_configuration_is_fetched_for_the_next_exchange(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """PassportConfig names a higher version: asked for once, and stored (MS-PASS 3.1.5.3-4)."""
    servers.partner.cookies = Cookies("LabPP", uses=0)
    servers.login.version = 4
    servers.configuration.version = 4
    await fetch(desk, servers, tmp_path)
    assert len(servers.configuration_origin.seen) == 1
    servers.configuration.version = 3
    moved = Moving(servers)
    await fetch(desk, servers, tmp_path, files=3)
    assert moved.asked == 2
    assert [seen.path for seen in servers.login_origin.seen[2:]] == ["/tok", "/tok", "/new", "/new"]


@pytest.mark.parametrize(
    ("silent", "status", "code", "transient"),
    [(True, 200, "http_401", False), (True, 503, "http_503", True)],
)
async def test_a_configuration_server_that_says_nothing_is_named(
    desk: Desk,
    servers: Passport,
    tmp_path: Path,
    silent: bool,
    status: int,
    code: str,
    transient: bool,
) -> None:
    """Out of order it is waited for; otherwise the owner has to mend the setting."""
    servers.configuration.silent, servers.configuration.status = silent, status
    failure = await refusal(desk, servers, tmp_path)
    assert (failure.code, failure.kind.transient) == (code, transient)
    assert f"answered with status {status}" in failure.message
    assert "configuration server http://127.0.0.1" in failure.message
    assert servers.login_origin.seen == []


async def test_a_configuration_server_that_is_down_is_waited_for(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """A transport failure as with any server."""
    async with Origin().running() as gone:
        pass
    options = replace(servers.options, configuration_url=gone.url("/cfg"))
    end = failed(await carry(desk, servers, Book.of(tmp_path, servers.url), options=options))
    assert end.failure.code == "connection_refused"
    assert f"127.0.0.1:{gone.port}" in end.failure.message


async def test_another_login_host_is_not_even_asked(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """The configuration server cannot say who gets the password; the owner does."""
    async with Origin("127.0.0.2").running() as other:
        servers.login.serve(other)
        servers.configuration.login_url = other.url("/tok")
        failure = await refusal(desk, servers, tmp_path)
        assert failure.code == "http_401"
        assert f"only 127.0.0.2:{servers.login_origin.port} may be shown" in failure.message
        assert other.seen == servers.login_origin.seen == []


@pytest.mark.parametrize("missing", ["configuration_url", "login_host"])
async def test_without_its_settings_nobody_is_asked(
    desk: Desk, servers: Passport, tmp_path: Path, missing: str
) -> None:
    """The message names what is missing, the remedy where to set it."""
    options = replace(servers.options, **{missing: None})
    end = failed(await carry(desk, servers, Book.of(tmp_path, servers.url), options=options))
    assert end.failure.code == "http_401"
    assert f"passport.{missing} is not set" in end.failure.message
    assert "--passport-configuration" in end.failure.remedy
    assert servers.login_origin.seen == servers.configuration_origin.seen == []


async def test_another_scheme_takes_over_where_passport_cannot_start(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """The same credentials may be set for every scheme; a plain user name is none of Passport's."""
    basic = Basic("kim", PASSWORD)
    servers.partner.status = 401

    async def either(seen: Seen, wire: Wire) -> None:
        verdict = basic.admit(seen, seen.get("authorization"))
        await (servers.partner.page if verdict.admitted else servers.partner)(seen, wire)

    servers.partner.after = tuple(basic.challenges())
    servers.partner_origin.pages["/kit/app.bin"] = either
    both = [*holding(username="kim"), credential(Scheme.BASIC, "kim", PASSWORD)]
    end = await carry(desk, servers, Book.of(tmp_path, servers.url), credentials=both)
    assert isinstance(end, link.Drained)
    assert servers.login_origin.seen == []


# ── the login server ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spelling", ["failed-noretry", "fail-noretry"])
async def test_noretry_is_not_the_passwords_fault(
    desk: Desk, servers: Passport, tmp_path: Path, spelling: str
) -> None:
    """The partner's parameters are unknown there: no password is sent, and the text says so."""
    servers.login.noretry = spelling
    servers.partner.challenge = "site=72"
    failure = await refusal(desk, servers, tmp_path)
    assert failure.code == "http_401"
    assert "refused the parameters of the server's challenge" in failure.message
    assert "the password is not to blame" in failure.remedy
    assert servers.login.sign_ins == []


async def test_a_login_server_of_another_realm_gets_no_password(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """The configuration is read once more, and then it is refused."""
    servers.login.srealm = "evil.test"
    failure = await refusal(desk, servers, tmp_path)
    assert failure.code == "http_401"
    assert "the realm 'evil.test', not for 'lab.test'" in failure.message
    assert servers.login.sign_ins == []
    assert len(servers.configuration_origin.seen) == 2


async def test_the_owner_may_name_the_realm(desk: Desk, servers: Passport, tmp_path: Path) -> None:
    """passport.realm counts, whatever the configuration says or leaves out."""
    servers.configuration.realm = None
    book = Book.of(tmp_path, servers.url)
    options = replace(servers.options, realm="lab.test")
    assert isinstance(await carry(desk, servers, book, options=options), link.Drained)


@pytest.mark.parametrize("status", [200, 302, 401, 404, 500])
async def test_a_ticket_counts_with_any_status(
    desk: Desk, servers: Passport, tmp_path: Path, status: int
) -> None:
    """MS-PASS 2.2.11; where it would send a browser is nothing to us."""
    servers.login.status = status
    await fetch(desk, servers, tmp_path)
    assert servers.login_origin.requests("/for/browsers") == []


@pytest.mark.parametrize("hops", [1, 2, 5])
async def test_redirects_of_the_login_server_are_followed(
    desk: Desk, servers: Passport, tmp_path: Path, hops: int
) -> None:
    """With the identical request, as often as five times."""
    servers.login.hops = hops
    await fetch(desk, servers, tmp_path)
    said = [seen.get("authorization") for seen in servers.login_origin.seen]
    assert len(said) == hops + 2
    assert len(set(said[: hops + 1])) == 1
    assert [seen.path for seen in servers.login_origin.seen[-2:]] == [f"/tok/{hops}"] * 2


async def test_redirects_of_the_login_server_come_to_an_end(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """A sixth one is refused, and nobody is shown the password."""
    servers.login.hops = 6
    failure = await refusal(desk, servers, tmp_path)
    assert failure.code == "http_401"
    assert "redirected more than 5 times" in failure.message
    assert (len(servers.login_origin.seen), servers.login.sign_ins) == (6, [])


async def test_a_redirect_of_the_login_server_cannot_take_the_password_away(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Another port is another server; it is asked nothing."""
    async with Origin("127.0.0.2").running() as other:
        servers.login.serve(other)
        servers.login.hops, servers.login.hop_base = 1, other.url("")
        failure = await refusal(desk, servers, tmp_path)
        assert failure.code == "http_401"
        assert "a redirect of the login server" in failure.message
        assert other.seen == []


async def test_custom_tokens_come_back(desk: Desk, servers: Passport, tmp_path: Path) -> None:
    """In order, byte for byte, before the partner's parameters."""
    servers.login.custom = ("ts=-2", "x", "b=%2C'=")
    await fetch(desk, servers, tmp_path)
    said = servers.login_origin.seen[-1].get("authorization") or ""
    assert said.endswith(f",ts=-2,x,b=%2C'=,{servers.partner.challenge}")


async def test_the_age_of_the_password_is_told(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """A login server may find it too old; with a prompt the job's is the answer, and fresh."""
    servers.login.max_age = 30
    book = Book.of(tmp_path, servers.url)
    end = failed(await carry(desk, servers, book, credentials=holding(age=31.5)))
    assert end.failure.code == "http_401"
    assert isinstance(await carry(desk, servers, book, credentials=holding(age=12.5)), link.Drained)
    assert [given["elapsed-time"] for given in servers.login.sign_ins] == ["31", "12"]


async def test_a_prompt_is_answered_with_what_the_job_holds(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Once: nobody is there to type another one."""
    servers.login.prompt, servers.login.max_age = True, 30
    book = Book.of(tmp_path, servers.url)
    assert isinstance(
        await carry(desk, servers, book, credentials=holding(age=1000.0)), link.Drained
    )
    book = Book.of(tmp_path, servers.url)
    end = failed(await carry(desk, servers, book, credentials=holding("wrong")))
    assert "wants them typed in anew" in end.failure.message
    assert [given["elapsed-time"] for given in servers.login.sign_ins] == ["0", "0"]


async def test_a_cookie_of_the_login_server_spares_the_password(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """As long as it lasts; then the password is shown again, silently."""
    servers.partner.cookies = Cookies("LabPP", uses=0)
    servers.login.cookies = Cookies("LabAS", uses=1)
    # The server sets a fresh cookie with each ticket: the short path never ends.
    await fetch(desk, servers, tmp_path, files=3)
    assert (servers.login.token_requests, len(servers.login.sign_ins)) == (3, 1)
    servers.login.cookies = Cookies("LabAS", uses=0)
    await fetch(desk, servers, tmp_path, files=3)
    assert (servers.login.token_requests, len(servers.login.sign_ins)) == (6, 4)
    assert audited(desk) == [ACCEPTED, ACCEPTED]


async def test_a_logout_makes_its_cookies_be_forgotten(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """The next token request shows none (MS-PASS 3.1.5.5)."""
    servers.partner.cookies = Cookies("LabPP", uses=0)
    servers.login.logout = True
    await fetch(desk, servers, tmp_path, files=2)
    assert [cookies(seen) for seen in servers.login_origin.seen] == [{}] * 4
    assert len(servers.login.sign_ins) == 2


@pytest.mark.parametrize("status", [500, 503])
async def test_a_login_server_out_of_order_is_waited_for(
    desk: Desk, servers: Passport, tmp_path: Path, status: int
) -> None:
    """A transient failure: nothing was refused, and nothing is on record."""
    servers.login.broken = status
    failure = await refusal(desk, servers, tmp_path)
    assert (failure.code, failure.kind.transient) == (f"http_{status}", True)
    assert "the login server http://127.0.0.2" in failure.message
    assert audited(desk) == []


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404])
async def test_an_answer_that_is_none_of_passports_ends_it(
    desk: Desk, servers: Passport, tmp_path: Path, status: int
) -> None:
    """The message names server and status."""
    servers.login.broken = status
    failure = await refusal(desk, servers, tmp_path)
    assert failure.code == "http_401"
    assert f"answered with status {status}" in failure.message


# ── the way back ───────────────────────────────────────────────────────────────────────────


async def test_the_ticket_is_shown_where_the_login_server_says(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Elsewhere on the same origin is fine."""
    servers.partner_origin.pages["/back"] = servers.partner
    servers.login.ru = servers.partner_origin.url("/back?x=1")
    await fetch(desk, servers, tmp_path)
    assert [seen.target for seen in servers.partner_origin.seen] == ["/kit/app.bin", "/back?x=1"]


async def test_a_comma_in_the_url_makes_the_way_there_and_back(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Escaped for the login server, and as it was for the partner."""
    servers.partner_origin.pages["/a,b"] = servers.partner
    book = Book.of(tmp_path, servers.partner_origin.url("/a,b?c,d"))
    assert isinstance(await carry(desk, servers, book), link.Drained)
    assert [seen.target for seen in servers.partner_origin.seen] == ["/a,b?c,d"] * 2
    assert servers.login.sign_ins[0]["orgurl"].endswith("/a%2Cb?c%2Cd")


async def test_the_ticket_goes_to_no_other_origin(
    desk: Desk, servers: Passport, tmp_path: Path
) -> None:
    """Whoever has it is the user."""
    async with Origin("127.0.0.1").running() as other:
        other.pages["/kit/app.bin"] = fixed(200, body=BODY)
        servers.login.ru = other.url("/kit/app.bin")
        failure = await refusal(desk, servers, tmp_path)
        assert failure.code == "http_401"
        assert "another origin than" in failure.message
        assert other.seen == []


async def test_the_ticket_is_not_shown_without_tls(desk: Desk, tmp_path: Path) -> None:
    """An https file comes back to https, not to http of the same host."""
    authority = Authority(tmp_path)
    async with passport_servers(document(), PASSWORD, authority.server()) as servers:
        servers.login.ru = servers.url.replace("https:", "http:")
        book = Book.of(tmp_path, servers.url)
        end = failed(await carry(desk, servers, book, cacert=authority.cacert))
        assert end.failure.code == "http_401"
        assert "another origin than https://127.0.0.1" in end.failure.message
        assert len(servers.partner_origin.seen) == 1
        assert_kept(servers)


# ── proxies ────────────────────────────────────────────────────────────────────────────────


async def test_all_three_are_reached_through_a_proxy_that_asks(desk: Desk, tmp_path: Path) -> None:
    """Tunnels to each, opened with the proxy's credential; it sees nothing of Passport."""
    authority = Authority(tmp_path)
    async with (
        passport_servers(document(), PASSWORD, authority.server()) as servers,
        ForwardProxy(Basic("proxyuser", "proxypass")).running() as proxy,
    ):
        settings = replace(
            PLAIN, passport=servers.options, cacert=authority.cacert, proxy=proxy.url
        )
        both = [*holding(), credential(Scheme.BASIC, "proxyuser", "proxypass", Target.PROXY)]
        book = Book.of(tmp_path, servers.url)
        end = await desk.carry(book, credentials=both, settings=settings)
        assert isinstance(end, link.Drained), end
        assert {seen.method for seen in proxy.seen} == {"CONNECT"}
        assert len({seen.target for seen in proxy.seen}) == 3
        heard = repr(proxy.seen)
        assert not any(word in heard for word in ("Passport", "pwd=", "LabAS", "LabPP"))
        assert "proxy-authorization" not in servers.login_origin.said
        assert_kept(servers)


async def test_a_ticket_does_not_travel_in_the_clear(desk: Desk, tmp_path: Path) -> None:
    """Over plain http to another host nothing is begun, unless the job allows it."""
    async with (
        passport_servers(document(), PASSWORD) as servers,
        ForwardProxy().running() as proxy,
    ):
        proxy.hosts["files.example.org"] = "127.0.0.1"
        url = servers.url.replace("127.0.0.1", "files.example.org")
        settings = replace(PLAIN, passport=servers.options, proxy=proxy.url)
        book = Book.of(tmp_path, url)
        end = failed(await desk.carry(book, credentials=holding(), settings=settings))
        assert end.failure.code == "cleartext_refused"
        assert servers.login_origin.seen == servers.configuration_origin.seen == []
        allowed = replace(settings, allow_cleartext=True)
        assert isinstance(
            await desk.carry(book, credentials=holding(), settings=allowed), link.Drained
        )
