"""Choosing a scheme: the ladder, what is passed over, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from transferd.auth import choice as choices
from transferd.auth.challenge import parse_challenges
from transferd.auth.choice import (
    METHODS,
    Choice,
    Method,
    Skip,
    Skipped,
    Transit,
    choose,
    missing,
    needs_cookies,
    refusal,
    remedy,
)
from transferd.auth.flow import LADDER, Place, RequestLine, Step
from transferd.model.credentials import Credential, Scheme, Secret, Target

BASIC, DIGEST = Scheme.BASIC, Scheme.DIGEST
SHA: Step = (DIGEST, "sha")
MD5: Step = (DIGEST, "md5")
PLAIN: Step = (BASIC, None)

SAFE = Transit(cleartext=False)
CLEARTEXT = Transit(cleartext=True)
GET = RequestLine(method="GET", target="/")
PLACE = Place(host="host", randomness=bytes)

EVERY = tuple(Scheme)
OFFER_BASIC = 'Basic realm="r"'
OFFER_PASSPORT = "Passport1.4 site=71,kpp=9"
OFFER_MD5 = 'Digest realm="r", nonce="m", qop="auth", algorithm=MD5'
OFFER_SHA = 'Digest realm="r", nonce="s", qop="auth", algorithm=SHA-256'
OFFER_SHA_512 = 'Digest realm="r", nonce="t", qop="auth", algorithm=SHA-512-256'
OFFER_UNKNOWN = 'Digest realm="r", nonce="u", qop="auth", algorithm=SHA-999'


def credential(scheme: Scheme) -> Credential:
    """Make a credential."""
    return Credential(
        target=Target.SERVER, scheme=scheme, username="alice", password=Secret("hunter2")
    )


def made(
    *lines: str,
    held: Sequence[Scheme] = (BASIC, DIGEST),
    transit: Transit = SAFE,
    tried: Sequence[Step] = (),
) -> Choice:
    """Choose."""
    return choose(
        parse_challenges(lines),
        {scheme: credential(scheme) for scheme in held},
        transit=transit,
        tried=tried,
    )


def step(choice: Choice) -> Step | None:
    """Return the step that was chosen."""
    return None if choice.pick is None else choice.pick.step


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([OFFER_BASIC], PLAIN),
        ([OFFER_BASIC, OFFER_MD5], MD5),
        ([OFFER_BASIC, OFFER_MD5, OFFER_SHA], SHA),
        ([OFFER_SHA, OFFER_MD5, OFFER_BASIC], SHA),
        ([f"{OFFER_BASIC}, {OFFER_MD5}, Negotiate, NTLM"], MD5),
        (["Negotiate", "NTLM", OFFER_UNKNOWN, OFFER_BASIC], PLAIN),
        ([OFFER_UNKNOWN], None),
        (["Negotiate", "Bearer"], None),
        ([], None),
    ],
)
def test_the_strongest_is_taken(lines: list[str], expected: Step | None) -> None:
    """The ladder decides, whatever the order of the server; what cannot be answered is skipped."""
    assert step(made(*lines)) == expected


@pytest.mark.parametrize(
    ("lines", "nonce"),
    [([OFFER_MD5, OFFER_SHA, OFFER_SHA_512], "s"), ([OFFER_SHA_512, OFFER_SHA], "t")],
)
def test_within_a_rung_the_server_decides(lines: list[str], nonce: str) -> None:
    """RFC 7616 3.7: the first challenge that is supported, in the server's order."""
    pick = made(*lines).pick
    assert pick is not None
    assert pick.challenge.params["nonce"] == nonce


def test_each_rung_makes_room_for_the_next() -> None:
    """The whole ladder, with a credential for every scheme, whatever the order of the server."""
    lines = (OFFER_BASIC, OFFER_PASSPORT, OFFER_MD5, "NTLM", OFFER_SHA, "Negotiate")
    tried: list[Step] = []
    while (found := step(made(*lines, held=EVERY, tried=tried))) is not None:
        tried.append(found)
    assert tried == list(LADDER)
    assert tried[::2] == [(Scheme.NEGOTIATE, None), (Scheme.NTLM, None), (Scheme.PASSPORT, None)]


def test_only_what_may_wait_is_taken_to_a_thread() -> None:
    """Kerberos asks a KDC; everything else is arithmetic."""
    assert [step for step in METHODS if METHODS[step].blocks] == [(Scheme.NEGOTIATE, None)]


