"""`transferctl get` against real servers, as a user types it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess
from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER, Server

BYTES = os.urandom(300_000)
WHO = ("--user", USER, "--password-file", "-")


def assert_downloaded(daemon: DaemonProcess, place: Path) -> None:
    """The bytes are there, nothing lies beside them, and the job has left the queue."""
    assert place.read_bytes() == BYTES
    assert not [name for name in os.listdir(place.parent) if ".transferd-" in name]
    assert daemon.json("list")["jobs"] == []


@pytest.mark.server("nginx")
def test_an_open_server(daemon: DaemonProcess, nginx: Server, tmp_path: Path) -> None:
    """The main job with nothing but a URL and a directory."""
    path = nginx.put(BYTES, name="open.bin")
    done = daemon.ctl("get", nginx.url(path), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "open.bin")
    assert_downloaded(daemon, tmp_path / "open.bin")


@pytest.mark.server("nginx")
def test_https_with_a_private_authority(
    daemon: DaemonProcess, nginx: Server, tmp_path: Path
) -> None:
    """A CA file is trusted for this job; without it the certificate is refused."""
    url = nginx.tls_url(nginx.put(BYTES))
    place = tmp_path / "x"
    refused = daemon.ctl("get", url, str(place))
    assert refused.returncode == 1
    assert "cannot trust the certificate of localhost" in refused.stderr
    done = daemon.ctl("get", url, str(place), "--cacert", str(nginx.cacert))
    assert done.returncode == 0, done.stderr
    assert_downloaded(daemon, place)


@pytest.mark.server("nginx")
@pytest.mark.parametrize(("user", "password"), [(USER, PASSWORD), (ODD_USER, ODD_PASSWORD)])
def test_basic_at_nginx(
    daemon: DaemonProcess, nginx: Server, tmp_path: Path, user: str, password: str
) -> None:
    """RFC 7617 with UTF-8, chosen although Digest credentials are set as well."""
    url = nginx.url("/basic" + nginx.put(BYTES))
    place = tmp_path / "x"
    who = ("--user", user, "--password-file", "-")
    done = daemon.ctl("get", url, str(place), *who, stdin=password + "\n")
    assert done.returncode == 0, done.stderr
    assert_downloaded(daemon, place)


@pytest.mark.server("apache2")
@pytest.mark.parametrize("place", ["digest", "shortnonce", "either"])
def test_digest_at_apache(
    daemon: DaemonProcess, apache: Server, tmp_path: Path, place: str
) -> None:
    """RFC 7616 against mod_auth_digest, with nonces that live long and short."""
    url = apache.url(f"/{place}" + apache.put(BYTES))
    done = daemon.ctl(
        "get", url, str(tmp_path / "x"), "--auth", "Digest", *WHO, stdin=PASSWORD + "\n"
    )
    assert done.returncode == 0, done.stderr
    assert_downloaded(daemon, tmp_path / "x")


@pytest.mark.server("lighttpd")
@pytest.mark.parametrize("place", ["md5", "sha256", "sha512-256", "both", "userhash"])
def test_digest_at_lighttpd(
    daemon: DaemonProcess, lighttpd: Server, tmp_path: Path, place: str
) -> None:
    """Every algorithm that a server from Debian enforces, and hashed user names."""
    url = lighttpd.url(f"/{place}" + lighttpd.put(BYTES))
    done = daemon.ctl("get", url, str(tmp_path / "x"), *WHO, stdin=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    assert_downloaded(daemon, tmp_path / "x")


@pytest.mark.server("nginx")
def test_userinfo_in_the_url_is_moved_into_the_vault(
    daemon: DaemonProcess, nginx: Server, tmp_path: Path
) -> None:
    """The password works, and is in no listing, no log and not in the queue file."""
    path = nginx.put(BYTES)
    url = nginx.url("/basic" + path).replace("//", f"//{USER}:{PASSWORD}@")
    job = daemon.json("create", "sample")
    daemon.json("add", job["id"], url, str(tmp_path / "x"))
    shown = daemon.ctl("show", job["id"], "--json").stdout
    shown += daemon.ctl("files", job["id"], "--json").stdout
    assert f'"{USER}"' in shown
    assert PASSWORD not in shown
    assert PASSWORD not in daemon.logged()
    kept = b"".join(file.read_bytes() for file in daemon.state.iterdir())
    assert PASSWORD.encode() not in kept
    daemon.json("resume", job["id"])
    daemon.json("wait", job["id"], "--complete")
    assert (tmp_path / "x").read_bytes() == BYTES


@pytest.mark.server("nginx")
def test_a_wrong_password_is_refused_once_and_leaves_nothing(
    daemon: DaemonProcess, nginx: Server, tmp_path: Path
) -> None:
    """What was offered and tried is said, and no job stays behind."""
    url = nginx.url("/basic" + nginx.put(BYTES))
    done = daemon.ctl("get", url, str(tmp_path / "x"), *WHO, stdin="wrong\n")
    assert done.returncode == 1
    assert "offered: Basic" in done.stderr
    assert "tried: basic" in done.stderr
    assert not (tmp_path / "x").exists()
    assert daemon.json("list")["jobs"] == []
    assert daemon.logged().count("auth.rejected") == 1


@pytest.mark.server("apache2")
def test_a_job_in_error_is_repaired_by_new_credentials(
    daemon: DaemonProcess, apache: Server, tmp_path: Path
) -> None:
    """BITS A7: set again for the scheme, then resume."""
    url = apache.url("/digest" + apache.put(BYTES))
    keep = ("--keep", "--name", "repair", "--auth", "digest")
    failed = daemon.ctl("get", url, str(tmp_path / "x"), *keep, *WHO, stdin="wrong\n")
    assert failed.returncode == 1
    assert daemon.json("show", "repair")["state"] == "error"
    daemon.json("credentials", "set", "repair", "--auth", "digest", *WHO, stdin=PASSWORD + "\n")
    daemon.json("resume", "repair")
    daemon.json("wait", "repair", "--complete")
    assert_downloaded(daemon, tmp_path / "x")


@pytest.mark.server("nginx")
def test_a_checksum_decides_about_the_file(
    daemon: DaemonProcess, nginx: Server, tmp_path: Path
) -> None:
    """The right one passes; a wrong one is an error after one clean refetch."""
    url, place = nginx.url(nginx.put(BYTES)), tmp_path / "x"
    wrong = daemon.ctl("get", url, str(place), "--checksum", "sha256:" + "0" * 64)
    assert wrong.returncode == 1
    assert "checksum" in wrong.stderr
    assert not place.exists()
    right = f"sha256:{hashlib.sha256(BYTES).hexdigest()}"
    done = daemon.ctl("get", url, str(place), "--checksum", right)
    assert done.returncode == 0, done.stderr
    assert_downloaded(daemon, place)


def test_an_unreachable_host_is_waited_for_and_then_cancelled(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    """The sample's limit: on timeout the job is cancelled, with its own exit status."""
    done = daemon.ctl("get", "http://127.0.0.1:9/x", str(tmp_path / "x"), "--timeout", "0.5s")
    assert done.returncode == 124
    assert "the connection was refused" in done.stderr
    assert daemon.json("list")["jobs"] == []


def test_an_unknown_scheme_is_refused_before_a_job_exists(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    """S3 of the sample."""
    done = daemon.ctl("get", "http://127.0.0.1:9/x", str(tmp_path / "x"), "--auth", "kerberos")
    assert done.returncode == 2
    assert "nvalid authentication scheme" in done.stderr
    assert "job.created" not in daemon.logged()
