"""Where a file goes: what the words of the command line mean here and now."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit

from transferd.cli.outcomes import usage

#: Of a file name; the daemon's partial file needs no more.
NAME_BYTES = 255
#: For a URL that ends in no name.
DEFAULT_NAME = "download"

_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f/]")


def name_from_url(url: str) -> str:
    """Name a file after the last segment of a URL's path, harmlessly.

    The segment is percent-decoded once; what then could leave the directory or confuse a terminal
    becomes `_`, and a name that is too long keeps its beginning and its suffix.
    """
    segment = urlsplit(url).path.rpartition("/")[2]
    name = _HARMFUL.sub("_", unquote(segment, errors="replace"))
    if name in ("", ".", ".."):
        return DEFAULT_NAME
    return _shortened(name)


def destination(dest: str | None, url: str) -> str:
    """Return the absolute path for *url*.

    *dest* is a file or a directory, relative to the working directory, and may begin with `~`;
    None is the working directory.

    Raises:
        CommandError: the directory is missing; status 2.
    """
    given = os.path.expanduser(dest) if dest is not None else os.curdir
    path = os.path.abspath(given)
    if os.path.isdir(path):
        return os.path.join(path, name_from_url(url))
    parent = path if given.endswith("/") else os.path.dirname(path)
    if not os.path.isdir(parent):
        trouble = "is not a directory" if os.path.lexists(parent) else "does not exist"
        raise usage(
            f"cannot save to {dest}: {parent} {trouble}; make it first",
            "local_directory_missing",
        )
    return path


def _shortened(name: str) -> str:
    if len(name.encode()) <= NAME_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    tail = f"{dot}{suffix}" if stem and len(suffix) <= 16 else ""
    room = NAME_BYTES - len(tail.encode())
    return name.encode()[:room].decode("utf-8", "ignore") + tail
