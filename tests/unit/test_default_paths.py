"""The default paths that the daemon and its clients share."""

from __future__ import annotations

from pathlib import Path

import pytest

from transferd.model.errors import ConfigError
from transferd.wire.paths import (
    configuration_file,
    state_directory,
    system_socket,
    user_socket,
)


def test_the_users_socket_is_in_the_runtime_directory() -> None:
    """XDG: a runtime directory that is named is the place for sockets."""
    assert user_socket({"XDG_RUNTIME_DIR": "/run/user/7"}, 7) == Path("/run/user/7/transferd.sock")


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "run"}])
def test_the_users_socket_falls_back_to_a_directory_of_the_uid(environ: dict[str, str]) -> None:
    """XDG: a value that is not absolute counts as not set."""
    assert user_socket(environ, 7) == Path("/tmp/transferd-7/transferd.sock")


def test_the_system_socket_is_under_run() -> None:
    """The documented path is a promise to other programs."""
    assert system_socket() == Path("/run/transferd/transferd.sock")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/var/lib/transferd"),
        ({"STATE_DIRECTORY": "/var/lib/other"}, "/var/lib/other"),
        ({"STATE_DIRECTORY": "/a:/b"}, "/a"),
    ],
)
def test_the_system_state_directory_is_what_systemd_names(
    environ: dict[str, str], expected: str
) -> None:
    """systemd.exec(5): StateDirectory= is handed over as a colon-separated list."""
    assert state_directory(environ, True) == Path(expected)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/a"}, "/home/a/.local/state/transferd"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "/s"}, "/s/transferd"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "relative"}, "/home/a/.local/state/transferd"),
    ],
)
def test_the_users_state_directory_follows_xdg(environ: dict[str, str], expected: str) -> None:
    """XDG: state that should persist goes to XDG_STATE_HOME."""
    assert state_directory(environ, False) == Path(expected)


@pytest.mark.parametrize(
    ("environ", "system", "expected"),
    [
        ({"HOME": "/root", "XDG_CONFIG_HOME": "/c"}, True, "/etc/transferd/transferd.toml"),
        ({"HOME": "/home/a"}, False, "/home/a/.config/transferd/transferd.toml"),
        ({"HOME": "/home/a", "XDG_CONFIG_HOME": "/c"}, False, "/c/transferd/transferd.toml"),
        (
            {"HOME": "/home/a", "XDG_CONFIG_HOME": "c"},
            False,
            "/home/a/.config/transferd/transferd.toml",
        ),
    ],
)
def test_the_configuration_file_is_where_such_files_are(
    environ: dict[str, str], system: bool, expected: str
) -> None:
    """XDG, and the FHS for a system service, whose environment is nobody's to set."""
    assert configuration_file(environ, system) == Path(expected)


def test_without_a_home_there_is_no_configuration_file() -> None:
    """A relative path would be another file in each directory."""
    assert configuration_file({"HOME": "a"}, False) is None


def test_without_a_home_the_state_directory_must_be_named() -> None:
    """The queue is never put into a directory that nobody chose."""
    with pytest.raises(ConfigError, match="--state-dir"):
        state_directory({}, False)
