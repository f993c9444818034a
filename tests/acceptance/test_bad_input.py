"""What a caller gets wrong has a name, makes nothing, and does not move the daemon."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import DaemonProcess

URL = "http://127.0.0.1:9/x"


class Socket(http.client.HTTPConnection):
    """HTTP over the daemon's socket, as anybody could speak it."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Connect to the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send one request; bytes go as they are, everything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        self.request(method, path, None if body is None else raw, headers)
        answer = self.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None


@pytest.fixture
def asking(daemon: DaemonProcess) -> Iterator[Socket]:
    """A connection to the daemon."""
    connection = Socket(daemon.socket)
    yield connection
    connection.close()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory that even its owner cannot write to."""
    place = tmp_path / "read-only"
    place.mkdir(0o500)
    if os.getuid() != 0:
        yield place
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def job(**fields: object) -> dict[str, object]:
    """Return a body that would be accepted, but for *fields*."""
    return {"name": "bad", **fields}


def file(local: str, remote: str = URL) -> dict[str, str]:
    """Return a file of a job."""
    return {"remote": remote, "local": local}


def credential(**fields: str) -> dict[str, str]:
    """Return a credential that would be accepted, but for *fields*."""
    return {"scheme": "basic", "username": "a", "password": "hunter2", **fields}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (job(credentials=[credential(scheme="kerberos")]), "unknown_scheme"),
        (job(credentials=[credential(target="moon")]), "unknown_target"),
        (job(colour="red"), "unknown_field"),
        (job(id="17"), "id_invalid"),
        (job(files=[file("relative/path")]), "path_not_absolute"),
        (job(files=[file("/x", "ftp://host/x")]), "url_scheme_unsupported"),
        (job(files=[file("/tmp/a\0b")]), "path_invalid"),
        (job(files=[file("/tmp/a"), file("/tmp/a")]), "duplicate_destination"),
        (job(files=[file("/tmp/" + "n" * 10_000)]), "path_too_long"),
        (job(headers={"X-Inject": "a\r\nHost: evil"}), "header_invalid"),
        (job(name="n" * 10_000), "name_too_long"),
        (job(name=["n"]), "wrong_type"),
        (b'{"name": "bad', "malformed_json"),
        (b"\0\0\0", "malformed_json"),
    ],
)
def test_a_flaw_in_a_new_job_is_named(asking: Socket, body: object, code: str) -> None:
    """Each is a 400 that says what to do, and leaves no job."""
    status, problem = asking.ask("POST", "/v1/jobs", body)
    assert (status, problem["code"]) == (400, code)
    assert problem["detail"]
    assert "hunter2" not in str(problem)
    assert asking.ask("GET", "/v1/jobs")[1]["jobs"] == []


def test_destinations_are_looked_at_as_their_owner(
    asking: Socket, tmp_path: Path, read_only: Path
) -> None:
    """Rule: what could not be written in the end is refused at once, with nothing fetched."""
    good = file(str(tmp_path / "good"))
    for local, code in (
        (tmp_path / "missing" / "x", "local_directory_missing"),
        (read_only / "x", "local_access_denied"),
        (tmp_path, "local_not_regular"),
    ):
        status, problem = asking.ask("POST", "/v1/jobs", job(files=[good, file(str(local))]))
        assert (status, problem["code"]) == (400, code)
        assert str(local.parent) in problem["detail"]
    (tmp_path / "old").touch()
    body = job(files=[good, file(str(tmp_path / "old"))], overwrite=False)
    status, problem = asking.ask("POST", "/v1/jobs", body)
    assert (status, problem["code"]) == (400, "local_exists")
    assert asking.ask("GET", "/v1/jobs")[1]["jobs"] == []


def _hard_link(path: Path) -> None:
    path.touch()
    os.link(path, path.with_name("second"))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (os.mkfifo, "local_not_regular"),
        (Path.mkdir, "local_not_regular"),
        (lambda path: path.symlink_to("nothing"), "local_not_regular"),
        (lambda path: path.symlink_to("/proc/self/fd/0"), "local_not_regular"),
        (_hard_link, "local_hard_link"),
    ],
    ids=["FIFO", "directory", "link", "magic link", "hard link"],
)
def test_what_stands_at_a_destination_is_refused_by_name(
    asking: Socket, tmp_path: Path, make: Callable[[Path], object], code: str
) -> None:
    """Nothing but regular files is replaced, and what is refused is as it was."""
    local = tmp_path / "there"
    make(local)
    before = local.lstat()
    status, problem = asking.ask("POST", "/v1/jobs", job(files=[file(str(local))]))
    assert (status, problem["code"]) == (400, code)
    assert str(local) in problem["detail"]
    assert local.lstat() == before


@pytest.mark.parametrize(
    ("local", "codes"),
    [
        ("/proc/self/fd/0", {"local_forbidden"}),
        ("/proc/self/fd/new", {"local_forbidden"}),
        ("/dev/fd/1", {"local_forbidden"}),
        ("/proc/self/cwd/new", {"local_forbidden"}),
        ("/proc/1/root/tmp/new", {"local_forbidden"}),
        ("/sys/new", {"local_forbidden"}),
        # Where /dev is a plain tmpfs, what stands there is a device.
        ("/dev/null", {"local_forbidden", "local_not_regular"}),
    ],
)
def test_a_place_without_files_is_refused_by_name(
    asking: Socket, local: str, codes: set[str]
) -> None:
    """The worker's own descriptors are reachable there: nothing of ours is written to."""
    status, problem = asking.ask("POST", "/v1/jobs", job(files=[file(local)]))
    assert status == 400
    assert problem["code"] in codes


