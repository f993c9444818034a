"""Passport as a conversation: the client's rules of BITS.md 2.4, row by row, without a network."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import pytest

from transferd.auth.challenge import Challenge, parse_challenges
from transferd.auth.flow import (
    Attempt,
    AuthError,
    AuthRejected,
    CannotStart,
    Conversation,
    Errand,
    Place,
    Reply,
    RequestLine,
)
from transferd.auth.passport import LOGIN_REDIRECTS, PassportSession, usable
from transferd.model.credentials import Credential, PassportOptions, Scheme, Secret, Target

FILE = "https://files.lab.test/kit/app.bin"
REQUEST = RequestLine(method="GET", target="/kit/app.bin", url=FILE)
CONFIGURATION = "https://nexus.lab.test/cfg"
LOGIN = "https://id.lab.test/tok"
OPTIONS = PassportOptions(configuration_url=CONFIGURATION, login_host="id.lab.test")
PASSWORD = "open,sesame%ü"

ASKED = Reply(status=302, authenticate=("Passport1.4 site=71,kpp=9,lc=en",))
SERVED = Reply(status=200)
TOKEN_REQUEST = f"Passport1.4 tname=,OrgVerb=GET,OrgUrl={FILE},site=71,kpp=9,lc=en"
SIGN_IN = (
    "Passport1.4 sign-in=kim%40lab.test,pwd=open%2Csesame%25%C3%BC,elapsed-time=90,"
    f"OrgVerb=GET,OrgUrl={FILE},ts=0,site=71,kpp=9,lc=en"
)
TICKET = "Passport1.4 from-PP=t=Zt4q&p="


def session(
    options: PassportOptions = OPTIONS,
    username: str | None = "kim@lab.test",
    target: Target = Target.SERVER,
) -> PassportSession:
    """Make a session."""
    credential = Credential(
        target=target,
        scheme=Scheme.PASSPORT,
        username=username,
        password=Secret(PASSWORD),
        age=90.7,
    )
    place = Place(host="files.lab.test", randomness=bytes, passport=options)
    return PassportSession(credential, place)


def challenge(line: str = ASKED.authenticate[0]) -> Challenge:
    """Read the challenge of a partner."""
    (found,) = parse_challenges([line])
    return found


def reply(status: int, *fields: tuple[str, str]) -> Reply:
    """Make an answer to an errand."""
    return Reply(
        status=status,
        headers=fields,
        authenticate=tuple(value for name, value in fields if name == "WWW-Authenticate"),
        authentication_info=tuple(value for name, value in fields if name == "Authentication-Info"),
    )


def urls(
    realm: str | None = "lab.test", login: str | None = LOGIN, version: int = 3, status: int = 200
) -> Reply:
    """What the configuration server says."""
    pairs = [("DARealm", realm), ("DALogin", login), ("ConfigVersion", version)]
    text = ",".join(f"{name}={value}" for name, value in pairs if value is not None)
    return reply(status, ("passporturls", text))


def wants(text: str = "da-status=failed,srealm=lab.test,ts=0", *more: tuple[str, str]) -> Reply:
    """The challenge of the login server."""
    return reply(401, ("WWW-Authenticate", f"Passport1.4 {text}"), *more)


def grants(
    *more: tuple[str, str], status: int = 200, ru: str | None = FILE, ticket: str = "t=Zt4q&p="
) -> Reply:
    """The ticket of the login server."""
    back = "" if ru is None else f",ru={ru}"
    info = f"Passport1.4 da-status=success,tname=A,tname=B,from-PP={ticket}{back}"
    return reply(status, ("Authentication-Info", info), *more)


def sends_on(location: str | None, status: int = 302) -> Reply:
    """A redirect of the login server."""
    where = [] if location is None else [("Location", location)]
    return reply(status, ("Authentication-Info", "Passport1.4 da-status=redir"), *where)


def begin(conversation: Conversation, *replies: Reply) -> Attempt | Errand:
    """Let a conversation hear some replies; returns what it wants then."""
    wish = next(conversation)
    for heard in replies:
        wish = conversation.send(heard)
    return wish


def outcome(
    *replies: Reply, options: PassportOptions = OPTIONS, who: PassportSession | None = None
) -> AuthError:
    """Return what a conversation that answers a challenge raises in the end."""
    conversation = (who or session(options)).converse(REQUEST, challenge())
    with pytest.raises(AuthError) as caught:
        begin(conversation, *replies)
    return caught.value


def finish(conversation: Conversation, last: Reply = SERVED) -> None:
    """See a conversation end with *last*."""
    with pytest.raises(StopIteration):
        conversation.send(last)


def errand(wish: Attempt | Errand) -> tuple[str, str | None]:
    """Take an errand apart."""
    assert isinstance(wish, Errand)
    return wish.url, wish.authorization


# ── the whole way ──────────────────────────────────────────────────────────────────────────


def test_the_exchange_of_the_specification_is_made() -> None:
    """Configuration, token request, sign-in, ticket: each to whom it belongs (MS-PASS 4)."""
    talk = session().converse(REQUEST, challenge())
    assert errand(next(talk)) == (CONFIGURATION, None)
    assert errand(talk.send(urls())) == (LOGIN, TOKEN_REQUEST)
    assert errand(talk.send(wants())) == (LOGIN, SIGN_IN)
    last = talk.send(grants())
    assert isinstance(last, Attempt)
    assert (last.authorization, last.url, last.pinned) == (TICKET, FILE, False)
    finish(talk)


def test_a_login_server_that_knows_its_cookie_asks_for_no_password() -> None:
    """The short path: a token request is answered with a ticket."""
    last = begin(session().converse(REQUEST, challenge()), urls(), grants())
    assert isinstance(last, Attempt)
    assert last.authorization == TICKET


def test_a_later_request_goes_out_without_credentials() -> None:
    """Cookies do the work; an answer that asks for nothing stands."""
    talk = session().converse(REQUEST, None)
    assert next(talk) == Attempt(authorization=None)
    finish(talk)


@pytest.mark.parametrize("status", [302, 401])
def test_a_cookie_that_expired_is_replaced_silently(status: int) -> None:
    """A later challenge begins a new exchange, with the configuration that is known."""
    who = session()
    first = who.converse(REQUEST, challenge())
    begin(first, urls(), wants(), grants())
    finish(first)
    talk = who.converse(REQUEST, None)
    again = Reply(status=status, authenticate=("Negotiate", "Passport1.4 site=71,kpp=9,lc=en"))
    assert errand(begin(talk, again)) == (LOGIN, TOKEN_REQUEST)
    assert errand(talk.send(wants())) == (LOGIN, SIGN_IN)
    talk.send(grants())
    finish(talk)


@pytest.mark.parametrize(
    "answer",
    [
        Reply(status=302),
        Reply(status=301, authenticate=ASKED.authenticate),
        Reply(status=200, authenticate=ASKED.authenticate),
        Reply(status=401, authenticate=("Basic realm=r",)),
        Reply(status=401, authenticate=("Passport1.4",)),
    ],
)
def test_what_is_no_challenge_stands(answer: Reply) -> None:
    """Only 302 and 401 carry a challenge; the authenticator chooses again by any other answer."""
    talk = session().converse(REQUEST, None)
    next(talk)
    finish(talk, answer)


def test_after_the_ticket_another_scheme_may_be_asked_for() -> None:
    """Nothing was refused: the last reply stands."""
    talk = session().converse(REQUEST, challenge())
    begin(talk, urls(), wants(), grants())
    finish(talk, Reply(status=401, authenticate=("Basic realm=r",)))


@pytest.mark.parametrize("status", [302, 401])
def test_a_second_challenge_of_the_partner_ends_it(status: int) -> None:
    """The ticket was refused (MS-PASS 3.1.5.1); the password is not tried again."""
    error = outcome(
        urls(), wants(), grants(), Reply(status=status, authenticate=ASKED.authenticate)
    )
    assert isinstance(error, AuthRejected)
    assert "server files.lab.test refused the ticket" in str(error)
    assert "password is not to blame" in (error.advice or "")


def test_the_first_request_of_an_exchange_is_told() -> None:
    """OrgVerb and OrgUrl are the request's own; a comma cannot stand in them."""
    request = RequestLine(method="HEAD", target="/a,b?c", url="https://files.lab.test/a,b?c")
    talk = session().converse(request, challenge())
    _, written = errand(begin(talk, urls()))
    assert written is not None
    assert "OrgVerb=HEAD,OrgUrl=https://files.lab.test/a%2Cb?c,site=71" in written
    last = talk.send(grants(ru="https://files.lab.test/a%2Cb?c"))
    assert isinstance(last, Attempt)
    # What was sent comes back: it is still the request's own URL.
    assert last.url == request.url


