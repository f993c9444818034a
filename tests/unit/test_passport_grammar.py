"""Messages of Passport: read as loosely as they are sent, written as the grammar has them."""

from __future__ import annotations

import time
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.auth.passport_grammar import (
    Configuration,
    Grant,
    LoginChallenge,
    Opening,
    first_request,
    partner_parameters,
    read_configuration,
    read_grant,
    read_login_challenge,
    read_statuses,
    read_version_hint,
    sign_in_request,
    token_request,
)

OPENING = Opening(
    verb="GET",
    url="https://files.lab.test/kit/app.bin",
    challenge=("site=71", "kpp=9", "lc=en"),
)
CHALLENGE = LoginChallenge(noretry=False, realm="lab.test", prompt=False, custom=("ts=0",))


def signed_in(
    name: str = "kim@lab.test", text: str = "a,b%c", challenge: LoginChallenge = CHALLENGE
) -> str:
    """Write a Sign-in Request."""
    return sign_in_request(OPENING, challenge, name=name, password=text.encode(), elapsed=12)


# ── the example of BITS.md 2.6 ─────────────────────────────────────────────────────────────


def test_the_token_request_of_the_example_is_written() -> None:
    """Empty tname, verb, URL, and the partner's challenge as it came (MS-PASS 2.2.10)."""
    assert token_request(OPENING) == (
        "Passport1.4 tname=,OrgVerb=GET,OrgUrl=https://files.lab.test/kit/app.bin,"
        "site=71,kpp=9,lc=en"
    )


def test_the_sign_in_of_the_example_is_written() -> None:
    """Name and password escaped, then elapsed-time, request, customtoken, challenge (2.2.7)."""
    assert signed_in() == (
        "Passport1.4 sign-in=kim%40lab.test,pwd=a%2Cb%25c,elapsed-time=12,OrgVerb=GET,"
        "OrgUrl=https://files.lab.test/kit/app.bin,ts=0,site=71,kpp=9,lc=en"
    )


def test_the_first_request_of_the_example_is_written() -> None:
    """The ticket, byte for byte (2.2.6)."""
    grant = Grant(ticket="t=Zt4q%3D&p=", return_url=None)
    assert first_request(grant) == "Passport1.4 from-PP=t=Zt4q%3D&p="


def test_the_answers_of_the_example_are_read() -> None:
    """Configuration, AS Challenge and Token Response (2.2.12, 2.2.2, 2.2.11)."""
    urls = (
        "DARealm=lab.test,DALogin=https://id.lab.test/tok,DAReg=https://id.lab.test/reg,"
        "Properties=https://id.lab.test/p,Privacy=https://id.lab.test/v,"
        "GeneralRedir=https://id.lab.test/g,Help=https://id.lab.test/h,ConfigVersion=3"
    )
    assert read_configuration([urls]) == Configuration(
        realm="lab.test", login_url="https://id.lab.test/tok", version=3
    )
    assert read_login_challenge(["Passport1.4 da-status=failed,srealm=lab.test,ts=0"]) == CHALLENGE
    info = "Passport1.4 da-status=success,from-PP=Zt4q,ru=https://files.lab.test/kit/app.bin"
    assert read_grant([info]) == Grant(
        ticket="Zt4q", return_url="https://files.lab.test/kit/app.bin"
    )
    assert read_version_hint(["ConfigVersion=3"]) == 3


