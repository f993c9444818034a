"""Basic and Digest acceptors, written from RFC 7617 and RFC 7616, to stand before a page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.origin import Page, Seen, Wire

_HASHES: dict[str, Callable[[bytes], str]] = {
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data).hexdigest(),
}
_PARAMETER = re.compile(r'([\w*-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


@dataclass
class Verdict:
    """What an acceptor makes of a request."""

    admitted: bool
    #: Goes with the answer: challenges, or Authentication-Info.
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Basic:
    """RFC 7617."""

    username: str
    password: str
    realm: str = "basic realm"
    #: Requests that carried a credential.
    attempts: int = 0

    def challenges(self) -> list[str]:
        """The challenges of a refusal."""
        return [f'Basic realm="{self.realm}", charset="UTF-8"']

    def admit(self, seen: Seen, value: str | None) -> Verdict:
        """Judge the value of (Proxy-)Authorization."""
        if value is None or not value.startswith("Basic "):
            return Verdict(False)
        self.attempts += 1
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return Verdict(value == f"Basic {expected}")


@dataclass
class Digest:
    """RFC 7616. A nonce lives for `nonce_uses` requests and is then stale."""

    username: str
    password: str
    realm: str = "digest realm"
    algorithms: tuple[str, ...] = ("SHA-256",)
    qop: str = "auth"
    nonce_uses: int = 1_000_000
    #: Hand out another nonce in Authentication-Info after each success.
    nextnonce: bool = False
    #: none, right or wrong
    proof: str = "right"
    attempts: int = 0
    #: The credentials that were accepted, parsed.
    accepted: list[dict[str, str]] = field(default_factory=list)
    #: Nonces that were named stale.
    expired: int = 0
    _uses: dict[str, int] = field(default_factory=dict)
    _stale: bool = False

    def challenges(self) -> list[str]:
        """The challenges of a refusal, one for each algorithm, under one nonce."""
        nonce = self._nonce()
        stale = ", stale=true" if self._stale else ""
        self._stale = False
        return [
            f'Digest realm="{self.realm}", nonce="{nonce}", opaque="o,p q", '
            f'qop="{self.qop}", algorithm={algorithm}{stale}'
            for algorithm in self.algorithms
        ]

    def admit(self, seen: Seen, value: str | None) -> Verdict:
        """Judge the value of (Proxy-)Authorization."""
        if value is None or not value.startswith("Digest "):
            return Verdict(False)
        self.attempts += 1
        given = {
            match[1].lower(): match[2] if match[2] is not None else match[3]
            for match in _PARAMETER.finditer(value)
        }
        if not self._right(seen, given):
            return Verdict(False)
        uses = self._uses.get(given["nonce"], -1)
        if uses < 0 or uses >= self.nonce_uses or int(given["nc"], 16) != uses + 1:
            self._stale = True
            self.expired += 1
            return Verdict(False)
        self._uses[given["nonce"]] = uses + 1
        self.accepted.append(given)
        return Verdict(True, [("Authentication-Info", self._info(given))])

    def _nonce(self) -> str:
        nonce = f"nonce{len(self._uses)}"
        self._uses[nonce] = 0
        return nonce

    def _right(self, seen: Seen, given: dict[str, str]) -> bool:
        if given.get("uri") != seen.target or given.get("opaque") != "o,p q":
            return False
        return given.get("response") == self._response(seen.method, given)

    def _response(self, method: str, given: dict[str, str]) -> str:
        algorithm = given["algorithm"]
        digest = _HASHES[algorithm.removesuffix("-sess")]
        secret = digest(f"{self.username}:{self.realm}:{self.password}".encode())
        if algorithm.endswith("-sess"):
            secret = digest(f"{secret}:{given['nonce']}:{given['cnonce']}".encode())
        request = f"{method}:{given['uri']}"
        if given["qop"] == "auth-int":
            request += f":{digest(b'')}"
        middle = ":".join(given[name] for name in ("nonce", "nc", "cnonce", "qop"))
        return digest(f"{secret}:{middle}:{digest(request.encode())}".encode())

    def _info(self, given: dict[str, str]) -> str:
        parts = [f"qop={given['qop']}", f'cnonce="{given["cnonce"]}"', f"nc={given['nc']}"]
        if self.nextnonce:
            parts.append(f'nextnonce="{self._nonce()}"')
        if self.proof == "wrong":
            parts.append(f'rspauth="{"0" * 32}"')
        elif self.proof == "right" and given["qop"] == "auth":
            parts.append(f'rspauth="{self._response("", given)}"')
        return ", ".join(parts)


Acceptor = Basic | Digest


def guarded(page: Page, *acceptors: Acceptor, body: bytes = b"who are you?\n") -> Page:
    """Stand before *page*; any of the acceptors may admit."""

    async def guard(seen: Seen, wire: Wire) -> None:
        verdict = judge(seen, seen.get("authorization"), acceptors)
        if verdict.admitted:
            wire.extra = verdict.headers
            await page(seen, wire)
            return
        challenges = [("WWW-Authenticate", line) for a in acceptors for line in a.challenges()]
        await wire.answer(401, challenges, body)

    return guard


def judge(seen: Seen, value: str | None, acceptors: tuple[Acceptor, ...]) -> Verdict:
    """Ask each acceptor; the first that admits decides."""
    for acceptor in acceptors:
        verdict = acceptor.admit(seen, value)
        if verdict.admitted:
            return verdict
    return Verdict(False)
