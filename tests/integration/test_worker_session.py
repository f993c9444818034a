"""A worker's umask and limits where PAM has no say in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_OPEN = """
import os, resource, sys
from pathlib import Path
from transferd.worker.session import open_session
os.umask(0o077)
before = resource.getrlimit(resource.RLIMIT_NOFILE)
print(open_session(Path(sys.argv[1])))
print(oct(os.umask(0)), before == resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_without_a_configuration_the_umask_is_the_usual_one(tmp_path: Path) -> None:
    """Not the daemon's, whose files are nobody's business; limits stay as they are inherited."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(tmp_path / "none")],
        cwd=_ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None\n0o22 True\n"
