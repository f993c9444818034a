"""Options of the command line → settings of a job."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

from transferd.cli.outcomes import usage
from transferd.cli.passwords import read_headers
from transferd.client.options import absolute

_NAMES = (
    "auto_complete",
    "allow_cleartext",
    "cost",
    "description",
    "max_download_time",
    "max_rate",
    "max_size",
    "min_retry_delay",
    "no_progress_timeout",
    "on_error",
    "overwrite",
    "priority",
    "proxy",
    "streams",
)
#: Members of settings that are groups of their own, and the option that names each.
_GROUPS = {
    "negotiate": {
        "spn": "spn",
        "proxy_spn": "proxy_spn",
        "keytab": "keytab",
        "principal": "principal",
        "ccache": "ccache",
        "ntlm": "allow_ntlm",
    },
    "passport": {
        "configuration_url": "passport_configuration",
        "login_host": "passport_login_host",
        "realm": "passport_realm",
    },
}


def settings(options: Namespace) -> dict[str, Any]:
    """Return what the options say of a job; what they leave out is not there.

    Raises:
        CommandError: a file that they name cannot be used.
    """
    said: dict[str, Any] = {
        name: value for name in _NAMES if (value := getattr(options, name, None)) is not None
    }
    if said.get("max_rate") == 0:
        said["max_rate"] = None
    if options.cacert is not None:
        path = absolute(options.cacert)
        if not os.access(path, os.R_OK):
            raise usage(f"cannot read the CA certificates in {path}; name a readable PEM file")
        said["cacert"] = path
    for group, members in _GROUPS.items():
        named = {
            member: _value(value)
            for member, name in members.items()
            if (value := getattr(options, name, None)) is not None
        }
        if named:
            said[group] = named
    if options.keytab and not os.access(path := absolute(options.keytab), os.R_OK):
        raise usage(f"cannot read the keytab {path}; name a readable file")
    return said


def _value(value: str | bool) -> str | bool | None:
    """Return what an option means: an empty text puts the default back."""
    return None if value == "" else value


def headers(options: Namespace) -> dict[str, str]:
    """Return the headers that the options name.

    Raises:
        CommandError: see `read_headers`.
    """
    return read_headers(options.header or [], options.header_file)
