"""Who gets which secret: real acceptors, two origins, and everything they ever heard."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.acceptors import Acceptor, Basic, Digest, guarded
from tests.support.identities import (
    BODY,
    BOTH,
    audited,
    document,
    failed,
    held,
    nothing_secret,
    sent,
)
from tests.support.origin import Origin, fixed, in_turn, redirect
from tests.support.scripted import Stage, behind_legs, once, three_legs
from tests.support.tls import Authority
from tests.support.worker import (
    PASSWORD,
    PLAIN,
    USER,
    Book,
    Desk,
    credential,
    header,
    worker_task,
)
from transferd.auth.flow import Attempt
from transferd.model.credentials import Scheme, Target
from transferd.wire import link


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


# ── what is accepted ───────────────────────────────────────────────────────────────────────


ACCEPTORS: dict[str, Acceptor] = {
    "basic": Basic(USER, PASSWORD),
    **{
        f"digest {algorithm} {qop}": Digest(USER, PASSWORD, algorithms=(algorithm,), qop=qop)
        for algorithm in ("MD5", "SHA-256", "SHA-512-256", "SHA-256-sess")
        for qop in ("auth", "auth-int", "auth-int, auth")
    },
}


@pytest.mark.parametrize("name", sorted(ACCEPTORS))
async def test_a_challenge_is_answered_with_what_is_held(
    desk: Desk, origin: Origin, tmp_path: Path, name: str
) -> None:
    """401, then 200: nothing is sent before the challenge, and one answer is enough."""
    acceptor = replace(ACCEPTORS[name])
    origin.pages["/f"] = guarded(document(), acceptor)
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, credentials=held(*BOTH)), link.Drained)
    assert book.temporary().read_bytes() == BODY
    scheme = Scheme(name.partition(" ")[0])
    assert sent(origin) == [None, scheme.capitalize()]
    assert audited(desk) == [(True, scheme, "127.0.0.1")]
    assert origin.connections == 1


async def test_what_spoke_inside_the_scheme_is_on_record(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, when it was accepted; not for requests over what it had authenticated."""
    Stage(monkeypatch).play(Scheme.NTLM, three_legs)
    origin.pages["/f"] = behind_legs(document())
    book = Book.of(tmp_path, *[origin.url("/f")] * 2)
    assert isinstance(await desk.carry(book, credentials=held(Scheme.NTLM)), link.Drained)
    (record,) = desk.of(link.Audited)
    assert (record.accepted, record.scheme, record.mechanism) == (True, Scheme.NTLM, "scripted")
    assert origin.connections == 1


async def test_a_redirect_counts_from_where_the_scheme_led(
    desk: Desk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative Location is one of the URL that was asked in the end (RFC 9110 10.2.2)."""
    there = origin.url("/there/f")
    first, later = Attempt(authorization="NTLM x", url=there), Attempt(authorization=None)
    Stage(monkeypatch).play(
        Scheme.NTLM, lambda session, line, challenge: once(first if challenge else later)
    )
    origin.pages["/f"] = fixed(401, [("WWW-Authenticate", "NTLM")])
    origin.pages["/there/f"] = redirect("g")
    origin.pages["/there/g"] = document()
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, credentials=held(Scheme.NTLM)), link.Drained)
    assert [seen.target for seen in origin.seen][:3] == ["/f", "/there/f", "/there/g"]


async def test_a_server_that_asks_nothing_hears_nothing(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Credentials are presented after a challenge only (BITS A5)."""
    origin.pages["/f"] = document()
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, credentials=held(*BOTH)), link.Drained)
    assert sent(origin) == [None]
    assert audited(desk) == []


@pytest.mark.parametrize("acceptor", [Basic(USER, PASSWORD), Digest(USER, PASSWORD)])
async def test_what_was_accepted_goes_along_with_later_files(
    desk: Desk, origin: Origin, tmp_path: Path, acceptor: Acceptor
) -> None:
    """A run authenticates once; later requests carry credentials from the start, nonce and all."""
    mine = replace(acceptor)
    origin.pages["/f"] = guarded(document(), mine)
    book = Book.of(tmp_path, *[origin.url("/f")] * 3)
    assert isinstance(await desk.carry(book, credentials=held(*BOTH)), link.Drained)
    assert [value is not None for value in sent(origin)] == [False, True, True, True]
    if isinstance(mine, Digest):
        assert [given["nc"] for given in mine.accepted] == ["00000001", "00000002", "00000003"]
    assert len(audited(desk)) == 1


