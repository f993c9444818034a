"""Which scheme to use, of those that a server offers and the job holds; and why none, if none."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from transferd.auth import basic, negotiate, ntlm, passport, passport_grammar, proof
from transferd.auth.basic import BasicSession
from transferd.auth.challenge import Challenge
from transferd.auth.digest import DigestSession
from transferd.auth.flow import LADDER, Place, Session, Step
from transferd.auth.negotiate import NegotiateSession
from transferd.auth.ntlm import NtlmSession
from transferd.auth.passport import PassportSession
from transferd.model.credentials import Credential, Scheme, Target

_T = TypeVar("_T")

#: A message names so many offers at most, each cut to so many characters.
_OFFERS_TOLD = 8
_OFFER_CHARS = 40

_ALLOW_CLEARTEXT = "let them go in clear with --allow-cleartext (allow_cleartext)"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How to speak one scheme. A scheme is added with an entry in METHODS (and one in LADDER)."""

    #: The scheme in a challenge, lower case.
    name: str
    #: Whether a challenge of that name can be answered.
    usable: Callable[[Challenge], bool]
    #: Make a session for one origin.
    open: Callable[[Credential, Place], Session]
    #: What whoever reads the connection learns of the secret: the password, or what stands for it.
    shows: str | None = None
    #: Steps of its conversations may wait for others, and are taken in a thread.
    blocks: bool = False
    #: What was accepted is remembered in cookies.
    cookies: bool = False

    def answers(self, challenge: Challenge) -> bool:
        """Whether *challenge* is of this scheme and can be answered."""
        return challenge.scheme == self.name and self.usable(challenge)


METHODS: Mapping[Step, Method] = MappingProxyType(
    {
        (Scheme.NEGOTIATE, None): Method(
            name="negotiate", usable=negotiate.usable, open=NegotiateSession, blocks=True
        ),
        (Scheme.DIGEST, "sha"): Method(
            name="digest", usable=partial(proof.usable, strength="sha"), open=DigestSession
        ),
        (Scheme.NTLM, None): Method(name="ntlm", usable=ntlm.usable, open=NtlmSession),
        (Scheme.DIGEST, "md5"): Method(
            name="digest", usable=partial(proof.usable, strength="md5"), open=DigestSession
        ),
        (Scheme.PASSPORT, None): Method(
            name=passport_grammar.SCHEME,
            usable=passport.usable,
            open=PassportSession,
            shows="ticket",
            cookies=True,
        ),
        (Scheme.BASIC, None): Method(
            name="basic",
            usable=basic.usable,
            open=lambda credential, _: BasicSession(credential),
            shows="password",
        ),
    }
)


