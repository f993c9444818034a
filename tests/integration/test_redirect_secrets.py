"""Redirects and secrets: wherever a server leads, only those hear a secret that it is for.

The table "redirects and secrets" has a row for each way to lead away and a column for each kind of
secret. The stranger keeps every byte; whoever is to get the secret is searched in the same way, so
that the search is known to find it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support import kits
from tests.support.gss_acceptors import ntlm_users
from tests.support.identities import document
from tests.support.kdc import Kdc
from tests.support.kits import CANARIES, FOR_PROXIES, FOR_SERVERS, Kit, Sentry
from tests.support.matrix import Cell
from tests.support.origin import Page, fixed, redirect
from tests.support.passport import CHALLENGE
from tests.support.recorder import Recorder, heads, traces
from tests.support.tls import Authority
from tests.support.worker import Book, Desk, End, worker_task
from transferd.wire import link

TABLE = "redirects and secrets"
TUNNELS = "what server and proxy of a tunnel hear of each other"


# ── the rows: how a server leads away ──────────────────────────────────────────────────────


def _never(kit: Kit) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the server of a file leads to a stranger."""

    status: int = 302
    host: str = "127.0.0.2"
    #: Whether it is https; None: as the kit has it.
    home_tls: bool | None = None
    away_tls: bool | None = None
    #: Of the stranger's address, in a Location.
    location: str = "{scheme}://{place}/g"
    #: Whether it is not gone with that kit.
    refused: Callable[[Kit], bool] = _never
    #: Where a stranger who does not ask leads to; None: he has a file.
    back: str | None = None

    def leads_to(self, stranger: Recorder) -> Page:
        """The page that leads there."""
        scheme, _, place = stranger.url("").partition("://")
        return redirect(self.location.format(scheme=scheme, place=place), self.status)


OTHER_HOST = Way()
DOWNGRADE = Way(home_tls=True, away_tls=False, refused=lambda kit: kit.armed)
WAYS = {
    "other host": OTHER_HOST,
    "other port": Way(host="127.0.0.1"),
    "https to http": DOWNGRADE,
    "http to https, other host": Way(home_tls=False, away_tls=True),
    "userinfo in Location": Way(
        location="{scheme}://alice:opensesame@{place}/g", refused=lambda kit: True
    ),
    "protocol-relative": Way(location="//{place}/g"),
    **{str(status): Way(status=status) for status in (301, 302, 303, 307, 308)},
    "loop": Way(back="/f"),
    "away and back home": Way(back="/h"),
}


# ── the columns: what the job holds ────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Means:
    """What kits are made of."""

    keytab: Path
    authority: Authority
    #: Whether servers that only the job knows speak https.
    tls: bool = False


Kits: TypeAlias = Callable[[Means], contextlib.AbstractAsyncContextManager[Kit]]


def passport(*shown: str) -> Kits:
    """Passport, of which a partner hears *shown*."""
    return lambda means: kits.passport(
        frozenset(shown), means.authority.server() if means.tls else None
    )


SERVER_SECRETS: dict[str, Kits] = {
    "basic": lambda _: contextlib.nullcontext(kits.basic()),
    "digest": lambda _: contextlib.nullcontext(kits.digest()),
    "ntlm": lambda _: contextlib.nullcontext(kits.ntlm()),
    "negotiate": lambda means: contextlib.nullcontext(kits.negotiate(means.keytab)),
    "passport ticket": passport("field authorization", "ticket"),
    "passport cookie": passport("field cookie", "partner cookie"),
    "secret header": lambda _: contextlib.nullcontext(kits.key()),
    "owner's cookie": lambda _: contextlib.nullcontext(kits.session()),
}
PROXY_SECRETS: dict[str, Kits] = {
    "basic": lambda _: kits.proxy_basic(),
    "digest": lambda _: kits.proxy_digest(),
    "ntlm": lambda _: kits.proxy_ntlm(),
    "negotiate": lambda means: kits.proxy_negotiate(means.keytab),
}
SECRETS: dict[str, Kits] = {
    **SERVER_SECRETS,
    "proxy: basic": PROXY_SECRETS["basic"],
    "proxy: ntlm, CONNECT": PROXY_SECRETS["ntlm"],
}


# ── how a stranger asks ────────────────────────────────────────────────────────────────────