def test_what_the_partner_offers_beside_stays_here() -> None:
    """Negotiate2SupportedIf is for the client alone."""
    line = "Passport1.4 site=71,Negotiate2SupportedIf=Kerberos,kpp=9"
    talk = session().converse(REQUEST, challenge(line))
    assert errand(begin(talk, urls()))[1] == (
        f"Passport1.4 tname=,OrgVerb=GET,OrgUrl={FILE},site=71,kpp=9"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Passport1.4 a=b", True),
        ("PASSPORT1.4 x", True),
        ("Passport1.4", False),
        ("Passport1.4 Negotiate2SupportedIf=x", False),
        ("Passport1.4 a=\udcff", False),
        ("Basic realm=r", False),
    ],
)
def test_a_challenge_needs_something_to_pass_on(line: str, expected: bool) -> None:
    """What cannot be sent to a login server cannot be answered."""
    assert usable(challenge(line)) is expected


# ── what must be set ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (PassportOptions(), "passport.configuration_url is not set"),
        (PassportOptions(login_host="id.lab.test"), "passport.configuration_url is not set"),
        (PassportOptions(configuration_url=CONFIGURATION), "passport.login_host is not set"),
        (
            PassportOptions(configuration_url="http://nexus.lab.test/", login_host="x"),
            "passport.configuration_url cannot be used: it is not https",
        ),
        (
            PassportOptions(configuration_url="https://nexus.lab.test/a b", login_host="x"),
            "passport.configuration_url cannot be used: it has characters",
        ),
        (
            PassportOptions(configuration_url="nexus.lab.test", login_host="x"),
            "passport.configuration_url cannot be used: it is neither",
        ),
        (
            PassportOptions(configuration_url=CONFIGURATION, login_host="a:b"),
            "passport.login_host cannot be used: its host or port",
        ),
    ],
)
def test_without_its_settings_it_cannot_start(options: PassportOptions, text: str) -> None:
    """Nobody is asked anything, and the advice names the settings and the options."""
    error = outcome(options=options)
    assert isinstance(error, CannotStart)
    assert text in str(error)
    for name in (
        "passport.configuration_url",
        "passport.login_host",
        "--passport-configuration",
        "--passport-login-host",
        "[passport]",
    ):
        assert name in (error.advice or "")


