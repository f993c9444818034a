"""Where secrets come from: a prompt, a file, standard input; never the command line."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from transferd.cli.outcomes import usage
from transferd.model.authentication import check_implicit
from transferd.model.choices import PASSWORD_SCHEMES, Scheme, Target, parse_scheme
from transferd.model.credentials import Secret
from transferd.model.errors import BadRequest
from transferd.model.limits import Limits

#: The sample's word for "whoever I am already".
IMPLICIT = "NULL"
STDIN = "-"
#: What people call the scheme that Kerberos is spoken in.
_NEGOTIATED = frozenset({"kerberos", "gssapi", "spnego"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a job is to a server or a proxy; no user is the implicit identity."""

    target: Target
    schemes: tuple[Scheme, ...]
    username: str | None
    password: Secret | None = field(repr=False)
    #: They stood in a URL.
    from_url: bool = False


def schemes_for(auth: str | None) -> tuple[Scheme, ...]:
    """Return the schemes to set a user and password for: the named one, or all that may do (A6).

    Raises:
        BadRequest: `unknown_scheme`.
    """
    if auth is None:
        return PASSWORD_SCHEMES
    try:
        return (parse_scheme(auth),)
    except BadRequest as error:
        if auth.lower() not in _NEGOTIATED:
            raise
        raise BadRequest(error.code, f"{error} (Kerberos is negotiate)") from None


def check_schemes(target: Target, schemes: Sequence[Scheme]) -> None:
    """Refuse a scheme that is never spoken to *target*, before anybody is asked for a password.

    Raises:
        CommandError: it is.
    """
    if target is Target.PROXY and Scheme.PASSPORT in schemes:
        raise usage(
            "cannot use passport at a proxy; it is spoken to servers only, "
            f"use one of {', '.join(PASSWORD_SCHEMES)}"
        )


def identity(
    target: Target,
    auth: str | None,
    user: str | None,
    password_file: str | None,
    *,
    prefix: str = "",
    implied: bool = False,
) -> Identity | None:
    """Find out who the job shall be; None when nobody is named. Asks for the password last.

    Without a user, `negotiate` means the implicit identity, as other options may do (*implied*).
    *prefix* is that of the option names, for messages.

    Raises:
        CommandError: the options contradict each other, or there is no way to get a password.
        BadRequest: the scheme is unknown, or has no implicit identity.
    """
    # First of all, as the sample does: a wrong scheme is wrong whoever the user is.
    schemes = schemes_for(auth)
    check_schemes(target, schemes)
    if user is None and password_file is not None:
        raise usage(f"cannot use --{prefix}password-file without --{prefix}user; name the user")
    if user is None:
        if schemes == (Scheme.NEGOTIATE,) or (auth is None and implied):
            return _implicit(target, Scheme.NEGOTIATE)
        if auth is not None:
            raise usage(f"cannot use --{prefix}auth {auth} without --{prefix}user; name the user")
        return None
    if user.upper() == IMPLICIT:
        if password_file is not None:
            raise usage(f"cannot use a password with --{prefix}user NULL; drop one of them")
        return _implicit(target, Scheme.NEGOTIATE if auth is None else schemes[0])
    password = read_password(password_file, f"Password of {user} for the {target}: ")
    return Identity(target=target, schemes=schemes, username=user, password=password)


def _implicit(target: Target, scheme: Scheme) -> Identity:
    check_implicit(scheme)
    return Identity(target=target, schemes=(scheme,), username=None, password=None)


def read_password(source: str | None, prompt: str) -> Secret:
    """Read one line from a file, from standard input (`-`) or, without a source, from a person.

    Raises:
        CommandError: there is nothing to read from, or it cannot be read.
    """
    if source is None:
        with _interruptible():
            return _ask(prompt)
    if source == STDIN:
        with _interruptible():
            return _line(sys.stdin.buffer.readline(_longest()), "standard input")
    try:
        with open(os.path.expanduser(source), "rb") as file:
            return _line(file.readline(_longest()), source)
    except OSError as error:
        raise usage(f"cannot read the password from {source}: {error.strerror}") from None


def read_headers(given: Sequence[str], file: str | None) -> dict[str, str]:
    """Read headers from `Name: value` words and from a file with one of them a line.

    Raises:
        CommandError: one has no colon, two have the same name, or the file cannot be read.
    """
    lines = list(given)
    if file is not None:
        try:
            with open(os.path.expanduser(file), encoding="utf-8") as source:
                lines += [line for line in source.read().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise usage(f"cannot read headers from {file}: {error}") from None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            # The line itself may be a secret that somebody put into the wrong place.
            raise usage("cannot use a header without a colon; write 'Name: value'")
        if name.strip().lower() in (known.lower() for known in headers):
            raise usage(f"cannot send header {name.strip()!r} twice; join its values")
        headers[name.strip()] = value.strip()
    return headers


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a blocking read at once; asyncio's handler would wait until it is over."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ask(prompt: str) -> Secret:
    try:
        # getpass alone would read an echoing standard input where there is no terminal.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise usage(
            "cannot ask for the password without a terminal; "
            "use --password-file FILE, or - for standard input"
        ) from None
    try:
        return Secret(getpass.getpass(prompt))
    except EOFError:
        raise usage("cannot go on without a password") from None


def _line(raw: bytes, source: str) -> Secret:
    text = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not text:
        raise usage(f"cannot use an empty password; {source} must hold it in its first line")
    try:
        return Secret(text.decode())
    except UnicodeDecodeError:
        raise usage(f"cannot use the password from {source}: it is not UTF-8") from None


def _longest() -> int:
    return 4 * Limits().password_chars + 2  # UTF-8, and the end of the line