def test_more_files_than_a_job_may_have_are_refused_together(asking: Socket) -> None:
    """100,001 files: none of them is taken."""
    files = [file(f"/tmp/{number}") for number in range(100_001)]
    status, problem = asking.ask("POST", "/v1/jobs", job(files=files))
    assert (status, problem["code"]) == (400, "too_many_files")


def test_a_body_over_the_limit_is_not_read_to_its_end(daemon: DaemonProcess) -> None:
    """The refusal comes while the caller still sends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.connect(str(daemon.socket))
        raw.settimeout(30)
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        raw.sendall(head + b"Content-Length: 99999999999\r\n\r\n")
        answer = raw.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer
    assert daemon.json("list") == {"jobs": []}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/jobs?state=flying", 400, "unknown_state"),
        ("GET", "/v1/jobs/17", 400, "id_invalid"),
        ("GET", f"/v1/jobs/{uuid.UUID(int=17)}", 404, "job_not_found"),
        ("POST", "/v1/notices/99/ack", 404, "notice_not_found"),
        ("GET", "/v1/nothing", 404, "route_not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_named(
    asking: Socket, method: str, path: str, status: int, code: str
) -> None:
    """Unknown states, ids, notices, routes and methods."""
    found, problem = asking.ask(method, path)
    assert (found, problem["code"]) == (status, code)


def test_a_job_refuses_what_its_state_does_not_allow(asking: Socket) -> None:
    """Resume without files is BG_E_EMPTY; a second file under one name is refused."""
    _, made = asking.ask("POST", "/v1/jobs", job())
    status, problem = asking.ask("POST", f"/v1/jobs/{made['id']}/resume")
    assert (status, problem["code"]) == (409, "job_empty")
    path = f"/v1/jobs/{made['id']}/files"
    assert asking.ask("POST", path, file("/tmp/one"))[0] in (200, 201)
    status, problem = asking.ask("POST", path, file("/tmp/one"))
    assert problem["code"] == "duplicate_destination"
    assert 400 <= status < 500
    assert asking.ask("GET", f"/v1/jobs/{made['id']}")[1]["files_total"] == 1