@pytest.mark.parametrize("name", ["kim", "LAB\\kim", "kim@", "@lab", "k im@lab", "a@b@c", "", None])
def test_only_an_email_address_can_sign_in(name: str | None) -> None:
    """The same credentials may be set for every scheme; this one then leaves it to the others."""
    error = outcome(who=session(username=name))
    assert isinstance(error, CannotStart)
    assert "e-mail address" in str(error)


def test_a_name_is_normalised_and_escaped() -> None:
    """UTF-8 in NFC as with every scheme, then percent-escapes (MS-PASS 2.2.7)."""
    talk = session(username="ju\u0308rgen+x@büro.test").converse(REQUEST, challenge())
    _, written = errand(begin(talk, urls(), wants()))
    assert written is not None
    assert written.startswith("Passport1.4 sign-in=j%C3%BCrgen%2Bx%40b%C3%BCro.test,pwd=")


def test_a_proxy_cannot_ask_for_it() -> None:
    """MS-PASS knows servers only."""
    error = outcome(who=session(target=Target.PROXY))
    assert isinstance(error, CannotStart)


# ── the configuration server ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_a_configuration_counts_with_any_status(status: int) -> None:
    """MS-PASS 2.2.12."""
    talk = session().converse(REQUEST, challenge())
    assert errand(begin(talk, urls(status=status))) == (LOGIN, TOKEN_REQUEST)


