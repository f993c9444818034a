"""Which scheme to use, of those that a server offers and the job holds; and why none, if none."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from transferd.auth import basic, proof
from transferd.auth.basic import BasicSession
from transferd.auth.challenge import Challenge
from transferd.auth.digest import DigestSession
from transferd.auth.flow import LADDER, Place, Session, Step
from transferd.model.credentials import Credential, Scheme

_T = TypeVar("_T")

#: A message names so many offers at most, each cut to so many characters.
_OFFERS_TOLD = 8
_OFFER_CHARS = 40

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
    #: Whoever reads the connection learns the password.
    shows_password: bool = False

    def answers(self, challenge: Challenge) -> bool:
        """Whether *challenge* is of this scheme and can be answered."""
        return challenge.scheme == self.name and self.usable(challenge)


METHODS: Mapping[Step, Method] = MappingProxyType(
    {
        (Scheme.DIGEST, "sha"): Method(
            name="digest", usable=partial(proof.usable, strength="sha"), open=DigestSession
        ),
        (Scheme.DIGEST, "md5"): Method(
            name="digest", usable=partial(proof.usable, strength="md5"), open=DigestSession
        ),
        (Scheme.BASIC, None): Method(
            name="basic",
            usable=basic.usable,
            open=lambda credential, _: BasicSession(credential),
            shows_password=True,
        ),
    }
)


class Skip(enum.StrEnum):
    """Why a scheme that is offered and held is not used."""

    #: The password would be readable on the way. Also the code of the failure that comes of it.
    CLEARTEXT_REFUSED = "cleartext_refused"
    #: The challenge lacks something or asks for something unknown.
    UNUSABLE = "unusable"


_BECAUSE: Mapping[Skip, str] = MappingProxyType(
    {
        Skip.CLEARTEXT_REFUSED: "it would show the password to everybody on the way",
        Skip.UNUSABLE: "its challenge asks for something that transferd does not know",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transit:
    """How the request travels."""

    #: Plain http to another host than this one.
    cleartext: bool
    #: The owner lets passwords travel so (`Settings.allow_cleartext`).
    allow_cleartext: bool = False

    def refuses(self, method: Method) -> bool:
        """Whether the password would be read on the way, against the owner's will."""
        return method.shows_password and self.cleartext and not self.allow_cleartext


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """The session to converse with, and the challenge to begin with."""

    step: Step
    session: Session
    challenge: Challenge


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
    skipped: tuple[tuple[str, Skip], ...]

    @property
    def cleartext_refused(self) -> bool:
        """Whether a scheme was passed over to keep the password from being read."""
        return any(skip is Skip.CLEARTEXT_REFUSED for _, skip in self.skipped)


def choose(
    challenges: Sequence[Challenge],
    held: Mapping[Scheme, Credential],
    *,
    transit: Transit,
    tried: Sequence[Step],
    place: Place,
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
            session = method.open(held[step[0]], place)
            pick = Pick(step=step, session=session, challenge=challenge)
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


def refusal(where: str, choice: Choice, rejections: Iterable[str] = ()) -> str:
    """Say why there is no way in: what was tried, and what happened. `remedy` says what to do.

    *where* names the origin or proxy, *rejections* are the texts of the AuthRejected so far.
    """
    reasons = list(rejections)
    skips = [f"{offer} was not used, {_BECAUSE[skip]}" for offer, skip in choice.skipped]
    parts = (
        f"cannot authenticate to {where}: offered: {_told(choice.offered)}",
        f"held: {_told(choice.held)}",
        f"tried: {_told(choice.tried)}",
        *reasons,
        *skips,
    )
    return "; ".join(parts)


def remedy(choice: Choice) -> str:
    """Say what the owner can do about a refusal."""
    settable = [scheme for scheme in choice.settable if scheme not in choice.held]
    if choice.tried:
        return "set the right credentials, then resume"
    if choice.cleartext_refused:
        return "use https, or make the job with allow_cleartext"
    if settable:
        return f"set credentials for {' or '.join(settable)}, then resume"
    if choice.exposing:
        schemes = " or ".join(choice.exposing)
        return f"set credentials for {schemes} and use https, or make the job with allow_cleartext"
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
) -> tuple[tuple[str, Skip], ...]:
    found: dict[str, Skip] = {}
    for challenge in challenges:
        methods = [
            method
            for (scheme, _), method in METHODS.items()
            if scheme in held and method.name == challenge.scheme
        ]
        able = [method for method in methods if method.answers(challenge)]
        if methods and not able:
            found[_offer(challenge)] = Skip.UNUSABLE
        elif any(map(transit.refuses, able)):
            found[_offer(challenge)] = Skip.CLEARTEXT_REFUSED
    return tuple(found.items())


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
