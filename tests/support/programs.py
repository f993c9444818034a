"""Programs of the operating system that tests talk to.

`python -m tests.support.programs` prints the Debian packages of those that are missing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: Program → Debian package.
PACKAGES = {
    "apache2": "apache2-bin",
    "curl": "curl",
    "dbus-daemon": "dbus",
    "debootstrap": "debootstrap",
    "dpkg-buildpackage": "dpkg-dev",
    "lighttpd": "lighttpd",
    "nginx": "nginx",
    "gcc": "gcc",
    "ip": "iproute2",
    "kadmin.local": "krb5-admin-server",
    "kdb5_util": "krb5-kdc",
    "kinit": "krb5-user",
    "krb5-config": "libkrb5-dev",
    "krb5kdc": "krb5-kdc",
    "nsenter": "util-linux",
    "ntlm_auth": "winbind",
    "setpriv": "util-linux",
    "squid": "squid",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
    "systemd-socket-activate": "systemd",
    "unshare": "util-linux",
}

#: What is no program → where it may be, Debian package.
LIBRARIES = {
    "gssntlmssp.so": ("/usr/lib/*/gssntlmssp", "gss-ntlmssp"),
    "mod_auth_gssapi.so": ("/usr/lib/apache2/modules", "libapache2-mod-auth-gssapi"),
    "mod_authn_gssapi.so": ("/usr/lib/lighttpd", "lighttpd-mod-authn-gssapi"),
    "stdio.h": ("/usr/include", "libc6-dev"),
}

#: Debian keeps servers where the PATH of users does not lead.
_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(program: str) -> str | None:
    """Return the path of a program, or None where it is not installed."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_DIRECTORIES}")


def find_library(library: str) -> Path | None:
    """Return the path of one of LIBRARIES, or None where it is not installed."""
    directory, _ = LIBRARIES[library]
    return next(Path("/").glob(f"{directory[1:]}/{library}"), None)


def missing_packages() -> list[str]:
    """Return the packages to install, without repetitions."""
    packages = {PACKAGES[program] for program in PACKAGES if find_program(program) is None}
    packages |= {LIBRARIES[name][1] for name in LIBRARIES if find_library(name) is None}
    return sorted(packages)


if __name__ == "__main__":
    print(*missing_packages())