@pytest.mark.parametrize("status", [500, 502, 503, 599, 429])
def test_a_configuration_server_out_of_order_is_waited_for(status: int) -> None:
    """A transient failure, not a refusal."""
    error = outcome(reply(status))
    assert not isinstance(error, AuthRejected)
    assert error.code == f"http_{status}"
    assert "configuration server https://nexus.lab.test" in str(error)


@pytest.mark.parametrize("answer", [reply(200), reply(404), urls(login=None), urls(realm=None)])
def test_a_configuration_server_that_says_nothing_is_named(answer: Reply) -> None:
    """Without a login server and its realm there is no way on."""
    error = outcome(answer)
    assert isinstance(error, AuthRejected)
    assert f"configuration server https://nexus.lab.test answered with status {answer.status}" in (
        str(error)
    )
    assert "passport.configuration_url" in (error.advice or "")


def test_a_login_server_without_a_scheme_is_https() -> None:
    """WinHTTP's servers name it so (trap 7)."""
    talk = session().converse(REQUEST, challenge())
    assert errand(begin(talk, urls(login="id.lab.test/tok"))) == (LOGIN, TOKEN_REQUEST)


@pytest.mark.parametrize(
    ("login_host", "login"),
    [
        ("id.lab.test", "https://id.lab.test:443/tok"),
        ("ID.Lab.Test:443", "https://id.lab.test/tok"),
        ("id.lab.test:8443", "https://id.lab.test:8443/tok"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/tok"),
        ("localhost", "http://localhost/tok"),
        ("[::1]:8080", "http://[::1]:8080/tok"),
    ],
)
def test_the_login_host_is_compared_with_its_port(login_host: str, login: str) -> None:
    """Default ports are those of the scheme; this machine may do without TLS."""
    options = PassportOptions(configuration_url="http://127.0.0.1:9/cfg", login_host=login_host)
    talk = session(options).converse(REQUEST, challenge())
    assert errand(begin(talk, urls(login=login))) == (login, TOKEN_REQUEST)


ELSEWHERE = [
    "https://evil.test/tok",
    "https://id.lab.test:8443/tok",
    "https://id.lab.test.evil.test/tok",
    "https://sub.id.lab.test/tok",
    "http://id.lab.test/tok",
    "https://id.lab.test@evil.test/tok",
    "https://kim:x@id.lab.test/tok",
    "ftp://id.lab.test/tok",
    "https://id.lab.test/a b",
    "https:///tok",
]


@pytest.mark.parametrize("login", ELSEWHERE)
def test_only_the_configured_login_host_is_asked(login: str) -> None:
    """Not even for a token: whoever mended the configuration would get the password next."""
    error = outcome(urls(login=login))
    assert isinstance(error, AuthRejected)
    assert "configuration server https://nexus.lab.test names" in str(error)
    assert "passport.login_host" in (error.advice or "")


# ── the login server ───────────────────────────────────────────────────────────────────────


def test_a_wrong_password_is_tried_once() -> None:
    """A second challenge after the sign-in is a refusal."""
    error = outcome(urls(), wants(), wants())
    assert isinstance(error, AuthRejected)
    assert "login server https://id.lab.test refused user name or password" in str(error)
    assert "'kim@lab.test'" in str(error)
    assert (error.code, error.advice) == (None, None)


@pytest.mark.parametrize("word", ["failed-noretry", "fail-noretry"])
@pytest.mark.parametrize("before", [(), (wants(),)])
def test_noretry_is_the_partners_fault(word: str, before: Sequence[Reply]) -> None:
    """Wrong challenge parameters: the text says so, in both spellings, before and after sign-in."""
    error = outcome(urls(), *before, wants(f"da-status={word},srealm=lab.test"))
    assert isinstance(error, AuthRejected)
    assert "refused the parameters of the server's challenge" in str(error)
    assert "password is not to blame" in (error.advice or "")


def test_custom_tokens_come_back_in_order() -> None:
    """All that is unknown of a challenge, unchanged, before the partner's parameters."""
    talk = session().converse(REQUEST, challenge())
    text = "da-status=failed,srealm=lab.test,ts=-2,cburl=https://b/,q=%2c'x',cbtxt=hello"
    _, written = errand(begin(talk, urls(), wants(text)))
    assert written is not None
    assert f"OrgUrl={FILE},ts=-2,q=%2c'x',site=71" in written


def test_the_age_of_the_password_is_told() -> None:
    """elapsed-time in whole seconds; an answer to a prompt is always fresh."""
    talk = session().converse(REQUEST, challenge())
    _, written = errand(begin(talk, urls(), wants()))
    assert written is not None
    assert ",elapsed-time=90," in written
    talk = session().converse(REQUEST, challenge())
    _, written = errand(begin(talk, urls(), wants("da-status=failed,srealm=lab.test,prompt")))
    assert written is not None
    assert ",elapsed-time=0," in written
    assert "prompt" not in written


def test_a_second_prompt_is_refused() -> None:
    """The job's credential was the answer to the first one."""
    asks = wants("da-status=failed,srealm=lab.test,prompt")
    error = outcome(urls(), asks, asks)
    assert isinstance(error, AuthRejected)
    assert "wants them typed in anew" in str(error)


def test_the_realm_is_compared_without_case() -> None:
    """It is a domain."""
    talk = session().converse(REQUEST, challenge())
    wish = begin(talk, urls(realm="Lab.TEST"), wants())
    assert errand(wish) == (LOGIN, SIGN_IN)


def test_another_realm_makes_the_configuration_be_read_again() -> None:
    """It may have grown old: a newer one begins the login anew, with the server that it names."""
    talk = session().converse(REQUEST, challenge())
    other = wants("da-status=failed,srealm=new.test,ts=0")
    assert errand(begin(talk, urls(), other)) == (CONFIGURATION, None)
    assert errand(talk.send(urls("new.test", f"{LOGIN}2", 4))) == (f"{LOGIN}2", TOKEN_REQUEST)
    assert errand(talk.send(other)) == (f"{LOGIN}2", SIGN_IN)
    talk.send(grants())
    finish(talk)


@pytest.mark.parametrize("realm", ["srealm=evil.test", "srealm=", "x"])
@pytest.mark.parametrize("refreshed", [urls(), reply(503), urls(version=2), urls(version=4)])
def test_a_login_server_of_another_realm_gets_no_password(realm: str, refreshed: Reply) -> None:
    """Refused after the configuration was read once more, with a name for both realms."""
    other = wants(f"da-status=failed,{realm}")
    newer = "ConfigVersion=4" in str(refreshed.headers)
    error = outcome(urls(), other, refreshed, *([other] if newer else []))
    assert isinstance(error, AuthRejected)
    assert "login server https://id.lab.test speaks for" in str(error)
    assert "not for 'lab.test'" in str(error)
    assert "passport.realm" in (error.advice or "")


def test_the_owners_realm_is_worth_more_than_the_configurations() -> None:
    """passport.realm pins it, and a configuration need not name one then."""
    options = PassportOptions(
        configuration_url=CONFIGURATION, login_host="id.lab.test", realm="mine.test"
    )
    talk = session(options).converse(REQUEST, challenge())
    wish = begin(talk, urls(realm=None), wants("da-status=failed,srealm=mine.test,ts=0"))
    assert errand(wish) == (LOGIN, SIGN_IN)
    error = outcome(urls(), wants(), urls(), options=options)
    assert "speaks for the realm 'lab.test', not for 'mine.test'" in str(error)


@pytest.mark.parametrize("status", [200, 302, 401, 404, 500])
def test_a_ticket_counts_with_any_status(status: int) -> None:
    """MS-PASS 2.2.11."""
    talk = session().converse(REQUEST, challenge())
    last = begin(talk, urls(), wants(), grants(status=status))
    assert isinstance(last, Attempt)
    assert last.authorization == TICKET


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 599])
@pytest.mark.parametrize("before", [(), (wants(),)])
def test_a_login_server_out_of_order_is_waited_for(status: int, before: Sequence[Reply]) -> None:
    """A transient failure under its own code; nothing was refused."""
    error = outcome(urls(), *before, reply(status))
    assert not isinstance(error, AuthRejected)
    assert error.code == f"http_{status}"
    assert f"login server https://id.lab.test answered with status {status}" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        reply(200),
        reply(200, ("Authentication-Info", "Passport1.4 da-status=success,ru=https://x/")),
        reply(200, ("WWW-Authenticate", "Passport1.4 da-status=failed,srealm=lab.test")),
        reply(302, ("Location", "https://id.lab.test/x")),
        reply(401),
        reply(401, ("WWW-Authenticate", "Basic realm=r")),
        reply(401, ("WWW-Authenticate", "Passport1.4 da-status=huh,srealm=lab.test")),
        reply(403),
        reply(404),
        sends_on("https://id.lab.test/x", status=301),
    ],
)
@pytest.mark.parametrize("before", [(), (wants(),)])
def test_any_other_answer_ends_it(answer: Reply, before: Sequence[Reply]) -> None:
    """The text says whose answer it was, and its status."""
    error = outcome(urls(), *before, answer)
    assert isinstance(error, AuthRejected)
    expected = f"login server https://id.lab.test answered with status {answer.status}"
    assert expected in str(error)
    assert error.advice is not None


