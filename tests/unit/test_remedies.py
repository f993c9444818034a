"""What the owner of a job in error is advised to do."""

from __future__ import annotations

import pytest

from transferd.auth.flow import CannotStart
from transferd.auth.gss import Service
from transferd.auth.kerberos import open_kerberos
from transferd.auth.tickets import tickets_of
from transferd.model.credentials import Credential, NegotiateOptions, Scheme, Secret, Target
from transferd.model.failures import Failure


def remedy(code: str, advice: str | None) -> str:
    """Return what helps against a failure."""
    return Failure(code=code, message="it failed", advice=advice).remedy


def test_a_remedy_of_several_parts_has_one_end() -> None:
    """The parts come from several hands; what follows all of them is said once."""
    assert remedy("http_401", "get a ticket with `kinit`; or allow NTLM") == (
        "get a ticket with `kinit`; or allow NTLM; then resume"
    )
    assert remedy("http_401", "get a ticket") == "get a ticket, then resume"


def test_what_heals_by_itself_is_not_to_be_resumed() -> None:
    """Nobody has to come back to a job that tries again."""
    assert remedy("kdc_unreachable", "wait; or allow NTLM") == "wait; or allow NTLM"


def test_advice_about_a_proxy_says_so() -> None:
    """A ticket or password for the server would not help."""
    assert remedy("http_407", "set the right credentials") == (
        "for the proxy, set the right credentials, then resume"
    )


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("http_401", "`transferctl credentials set JOB --user NAME`"),
        ("http_407", "`transferctl credentials set JOB --target proxy --user NAME`"),
    ],
)
@pytest.mark.parametrize("schemes", [("basic",), ()])
def test_missing_credentials_come_with_the_command_that_sets_them(
    code: str, command: str, schemes: tuple[str, ...]
) -> None:
    """Where nobody is named yet, the owner may not know how."""
    failure = Failure(code=code, message="it failed", missing=schemes)
    assert f"({command}), then resume" in failure.remedy


@pytest.mark.parametrize(
    ("target", "option"),
    [
        (
            Target.SERVER,
            "use the server's host name, or name its service with --spn (negotiate.spn)",
        ),
        (Target.PROXY, "name its service with --proxy-spn (negotiate.proxy_spn)"),
    ],
)
def test_a_service_is_named_by_the_option_for_whoever_asks(target: Target, option: str) -> None:
    """--spn says nothing about the proxy."""
    own = Credential(target=target, scheme=Scheme.NEGOTIATE, username=None, password=Secret(""))
    tickets = tickets_of(own, NegotiateOptions())
    with pytest.raises(CannotStart) as raised:
        open_kerberos(tickets, Service("HTTP", "192.0.2.1"), target, None)
    assert option in (raised.value.advice or "")
