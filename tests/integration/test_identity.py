"""Who a caller is where the daemon is in a user namespace, as in an unprivileged container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.servers import public_directory, require_root

_ROOT = Path(__file__).resolve().parents[2]

#: Listens in a namespace of root alone; root and two others call from outside of it.
_CONTAINED = """
import ctypes, os, socket, sys
sys.path.insert(0, sys.argv[1])
from transferd.api.identity import Identities
from transferd.model.errors import NotAllowed
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[2])
os.chmod(sys.argv[2], 0o666)
listening.listen()
alone, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
    os.write(alone[1], b".")
    os.read(mapped[0], 1)
    for _ in range(3):
        try:
            print(Identities(None).identify(listening.accept()[0]).uid)
        except NotAllowed as error:
            print(error.code)
    sys.stdout.flush()
    os._exit(0)
os.read(alone[0], 1)
with open(f"/proc/{child}/uid_map", "w") as file:
    file.write("0 0 1")
os.write(mapped[1], b".")
for uid in (0, 54321, 54322):
    os.seteuid(uid)
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(sys.argv[2])
    os.seteuid(0)
os.waitpid(child, 0)
"""


def test_users_outside_of_the_namespace_are_not_one_user() -> None:
    """The kernel has one uid for all of them: they would see each other's jobs."""
    require_root("making a user namespace for others")
    with public_directory() as place:
        done = subprocess.run(
            [sys.executable, "-c", _CONTAINED, str(_ROOT), str(place / "socket")],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.split() == ["0", "not_allowed", "not_allowed"]
