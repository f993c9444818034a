"""Targets, schemes and credentials (BG_AUTH_TARGET, BG_AUTH_SCHEME, BG_AUTH_CREDENTIALS).

A secret has no repr, no equality with text and no JSON; it is wiped when its holder is done.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transferd.model.choices import PASSWORD_SCHEMES as PASSWORD_SCHEMES
from transferd.model.choices import Scheme as Scheme
from transferd.model.choices import Target as Target
from transferd.model.choices import parse_scheme as parse_scheme
from transferd.model.choices import parse_target as parse_target


class Secret:
    """A text that must not be seen: kept in one mutable buffer, so that it can be wiped.

    Python makes copies of its own (the decoded JSON, the encoded header); those are short-lived
    and cannot be reached from here. The long-lived copy is this one.
    """

    __slots__ = ("_buffer",)

    def __init__(self, text: str | bytes | bytearray) -> None:
        self._buffer = bytearray(text.encode() if isinstance(text, str) else text)

    def reveal(self) -> str:
        """Return the text; the caller must not keep it."""
        return self._buffer.decode()

    def reveal_bytes(self) -> bytes:
        """Return the text in UTF-8; the caller must not keep it."""
        return bytes(self._buffer)

    def wipe(self) -> None:
        """Overwrite the buffer with zeros and empty it.

        Who reveals it meanwhile, in a thread that was left behind, gets all of it or nothing: a
        password of zeros would be tried, and count as a wrong one.
        """
        buffer, self._buffer = self._buffer, bytearray()
        buffer[:] = bytes(len(buffer))
        buffer.clear()

    def __len__(self) -> int:
        return len(self._buffer)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


#: Schemes that can use who the owner is already (BITS.md A8, A9): a ticket cache or a keytab.
#: NTLM cannot: on Linux nobody keeps what it would need (BITS.md NT10).
IMPLICIT_SCHEMES = frozenset({Scheme.NEGOTIATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiateOptions:
    """How a job speaks Negotiate. Holds no secret."""

    #: Name of the server's service, `HTTP/host`, instead of the one made from the URL.
    spn: str | None = None
    #: The same for the proxy.
    proxy_spn: str | None = None
    #: Absolute path of a keytab of the owner's, for implicit credentials.
    keytab: str | None = None
    #: Who to be, of those in the keytab or the ticket cache; None: the first or default one.
    principal: str | None = None
    #: The ticket cache (`FILE:/path`, `KCM:`, …) instead of the owner's default one.
    ccache: str | None = None
    #: Let NTLM be spoken inside Negotiate where Kerberos cannot.
    ntlm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PassportOptions:
    """Whom a job trusts with a Passport password. Holds no secret."""

    #: Where the login server's address is asked for; https, or http to this host.
    configuration_url: str | None = None
    #: The only `host` or `host:port` that is ever sent the password.
    login_host: str | None = None
    #: The realm that the login server must name; None: the one that is named with its address.
    realm: str | None = None

    def over(self, defaults: PassportOptions) -> PassportOptions:
        """Return these options, and those of *defaults* where nothing is said."""
        return PassportOptions(
            configuration_url=self.configuration_url or defaults.configuration_url,
            login_host=self.login_host or defaults.login_host,
            realm=self.realm or defaults.realm,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialLabel:
    """What may be told of a credential: everything but the password."""

    target: Target
    scheme: Scheme
    #: None: whoever the owner is already.
    username: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Credential:
    """One identity for one (target, scheme); a job holds at most one of each.

    A username of None, with an empty password, is the implicit identity of the owner.
    """

    target: Target
    scheme: Scheme
    username: str | None
    password: Secret = field(repr=False)
    #: How long ago the owner gave it, in seconds.
    age: float = 0.0

    @property
    def implicit(self) -> bool:
        """Whether it stands for whoever the owner is already."""
        return self.username is None

    @property
    def label(self) -> CredentialLabel:
        """The part that may be told."""
        return CredentialLabel(target=self.target, scheme=self.scheme, username=self.username)
