"""What was installed, written down for who replaces or removes it: nothing else is ever touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from transferd import __version__
from transferd.installation.tree import Tree
from transferd.model.errors import InstallationError


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is ours in a tree; all paths as they are on the running machine."""

    version: str = __version__
    #: The virtual environment that was made; None if one is used that was there.
    environment: str | None = None
    #: Path → SHA-256 of what was to be written.
    files: dict[str, str] = {}
    #: Path → where the link leads.
    links: dict[str, str] = {}
    #: Directories that were made, and go when nothing is left in them.
    directories: list[str] = []

    def names(self) -> set[Path]:
        """Return the files and links."""
        return {Path(path) for path in (*self.files, *self.links)}

    def unchanged(self, tree: Tree, path: Path) -> bool:
        """Whether a file in *tree* is as it was written."""
        contents = tree.read(path)
        return contents is not None and digest(contents) == self.files.get(str(path))


def make_manifest(
    before: Manifest | None,
    environment: Path | None,
    files: Mapping[Path, bytes],
    links: Mapping[Path, Path],
    directories: Iterable[Path],
) -> Manifest:
    """Return what will be there, beside the directories that an installation *before* has made."""
    made = before.directories if before is not None else []
    return Manifest(
        environment=None if environment is None else str(environment),
        files={str(path): digest(contents) for path, contents in files.items()},
        links={str(path): str(target) for path, target in links.items()},
        directories=sorted({*made, *map(str, directories)}),
    )


def digest(contents: bytes) -> str:
    """Return what tells contents apart."""
    return hashlib.sha256(contents).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as it is written."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2)


def load(tree: Tree, path: Path) -> Manifest | None:
    """Read a manifest; None if there is none.

    Raises:
        InstallationError: it cannot be read.
    """
    try:
        contents = tree.read(path)
        return None if contents is None else msgspec.json.decode(contents, type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise InstallationError(f"cannot read from {path} what was installed: {error}") from error
