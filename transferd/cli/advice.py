"""What helps when `get` has cancelled its job: how to run it again, not how to mend the job."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from transferd.cli.passwords import Identity
from transferd.model.choices import Scheme, Target
from transferd.model.failures import kind_of

#: Who refuses with that code.
_REFUSALS: Mapping[str, Target] = MappingProxyType(
    {"http_401": Target.SERVER, "http_407": Target.PROXY}
)
_WRONG = re.compile(r"set the right credentials(?=[,;] then)")
_END = re.compile(r"([,;]) then resume$")
_FIRST_CLAUSE = re.compile(r"; |, then |, or ")

_AGAIN: Mapping[str, str] = MappingProxyType(
    {
        "checksum_mismatch": "check --checksum, then run it again",
        "cleartext_refused": "run it again with an https URL, or with --allow-cleartext",
        "local_access_denied": "make the directory writable, then run it again",
        "local_directory_missing": "make the directory, then run it again",
        "local_exists": "run it again with --overwrite or another DEST",
        "redirect_refused": "run it again with the final URL",
        "size_limit": "run it again with a larger --max-size",
        "tls_failed": "run it again with --cacert FILE, which names whom to trust",
    }
)


def advice_for(
    code: str, remedy: str, missing: Collection[str], identities: Collection[Identity]
) -> str:
    """Say how to do better.

    Args:
        code: Of the failure.
        remedy: What the daemon advises the owner of a job that lives on.
        missing: The schemes of which credentials would do, where none of them was named.
        identities: Whom the command line named.
    """
    if code in _REFUSALS:
        target = _REFUSALS[code]
        named = [each for each in identities if each.target is target]
        if missing or remedy == kind_of(code).advice:
            return _advice_to_name(target, [Scheme(name) for name in missing], named)
        if _WRONG.search(remedy):
            prefix = _prefix(target)
            return f"run it again with another --{prefix}user or password"
        # The scheme knew better than the status.
        return _END.sub(r"\1 then run it again", remedy)
    if code in _AGAIN:
        return _AGAIN[code]
    # What comes after the first clause is for a job that lives on.
    return f"what would help: {_FIRST_CLAUSE.split(remedy)[0]}"


def _advice_to_name(
    target: Target, missing: Collection[Scheme], named: Collection[Identity]
) -> str:
    """Say who else to be; without *missing* schemes nothing but the status is known."""
    prefix = _prefix(target)
    if not named:
        return f"run it again with {_ways(prefix, missing)}"
    if missing and any(each.from_url for each in named) and target is Target.SERVER:
        return "a URL's password is for basic alone; run it again with --user NAME"
    spoken = {scheme for each in named for scheme in each.schemes}
    if missing and spoken.isdisjoint(missing):
        return f"run it again {_other_schemes(prefix, missing, named)}"
    elsewhere = "if it was redirected to another server, with the URL there"
    other = f"run it again with another --{prefix}user, password or --{prefix}auth"
    return other if prefix else f"{other}; {elsewhere}"


def _prefix(target: Target) -> str:
    """Return what options about *target* begin with, after the dashes."""
    return "proxy-" if target is Target.PROXY else ""


def _ways(prefix: str, schemes: Collection[Scheme]) -> str:
    """Return the options of somebody who has named nobody yet."""
    if set(schemes) == {Scheme.PASSPORT}:
        return "--auth passport --user NAME"
    if Scheme.NEGOTIATE in schemes:
        return (
            f"--{prefix}auth negotiate (your Kerberos ticket), --keytab FILE or --{prefix}user NAME"
        )
    return f"--{prefix}user NAME"


def _other_schemes(prefix: str, schemes: Collection[Scheme], named: Collection[Identity]) -> str:
    """Return the options that name a scheme that is asked for."""
    if any(each.username is None for each in named):
        return f"with --{prefix}user NAME"
    these = " or ".join(f"--{prefix}auth {scheme}" for scheme in schemes)
    # Without a scheme a password is for all but Passport.
    without = "" if set(schemes) == {Scheme.PASSPORT} else f"without --{prefix}auth or "
    return f"{without}with {these}"
