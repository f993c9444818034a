"""The PAM service that is installed gives a worker what its owner's login would have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.people import Machine, people

SHIPPED = Path(__file__).parents[2] / "systemd/transferd.pam"

#: Takes a session keyring of its own, as a system service has one, and looks for a key from there.
#: The key is in the user's keyring, where a Kerberos library keeps what it has for KEYRING:.
_LOOK = """
import ctypes, json, os, resource
from transferd.worker import session

SESSION, USER = -3, -4
keys = ctypes.CDLL("libkeyutils.so.1")
keys.add_key(b"user", b"ticket", b"secret", 6, USER)
keys.keyctl_join_session_keyring(None)
before = keys.keyctl_search(SESSION, b"user", b"ticket", 0)
fault = session.open_session()
after = keys.keyctl_search(SESSION, b"user", b"ticket", 0)
print(json.dumps({
    "fault": fault,
    "before": before > 0,
    "after": keys.keyctl_read(after, ctypes.create_string_buffer(9), 9) == 6,
    "umask": os.umask(0),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
}))
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine with the service as it is installed."""
    with people() as there:
        (there.etc / "pam.d/transferd").write_text(SHIPPED.read_text())
        yield there


def test_a_worker_takes_its_owners_umask_and_limits(machine: Machine) -> None:
    """Rule: by the shipped service, as the owner, and without a complaint."""
    machine.write_accounts({"alice": "umask=027"})
    (machine.etc / "security/limits.conf").write_text("alice - nofile 333\n")
    seen = json.loads(machine.python(machine.alice, _LOOK))
    assert (seen["fault"], seen["umask"], seen["files"]) == (None, 0o027, 333)


def test_a_worker_reaches_its_owners_keyring(machine: Machine) -> None:
    """Rule: a Kerberos cache in KEYRING: is out of a service's reach without a session."""
    seen = json.loads(machine.python(machine.alice, _LOOK))
    assert (seen["before"], seen["after"]) == (False, True)


def test_nobody_logs_in_by_the_service() -> None:
    """Rule: it opens sessions of who somebody is already, and proves nobody to be anybody."""
    lines = [line.split() for line in SHIPPED.read_text().splitlines() if line[:1] not in "#"]
    assert {line[2] for line in lines if line[0] != "session"} == {"pam_deny.so"}
    assert {line[1] for line in lines if line[0] == "session"} == {"optional"}
