"""A machine that lies in a directory: as much of it as an installation looks at."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from transferd.installation.environment import Source

_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/gshadow": "root:*::\n",
}
#: What programs that make users leave behind: locks and the files of before.
_OF_ACCOUNTS = ("passwd", "group", "shadow", "gshadow", ".pwd.lock", "subuid", "subgid")


class AnyPython(Source):
    """Code whose interpreter counts as everybody's, wherever the tests' own is."""

    def check_python(self) -> None:
        """Find nothing wrong with it."""


def make_scratch_machine(root: Path) -> Path:
    """Make the least that there is on a machine with the interpreter of the tests."""
    for name, text in _ACCOUNTS.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    python = root / AnyPython().python.relative_to("/")
    python.parent.mkdir(parents=True, exist_ok=True)
    python.touch()
    for folder in ("opt", "usr/local/bin", "usr/share"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root


def seen(root: Path) -> dict[str, str]:
    """Return everything below *root* but accounts: path → kind, mode, owner, and contents."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if name.startswith("etc/") and path.name.rstrip("-").startswith(_OF_ACCOUNTS):
            continue
        state = path.lstat()
        if path.is_symlink():
            contents = str(path.readlink())
        else:
            contents = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[name] = f"{stat.filemode(state.st_mode)} {state.st_uid}:{state.st_gid} {contents}"
    return found
