"""Reading challenges: what servers send, what the grammar allows, and what nobody should send."""

from __future__ import annotations

import time
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferd.auth.challenge import Challenge, parse_challenges, parse_params

TOKEN_CHARS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOKEN68_CHARS = "-._~+/0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def one(line: str) -> Challenge:
    """Read a line that has one challenge."""
    (challenge,) = parse_challenges([line])
    return challenge


def schemes(*lines: str) -> list[str]:
    """Read the schemes of some lines."""
    return [challenge.scheme for challenge in parse_challenges(lines)]


def test_several_schemes_share_a_line() -> None:
    """Schemes, parameters, token68 and bare schemes mix on one line (RFC 9110 11.6.1)."""
    line = (
        'Basic, Digest realm="a, b", nonce="n==", qop="auth,auth-int", '
        'Negotiate abc==, NTLM, Bearer realm="x", error="y"'
    )
    assert parse_challenges([line]) == (
        Challenge(scheme="basic"),
        Challenge(
            scheme="digest", params={"realm": "a, b", "nonce": "n==", "qop": "auth,auth-int"}
        ),
        Challenge(scheme="negotiate", token68="abc=="),
        Challenge(scheme="ntlm"),
        Challenge(scheme="bearer", params={"realm": "x", "error": "y"}),
    )


def test_every_line_is_read_in_order() -> None:
    """IIS names each scheme on a line of its own, and the one that is held may be the last."""
    assert schemes("Negotiate", "NTLM", 'Basic realm="r"', 'Digest realm="r", nonce="n"') == [
        "negotiate",
        "ntlm",
        "basic",
        "digest",
    ]


def test_the_spelling_of_the_server_is_kept_for_messages() -> None:
    """A scheme is compared without case and told as it was sent."""
    challenge = one('BASIC realm="r"')
    assert (challenge.scheme, challenge.name) == ("basic", "BASIC")


@pytest.mark.parametrize(
    ("line", "params"),
    [
        (r'Digest realm="a \"quoted\" \\ \r\ealm"', {"realm": r'a "quoted" \ realm'}),
        ('Digest realm="", nonce=""', {"realm": "", "nonce": ""}),
        ('Digest realm = "r" ,\tnonce\t=\t"n"', {"realm": "r", "nonce": "n"}),
        ('Digest ,, realm="r",, ,nonce="n",', {"realm": "r", "nonce": "n"}),
        ("Digest algorithm=SHA-256, stale=TRUE", {"algorithm": "SHA-256", "stale": "TRUE"}),
        ("Digest nonce=abc/def==, realm=r", {"nonce": "abc/def==", "realm": "r"}),
        ('Digest REALM="r", Nonce="n"', {"realm": "r", "nonce": "n"}),
        ('Digest realm="Zugriff für alle"', {"realm": "Zugriff für alle"}),
        ('Digest realm="a=b", nonce="Basic realm=x"', {"realm": "a=b", "nonce": "Basic realm=x"}),
        ('Digest     realm="r"', {"realm": "r"}),
    ],
)
def test_parameters_are_unquoted(line: str, params: dict[str, str]) -> None:
    """Escapes, empty strings, blanks around "=", empty elements, tokens, bare base64."""
    assert one(line).params == params


def test_parameters_may_be_named_like_schemes() -> None:
    """Only a name without "=" begins another challenge."""
    line = 'Digest basic=1, realm="r", negotiate="x", ntlm = y'
    assert one(line).params == {"basic": "1", "realm": "r", "negotiate": "x", "ntlm": "y"}


@pytest.mark.parametrize("token", ["abc", "abc=", "abc==", "a/b+c-._~=", "TlRMTVNTUAACAAAA"])
def test_token68_is_told_from_a_parameter(token: str) -> None:
    """A token68 may end in "=", which is no parameter without a value."""
    challenge = one(f"Negotiate {token}")
    assert (challenge.token68, dict(challenge.params)) == (token, {})


def test_the_first_of_a_repeated_parameter_holds() -> None:
    """What is appended to a challenge must not replace what stood there."""
    assert one('Digest realm="first", nonce=n, realm="second"').params["realm"] == "first"


