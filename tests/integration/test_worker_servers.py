"""The worker before the servers that people run: nginx, Apache httpd and lighttpd."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.servers import ODD_PASSWORD, ODD_USER, PASSWORD, USER, Server
from tests.support.worker import Book, Desk, credential, worker_process, worker_task
from transferd.model.credentials import Scheme
from transferd.wire import link

BODY = random.Random(5).randbytes(400_000)  # noqa: S311
BOTH = (Scheme.BASIC, Scheme.DIGEST)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A worker in this loop."""
    async with worker_task() as running:
        yield running


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """The server that a parameter names."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


@pytest.mark.parametrize(("user", "password"), [(USER, PASSWORD), (ODD_USER, ODD_PASSWORD)])
@pytest.mark.parametrize(
    ("server", "place", "scheme"),
    [
        pytest.param(name, place, scheme, marks=pytest.mark.server(name))
        for name, place, scheme in [
            ("nginx", "basic", Scheme.BASIC),
            ("apache", "basic", Scheme.BASIC),
            ("apache", "digest", Scheme.DIGEST),
            ("apache", "either", Scheme.DIGEST),
            ("lighttpd", "basic", Scheme.BASIC),
            ("lighttpd", "md5", Scheme.DIGEST),
            ("lighttpd", "sha256", Scheme.DIGEST),
            ("lighttpd", "sha512-256", Scheme.DIGEST),
            ("lighttpd", "both", Scheme.DIGEST),
            ("lighttpd", "userhash", Scheme.DIGEST),
        ]
    ],
    indirect=["server"],
)
async def test_every_server_lets_the_right_identity_in(
    desk: Desk,
    tmp_path: Path,
    server: Server,
    place: str,
    scheme: Scheme,
    user: str,
    password: str,
) -> None:
    """Two files behind each acceptor, for a plain identity and for one that is hard to write."""
    path = server.put(BODY).lstrip("/")
    book = Book.of(tmp_path, *[server.url(f"/{place}/{path}")] * 2)
    held = [credential(each, user, password) for each in BOTH]
    assert isinstance(await desk.carry(book, credentials=held), link.Drained)
    assert [book.temporary(index).read_bytes() for index in range(2)] == [BODY, BODY]
    (audited,) = desk.of(link.Audited)
    assert (audited.accepted, audited.scheme) == (True, scheme)


@pytest.mark.parametrize(
    ("server", "place"),
    [
        pytest.param(name, place, marks=pytest.mark.server(name))
        for name, place in [("nginx", "basic"), ("apache", "digest"), ("lighttpd", "sha256")]
    ],
    indirect=["server"],
)
async def test_every_server_keeps_the_wrong_identity_out(
    desk: Desk, tmp_path: Path, server: Server, place: str
) -> None:
    """http_401, and nothing of the file."""
    path = server.put(BODY).lstrip("/")
    book = Book.of(tmp_path, server.url(f"/{place}/{path}"))
    held = [credential(each, USER, "wrong") for each in BOTH]
    failed = await desk.carry(book, credentials=held)
    assert isinstance(failed, link.Failed)
    assert failed.failure.code == "http_401"
    assert not book.temporary().exists()


@pytest.mark.server("nginx")
async def test_a_slow_download_survives_the_death_of_its_worker(
    tmp_path: Path, nginx: Server
) -> None:
    """Killed in mid-body, the next worker goes on with a range that nginx honours."""
    path = nginx.put(BODY).lstrip("/")
    book = Book.of(tmp_path, nginx.url(f"/slow/{path}"))
    async with worker_process() as desk:
        await desk.start(book)
        await desk.until(book, link.Durable)
        os.kill(desk.pid, signal.SIGKILL)
        while (message := await desk.channel.receive()) is not None:
            book.note(message)
    kept = book.files[0].bytes_transferred
    assert 0 < kept < len(BODY)
    async with worker_process() as desk:
        assert isinstance(await desk.carry(book), link.Drained)
    assert desk.of(link.Reset) == []
    assert min(progress.received for progress in desk.of(link.Progress)) > kept
    assert book.temporary().read_bytes() == BODY


@pytest.mark.server("nginx")
@pytest.mark.parametrize("place", ["moved", "moved301", "moved308", "away", "gzip", "bare"])
async def test_what_nginx_does_in_its_other_places(
    desk: Desk, tmp_path: Path, nginx: Server, place: str
) -> None:
    """Redirects are followed, compression is not asked for, missing validators cost nothing."""
    path = nginx.put(BODY).lstrip("/")
    book = Book.of(tmp_path, nginx.url(f"/{place}/{path}"))
    assert isinstance(await desk.carry(book), link.Drained)
    assert book.temporary().read_bytes() == BODY


@pytest.mark.server("nginx")
@pytest.mark.parametrize(
    ("place", "code", "wait"), [("busy", "http_503", 7.0), ("throttled", "http_429", 7.0)]
)
async def test_nginx_says_when_to_come_back(
    desk: Desk, tmp_path: Path, nginx: Server, place: str, code: str, wait: float
) -> None:
    """Retry-After is passed on."""
    failed = await desk.carry(Book.of(tmp_path, nginx.url(f"/{place}/f")))
    assert isinstance(failed, link.Failed)
    assert (failed.failure.code, failed.retry_after) == (code, wait)
