"""The daemon's own socket: who gets in, who may stand in its place, what is left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from transferd import listener as module
from transferd.listener import (
    MAX_PATH_BYTES,
    Listener,
    SocketRefused,
    SocketTaken,
    bind_listener,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to listen."""
    return tmp_path / "transferd.sock"


@contextlib.contextmanager
def bound(path: Path, *, listen: bool) -> Iterator[socket.socket]:
    """A foreign socket with a name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(path))
        if listen:
            made.listen()
        yield made


def answers(path: Path, listening: Listener) -> bool:
    """Whether what has the name is *listening*: a connection to the one arrives at the other."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.sendall(b"?")
        listening.socket.settimeout(10)
        with listening.socket.accept()[0] as accepted:
            return accepted.recv(1) == b"?"


def mode_of(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_has_its_mode_whatever_the_umask(path: Path, mode: int) -> None:
    """Rule: mode is exact; nothing but the socket stays in the directory."""
    old = os.umask(0o077)
    try:
        with bind_listener(path, mode=mode) as listening:
            assert mode_of(path) == mode
            assert answers(path, listening)
            assert os.listdir(path.parent) == [path.name]
    finally:
        os.umask(old)


def test_the_socket_gets_its_group(path: Path) -> None:
    """Rule: the group is set before anybody can connect."""
    group = os.getegid() if os.geteuid() else 12
    with bind_listener(path, mode=0o660, group=group):
        assert path.stat().st_gid == group
        assert mode_of(path) == 0o660


def test_the_name_appears_when_the_socket_is_ready(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: no moment at which the name leads to a socket with a laxer mode, or a deaf one."""
    seen: list[tuple[int, bool]] = []
    original = module._install

    def watch(hidden: Path, target: Path) -> None:
        assert not target.exists()
        assert mode_of(hidden.parent) == 0o700
        seen.append((mode_of(hidden), module._answers(hidden)))
        original(hidden, target)

    monkeypatch.setattr(module, "_install", watch)
    with bind_listener(path, mode=0o666):
        assert seen == [(0o666, True)]


def test_the_name_goes_with_the_listener(path: Path) -> None:
    """Rule: closing removes the name."""
    bind_listener(path, mode=0o600).close()
    assert os.listdir(path.parent) == []


def test_a_name_that_leads_elsewhere_stays(path: Path) -> None:
    """Rule: closing never removes a successor's socket."""
    first = bind_listener(path, mode=0o600)
    path.unlink()
    with bind_listener(path, mode=0o600) as second:
        first.close()
        assert answers(path, second)


def test_a_removed_name_is_no_error(path: Path) -> None:
    """Rule: closing twice, or after somebody cleaned up, is fine."""
    listening = bind_listener(path, mode=0o600)
    path.unlink()
    listening.close()
    listening.close()


def test_a_stale_socket_is_replaced(path: Path) -> None:
    """Rule: a name that a killed daemon left is no obstacle."""
    with bound(path, listen=True):
        pass
    assert path.is_socket()
    with bind_listener(path, mode=0o600) as listening:
        assert answers(path, listening)
        assert os.listdir(path.parent) == [path.name]


def test_a_living_daemon_keeps_its_socket(path: Path) -> None:
    """Rule: the second daemon is refused and the first one is not disturbed."""
    with bind_listener(path, mode=0o600) as first:
        with pytest.raises(SocketTaken, match=f"another daemon answers on {path}"):
            bind_listener(path, mode=0o600)
        first.socket.settimeout(10)
        with first.socket.accept()[0]:
            pass
        assert answers(path, first)
        assert os.listdir(path.parent) == [path.name]


def test_a_daemon_with_a_full_queue_is_alive(path: Path) -> None:
    """Rule: a daemon that is too busy to accept is not taken for a dead one."""
    with bound(path, listen=False) as busy, contextlib.ExitStack() as stack:
        busy.listen(0)
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(SocketTaken):
            bind_listener(path, mode=0o600)


def test_a_socket_of_another_kind_is_alive(tmp_path: Path, path: Path) -> None:
    """Rule: a datagram socket, which cannot be asked, is left alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        datagram.bind(str(path))
        with pytest.raises(SocketTaken):
            bind_listener(path, mode=0o600)
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling"])
def test_what_is_no_socket_is_never_removed(path: Path, tmp_path: Path, kind: str) -> None:
    """Rule: a file, a directory or a symbolic link under the name is refused and stays."""
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        target = tmp_path / "target"
        if kind == "link":
            target.write_text("precious")
        path.symlink_to(target)
    before = path.lstat()
    with pytest.raises(SocketRefused, match="no socket; move it away"):
        bind_listener(path, mode=0o600)
    assert path.lstat() == before


def test_of_two_daemons_that_find_a_stale_socket_one_wins(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: a socket that came to life between the look and the removal gets its name back."""
    with bound(path, listen=True):
        pass
    original = module._answers
    rivals: list[Listener] = []

    def slow(asked: Path) -> bool:
        answered = original(asked)
        if asked == path and not rivals:
            # The other daemon found the same stale socket and is faster.
            path.unlink()
            monkeypatch.undo()
            rivals.append(bind_listener(path, mode=0o600))
        return answered

    monkeypatch.setattr(module, "_answers", slow)
    with pytest.raises(SocketTaken):
        bind_listener(path, mode=0o600)
    (rival,) = rivals
    with rival:
        while _pending(rival):
            pass
        assert answers(path, rival)


def _pending(listening: Listener) -> bool:
    """Take one waiting connection (a probe's) off the queue."""
    listening.socket.setblocking(False)
    try:
        with listening.socket.accept()[0]:
            return True
    except BlockingIOError:
        return False


def test_many_daemons_at_once_make_one(path: Path) -> None:
    """Rule: whatever the order, exactly one gets the name, and it is the one that answers."""
    with bound(path, listen=True):
        pass
    gate = threading.Barrier(8)
    winners: list[Listener] = []
    losers: list[SocketRefused] = []

    def start() -> None:
        gate.wait()
        try:
            winners.append(bind_listener(path, mode=0o600))
        except SocketRefused as error:
            losers.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(error) for error in losers] == [SocketTaken] * 7
    (winner,) = winners
    with winner:
        while _pending(winner):
            pass
        assert answers(path, winner)


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    """Rule: sun_path's limit is an error that says so, before anything is made."""
    room = MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    deep = tmp_path / ("d" * room) / "s"
    with pytest.raises(SocketRefused, match=r"has 109 bytes .* may have 107"):
        bind_listener(deep, mode=0o600)
    assert os.listdir(tmp_path) == []


def test_the_longest_possible_path_works(tmp_path: Path) -> None:
    """Rule: a path of 107 bytes is not refused."""
    longest = tmp_path / ("s" * (MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1))
    with bind_listener(longest, mode=0o600) as listening:
        assert answers(longest, listening)


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o700), (0o660, 0o755), (0o666, 0o755)])
def test_a_missing_directory_is_made(tmp_path: Path, mode: int, expected: int) -> None:
    """Rule: private sockets get a private directory, open ones one that can be entered."""
    path = tmp_path / "new" / "s"
    old = os.umask(0o077)
    try:
        bind_listener(path, mode=mode).close()
    finally:
        os.umask(old)
    assert mode_of(path.parent) == expected