def test_a_folded_line_is_unfolded() -> None:
    """obs-fold becomes blanks (RFC 9112 5.2), and never reaches a value."""
    assert one('Digest realm="a\r\n b",\r\n\tnonce="n"').params == {"realm": "a   b", "nonce": "n"}


@given(st.text(alphabet=[chr(code) for code in range(0x20)] + ["\x7f", "a", " "]))
def test_no_control_character_survives_in_a_value(text: str) -> None:
    """What is echoed to the server cannot carry a line break (RFC 9110 5.5)."""
    value = one(f'Digest realm="{text}"').params["realm"]
    assert not any(char < " " or char == "\x7f" for char in value.replace("\t", ""))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        (" , ,, ", []),
        ('realm="r", nonce="n"', []),
        ("= , =x, a=, ==", []),
        ('"quoted", "again" , Basic', ["basic"]),
        ('Digest realm="never closed, Basic', ["digest"]),
        ('Digest realm = "never closed, Basic', ["digest"]),
        ('Basic, realm = "never closed', ["basic"]),
        ('Digest realm="ends in a backslash\\', ["digest"]),
        ("Basic realm=two words, Digest", ["basic", "digest"]),
        ('Digest realm="a"b, NTLM', ["digest", "ntlm"]),
        ("Négotiate x, Basic", ["basic"]),
    ],
)
def test_what_is_garbled_is_left_out(line: str, expected: list[str]) -> None:
    """A scheme with garbled parameters is still offered, and the rest of the line is read."""
    challenges = parse_challenges([line])
    assert [challenge.scheme for challenge in challenges] == expected
    assert not any(challenge.params for challenge in challenges)


def test_a_challenge_ends_with_its_line() -> None:
    """A parameter on a line of its own belongs to nobody."""
    assert parse_challenges(["Basic", 'realm="r", NTLM']) == (
        Challenge(scheme="basic"),
        Challenge(scheme="ntlm"),
    )


@pytest.mark.parametrize(
    ("line", "raw"),
    [
        ("Passport1.4 site=71,kpp=9,lc=en", "site=71,kpp=9,lc=en"),
        ("passport1.4   ct=1,  Basic,,x ", "ct=1,  Basic,,x"),
        ('Passport1.4 a="b, Basic realm=c', 'a="b, Basic realm=c'),
        ("Passport1.4\ta=%2C\r\n b,ü=é", "a=%2C   b,ü=é"),
        ("Passport1.4 x,Negotiate2SupportedIf=Kerberos", "x,Negotiate2SupportedIf=Kerberos"),
        (" Passport1.4 ", ""),
        ("PASSPORT1.4", ""),
    ],
)
def test_a_line_of_passports_is_read_whole(line: str, raw: str) -> None:
    """Its list is opaque and goes on to somebody else, byte for byte (MS-PASS 2.2.8)."""
    challenge = one(line)
    assert (challenge.scheme, challenge.raw) == ("passport1.4", raw)
    assert (dict(challenge.params), challenge.token68) == ({}, None)
    assert challenge.name == line.split()[0]


@pytest.mark.parametrize("line", ["Passport1.40 a=b", "Passport1x4 a=b", "Passport1.4,a"])
def test_only_its_own_name_makes_a_line_passports(line: str) -> None:
    """Another scheme, or an empty challenge beside others, has nothing to go on."""
    assert [challenge.raw for challenge in parse_challenges([line])][:1] == [""]


def test_passport_stands_beside_other_schemes() -> None:
    """Each line is read by its own rules (BITS 2.2)."""
    lines = ["Negotiate, NTLM", "Passport1.4 a=b,Digest", 'Basic realm="r"']
    assert schemes(*lines) == ["negotiate", "ntlm", "passport1.4", "basic"]
    assert "a=b" not in repr(parse_challenges(lines))


def test_params_cannot_be_changed() -> None:
    """A challenge is a value; two conversations may hold the same."""
    assert isinstance(one("Basic realm=r").params, MappingProxyType)
    assert isinstance(Challenge(scheme="basic").params, MappingProxyType)


