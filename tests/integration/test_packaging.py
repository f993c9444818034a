"""What the Debian package has beside the layout: its scripts, and what it says of itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import require_program
from transferd.installation.layout import ACCOUNT, PACKAGE, RUN, STATE, UNITS

PACKAGING = Path(__file__).parents[2] / ".packaging"
SCRIPTS = ("postinst", "prerm", "postrm")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_of_the_package_are_posix_shell(name: str) -> None:
    """Rule: dpkg runs them with whatever /bin/sh is, and stops at the first failure."""
    script = PACKAGING / "debian" / name
    subprocess.run([require_program("sh"), "-n", script], check=True)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert "set -e" in lines


def test_scripts_name_what_the_layout_names() -> None:
    """Rule: units, directories and the account have one name, wherever it is written."""
    text = {name: (PACKAGING / "debian" / name).read_text() for name in SCRIPTS}
    for unit in UNITS:
        assert all(unit in script for script in text.values())
    assert f"systemd-sysusers {ACCOUNT}.conf" in text["postinst"]
    assert f"py3compile -p transferd {PACKAGE.environment}\n" in text["postinst"]
    assert f"rm -rf {STATE}\n" in text["postrm"]
    assert f"rmdir {RUN} " in text["postrm"]


def test_an_upgrade_does_not_stop_the_service() -> None:
    """Rule: only a removal does; the socket is never restarted, since clients wait on it."""
    before = (PACKAGING / "debian/prerm").read_text()
    assert re.search(r'if \[ "\$1" = remove \].*\n\s+deb-systemd-invoke stop', before)
    after = (PACKAGING / "debian/postinst").read_text()
    assert re.findall(r"deb-systemd-invoke restart (\S+)", after) == ["transferd.service"]


def test_the_package_depends_on_its_own_python() -> None:
    """Rule: an environment belongs to one minor version, older and newer ones are refused."""
    control = (PACKAGING / "debian/control.in").read_text()
    assert "python3 (>= @PYTHON@), python3 (<< @NEXT@), @LIBRARIES@" in control
    used = set(re.findall(r"@[A-Z]+@", control))
    filled = set(re.findall(r"s/(@[A-Z]+@)/", (PACKAGING / "deb").read_text()))
    assert used == filled
