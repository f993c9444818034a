"""The files that come with the code: units, accounts, PAM's service, the configuration."""

from __future__ import annotations

from pathlib import Path

from transferd.installation.layout import LOCAL, PROGRAMS

#: Every file, by its path in a checkout.
NAMES = (
    "config/transferd.toml",
    "systemd/transferd.pam",
    "systemd/transferd.service",
    "systemd/transferd.socket",
    "systemd/transferd.sysusers",
    "systemd/user/transferd.service",
    "systemd/user/transferd.socket",
)
#: Where a wheel has them, in this package.
FOLDER = "data"


def read(name: str) -> str:
    """Return the text of a file: from the installed package, or the checkout the code runs from.

    Raises:
        OSError: it is in neither.
    """
    here = Path(__file__).parent
    packaged = here / FOLDER / name
    place = packaged if packaged.exists() else here.parents[1] / name
    return place.read_text(encoding="utf-8")


def with_programs_in(text: str, environment: Path) -> str:
    """Return a unit whose programs are those of *environment*.

    In a checkout units name the links in /usr/local/bin, which is what people make by hand.
    """
    for name in PROGRAMS:
        link = LOCAL.prefix / "bin" / name
        text = text.replace(f"={link} ", f"={environment / 'bin' / name} ")
        text = text.replace(f"={link}\n", f"={environment / 'bin' / name}\n")
    return text