# ── redirects ──────────────────────────────────────────────────────────────────────────────


def test_a_redirect_gets_the_same_request() -> None:
    """Token Request and Sign-in Request alike (MS-PASS 3.1.5.6); answered where it was asked."""
    talk = session().converse(REQUEST, challenge())
    wish = begin(talk, urls(), sends_on("/tok/2?x"))
    assert errand(wish) == ("https://id.lab.test/tok/2?x", TOKEN_REQUEST)
    assert errand(talk.send(wants())) == ("https://id.lab.test/tok/2?x", SIGN_IN)
    wish = talk.send(sends_on("https://id.lab.test:443/3"))
    assert errand(wish) == ("https://id.lab.test:443/3", SIGN_IN)
    wish = talk.send(sends_on("4"))
    assert errand(wish) == ("https://id.lab.test:443/4", SIGN_IN)
    talk.send(grants())
    finish(talk)


@pytest.mark.parametrize("early", range(LOGIN_REDIRECTS + 1))
def test_redirects_come_to_an_end(early: int) -> None:
    """Five hops in one exchange and no more, whichever request they are for."""
    hops = [sends_on(f"/{number}") for number in range(LOGIN_REDIRECTS)]
    heard = [urls(), *hops[:early], wants(), *hops[early:]]
    talk = session().converse(REQUEST, challenge())
    assert isinstance(begin(talk, *heard, grants()), Attempt)
    error = outcome(*heard, sends_on("/more"))
    assert isinstance(error, AuthRejected)
    assert f"redirected more than {LOGIN_REDIRECTS} times" in str(error)