async def test_stale_and_next_nonces_are_followed(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A nonce that has had its day is replaced without a refusal, by 401 or in advance."""
    stale = Digest(USER, PASSWORD, nonce_uses=1)
    ahead = Digest(USER, PASSWORD, nonce_uses=1, nextnonce=True)
    origin.pages["/stale"] = guarded(document(), stale)
    origin.pages["/ahead"] = guarded(document(), ahead)
    for path in ("/stale", "/ahead"):
        book = Book.of(tmp_path, *[origin.url(path)] * 3)
        assert isinstance(await desk.carry(book, credentials=held(Scheme.DIGEST)), link.Drained)
    assert (stale.expired, ahead.expired) == (2, 0)


async def test_the_strongest_scheme_that_is_held_is_used(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """Of several challenges Digest comes before Basic, whatever their order, SHA before MD5."""
    digest = Digest(USER, PASSWORD, algorithms=("MD5", "SHA-256"))
    basic = Basic(USER, PASSWORD)
    origin.pages["/f"] = guarded(document(), basic, digest)
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.carry(book, credentials=held(*BOTH))
    assert sent(origin) == [None, "Digest"]
    assert digest.accepted[0]["algorithm"] == "SHA-256"
    book = Book.of(tmp_path, origin.url("/f"))
    await desk.carry(book, credentials=held(Scheme.BASIC))
    assert sent(origin)[2:] == [None, "Basic"]


# ── what is refused ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("acceptor", [Basic(USER, "another"), Digest(USER, "another")])
async def test_a_wrong_password_is_tried_once(
    desk: Desk, origin: Origin, tmp_path: Path, acceptor: Acceptor
) -> None:
    """One attempt, then http_401, for the owner to mend; accounts lock for less."""
    mine = replace(acceptor)
    origin.pages["/f"] = guarded(document(), mine)
    book = Book.of(tmp_path, origin.url("/f"))
    end = failed(await desk.carry(book, credentials=held(*BOTH)))
    assert (end.failure.code, end.failure.http_status) == ("http_401", 401)
    assert not end.failure.kind.transient
    assert mine.attempts == 1
    assert [accepted for accepted, _, _ in audited(desk)] == [False]
    assert nothing_secret(repr(end), repr(desk.heard))


async def test_a_refused_digest_never_shows_the_password_by_basic(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """The same identity may be held for every scheme; a refusal of one is a refusal of all."""
    digest, basic = Digest(USER, "another"), Basic(USER, PASSWORD)
    origin.pages["/f"] = guarded(document(), digest, basic)
    end = failed(await desk.carry(Book.of(tmp_path, origin.url("/f")), credentials=held(*BOTH)))
    assert (digest.attempts, basic.attempts) == (1, 0)
    for word in ("127.0.0.1", "offered: Digest (SHA-256), Basic", "held: basic, digest", "tried"):
        assert word in end.failure.message


async def test_a_scheme_that_cannot_start_makes_room_for_the_next(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """An unknown algorithm is no refusal: nothing was sent, so Basic may."""
    origin.pages["/f"] = in_turn(
        fixed(
            401,
            [
                ("WWW-Authenticate", 'Digest realm="r", nonce="n", algorithm=ROT13'),
                ("WWW-Authenticate", 'Basic realm="r"'),
            ],
        ),
        guarded(document(), Basic(USER, PASSWORD)),
    )
    book = Book.of(tmp_path, origin.url("/f"))
    assert isinstance(await desk.carry(book, credentials=held(*BOTH)), link.Drained)
    assert sent(origin) == [None, "Basic"]


@pytest.mark.parametrize(
    ("schemes", "challenges", "told"),
    [
        ((), ['Basic realm="r"'], "set credentials for basic"),
        ((Scheme.DIGEST,), ['Basic realm="r"'], "set credentials for basic"),
        (BOTH, ["Negotiate", "NTLM"], "set credentials for negotiate or ntlm"),
        (BOTH, ["Bearer", "Mutual"], "transferd can answer none of these"),
        (BOTH, [], "offered: nothing"),
    ],
)
async def test_nothing_is_sent_where_nothing_fits(
    desk: Desk,
    origin: Origin,
    tmp_path: Path,
    schemes: tuple[Scheme, ...],
    challenges: list[str],
    told: str,
) -> None:
    """The failure says what was offered, what is held, and what to do."""
    origin.pages["/f"] = fixed(401, [("WWW-Authenticate", line) for line in challenges])
    book = Book.of(tmp_path, origin.url("/f"))
    end = failed(await desk.carry(book, credentials=held(*schemes)))
    assert end.failure.code == "http_401"
    assert told in f"{end.failure.message}; {end.failure.remedy}"
    assert sent(origin) == [None]


async def test_a_server_that_cannot_prove_itself_is_not_believed(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """A wrong rspauth: server_not_authenticated, and its body is not stored."""
    origin.pages["/f"] = guarded(document(), Digest(USER, PASSWORD, proof="wrong"))
    book = Book.of(tmp_path, origin.url("/f"))
    end = failed(await desk.carry(book, credentials=held(Scheme.DIGEST)))
    assert end.failure.code == "server_not_authenticated"
    assert not book.temporary().exists()
    assert audited(desk) == []


async def test_a_password_that_was_changed_in_mid_run_is_refused_once(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """What was accepted before and is refused now is refused: no second try with it."""
    before, after = Basic(USER, PASSWORD), Basic(USER, "changed")
    origin.pages["/f"] = in_turn(
        guarded(document(), before), guarded(document(), before), guarded(document(), after)
    )
    book = Book.of(tmp_path, *[origin.url("/f")] * 2)
    end = failed(await desk.carry(book, credentials=held(Scheme.BASIC)))
    assert end.failure.code == "http_401"
    assert (before.attempts, after.attempts) == (1, 1)


async def test_a_407_without_a_proxy_gets_nothing(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """An origin that plays the proxy hears neither kind of credential."""
    origin.pages["/f"] = fixed(407, [("Proxy-Authenticate", 'Basic realm="r"')])
    proxy = credential(Scheme.BASIC, target=Target.PROXY)
    book = Book.of(tmp_path, origin.url("/f"))
    end = failed(await desk.carry(book, credentials=[*held(Scheme.BASIC), proxy]))
    assert end.failure.code == "http_407"
    assert len(origin.seen) == 1
    assert nothing_secret(origin.said)


# ── redirects ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schemes", "status", "first", "asks"),
    list(
        itertools.product(
            [(Scheme.BASIC,), (Scheme.DIGEST,), BOTH],
            [301, 302, 303, 307, 308],
            ["asks first", "redirects at once"],
            [True, False],
        )
    ),
)
async def test_no_secret_ever_reaches_another_origin(
    desk: Desk,
    origin: Origin,
    other: Origin,
    tmp_path: Path,
    schemes: tuple[Scheme, ...],
    status: int,
    first: str,
    asks: bool,
) -> None:
    """Credentials and the owner's headers stay with the origin of the file's own URL."""
    away = redirect(other.url("/g"), status)
    acceptors = (Basic(USER, PASSWORD), Digest(USER, PASSWORD))
    origin.pages["/f"] = guarded(away, *acceptors) if first == "asks first" else away
    there = document()
    other.pages["/g"] = guarded(there, *acceptors) if asks else there
    headers = [header("X-Api-Key", "s3cr3t-header"), header("Cookie", "s3cr3t-header")]
    book = Book.of(tmp_path, origin.url("/f"))
    end = await desk.carry(book, credentials=held(*schemes), headers=headers)
    assert nothing_secret(other.said)
    assert {"x-api-key", "cookie"} <= {name for name, _ in origin.seen[0].headers}
    if asks:
        message = failed(end).failure.message
        assert failed(end).failure.code == "http_401"
        assert "credentials go to the origin of the file's URL only" in message
    else:
        assert book.temporary().read_bytes() == BODY


async def test_another_port_is_another_origin(desk: Desk, origin: Origin, tmp_path: Path) -> None:
    """Scheme, host and port make an origin; one of them differs, and nothing goes along."""
    async with Origin("127.0.0.1").running() as neighbour:
        origin.pages["/f"] = guarded(redirect(neighbour.url("/g")), Basic(USER, PASSWORD))
        neighbour.pages["/g"] = document()
        book = Book.of(tmp_path, origin.url("/f"))
        key = header("X-Api-Key", "s3cr3t-header")
        assert isinstance(
            await desk.carry(book, credentials=held(*BOTH), headers=[key]), link.Drained
        )
        assert nothing_secret(neighbour.said)


async def test_secrets_wait_at_home_for_a_redirect_that_comes_back(
    desk: Desk, origin: Origin, other: Origin, tmp_path: Path
) -> None:
    """A → B → A: B gets nothing, A gets everything it asks for."""
    origin.pages["/f"] = redirect(other.url("/g"))
    other.pages["/g"] = redirect(origin.url("/h"))
    origin.pages["/h"] = guarded(document(), Digest(USER, PASSWORD))
    book = Book.of(tmp_path, origin.url("/f"))
    key = header("X-Api-Key", "s3cr3t-header")
    end = await desk.carry(book, credentials=held(*BOTH), headers=[key])
    assert isinstance(end, link.Drained)
    assert nothing_secret(other.said)
    assert all(seen.get("x-api-key") == "s3cr3t-header" for seen in origin.seen)


async def test_https_never_leads_to_http_with_secrets_on_board(
    desk: Desk, origin: Origin, tmp_path: Path
) -> None:
    """redirect_refused; without secrets the same redirect is followed."""
    authority = Authority(tmp_path)
    settings = replace(PLAIN, cacert=authority.cacert)
    async with Origin(tls=authority.server()).running() as secure:
        secure.pages["/f"] = redirect(origin.url("/f"))
        origin.pages["/f"] = document()
        book = Book.of(tmp_path, secure.url("/f"))
        key = header("X-Api-Key", "s3cr3t-header")
        end = failed(await desk.carry(book, headers=[key], settings=settings))
        assert end.failure.code == "redirect_refused"
        assert origin.seen == []
        assert isinstance(await desk.carry(book, settings=settings), link.Drained)
