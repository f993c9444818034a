"""`transferd`: the daemon's command line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from transferd.arguments import make_parser
from transferd.capabilities import confine_daemon
from transferd.config import Source, doubts
from transferd.daemon import Daemon, Options
from transferd.logs import set_up_logging
from transferd.model.errors import ConfigError, StoreLocked, TransferdError
from transferd.process import DESCRIPTORS, collect_seldom, hide_memory, leave_session_keyring
from transferd.wire.paths import (
    SOCKET_VARIABLE,
    configuration_file,
    state_directory,
    system_socket,
    user_socket,
)

_SWITCH = 0.0005
_FAILED, _USAGE, _TAKEN = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop.

    Returns: 0 after a clean stop, or for a right configuration that was only to be checked; 1 when
    the state or the socket cannot be used, 2 for a wrong command line or configuration, 3 when
    another daemon holds the state directory.
    """
    # The key of the vault and passwords will be in it.
    hide_memory()
    DESCRIPTORS.lift()
    _fill_standard_descriptors()
    environ = dict(os.environ)
    options = make_parser().parse_args(arguments)
    try:
        source = _source(options.config, options.system, environ)
        if options.check_config:
            _check(source)
            return 0
        if options.system:
            # Before there is a thread: capabilities are each thread's own.
            confine_daemon()
            leave_session_keyring()
        config, origin = source.read()
        where = Options(
            socket=(options.socket or _default_socket(options.system, environ)).absolute(),
            state=(options.state_dir or state_directory(environ, options.system)).absolute(),
            system=options.system,
            on_demand=options.on_demand,
            configuration=source,
        )
        # The threads of the queue file must not keep the loop waiting for longer.
        sys.setswitchinterval(_SWITCH)
        collect_seldom()
        set_up_logging(config.log.format, config.log.level, environ, sys.stderr)
        # Whoever started it may want to remove or unmount the directory it was started in.
        os.chdir("/")
        asyncio.run(Daemon(where, config, origin, environ).run())
    except TransferdError as error:
        print(f"transferd: {error}", file=sys.stderr)  # noqa: T201 - the last word of a daemon
        return _status(error)
    return 0


def _check(source: Source) -> None:
    """Say of a configuration that can be used what may be meant otherwise, or that it is fine."""
    config, origin = source.read()
    name = "the default configuration" if origin is None else str(origin)
    doubtful = doubts(config)
    for doubt in doubtful:
        print(f"transferd: {name}: {doubt}", file=sys.stderr)  # noqa: T201 - what it was asked for
    if not doubtful:
        print(f"{name} is fine")  # noqa: T201 - as above


def _fill_standard_descriptors() -> None:
    """Put /dev/null where the caller has closed 0, 1 or 2, before something of ours gets there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good


def _status(error: TransferdError) -> int:
    if isinstance(error, ConfigError):
        return _USAGE
    return _TAKEN if isinstance(error, StoreLocked) else _FAILED


def _source(named: Path | None, system: bool, environ: dict[str, str]) -> Source:
    if named is not None:
        return Source(named.absolute())
    return Source(configuration_file(environ, system), named=False)


def _default_socket(system: bool, environ: dict[str, str]) -> Path:
    if system:
        return system_socket()
    named = environ.get(SOCKET_VARIABLE)
    return Path(named) if named else user_socket(environ, os.getuid())


if __name__ == "__main__":
    sys.exit(main())