# ── what servers make of the grammar ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("raw", "parameters"),
    [
        ("a=1,b,c=x=y", ("a=1", "b", "c=x=y")),
        (" a=1 ,\t b,,  ,c ", ("a=1", "b", "c")),
        ("a=1,Negotiate2SupportedIf=Kerberos", ("a=1",)),
        ("a=1,negotiate2supportedif=x,z=~#+'", ("a=1", "z=~#+'")),
        ('ü=é,%2C="q"', ("ü=é", '%2C="q"')),
        ("", ()),
        (" , ,", ()),
        ("a=1,b=\udcff", ()),
        ("a=1,b=\x01", ()),
    ],
)
def test_a_partner_challenge_goes_on_byte_for_byte(raw: str, parameters: tuple[str, ...]) -> None:
    """Only blanks around parameters go, and what is the client's alone (traps 1, 3, 8, 11)."""
    assert partner_parameters(raw) == parameters


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["DALogin=id.test/login,DARealm=r"], ("r", "https://id.test/login", 0)),
        (
            ["dalogin=HTTP://id.test/l , darealm= R ,configversion=12"],
            ("R", "HTTP://id.test/l", 12),
        ),
        (["DARealm=r,DALogin=id.test", "ConfigVersion=2,DARealm=s"], ("r", "https://id.test", 2)),
        (["DALogin=https://id.test/l?a=b"], (None, "https://id.test/l?a=b", 0)),
        (["DALogin=id.test,DARealm=,ConfigVersion=-1"], (None, "https://id.test", 0)),
        (["DALogin=id.test,ConfigVersion=" + "9" * 5000], (None, "https://id.test", 0)),
        (["DALogin=id.test,ConfigVersion=\u0663"], (None, "https://id.test", 0)),
    ],
)
def test_a_configuration_is_read_in_any_order_and_case(
    lines: list[str], expected: tuple[str | None, str, int]
) -> None:
    """A login server without a scheme is https (trap 7); an unknown version is the oldest."""
    found = read_configuration(lines)
    assert found is not None
    assert (found.realm, found.login_url, found.version) == expected


@pytest.mark.parametrize(
    "lines", [[], [""], ["DARealm=r,ConfigVersion=3"], ["DALogin="], ["DALogin"]]
)
def test_a_configuration_without_a_login_server_is_none(lines: list[str]) -> None:
    """There is nobody to ask."""
    assert read_configuration(lines) is None


@pytest.mark.parametrize(
    ("status", "noretry"), [("failed", False), ("failed-noretry", True), ("Fail-NoRetry", True)]
)
def test_both_spellings_of_noretry_are_understood(status: str, noretry: bool) -> None:
    """The grammar and the client's rules disagree (trap 4)."""
    challenge = read_login_challenge([f"Passport1.4 da-status={status},srealm=r"])
    assert challenge is not None
    assert challenge.noretry is noretry


def test_everything_else_in_a_login_challenge_is_customtoken() -> None:
    """Unknown parameters are sent back, all of them, in order (trap 9)."""
    line = "Passport1.4 ts=-2, prompt ,DA-Status=failed,x, SREALM=r,cburl=https://b/,cbtxt=hi,Y = 1"
    assert read_login_challenge(["Negotiate", line]) == LoginChallenge(
        noretry=False, realm="r", prompt=True, custom=("ts=-2", "x", "Y = 1")
    )


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Negotiate", 'Basic realm="da-status=failed"'],
        ["Passport1.4"],
        ["Passport1.4 srealm=r,ts=1"],
        ["Passport1.4 da-status=success,srealm=r"],
        ["Passport1.40 da-status=failed,srealm=r"],
    ],
)
def test_other_challenges_are_no_login_challenge(lines: list[str]) -> None:
    """Without a status that says failed nobody is asked for a password."""
    assert read_login_challenge(lines) is None


def test_the_right_line_of_several_is_read() -> None:
    """Other schemes send the field, too, and one answer may have several messages (trap 10)."""
    lines = [
        'nextnonce="x"',
        "Passport1.4 da-status=logout",
        "Passport1.4 tname=A,tname=B",
        "passport1.4  da-status=Success , tname=A, tname=B , FROM-PP=t=a b&p= ,RU=https://x/?a=b#c",
    ]
    assert read_grant(lines) == Grant(ticket="t=a b&p=", return_url="https://x/?a=b#c")
    assert read_statuses(lines) == {"", "logout", "success"}


@pytest.mark.parametrize(
    "line",
    [
        "da-status=success,from-PP=t",
        "Passport1.4 da-status=success,ru=https://x/",
        "Passport1.4 da-status=success,from-PP=,ru=https://x/",
        "Passport1.4 da-status=failed,from-PP=t",
        "Passport1.4 from-PP=t",
    ],
)
def test_without_a_ticket_nothing_is_granted(line: str) -> None:
    """Success is a word and a ticket."""
    assert read_grant([line]) is None


def test_a_grant_may_do_without_a_url() -> None:
    """Then the ticket is for the URL that was asked."""
    assert read_grant(["Passport1.4 da-status=success,from-PP=t"]) == Grant(
        ticket="t", return_url=None
    )