class Skip(enum.StrEnum):
    """Why a scheme that is offered and held is not used."""

    #: The secret would be readable on the way. Also the code of the failure that comes of it.
    CLEARTEXT_REFUSED = "cleartext_refused"
    #: The challenge lacks something or asks for something unknown.
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Skipped:
    """An offer that was passed over although a credential for it is held."""

    #: As in Choice.offered.
    offer: str
    skip: Skip
    #: What would be shown on the way.
    shows: str | None = None

    def __str__(self) -> str:
        if self.skip is Skip.UNUSABLE:
            because = "its challenge asks for something that transferd does not know"
        else:
            because = f"it would show the {self.shows} to everybody on the way"
        return f"{self.offer} was not used, {because}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transit:
    """How the request travels."""

    #: Plain http to another host than this one.
    cleartext: bool
    #: The owner lets passwords travel so (`Settings.allow_cleartext`).
    allow_cleartext: bool = False

    def refuses(self, method: Method) -> bool:
        """Whether a secret would be read on the way, against the owner's will."""
        return method.shows is not None and self.cleartext and not self.allow_cleartext


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """What to speak, as whom, and the challenge to begin with."""

    step: Step
    method: Method
    credential: Credential
    challenge: Challenge

    def open(self, place: Place) -> Session:
        """Make the session."""
        return self.method.open(self.credential, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What came of a choice, and what there was to choose from."""

    #: None: nothing that is left can be used.
    pick: Pick | None
    #: As the server named them, in its order, Digest with its algorithm.
    offered: tuple[str, ...]
    #: Schemes among them that credentials would make usable…
    settable: tuple[Scheme, ...]
    #: …and those that would need a way on which a password may be shown, too.
    exposing: tuple[Scheme, ...]
    held: tuple[Scheme, ...]
    tried: tuple[Scheme, ...]
    #: Offers that the held credentials are for and that were passed over all the same.
    skipped: tuple[Skipped, ...]

    @property
    def cleartext_refused(self) -> bool:
        """Whether a scheme was passed over to keep a secret from being read."""
        return any(skipped.skip is Skip.CLEARTEXT_REFUSED for skipped in self.skipped)


def choose(
    challenges: Sequence[Challenge],
    held: Mapping[Scheme, Credential],
    *,
    transit: Transit,
    tried: Sequence[Step],
) -> Choice:
    """Take the strongest scheme that is offered, held, usable and not tried yet.

    *held* are the credentials for the target that asks. Of several challenges on one rung of the
    ladder the server's first is taken (RFC 7616 3.7).
    """
    answerable = _answerable(challenges)
    exposing = [step for step, (method, _) in answerable.items() if transit.refuses(method)]
    pick: Pick | None = None
    for step, (method, challenge) in answerable.items():
        if step[0] in held and step not in tried and step not in exposing:
            credential = held[step[0]]
            pick = Pick(step=step, method=method, credential=credential, challenge=challenge)
            break
    return Choice(
        pick=pick,
        offered=_unique(map(_offer, challenges)),
        settable=_unique(step[0] for step in answerable if step not in exposing),
        exposing=_unique(step[0] for step in exposing),
        held=tuple(held),
        tried=_unique(step[0] for step in tried),
        skipped=_skipped(challenges, held, transit),
    )


def needs_cookies(held: Iterable[Scheme]) -> bool:
    """Whether any of the schemes that are held remembers what was accepted in cookies."""
    return any(METHODS[step].cookies for step in METHODS if step[0] in set(held))


def refusal(where: str, choice: Choice, reasons: Iterable[str] = ()) -> str:
    """Say why there is no way in: what was tried, and what happened. `remedy` says what to do.

    *where* names the origin or proxy, *reasons* are the texts of the AuthErrors so far.
    """
    parts = (
        f"cannot authenticate to {where}: offered: {_told(choice.offered)}",
        f"held: {_told(choice.held)}",
        f"tried: {_told(choice.tried)}",
        *reasons,
        *map(str, choice.skipped),
    )
    return "; ".join(parts)


def missing(choice: Choice) -> tuple[Scheme, ...]:
    """Return the schemes of which credentials would do, strongest first, where none is held."""
    if choice.tried or choice.cleartext_refused:
        return ()
    return tuple(scheme for scheme in choice.settable if scheme not in choice.held)


def remedy(choice: Choice, target: Target) -> str:
    """Say what the owner can do about a refusal, before it is tried again (`Failure.advice`).

    It is for a choice for which no credentials are `missing`.
    """
    https = "use https" if target is Target.SERVER else "use https to the proxy"
    if choice.tried:
        return "set the right credentials"
    if choice.cleartext_refused:
        return f"{https}, or {_ALLOW_CLEARTEXT}"
    if choice.exposing:
        schemes = " or ".join(choice.exposing)
        return f"{https} and set credentials for {schemes}, or set them and {_ALLOW_CLEARTEXT}"
    return "transferd can answer none of these; have the server offer another scheme"


def _answerable(challenges: Sequence[Challenge]) -> dict[Step, tuple[Method, Challenge]]:
    """Return the first challenge for each step that can be spoken, strongest step first."""
    found: dict[Step, tuple[Method, Challenge]] = {}
    for step in LADDER:
        method = METHODS.get(step)
        for challenge in challenges:
            if method is not None and method.answers(challenge):
                found.setdefault(step, (method, challenge))
    return found


def _skipped(
    challenges: Iterable[Challenge], held: Mapping[Scheme, Credential], transit: Transit
) -> tuple[Skipped, ...]:
    found: dict[str, Skipped] = {}
    for challenge in challenges:
        methods = [
            method
            for (scheme, _), method in METHODS.items()
            if scheme in held and method.name == challenge.scheme
        ]
        able = [method for method in methods if method.answers(challenge)]
        refused = [method for method in able if transit.refuses(method)]
        offer = _offer(challenge)
        if methods and not able:
            found[offer] = Skipped(offer, Skip.UNUSABLE)
        elif refused:
            found[offer] = Skipped(offer, Skip.CLEARTEXT_REFUSED, refused[0].shows)
    return tuple(found.values())


def _offer(challenge: Challenge) -> str:
    name = (challenge.name or challenge.scheme)[:_OFFER_CHARS]
    if challenge.scheme != "digest":
        return name
    algorithm = challenge.params.get("algorithm", "MD5")
    # Only a token is repeated: a quoted string may hold anything.
    shown = algorithm[:_OFFER_CHARS] if _TOKEN.fullmatch(algorithm) else "?"
    return f"{name} ({shown})"


def _told(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(names[:_OFFERS_TOLD])
    more = len(names) - _OFFERS_TOLD
    return f"{shown} and {more} more" if more > 0 else shown


def _unique(items: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(items))
