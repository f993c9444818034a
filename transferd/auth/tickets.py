"""Where Kerberos tickets come from: a password, a keytab, or a cache of the owner's.

Speaks krb5, which is imported when a ticket is wanted. Whatever it raises goes through: errors
are read in one place (auth/kerberos.py). Each call makes a context of its own, and nothing
of krb5's but the name of a cache is kept from one call to the next, so that it does not matter in
which thread a call is made.
"""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
import weakref
from abc import ABC, abstractmethod
from types import ModuleType
from typing import TYPE_CHECKING

from transferd.auth.identity import password_bytes
from transferd.model.credentials import Credential, NegotiateOptions

if TYPE_CHECKING:
    import krb5

#: KRB5_REALM_UNKNOWN: nothing says where its KDC is.
REALM_UNKNOWN = -1765328230
#: KRB5_KT_NOTFOUND: a keytab has no such key.
KEY_NOT_FOUND = -1765328203
#: KRB5_KEYTAB_BADVNO: a file is no keytab.
KEYTAB_VERSION = -1765328171
#: KRB5_CC_FORMAT: a file is no ticket cache.
CACHE_FORMAT = -1765328185

#: A ticket that ends so soon is not begun with, in seconds.
_MARGIN = 60


class Tickets(ABC):
    """The tickets of one identity."""

    #: Whether they are ours, to be got anew and thrown away.
    own: bool
    #: What can be done when a KDC refuses them, and when they are missing or have expired.
    remedy: str
    #: What can be done when there are some, and none of them is of who was named.
    misnamed: str | None = None

    @abstractmethod
    def cache(self) -> str:
        """Return the name of a cache with a ticket of this identity. May wait for a KDC.

        Raises:
            krb5.Krb5Error, ValueError: there is none.
        """

    @abstractmethod
    def forget(self) -> None:
        """Throw away what can be got anew."""

    @abstractmethod
    def __str__(self) -> str:
        """Say whose tickets they are and where they come from, after "with"."""


def tickets_of(credential: Credential, options: NegotiateOptions) -> Tickets:
    """Return where the tickets of *credential* come from."""
    if credential.username is not None:
        return PasswordTickets(credential, credential.username)
    if options.keytab is not None:
        return KeytabTickets(options.keytab, options.principal)
    return CachedTickets(options.ccache, options.principal)


class CachedTickets(Tickets):
    """Those that the owner has: read anew each time, since the owner may renew or change them."""

    own = False

    def __init__(self, ccache: str | None, principal: str | None) -> None:
        self._ccache = ccache
        self._principal = principal
        where = "" if ccache is None else f" -c {ccache}"
        who = "" if principal is None else f" {principal}"
        self.remedy = f"get a ticket with `kinit{where}{who}`"

    def cache(self) -> str:
        """Return the cache's name."""
        import krb5

        context = krb5.init_context()
        if self._ccache is not None:
            krb5.cc_set_default_name(context, self._ccache.encode())
        if path := _path_of(krb5.cc_default_name(context)):
            _check_file(path, CACHE_FORMAT)
        # Either may be a collection of caches.
        if self._principal is None:
            found = krb5.cc_default(context)
        else:
            wanted = krb5.parse_name_flags(context, self._principal.encode())
            found = krb5.cc_cache_match(context, wanted)
        # Whether anything is there is only known to who reads it.
        _ = found.principal
        return _name(found)

    def forget(self) -> None:
        """Do nothing: they are the owner's."""

    def __str__(self) -> str:
        who = "" if self._principal is None else f" of {self._principal!r}"
        return f"the ticket cache {self._ccache or _default_cache()}{who}"


class _OwnTickets(Tickets):
    """Those that we get ourselves, in a cache that nobody else knows."""

    own = True

    def __init__(self) -> None:
        self._private: _PrivateCache | None = None

    def cache(self) -> str:
        """Return the cache's name, with a new ticket in it when the last one ends."""
        import krb5

        context = krb5.init_context()
        kept = self._private
        if kept is None or kept.ends - _MARGIN <= krb5.timeofday(context):
            kept = _PrivateCache(context, self._obtain(context))
            self._private = kept
        return kept.name

    def forget(self) -> None:
        """Destroy the cache."""
        kept, self._private = self._private, None
        if kept is not None:
            kept.destroy()

    @abstractmethod
    def _obtain(self, context: krb5.Context) -> krb5.Creds:
        """Ask the KDC for a ticket."""