# ── what is written ────────────────────────────────────────────────────────────────────────


def test_a_comma_in_the_url_is_escaped() -> None:
    """It would end the parameter (trap 2); a fragment is not for servers."""
    opening = Opening(verb="HEAD", url="https://h/a,b?c=d,e&f=%2C#g,h", challenge=("x",))
    assert token_request(opening) == (
        "Passport1.4 tname=,OrgVerb=HEAD,OrgUrl=https://h/a%2Cb?c=d%2Ce&f=%2C,x"
    )


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    password=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
def test_name_and_password_arrive_whole(name: str, password: str) -> None:
    """Whatever they have in them, they stay one parameter each, of unreserved characters."""
    parameters = signed_in(name, password).removeprefix("Passport1.4 ").split(",")
    assert len(parameters) == 9
    values = [parameter.partition("=")[2] for parameter in parameters[:2]]
    assert [unquote_to_bytes(value) for value in values] == [name.encode(), password.encode()]
    unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%"
    assert set("".join(values)) <= set(unreserved)


tokens = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=","), min_size=1, max_size=12
).map(lambda text: f"x{text}x")


@given(
    st.lists(tokens.map(lambda text: f"{text}=1"), max_size=4),
    tokens,
    st.booleans(),
    st.sampled_from([",", ", ", " ,\t", ",,"]),
)
def test_what_a_login_server_sends_comes_back_to_it(
    custom: list[str], realm: str, prompt: bool, comma: str
) -> None:
    """A customtoken makes the round trip byte for byte, however the list was laid out."""
    parts = ["da-status=failed", f"srealm={realm}", *custom, *(["prompt"] if prompt else [])]
    challenge = read_login_challenge([f"Passport1.4 {comma.join(parts)}"])
    assert challenge is not None
    assert challenge == LoginChallenge(
        noretry=False, realm=realm, prompt=prompt, custom=tuple(custom)
    )
    written = signed_in(challenge=challenge).split(",")
    assert tuple(written[5 : len(written) - 3]) == tuple(custom)


# ── garbage ────────────────────────────────────────────────────────────────────────────────

garbage = st.lists(
    st.text(max_size=60)
    | st.text(
        "Passport1.4 da-status=success,failed-noretry,from-PP=,ru=prompt\r\n\t\x00\udcff",
        max_size=80,
    )
    | st.text(", =da-stufilPpromg", max_size=40).map(lambda text: f"Passport1.4 {text}"),
    max_size=4,
)


@given(garbage)
def test_no_text_is_too_wild_to_read(lines: list[str]) -> None:
    """Reading never raises, and nothing that is read could break a header."""
    read_configuration(lines)
    read_version_hint(lines)
    read_statuses(lines)
    challenge, grant = read_login_challenge(lines), read_grant(lines)
    written = [*(first_request(found) for found in (grant,) if found)]
    if challenge is not None:
        written.append(signed_in(challenge=challenge))
    for line in lines:
        opening = Opening(verb="GET", url="https://h/", challenge=partner_parameters(line))
        written.append(token_request(opening))
    for text in written:
        text.encode()
        assert not any(char < " " and char != "\t" for char in text)


@pytest.mark.parametrize("seed", [",", "a", "a,", "=", " ", "a=b, ", "Passport1.4 ", "da-status="])
def test_reading_takes_linear_time(seed: str) -> None:
    """64 KiB of anything are read at once."""
    line = "Passport1.4 " + seed * (65536 // len(seed))
    begun = time.process_time()
    for read in (read_configuration, read_login_challenge, read_grant, read_statuses):
        read([line])
    partner_parameters(line)
    assert time.process_time() - begun < 1.0


def test_no_message_tells_its_secrets() -> None:
    """Tickets, challenges and URLs have no repr."""
    grant = Grant(ticket="s3cr3t", return_url="https://h/?s3cr3t")
    opening = Opening(verb="GET", url="https://h/?s3cr3t", challenge=("s3cr3t=1",))
    challenge = LoginChallenge(noretry=False, realm="r", prompt=False, custom=("s3cr3t",))
    assert "s3cr3t" not in f"{grant!r}{opening!r}{challenge!r}"