def test_only_passport_needs_cookies() -> None:
    """A run without a Passport credential neither keeps nor shows a cookie of a server's."""
    assert [scheme for scheme in Scheme if needs_cookies([scheme])] == [Scheme.PASSPORT]
    assert needs_cookies(Scheme)
    assert not needs_cookies([])


def test_only_what_is_held_is_taken() -> None:
    """A credential is for one scheme; Basic's password is not sent as Digest, nor the reverse."""
    assert step(made(OFFER_BASIC, OFFER_SHA, held=[BASIC])) == PLAIN
    assert step(made(OFFER_BASIC, held=[DIGEST])) is None
    assert step(made(OFFER_BASIC, OFFER_SHA, held=[])) is None


def test_what_was_tried_is_not_tried_again() -> None:
    """Each step once: the next weaker one, then none."""
    lines = (OFFER_BASIC, OFFER_MD5, OFFER_SHA)
    assert step(made(*lines, tried=[SHA])) == MD5
    assert step(made(*lines, tried=[SHA, MD5])) == PLAIN
    assert step(made(*lines, tried=[SHA, MD5, PLAIN])) is None


def test_basic_does_not_go_in_clear() -> None:
    """Over plain http the password would be read on the way: skipped, with the reason."""
    made_choice = made(OFFER_BASIC, transit=CLEARTEXT)
    assert made_choice.pick is None
    assert made_choice.cleartext_refused
    assert made_choice.skipped == (Skipped("Basic", Skip.CLEARTEXT_REFUSED, "password"),)


def test_a_ticket_does_not_go_in_clear_either() -> None:
    """Whoever reads Passport's ticket is the user; the password goes elsewhere."""
    made_choice = made(OFFER_PASSPORT, held=EVERY, transit=CLEARTEXT)
    assert made_choice.pick is None
    assert made_choice.cleartext_refused
    assert "Passport1.4 was not used, it would show the ticket to everybody on the way" in refusal(
        "http://host", made_choice
    )


@pytest.mark.parametrize("line", ["Negotiate", "NTLM", OFFER_SHA])
def test_what_shows_nothing_goes_in_clear(line: str) -> None:
    """Negotiate and NTLM show no password either."""
    assert step(made(line, held=EVERY, transit=CLEARTEXT)) is not None


def test_a_rejected_digest_does_not_lead_to_basic_in_clear() -> None:
    """Nor as a way out when everything else has failed."""
    assert step(made(OFFER_BASIC, OFFER_SHA, transit=CLEARTEXT, tried=[SHA])) is None


def test_the_owner_may_let_it() -> None:
    """allow_cleartext lifts the rule."""
    allowed = Transit(cleartext=True, allow_cleartext=True)
    made_choice = made(OFFER_BASIC, transit=allowed)
    assert step(made_choice) == PLAIN
    assert not made_choice.cleartext_refused


def test_digest_goes_in_clear() -> None:
    """Digest shows no password."""
    assert step(made(OFFER_BASIC, OFFER_MD5, transit=CLEARTEXT)) == MD5


def test_the_session_speaks_the_scheme() -> None:
    """A pick is ready to converse with."""
    for lines, begins in ((OFFER_BASIC, "Basic "), (OFFER_SHA, "Digest ")):
        pick = made(lines).pick
        assert pick is not None
        session = pick.open(PLACE)
        assert session.scheme is pick.step[0]
        value = next(session.converse(GET, pick.challenge)).authorization
        assert value is not None
        assert value.startswith(begins)


def test_offers_are_told_as_they_were_sent() -> None:
    """In the server's spelling and order, each once, Digest with its algorithm."""
    lines = ("BASIC", OFFER_SHA, 'digest realm="r", nonce="n"', OFFER_SHA, "Negotiate, NTLM")
    assert made(*lines).offered == (
        "BASIC",
        "Digest (SHA-256)",
        "digest (MD5)",
        "Negotiate",
        "NTLM",
    )