_OFFERS = (
    "Negotiate",
    "NTLM",
    'Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256',
    'Digest realm="r", nonce="n", qop="auth", algorithm=MD5',
    'Basic realm="r"',
)
_PASSPORT = ("WWW-Authenticate", f"Passport1.4 {CHALLENGE}")
#: His page, and the failure that comes of it.
ASKING = {
    "every scheme": (
        fixed(401, [*(("WWW-Authenticate", offer) for offer in _OFFERS), _PASSPORT]),
        "http_401",
    ),
    "as a proxy": (fixed(407, [("Proxy-Authenticate", offer) for offer in _OFFERS]), "http_407"),
    "passport": (fixed(302, [_PASSPORT, ("Location", "/for/browsers")]), "http_401"),
}


# ── the stage ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", autouse=True)
def users() -> Iterator[None]:
    """Whom acceptors of NTLM know."""
    with ntlm_users():
        yield


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for all servers."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def means(kdc: Kdc, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Means:
    """The means, in a realm that this process has joined."""
    for name, value in kdc.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KRB5RCACHENAME", f"file2:{tmp_path}/seen")
    return Means(keytab=kdc.keytab, authority=authority)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A job with a secret, the server of its files, and somebody else."""

    desk: Desk
    kit: Kit
    home: Recorder
    stranger: Recorder
    cacert: str
    directory: Path

    async def carry(self, *urls: str) -> End:
        """Run a job with these files; what was heard before is forgotten."""
        self.home.forget()
        self.stranger.forget()
        return await self.desk.carry(
            Book.of(self.directory, *urls),
            credentials=self.kit.hold(),
            headers=self.kit.headers(),
            settings=replace(self.kit.settings, cacert=self.cacert),
        )

    def assert_kept(self) -> None:
        """The stranger has heard nothing; whoever the secret is for has heard it."""
        assert traces(bytes(self.stranger.heard), CANARIES) == set()
        proxy = self.kit.proxy
        heard = bytes(self.home.heard) if proxy is None else heads(proxy.seen)
        assert traces(heard, CANARIES) >= self.kit.traces
        # Nobody is told of the stranger either, as of a place to log in for.
        assert all(self.stranger.url("") not in each.said for each in self.kit.confidants)


@contextlib.asynccontextmanager
async def staged(
    desk: Desk, kit: Kit, way: Way, authority: Authority, directory: Path
) -> AsyncIterator[Stage]:
    """Raise the servers; at home `/f` leads away, `/h` is a file, both of them guarded."""
    home_tls = kit.tls if way.home_tls is None else way.home_tls
    away_tls = kit.tls if way.away_tls is None else way.away_tls
    context = authority.server()
    async with (
        Recorder(tls=context if home_tls else None).running() as home,
        Recorder(way.host, tls=context if away_tls else None).running() as stranger,
    ):
        guard = kit.guard()
        home.pages["/f"] = guard(way.leads_to(stranger))
        home.pages["/h"] = guard(document())
        yield Stage(
            desk=desk,
            kit=kit,
            home=home,
            stranger=stranger,
            cacert=authority.cacert,
            directory=directory,
        )


def code_of(end: End) -> str | None:
    """The code of the failure that a run ended with; None: it did not fail."""
    return end.failure.code if isinstance(end, link.Failed) else None


# ── the table ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("column", SECRETS)
@pytest.mark.parametrize("row", WAYS)
async def test_a_redirect_takes_no_secret_along(
    desk: Desk, means: Means, tmp_path: Path, cell: Cell, row: str, column: str
) -> None:
    """Promise 5: whatever the stranger asks for; and home gets it, before and after."""
    way = WAYS[row]
    async with (
        SECRETS[column](means) as kit,
        staged(desk, kit, way, means.authority, tmp_path) as stage,
    ):
        home, stranger = stage.home, stage.stranger
        if way.refused(kit):
            assert code_of(await stage.carry(home.url("/h"), home.url("/f"))) == "redirect_refused"
            assert stranger.connections == 0
            stage.assert_kept()
            return cell(TABLE, row, column, "nothing seen: refused")
        await visit(stage, way)
        for asking, (page, code) in ASKING.items():
            stranger.pages["/g"] = page
            assert code_of(await stage.carry(home.url("/h"), home.url("/f"))) == code, asking
            assert len(stranger.requests("/g")) == 1 or kit.proxy is not None
            stage.assert_kept()
    cell(TABLE, row, column, "nothing seen")


async def visit(stage: Stage, way: Way) -> None:
    """Go to a stranger who asks nothing, and then home for another file."""
    home, stranger = stage.home, stage.stranger
    crumb = [("Set-Cookie", "crumb=1; Path=/"), ("Location", home.url(way.back or ""))]
    stranger.pages["/g"] = document() if way.back is None else fixed(302, crumb)
    end = await stage.carry(home.url("/f"), home.url("/h"))
    stage.assert_kept()
    if way.back == "/f":
        assert code_of(end) == "redirect_limit"
        assert len(stranger.seen) > 1
    else:
        assert isinstance(end, link.Drained), end
        assert home.seen[-1].path == "/h"
        assert len(stranger.seen) == 1
    assert all(message.accepted for message in stage.desk.of(link.Audited))
    assert b"crumb" not in home.heard


@pytest.mark.parametrize("column", SECRETS)
async def test_the_server_of_another_file_is_a_stranger_to_a_redirect(
    desk: Desk, means: Means, tmp_path: Path, cell: Cell, column: str
) -> None:
    """What it gets for its own file it does not get, nor on that file's connection, for another."""
    async with (
        SECRETS[column](means) as kit,
        staged(desk, kit, OTHER_HOST, means.authority, tmp_path) as stage,
    ):
        home, neighbour = stage.home, stage.stranger
        guard = kit.guard()
        neighbour.pages["/n"] = guard(document())
        neighbour.pages["/g"] = document()
        for page, code in (None, None), *ASKING.values():
            neighbour.pages["/g"] = page or neighbour.pages["/g"]
            other = neighbour.url("/n")
            end = await stage.carry(other, other, home.url("/f"), other)
            assert code_of(end) == code
            led, own = neighbour.requests("/g"), neighbour.requests("/n")
            assert led
            assert traces(heads(led), CANARIES) == set()
            if kit.armed:
                assert traces(heads(own), CANARIES) >= kit.traces
                assert not {seen.connection for seen in led} & {seen.connection for seen in own}
            if isinstance(guard, Sentry):
                assert guard.users(seen.connection for seen in own) == {kit.user}
                assert guard.users(seen.connection for seen in led) == {None}
    cell(TABLE, "to the server of another file", column, "nothing seen")


