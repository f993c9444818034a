"""Programs of the operating system that tests talk to.

`python -m tests.support.programs` prints the Debian packages of those that are missing.
"""

from __future__ import annotations

import os
import shutil

#: Program → Debian package.
PACKAGES = {
    "apache2": "apache2-bin",
    "curl": "curl",
    "lighttpd": "lighttpd",
    "nginx": "nginx",
    "gcc": "gcc",
    "kadmin.local": "krb5-admin-server",
    "kdb5_util": "krb5-kdc",
    "kinit": "krb5-user",
    "krb5kdc": "krb5-kdc",
    "setpriv": "util-linux",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
}

#: Debian keeps servers where the PATH of users does not lead.
_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(program: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_DIRECTORIES}")


def missing_packages() -> list[str]:
    """Return the packages to install, without repetitions."""
    return sorted({PACKAGES[program] for program in PACKAGES if find_program(program) is None})


if __name__ == "__main__":
    print(*missing_packages())