@pytest.mark.parametrize("before", [(), (wants(),)])
@pytest.mark.parametrize("location", [*ELSEWHERE, "//evil.test/tok", "javascript:alert(1)", "\\\\"])
def test_a_redirect_cannot_lead_to_another_host(location: str, before: Sequence[Reply]) -> None:
    """The request has the password in it: no hop leaves the configured login host."""
    talk = session().converse(REQUEST, challenge())
    begin(talk, urls(), *before)
    if location == "\\\\":
        assert errand(talk.send(sends_on(location)))[0].startswith("https://id.lab.test/")
        return
    with pytest.raises(AuthRejected, match=r"a redirect of the login server https://id.lab.test"):
        talk.send(sends_on(location))


def test_a_redirect_must_say_where() -> None:
    """Without Location there is nobody to ask."""
    error = outcome(urls(), sends_on(None))
    assert "redirected without saying where" in str(error)
    assert isinstance(error, AuthRejected)


# ── the way back ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("back", "url"),
    [
        (None, FILE),
        ("https://files.lab.test/other?x=1", "https://files.lab.test/other?x=1"),
        ("https://FILES.lab.test:443/kit#part", "https://FILES.lab.test:443/kit"),
    ],
)
def test_the_ticket_is_shown_where_the_login_server_says(back: str | None, url: str) -> None:
    """On the origin that asked for it; the same URL without a word."""
    talk = session().converse(REQUEST, challenge())
    last = begin(talk, urls(), grants(ru=back))
    assert isinstance(last, Attempt)
    assert last.url == url


