"""Groups of options that several commands share."""

from __future__ import annotations

import argparse

from transferd.cli.values import duration, rate, size, streams
from transferd.model.choices import Cost, Scheme

PRIORITIES = ("foreground", "high", "normal", "low")
_COSTS = tuple(cost.label for cost in Cost)

_SCHEMES = f"{', '.join(Scheme)}; default: all but passport"


def credential_options(parser: argparse.ArgumentParser) -> None:
    """Add who the job is to the server."""
    group = parser.add_argument_group("authentication")
    group.add_argument(
        "--auth",
        "--scheme",
        dest="auth",
        metavar="SCHEME",
        help=_SCHEMES,
    )
    group.add_argument(
        "--user", help="user name; NULL: who you are already, for negotiate (ticket or keytab)"
    )
    group.add_argument(
        "--password-file",
        metavar="FILE",
        help="read the password's line from there (- for standard input); default: ask",
    )


def job_options(
    parser: argparse.ArgumentParser, *, priority: str | None, proxy: bool = True, new: bool = True
) -> None:
    """Add the settings of a job; what is not given is None and left to the daemon."""
    group = parser.add_argument_group("settings of the job")
    group.add_argument(
        "--priority",
        choices=PRIORITIES,
        default=priority,
        help="what goes first; default: normal"
        if priority is None
        else f"what goes first; default: {priority}",
    )
    group.add_argument(
        "--cost",
        choices=_COSTS,
        help="over which links, where they are metered; default: as the daemon is configured",
    )
    group.add_argument("--description", metavar="TEXT", help="for people")
    flag = argparse.BooleanOptionalAction
    group.add_argument("--overwrite", action=flag, default=None, help="replace an existing file")
    group.add_argument(
        "--allow-cleartext", action=flag, default=None, help="let basic and passport go over http"
    )
    if new:
        group.add_argument(
            "--header", action="append", metavar="'NAME: VALUE'", help="sent with each request"
        )
        group.add_argument(
            "--header-file", metavar="FILE", help="one such header a line, hidden from `ps`"
        )
    if proxy:
        group.add_argument(
            "--proxy", metavar="URL", help="http[s]://host:port, or `direct` for none"
        )
    group.add_argument("--cacert", metavar="FILE", help="PEM file with the CAs to trust")
    group.add_argument("--max-size", type=size, metavar="SIZE", help="refuse larger files")
    group.add_argument(
        "--max-rate", type=rate, metavar="SIZE", help="no more in a second; 0: no limit"
    )
    group.add_argument("--streams", type=streams, metavar="N", help="connections at a time")
    group.add_argument("--min-retry-delay", type=duration, metavar="TIME", help="first retry after")
    group.add_argument(
        "--no-progress-timeout", type=duration, metavar="TIME", help="give up without progress"
    )
    group.add_argument(
        "--max-download-time", type=duration, metavar="TIME", help="give up after, in all"
    )


def scheme_options(parser: argparse.ArgumentParser) -> None:
    """Add how Negotiate and Passport are spoken; an empty value is the default."""
    negotiate = parser.add_argument_group("negotiate")
    negotiate.add_argument(
        "--keytab", metavar="FILE", help="keys to get a ticket with, in place of a password"
    )
    negotiate.add_argument(
        "--principal", metavar="NAME", help="who to be, of those in the keytab or ticket cache"
    )
    negotiate.add_argument(
        "--ccache",
        metavar="CACHE",
        help="FILE:PATH, KCM:, …; default: $KRB5CCNAME here, or your usual ticket cache",
    )
    negotiate.add_argument(
        "--spn", metavar="HTTP/HOST", help="the server's service name; default: by the URL"
    )
    negotiate.add_argument("--proxy-spn", metavar="HTTP/HOST", help="the same for the proxy")
    negotiate.add_argument(
        "--allow-ntlm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let NTLM be spoken inside negotiate where Kerberos cannot",
    )
    passport = parser.add_argument_group("passport")
    passport.add_argument(
        "--passport-configuration",
        metavar="URL",
        help="where the login server's address is asked for",
    )
    passport.add_argument(
        "--passport-login-host", metavar="HOST", help="the only one that is sent the password"
    )
    passport.add_argument("--passport-realm", metavar="NAME", help="the one that it must name")


def everybody_option(
    parser: argparse.ArgumentParser, help: str = "JOB may be anybody's (for admins)"
) -> None:
    """Add what lets an admin mean the jobs of others."""
    parser.add_argument("--all-users", action="store_true", help=help)


def end_options(parser: argparse.ArgumentParser) -> None:
    """Add what becomes of a job when it has ended."""
    parser.add_argument(
        "--auto-complete",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the daemon completes the job by itself",
    )
    parser.add_argument(
        "--on-error", choices=("keep", "cancel"), help="what becomes of the job in error"
    )


def proxy_options(parser: argparse.ArgumentParser) -> None:
    """Add the proxy, and who the job is to it."""
    proxy = parser.add_argument_group("proxy")
    proxy.add_argument(
        "--proxy",
        metavar="URL",
        help="http[s]://host:port, or `direct`; default: the environment's",
    )
    proxy.add_argument("--proxy-auth", metavar="SCHEME", help=_SCHEMES)
    proxy.add_argument("--proxy-user", metavar="USER", help="as --user, for the proxy")
    proxy.add_argument("--proxy-password-file", metavar="FILE", help="as --password-file")
