"""Which of our temporary files lie in directories; touches nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice

from transferd.model.paths import job_of_temporary

#: Whoever asks looks for what was left behind, and does not need all of it at once.
MOST = 10_000


def survey(directories: Sequence[str]) -> tuple[str, ...]:
    """Return paths of temporaries, MOST at most.

    A directory that the owner cannot read has none that he could remove.
    """
    return tuple(islice(chain.from_iterable(map(_temporaries, directories)), MOST))


def _temporaries(directory: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if _ours(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.path
    except OSError:
        return


def _ours(name: str) -> bool:
    # Destinations are Unicode; a name that is not cannot be told over the link either.
    with suppress(UnicodeEncodeError):
        return bool(name.encode() and job_of_temporary(name))
    return False
