"""`transferctl`: one command, from its words to its exit status."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import NoReturn

from transferd.cli.arguments import parse
from transferd.cli.outcomes import Exit, status_of
from transferd.cli.output import Output, forgive_encodings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status. What goes wrong is said in a line, not in a trace.

    Without *arguments* it is the whole program, and ends the process.
    """
    forgive_encodings()
    status = _status(arguments)
    if arguments is None:
        _leave(status)
    return status


def _status(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(arguments)
    except SystemExit as exit:
        return int(exit.code or 0) if not isinstance(exit.code, str) else Exit.USAGE
    output = Output(json=options.json, stdout=sys.stdout, stderr=sys.stderr)
    try:
        import asyncio  # not for --help
        import logging

        # What a library has to say is for its programmers; people are told by `complain`.
        logging.getLogger().addHandler(logging.NullHandler())
        return asyncio.run(perform(options, output))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has left; nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE


def _leave(status: int) -> NoReturn:
    """End the process as it is: to take it apart would cost a tenth of what it did."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # its reader has left, or it is closed
            stream.flush()
    os._exit(status)


async def perform(options: Namespace, output: Output) -> int:
    """Run the command that the options name; what goes wrong is said, and becomes a status."""
    module, _, function = options.run.partition(":")
    try:
        return int(await getattr(importlib.import_module(module), function)(options, output))
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last stop: people are told, never shown a trace
        output.complain(error)
        return status_of(error)


if __name__ == "__main__":
    sys.exit(main())
