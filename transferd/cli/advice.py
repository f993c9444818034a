"""What helps when `get` has cancelled its job: how to run it again, not how to mend the job."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from transferd.model.credentials import Target
from transferd.model.failures import kind_of

_REFUSALS = frozenset({"http_401", "http_407"})
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


def advice_for(code: str, remedy: str, identified: Collection[Target]) -> str:
    """Say how to do better.

    Args:
        code: Of the failure.
        remedy: What the daemon advises the owner of a job that lives on.
        identified: Whom the command line named a user for.
    """
    if code in _REFUSALS and remedy != kind_of(code).advice:
        # The scheme knew better than the status.
        return f"{remedy.removesuffix(', then resume')}, then run it again"
    if code == "http_401":
        if Target.SERVER not in identified:
            return "run it again with --user NAME"
        return (
            "run it again with another user, password or --auth; "
            "if it was redirected to another server, with the URL there"
        )
    if code == "http_407":
        other = "another " if Target.PROXY in identified else ""
        return f"run it again with {other}--proxy-user NAME"
    if code in _AGAIN:
        return _AGAIN[code]
    # What comes after the first clause is for a job that lives on.
    return f"what would help: {_FIRST_CLAUSE.split(remedy)[0]}"
