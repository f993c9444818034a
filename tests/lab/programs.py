"""Programs of the client, for as long as they are wanted."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.netns import Network
from tests.support.servers import start, stop


@contextlib.contextmanager
def running(network: Network, template: str, words: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a program in a network until the block ends, where it is ended at once.

    Raises:
        RuntimeError: it has ended before.
    """
    command = [word.format_map(words) for word in shlex.split(template)]
    process = start([*network.command, *command], log)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} has ended: {log.read_text(errors='replace')}")
    finally:
        stop(process, graceful=False)
