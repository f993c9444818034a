"""That the KDC of other tests gives tickets to who is right, and goes wrong as it is told to."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import pytest

from tests.support.kdc import REALM, Kdc, KerberosRefused, silent_port
from tests.support.kdc import kdc as new_kdc
from tests.support.servers import ODD_PASSWORD, ODD_USER, USER, require_program


def test_a_password_gives_a_ticket_and_a_wrong_one_does_not(kdc: Kdc) -> None:
    """The KDC insists on preauthentication, as a domain controller does."""
    assert kdc.kinit().exists()
    assert kdc.kinit(ODD_USER, password=ODD_PASSWORD).exists()
    with pytest.raises(KerberosRefused, match="Password incorrect"):
        kdc.kinit(password="wrong")


def test_a_keytab_gives_a_ticket_of_the_chosen_lifetime(kdc: Kdc) -> None:
    """An exported key leaves the password valid, and tickets may be short."""
    ccache = kdc.kinit(keytab=kdc.export(USER), lifetime=timedelta(seconds=1))
    listed = subprocess.run(["klist", "-c", ccache], capture_output=True, text=True, check=True)
    assert f"{USER}@{REALM}" in listed.stdout
    assert kdc.kinit().exists()


def test_a_stopped_kdc_is_refused_at_once_and_comes_back_on_its_port() -> None:
    """An unreachable KDC is an answer, not a timeout, and its clients find it again."""
    with new_kdc() as kdc:
        kdc.stop()
        with pytest.raises(KerberosRefused, match="Cannot contact any KDC"):
            kdc.kinit()
        kdc.start()
        assert kdc.kinit().exists()


def test_a_kdc_with_a_wrong_clock_is_noticed_by_who_does_not_follow_it() -> None:
    """Clock skew is real: the KDC lives an hour later."""
    with new_kdc() as kdc:
        kdc.stop()
        kdc.start(clock=timedelta(hours=1))
        asked = subprocess.run(
            [require_program("kinit"), USER],
            env={**os.environ, **kdc.environment(config=kdc.configuration(kdc_timesync="0"))},
            input=b"opensesame\n",
            capture_output=True,
            check=False,
        )
        assert b"Clock skew too great" in asked.stderr


def test_a_silent_kdc_never_answers(kdc: Kdc) -> None:
    """Whoever asks it waits: this is what a deadline is for."""
    with silent_port() as port, pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            [require_program("kinit"), USER],
            env={**os.environ, **kdc.environment(config=kdc.configuration(port=port))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=1.0,
            check=False,
        )
