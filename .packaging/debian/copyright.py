"""Prints the copyright file of the package: our licence, and whose else's work is in it.

Run by the interpreter of the environment that is packed: `python copyright.py LICENSE`.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution
from pathlib import Path

from transferd.installation.closure import needed


def licence(distribution: Distribution) -> str:
    """Return what a distribution says of its licence, in a line."""
    metadata = distribution.metadata
    said = metadata.get("License-Expression") or metadata.get("License") or ""
    classified = [
        value.rpartition(" :: ")[2]
        for value in metadata.get_all("Classifier", [])
        if value.startswith("License :: ")
    ]
    return said.strip().splitlines()[0] if said.strip() else ", ".join(classified) or "see there"


def main() -> None:
    """Print it."""
    print(Path(sys.argv[1]).read_text(encoding="utf-8").rstrip())
    print("\nBelow /usr/lib/transferd there are also, each with its own licence beside it in its")
    print("directory NAME-VERSION.dist-info:\n")
    for name, distribution in sorted(needed().items()):
        if name != "transferd":
            print(f"  {name} {distribution.version}: {licence(distribution)}")
            if home := distribution.metadata.get("Home-page"):
                print(f"      {home}")
    print("\nThe Apache licence 2.0 is in /usr/share/common-licenses/Apache-2.0.")


main()