def test_a_scheme_is_added_with_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry in the table is all that the choice needs to use a scheme of the ladder."""
    entry = Method(
        name="mutual", usable=lambda challenge: challenge.token68 is None, open=METHODS[MD5].open
    )
    monkeypatch.setattr(choices, "METHODS", {**METHODS, (Scheme.NTLM, None): entry})
    made_choice = made("Mutual", OFFER_MD5, held=[DIGEST, Scheme.NTLM])
    assert step(made_choice) == (Scheme.NTLM, None)


def test_every_method_stands_on_the_ladder() -> None:
    """Every rung can be spoken, and a method that is on none would never be chosen."""
    assert set(METHODS) == set(LADDER)


# ── the refusal in words ───────────────────────────────────────────────────────────────────


def test_a_rejected_credential_is_told() -> None:
    """What was offered, held, tried; what happened; what to do."""
    made_choice = made(OFFER_BASIC, OFFER_SHA, held=[DIGEST], tried=[SHA])
    reason = "the server refused user name or password of 'alice' (Digest SHA-256, realm 'r')"
    assert refusal("https://host", made_choice, [reason]) == (
        "cannot authenticate to https://host: offered: Basic, Digest (SHA-256); held: digest; "
        f"tried: digest; {reason}"
    )
    assert remedy(made_choice, Target.SERVER) == "set the right credentials"


def test_a_missing_credential_is_told() -> None:
    """Which credentials would open the door, strongest first."""
    made_choice = made(OFFER_BASIC, OFFER_MD5, "NTLM", "Bearer", held=[])
    assert refusal("https://host", made_choice) == (
        "cannot authenticate to https://host: offered: Basic, Digest (MD5), NTLM, Bearer; "
        "held: nothing; tried: nothing"
    )
    assert missing(made_choice) == (Scheme.NTLM, Scheme.DIGEST, Scheme.BASIC)


def test_a_credential_for_another_scheme_is_told() -> None:
    """Held but not offered: nothing is sent, and the offered scheme is named."""
    made_choice = made(OFFER_BASIC, held=[DIGEST])
    assert refusal("https://host", made_choice) == (
        "cannot authenticate to https://host: offered: Basic; held: digest; tried: nothing"
    )
    assert missing(made_choice) == (Scheme.BASIC,)


def test_a_cleartext_refusal_is_told() -> None:
    """The two ways out: https, or the owner's leave."""
    made_choice = made(OFFER_BASIC, held=[BASIC], transit=CLEARTEXT)
    assert refusal("http://host", made_choice) == (
        "cannot authenticate to http://host: offered: Basic; held: basic; tried: nothing; "
        "Basic was not used, it would show the password to everybody on the way"
    )
    assert remedy(made_choice, Target.SERVER) == (
        "use https, or let them go in clear with --allow-cleartext (allow_cleartext)"
    )
    assert remedy(made_choice, Target.PROXY).startswith("use https to the proxy, or")


def test_credentials_alone_would_not_help_in_clear() -> None:
    """The advice to set Basic credentials says what else it takes."""
    unheld = made(OFFER_BASIC, held=[], transit=CLEARTEXT)
    assert missing(unheld) == ()
    assert remedy(unheld, Target.SERVER) == (
        "use https and set credentials for basic, or set them and let them go in clear with"
        " --allow-cleartext (allow_cleartext)"
    )
    better = made(OFFER_BASIC, OFFER_MD5, held=[], transit=CLEARTEXT)
    assert missing(better) == (Scheme.DIGEST,)


def test_a_challenge_that_cannot_be_answered_is_told() -> None:
    """Offered and held, yet of no use."""
    made_choice = made(OFFER_UNKNOWN, held=[DIGEST])
    text = refusal("https://host", made_choice)
    assert "Digest (SHA-999) was not used, its challenge asks for something" in text
    assert remedy(made_choice, Target.SERVER).endswith("have the server offer another scheme")


def test_no_challenge_at_all_is_told() -> None:
    """A 401 without a scheme that can be read."""
    assert "offered: nothing; held: digest" in refusal("https://host", made(held=[DIGEST]))


def test_a_hostile_server_cannot_fill_the_message() -> None:
    """Offers are cut in number and length, and only tokens are repeated."""
    lines = [f"S{number}-{'x' * 500}" for number in range(50)]
    text = refusal("https://host", made('Digest algorithm="\u202e evil"', *lines))
    assert len(text) < 800
    assert "Digest (?), S0-" in text
    assert "and 43 more" in text


def test_the_password_is_in_no_repr() -> None:
    """A choice may be logged as a whole."""
    for made_choice in (made(OFFER_BASIC), made(OFFER_SHA), made(OFFER_BASIC, transit=CLEARTEXT)):
        assert "hunter2" not in repr(made_choice)
        assert "hunter2" not in refusal("https://host", made_choice, ["refused"])