def test_a_missing_parent_of_the_directory_is_an_error(tmp_path: Path) -> None:
    """Rule: only the last directory is made; errors of the system name the path."""
    path = tmp_path / "none" / "new" / "s"
    with pytest.raises(SocketRefused, match=f"cannot listen on {path}: .*No such file"):
        bind_listener(path, mode=0o600)


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    """Rule: nobody else may rename the socket away; a sticky directory does not let them."""
    directory = tmp_path / "lax"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(SocketRefused, match=r"mode 0777 lets others in; chmod 755"):
        bind_listener(directory / "s", mode=0o600)
    directory.chmod(0o1777)
    bind_listener(directory / "s", mode=0o600).close()


@pytest.fixture
def fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that plays /tmp/transferd-UID."""
    directory = tmp_path / "transferd-uid"
    monkeypatch.setattr(module, "fallback_directory", lambda uid: directory)
    return directory


def test_the_fallback_directory_is_made_for_its_user_alone(fallback: Path) -> None:
    """Rule: /tmp/transferd-UID has mode 0700."""
    with bind_listener(fallback / "s", mode=0o600):
        assert mode_of(fallback) == 0o700


def test_a_lax_fallback_directory_is_refused(fallback: Path) -> None:
    """Rule: clients do not trust a fallback directory that others can enter, so it is no use."""
    fallback.mkdir()
    fallback.chmod(0o755)
    with pytest.raises(SocketRefused, match=r"mode 0755 lets others in; chmod 700"):
        bind_listener(fallback / "s", mode=0o600)


def test_a_fallback_directory_that_is_a_symbolic_link_is_refused(
    fallback: Path, tmp_path: Path
) -> None:
    """Rule: a link that somebody laid under /tmp is not followed."""
    (tmp_path / "target").mkdir(mode=0o700)
    fallback.symlink_to(tmp_path / "target")
    with pytest.raises(SocketRefused, match="no directory of its own"):
        bind_listener(fallback / "s", mode=0o600)


def test_a_directory_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: the owner of a directory can replace what is in it, so it must be us or root."""
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(directory, 4711, -1)
        owner = 4711
    else:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(SocketRefused, match=f"belongs to user {owner}, who could"):
        bind_listener(directory / "s", mode=0o600)
    assert os.listdir(directory) == []