@pytest.mark.parametrize(
    "back",
    [
        "https://evil.test/kit/app.bin",
        "http://files.lab.test/kit/app.bin",
        "https://files.lab.test:8443/kit/app.bin",
        "https://files.lab.test@evil.test/",
        "//files.lab.test/kit",
        "/kit/app.bin",
        "https://files.lab.test/a b",
        "javascript:alert(1)",
    ],
)
def test_the_ticket_goes_to_no_other_origin(back: str) -> None:
    """Whoever has it is the user; a downgrade to http would show it to everybody."""
    error = outcome(urls(), wants(), grants(ru=back))
    assert isinstance(error, AuthRejected)
    assert "another origin than https://files.lab.test" in str(error)


def test_a_ticket_cannot_break_the_header() -> None:
    """Control characters are blanks when a header is read (RFC 9110 5.5)."""
    talk = session().converse(REQUEST, challenge())
    last = begin(talk, urls(), grants(ticket="a\r\nCookie: b"))
    assert isinstance(last, Attempt)
    assert last.authorization == "Passport1.4 from-PP=a  Cookie: b"


# ── what login servers say beside ──────────────────────────────────────────────────────────


def test_a_hint_of_a_newer_configuration_is_followed_later() -> None:
    """PassportConfig: before the next exchange, not amid this one (MS-PASS 3.1.5.4)."""
    who = session()
    talk = who.converse(REQUEST, challenge())
    assert isinstance(begin(talk, urls(), grants(("PassportConfig", "ConfigVersion=4"))), Attempt)
    finish(talk)
    talk = who.converse(REQUEST, None)
    assert errand(begin(talk, ASKED)) == (CONFIGURATION, None)
    newer = urls(login=f"{LOGIN}/new", version=4)
    assert errand(talk.send(newer)) == (f"{LOGIN}/new", TOKEN_REQUEST)
    talk.send(grants(("PassportConfig", "ConfigVersion=4")))
    finish(talk)
    talk = who.converse(REQUEST, None)
    assert errand(begin(talk, ASKED)) == (f"{LOGIN}/new", TOKEN_REQUEST)


@pytest.mark.parametrize("hint", ["ConfigVersion=3", "ConfigVersion=2", "ConfigVersion=x", "x"])
def test_an_old_hint_is_none(hint: str) -> None:
    """Only a higher version is news."""
    who = session()
    talk = who.converse(REQUEST, challenge())
    begin(talk, urls(), grants(("PassportConfig", hint)))
    finish(talk)
    assert errand(begin(who.converse(REQUEST, None), ASKED)) == (LOGIN, TOKEN_REQUEST)