class PasswordTickets(_OwnTickets):
    """Tickets for a password.

    `user@REALM` is taken as it stands, and with the realm in capitals if there is no such realm:
    realms are case-sensitive, and mostly in capitals. `user` is of the default realm, and
    `DOMAIN\\user` is `user@DOMAIN`, in capitals. Both texts are used in Normalization Form C.
    """

    remedy = "set the right credentials"

    def __init__(self, credential: Credential, username: str) -> None:
        super().__init__()
        self._credential = credential
        name = unicodedata.normalize("NFC", username)
        domain, backslash, user = name.partition("\\")
        self._name = f"{user}@{domain.upper()}" if backslash else name

    def __str__(self) -> str:
        return f"the password of {self._name!r}"

    def _obtain(self, context: krb5.Context) -> krb5.Creds:
        import krb5

        user, at, realm = self._name.rpartition("@")
        try:
            return self._ask(context, self._name)
        except krb5.Krb5Error as error:
            if error.err_code != REALM_UNKNOWN or not at or realm == realm.upper():
                raise
            return self._ask(context, f"{user}@{realm.upper()}")

    def _ask(self, context: krb5.Context, name: str) -> krb5.Creds:
        import krb5

        return krb5.get_init_creds_password(
            context,
            krb5.parse_name_flags(context, name.encode()),
            _options(context),
            password=password_bytes(self._credential, controls=True),
        )


class KeytabTickets(_OwnTickets):
    """Tickets for a key in a file; without a principal, for the first one."""

    remedy = "export the key to the keytab anew"

    def __init__(self, path: str, principal: str | None) -> None:
        super().__init__()
        self._path = path
        self._principal = principal
        if principal is not None:
            self.misnamed = (
                f"name one that is in it with --principal (`klist -k {path}` lists them), or"
                " export the key anew"
            )

    def __str__(self) -> str:
        who = "" if self._principal is None else f" of {self._principal!r}"
        return f"the keytab {self._path}{who}"

    def _obtain(self, context: krb5.Context) -> krb5.Creds:
        import krb5

        _check_file(self._path, KEYTAB_VERSION)
        keytab = krb5.kt_resolve(context, f"FILE:{self._path}".encode())
        # A keytab that cannot be read would come back as a failed preauthentication.
        names = [entry.principal.name for entry in keytab]
        name = self._principal.encode() if self._principal is not None else next(iter(names), None)
        if name is None:
            raise EmptyKeytab()
        client = krb5.parse_name_flags(context, name)
        return krb5.get_init_creds_keytab(context, client, _options(context), keytab=keytab)


class EmptyKeytab(Exception):
    """There is no key in a keytab. Reports as errors of krb5 do."""

    err_code = KEY_NOT_FOUND

    def __init__(self) -> None:
        super().__init__("it is empty")


class NoRegularFile(Exception):
    """A pipe, a device or a directory stands for a keytab or a cache. Reports as krb5 does."""

    def __init__(self, err_code: int) -> None:
        super().__init__("it is no regular file")
        self.err_code = err_code


def _check_file(path: str, code: int) -> None:
    """Look at a file before krb5 does, which keeps every thread waiting while it opens one.

    Raises:
        NoRegularFile: opening it might never end.
    """
    # What cannot be reached is krb5's to explain.
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise NoRegularFile(code)
        # A dead file server is waited for here, where only this thread waits.
        with open(path, "rb", buffering=0) as file:
            file.read(1)


def _path_of(cache: bytes) -> str | None:
    """Return the file that a cache is, if it is one."""
    kind, colon, rest = os.fsdecode(cache).partition(":")
    if not colon:
        return kind
    if kind == "DIR" and rest.startswith(":"):
        return rest[1:]
    return rest if kind == "FILE" else None


class _PrivateCache:
    """A ticket cache in memory; it is destroyed with its object at the latest.

    krb5 keeps such a cache, with its keys, until somebody destroys it.
    """

    def __init__(self, context: krb5.Context, ticket: krb5.Creds) -> None:
        import krb5

        made = krb5.cc_new_unique(context, b"MEMORY")
        krb5.cc_initialize(context, made, ticket.client)
        krb5.cc_store_cred(context, made, ticket)
        self.name = _name(made)
        #: In seconds, by the KDC's clock.
        self.ends = ticket.times.endtime
        self.destroy = weakref.finalize(self, _destroy, krb5, self.name)


def _destroy(krb5: ModuleType, name: str) -> None:
    # One that is gone is what is wanted.
    with contextlib.suppress(krb5.Krb5Error):
        context = krb5.init_context()
        krb5.cc_destroy(context, krb5.cc_resolve(context, name.encode()))


def _options(context: krb5.Context) -> krb5.GetInitCredsOpt:
    import krb5

    options = krb5.get_init_creds_opt_alloc(context)
    # The KDC may know the user by another name (RFC 6806), as a domain controller does.
    krb5.get_init_creds_opt_set_canonicalize(options, True)
    # Nobody is to act in the owner's name (BITS.md NG8).
    krb5.get_init_creds_opt_set_forwardable(options, False)
    krb5.get_init_creds_opt_set_proxiable(options, False)
    return options


def _name(cache: krb5.CCache) -> str:
    return f"{(cache.cache_type or b'FILE').decode()}:{(cache.name or b'').decode()}"


def _default_cache() -> str:
    import krb5

    try:
        name: bytes = krb5.cc_default_name(krb5.init_context())
    except krb5.Krb5Error:
        return "that the environment names"
    return name.decode(errors="replace")