def test_authentication_info_is_read_over_all_its_lines() -> None:
    """A list of parameters without a scheme may be spread over lines (RFC 7615 3)."""
    lines = ['nextnonce="n, m", qop=auth', 'rspauth="ab", nextnonce="other", junk']
    assert parse_params(lines) == {"nextnonce": "n, m", "qop": "auth", "rspauth": "ab"}


names = st.text(TOKEN_CHARS, min_size=1, max_size=12)
values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
params = st.dictionaries(names.map(str.lower), values, max_size=5)
tokens68 = st.builds(
    lambda text, pad: text + "=" * pad,
    st.text(TOKEN68_CHARS, min_size=1, max_size=30),
    st.integers(0, 3),
)
challenges = st.one_of(
    st.builds(lambda name, params: Challenge(scheme=name.lower(), params=params), names, params),
    st.builds(lambda name, token: Challenge(scheme=name.lower(), token68=token), names, tokens68),
)


@st.composite
def lines_of(draw: st.DrawFn, offered: list[Challenge]) -> list[str]:
    """Write challenges down in one of the many ways that the grammar allows."""
    lines, line = [], ""
    for challenge in offered:
        line += draw(st.sampled_from(["", ",", " , ,", ", "])) + draw(written(challenge))
        if draw(st.booleans()):
            lines.append(line)
            line = ""
        else:
            line += draw(st.sampled_from([",", ", ", "\t,\t,"]))
    return [*lines, line]


@st.composite
def written(draw: st.DrawFn, challenge: Challenge) -> str:
    """Write one challenge down."""
    parts = [challenge.token68] if challenge.token68 else []
    for name, value in challenge.params.items():
        blank = st.sampled_from(["", " ", "\t "])
        parts.append(
            f"{draw(cased(name))}{draw(blank)}={draw(blank)}{draw(quoted_or_token(value))}"
        )
    rest = draw(st.sampled_from([",", ", ", " ,, "])).join(parts)
    return f"{draw(cased(challenge.scheme))}{draw(st.sampled_from([' ', '   ']))}{rest}"


def cased(name: str) -> st.SearchStrategy[str]:
    """Spell a name in lower or upper case."""
    return st.sampled_from([name, name.upper()])


@st.composite
def quoted_or_token(draw: st.DrawFn, value: str) -> str:
    """Write a value as a token where it is one, or quoted, with needless escapes."""
    if value and all(char in TOKEN_CHARS for char in value) and draw(st.booleans()):
        return value
    escaped = "".join(
        f"\\{char}" if char in '"\\' or draw(st.integers(0, 9)) == 0 else char for char in value
    )
    return f'"{escaped}"'


@given(st.data())
@settings(deadline=None)
def test_what_the_grammar_can_write_is_read_back(data: st.DataObject) -> None:
    """Any list of challenges, written in any legal way, is read as what it was."""
    offered = data.draw(st.lists(challenges, max_size=4))
    lines = data.draw(lines_of(offered))
    assert parse_challenges(lines) == tuple(offered)


@given(st.lists(st.text() | st.text('Basic Digest=",\\ \t\r\nabc=', max_size=60), max_size=4))
@settings(deadline=None)
def test_no_text_is_too_wild_to_read(lines: list[str]) -> None:
    """A server can neither crash nor hang a worker with a header."""
    for challenge in parse_challenges(lines):
        assert challenge.scheme
        assert challenge.scheme == challenge.scheme.lower()
    parse_params(lines)


@pytest.mark.parametrize(
    "seed",
    [
        '"', "\\", '"\\', '\\"', ",", "=", " ", "\t ", "a", "a=", "a ", 'a="', 'a="\\', '="', "a,",
        'a=",', "a b", "Digest ", 'Digest x="', '" ', ' "', '"a"', "a\\", "==a", "a =", "é",
        "Passport1.4 ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("tail", ["", '"', "\\", "=", " x"])
def test_reading_takes_linear_time(seed: str, tail: str) -> None:
    """64 KiB of anything are read at once; quadratic time would be minutes."""
    line = "Digest " + seed * (65536 // len(seed)) + tail
    begun = time.process_time()
    parse_challenges([line])
    parse_params([line])
    assert time.process_time() - begun < 1.0