@pytest.mark.parametrize(
    "answer", [reply(200), reply(503), urls(login="https://x/", version=3), urls(None, "x", 9)]
)
def test_only_a_newer_configuration_replaces_the_known_one(answer: Reply) -> None:
    """What is not newer, or cannot be used, changes nothing, and is not asked for again."""
    who = session()
    talk = who.converse(REQUEST, challenge())
    begin(talk, urls(), grants(("PassportConfig", "ConfigVersion=4")))
    finish(talk)
    talk = who.converse(REQUEST, None)
    assert errand(begin(talk, ASKED, answer)) == (LOGIN, TOKEN_REQUEST)
    talk.send(grants())
    finish(talk)
    assert errand(begin(who.converse(REQUEST, None), ASKED)) == (LOGIN, TOKEN_REQUEST)


def test_a_logout_makes_the_cookies_be_forgotten() -> None:
    """At the next request to the login server, once (MS-PASS 3.1.5.5)."""
    who = session()
    logout = ("Authentication-Info", "Passport1.4 da-status=logout")
    talk = who.converse(REQUEST, challenge())
    plain = begin(talk, urls())
    signing = talk.send(wants("da-status=failed,srealm=lab.test", logout))
    talk.send(grants(logout))
    finish(talk)
    later = who.converse(REQUEST, None)
    token = begin(later, ASKED)
    again = later.send(wants())
    told = [plain, signing, token, again]
    assert [isinstance(wish, Errand) and wish.forget for wish in told] == [
        False,
        True,
        True,
        False,
    ]


def test_closing_forgets_what_servers_said() -> None:
    """The next exchange asks the configuration server again."""
    who = session()
    begin(who.converse(REQUEST, challenge()), urls())
    who.close()
    assert errand(begin(who.converse(REQUEST, None), ASKED)) == (CONFIGURATION, None)


# ── secrets ────────────────────────────────────────────────────────────────────────────────


def test_nothing_keeps_the_password() -> None:
    """Once an errand is written and gone, no text with the password is left anywhere."""
    talk = session().converse(REQUEST, challenge())
    wish: object = begin(talk, urls(), wants())
    assert isinstance(wish, Errand)
    del wish
    gc.collect()
    kept = [
        found
        for found in gc.get_objects()
        if isinstance(found, Errand) and "open%2C" in (found.authorization or "")
    ]
    assert kept == []


def test_no_text_tells_a_secret() -> None:
    """Neither password nor ticket nor challenge, in any refusal or repr."""
    other = wants("da-status=failed,srealm=evil.test,ts=0")
    ends: list[AuthError] = [
        outcome(urls(), wants(), wants()),
        outcome(urls(), wants(), grants(), ASKED),
        outcome(urls(), wants(), grants(ru="https://evil.test/?t=Zt4q")),
        outcome(urls(), other, urls()),
        outcome(urls(), wants("da-status=failed-noretry,srealm=lab.test,ts=0")),
        outcome(urls(), reply(404)),
        outcome(urls(), sends_on("https://evil.test/?t=Zt4q")),
    ]
    who = session()
    talk = who.converse(REQUEST, challenge())
    wishes = [begin(talk, urls()), talk.send(wants()), talk.send(grants())]
    told = [
        *map(str, ends),
        *(end.advice or "" for end in ends),
        *map(repr, [who, *wishes, challenge(), grants(), wants()]),
    ]
    for text in told:
        assert not any(word in text for word in ("sesame", "Zt4q", "site=71", "ts=0", "pwd")), text


def test_the_scheme_is_named() -> None:
    """For audit and choice."""
    who = session()
    assert (who.scheme, who.mechanism) == (Scheme.PASSPORT, None)