async def test_https_leads_to_http_with_nothing_on_board(
    desk: Desk, authority: Authority, tmp_path: Path
) -> None:
    """Only what is attached is kept from the clear; a job without it is free to go."""
    nothing = Kit(traces=frozenset(), armed=False)
    async with staged(desk, nothing, DOWNGRADE, authority, tmp_path) as stage:
        stage.stranger.pages["/g"] = document()
        assert isinstance(await stage.carry(stage.home.url("/f")), link.Drained)
        stage.assert_kept()


# ── tunnels ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("column", PROXY_SECRETS)
@pytest.mark.parametrize("row", SERVER_SECRETS)
async def test_server_and_proxy_of_a_tunnel_hear_nothing_of_each_other(
    desk: Desk, means: Means, tmp_path: Path, cell: Cell, row: str, column: str
) -> None:
    """Promise 5: what is for the server goes in, what is for the proxy stays out, asked or not."""
    means = replace(means, tls=True)
    async with (
        SERVER_SECRETS[row](means) as inner,
        PROXY_SECRETS[column](means) as outer,
        Recorder(tls=means.authority.server()).running() as home,
    ):
        proxy, guard = outer.proxy, inner.guard()
        assert proxy is not None
        home.pages["/f"] = guard(document())
        home.pages["/407"] = guard(ASKING["as a proxy"][0])
        settings = replace(
            inner.settings,
            proxy=proxy.url,
            cacert=means.authority.cacert,
            negotiate=replace(inner.settings.negotiate, proxy_spn=kits.SPN),
        )
        end = await desk.carry(
            Book.of(tmp_path, *map(home.url, ("/f", "/f", "/407"))),
            credentials=[*inner.hold(), *outer.hold()],
            headers=inner.headers(),
            settings=settings,
        )
        assert code_of(end) == "http_407"
        assert len(desk.of(link.FileDone)) == 2
        assert {seen.method for seen in proxy.seen} == {"CONNECT"}
        assert len(home.requests("/407")) <= 2
    outside, inside = traces(heads(proxy.seen), CANARIES), traces(bytes(home.heard), CANARIES)
    assert outer.traces <= outside
    assert inner.traces <= inside
    assert not outside & FOR_SERVERS
    assert not inside & FOR_PROXIES
    cell(TUNNELS, f"server: {row}", f"proxy: {column}", "nothing")
