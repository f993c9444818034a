"""Which Kerberos identity the command line means: a keytab's, or that of the caller's tickets."""

from __future__ import annotations

import contextlib
import os
from argparse import Namespace
from collections.abc import Collection, Mapping
from typing import Any

from transferd.cli.outcomes import usage
from transferd.cli.passwords import IMPLICIT, Identity
from transferd.model.authentication import check_ccache
from transferd.model.choices import Scheme, Target
from transferd.model.errors import BadRequest
from transferd.model.limits import Limits

#: Options that say who the owner is already, each enough to mean it.
_NAMING = ("keytab", "ccache", "principal")


def means_implicit(options: Namespace) -> bool:
    """Whether options ask for an identity that the owner has already, without a word of a user."""
    return any(getattr(options, name) for name in _NAMING)


def refuse_idle_tickets(options: Namespace) -> None:
    """Refuse keys and tickets beside users who have passwords: nobody would look at them.

    Raises:
        CommandError: they are named.
    """
    users = [user for user in (options.user, options.proxy_user) if user is not None]
    proxy_by_ticket = options.proxy_user is None and options.proxy_auth is not None
    if options.user is None or proxy_by_ticket or any(user.upper() == IMPLICIT for user in users):
        return
    for name in _NAMING:
        if getattr(options, name):
            chosen = "key" if options.keytab else "ticket"
            raise usage(
                f"cannot use --{name} beside --user {options.user}, who has a password; "
                f"drop --user: --principal {options.user} chooses the {chosen}"
            )


def refuse_idle_options(options: Namespace, identities: Collection[Identity]) -> None:
    """Refuse options of a scheme that none of *identities* speaks.

    Raises:
        CommandError: there are some; says what is missing.
    """
    spoken = {(each.target, scheme) for each in identities for scheme in each.schemes}
    if options.spn and (Target.SERVER, Scheme.NEGOTIATE) not in spoken:
        raise usage(
            "cannot use --spn without negotiate credentials for the server; "
            "add --auth negotiate (your Kerberos ticket), --keytab FILE or --user NAME"
        )
    if options.proxy_spn and (Target.PROXY, Scheme.NEGOTIATE) not in spoken:
        raise usage(
            "cannot use --proxy-spn without negotiate credentials for the proxy; "
            "add --proxy-auth negotiate (your Kerberos ticket) or --proxy-user NAME"
        )
    if (Target.SERVER, Scheme.PASSPORT) in spoken:
        return
    for name in ("configuration", "login-host", "realm"):
        if getattr(options, f"passport_{name.replace('-', '_')}"):
            raise usage(
                f"cannot use --passport-{name} without passport credentials; "
                "add --auth passport --user NAME"
            )


def pass_on_cache(said: dict[str, Any], identities: Collection[Identity]) -> None:
    """Put the caller's ticket cache into settings that leave it open, where tickets are wanted.

    The daemon's own environment names another one, when it was started from another session.
    """
    negotiate: Mapping[str, Any] = said.get("negotiate", {})
    wanted = any(each.username is None and Scheme.NEGOTIATE in each.schemes for each in identities)
    silent = "ccache" not in negotiate and not negotiate.get("keytab")
    if wanted and silent and (cache := cache_of(os.environ)):
        said["negotiate"] = {**negotiate, "ccache": cache}


def cache_of(environment: Mapping[str, str]) -> str | None:
    """Return the ticket cache that *environment* names, as a daemon can use it; None: none such."""
    named = environment.get("KRB5CCNAME", "")
    kind, colon, rest = named.partition(":")
    if not colon:
        kind, rest = "FILE", named
    if not rest and kind in ("FILE", "DIR"):
        return None
    if kind == "FILE" or (kind == "DIR" and not rest.startswith(":")):
        # krb5 takes it from where it is run.
        named = f"{kind}:{os.path.abspath(rest)}"
    with contextlib.suppress(BadRequest):
        return check_ccache(named, Limits())
    return None
