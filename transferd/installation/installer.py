"""Puts the service in place and takes it away, and says each step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from transferd.installation import data
from transferd.installation.environment import Source
from transferd.installation.layout import (
    ACCOUNT,
    PACKAGE,
    RUN,
    STATE,
    UNITS,
    Kind,
    Layout,
    Maker,
    Row,
)
from transferd.installation.machine import Machine
from transferd.installation.manifest import Manifest, encode, load, make_manifest
from transferd.installation.tree import Tree
from transferd.model.errors import InstallationError

#: What is made from the grammars: manual pages and completion scripts.
Made = Mapping[tuple[Maker, str], str]


class Installer:
    """One layout, on one machine."""

    def __init__(
        self, layout: Layout, machine: Machine, source: Source, say: Callable[[str], None]
    ) -> None:
        """Look what there is.

        Raises:
            InstallationError: what was installed before cannot be read.
        """
        self._layout = layout
        self._machine = machine
        self._source = source
        self._tree = Tree(machine.root)
        self._before = load(self._tree, layout.manifest)
        self._say = say

    def install(self, made: Made, *, enable: bool) -> None:
        """Put everything in place; may be repeated, and replaces what another version has put here.

        Raises:
            InstallationError: what is in the way (nothing is changed then), or which step failed.
            OSError: a file cannot be written.
        """
        os.umask(0o022)
        self._refuse_packaged()
        home = self._home()
        own = home == self._layout.environment
        files = {row.path: self._contents(row, made, home) for row in self._layout.rows()}
        links = self._layout.links(home)
        self._refuse_foreign(files, links, own)
        new = self._copy_environment() if own and not self._runs_from(home) else None
        try:
            self._note(home if own else None, files, links)
            if new is not None:
                self._tree.replace_directory(home, new)
                self._say(f"made {home}")
        finally:
            if new is not None:
                shutil.rmtree(new, ignore_errors=True)
        self._put(files, links)
        self._drop_stale({*files, *links}, own)
        if not self._layout.packaged:
            self._bring_up(enable)

    def uninstall(self) -> None:
        """Stop the service and remove all that `install` has put in place, but no state.

        Configuration that was changed stays, too.

        Raises:
            InstallationError: a step failed.
            OSError: a file cannot be removed.
        """
        before = self._before
        if before is None:
            self._say("`transferctl admin install` has put nothing here: nothing is removed")
            return
        self._machine.disable(UNITS)
        self._say(f"stopped and disabled {' and '.join(UNITS)}")
        kept = self._remove_files(before)
        if before.environment is not None:
            self._tree.remove(Path(before.environment))
            self._say(f"removed {before.environment}")
        self._tree.remove(self._layout.manifest)
        self._tree.remove_empty([*map(Path, before.directories), RUN])
        self._machine.forget(UNITS)
        self._say_what_stays(kept)

    # ── what is in the way ─────────────────────────────────────────────────────────────────

    def _refuse_packaged(self) -> None:
        if not self._layout.packaged and self._tree.has(PACKAGE.service_unit):
            raise InstallationError(
                f"cannot install: a package has put {PACKAGE.service_unit} here, and the two would"
                " be in each other's way; remove that one first: apt-get remove transferd"
            )

    def _refuse_foreign(
        self, files: Mapping[Path, bytes], links: Mapping[Path, Path], own: bool
    ) -> None:
        before = self._before or Manifest()
        foreign = [
            row.path
            for row in self._layout.rows()
            if row.kind is Kind.OURS
            and self._tree.has(row.path)
            and self._tree.read(row.path) != files[row.path]
        ]
        foreign += [
            path
            for path, target in links.items()
            if self._tree.has(path) and self._tree.leads_to(path) != target
        ]
        home = self._layout.environment
        if own and self._tree.has(home) and not self._runs_from(home) and not before.environment:
            foreign.append(home)
        for path in foreign:
            if path not in before.names():
                raise InstallationError(
                    f"cannot install: {path} is there, and `transferctl admin install` has not put"
                    " it there; move it away first"
                )

    # ── the environment ────────────────────────────────────────────────────────────────────

    def _home(self) -> Path:
        """Decide which environment the service runs from."""
        own = self._layout.environment
        running = self._source.environment
        if self._machine.here and running is not None and not self._layout.packaged:
            reason = self._source.unsuitable(running)
            if reason is None:
                return running
            self._say(f"{running} cannot serve everybody ({reason}): what it has is copied")
        self._source.check_python()
        if not self._layout.packaged and not self._tree.has(self._source.python):
            raise InstallationError(
                f"cannot install into {self._tree.root}: there is no {self._source.python} in it,"
                " with which the copy would have to run"
            )
        return own

    def _runs_from(self, home: Path) -> bool:
        return self._machine.here and self._source.environment == home

    def _copy_environment(self) -> Path:
        """Make the copy beside its place; return where."""
        home = self._layout.environment
        place = self._tree.at(home)
        new = place.with_name(f".{place.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._source.copy(new, home, compiled=not self._layout.packaged)
        except (InstallationError, OSError):
            shutil.rmtree(new, ignore_errors=True)
            raise
        return new

    # ── files ──────────────────────────────────────────────────────────────────────────────

    def _contents(self, row: Row, made: Made, home: Path) -> bytes:
        if row.maker is Maker.DATA:
            return data.with_programs_in(data.read(row.source), home).encode()
        return made[row.maker, row.source].encode()

    def _note(
        self, home: Path | None, files: Mapping[Path, bytes], links: Mapping[Path, Path]
    ) -> None:
        """Make the directories, and write down what will be there before it is."""
        places = [*files, *links, *([home] if home is not None else [])]
        if not self._layout.packaged:
            places.append(self._layout.manifest)
        missing = self._tree.missing(places)
        self._tree.make_directories(missing)
        if not self._layout.packaged:
            manifest = make_manifest(self._before, home, files, links, missing)
            self._tree.write(self._layout.manifest, encode(manifest))

    def _put(self, files: Mapping[Path, bytes], links: Mapping[Path, Path]) -> None:
        before = self._before or Manifest()
        for row in self._layout.rows():
            has = self._tree.read(row.path)
            if (
                row.kind is Kind.CONFIGURATION
                and self._tree.has(row.path)
                and has != files[row.path]
                and not before.unchanged(self._tree, row.path)
            ):
                self._say(f"left {row.path} as it is")
            elif self._tree.write(row.path, files[row.path]):
                self._say(f"wrote {row.path}")
        for path, target in links.items():
            if self._tree.link(path, target):
                self._say(f"linked {path} to {target}")

    def _drop_stale(self, wanted: set[Path], own: bool) -> None:
        """Remove what another version had, and this one has not."""
        before = self._before or Manifest()
        stale = sorted(before.names() - wanted)
        if before.environment is not None and not own:
            stale.append(Path(before.environment))
        for path in stale:
            self._tree.remove(path)
            self._say(f"removed {path}")

    def _remove_files(self, before: Manifest) -> list[Path]:
        """Remove files and links; return the configuration that somebody has changed."""
        rows = {row.path: row for row in self._layout.rows()}
        kept = []
        for path in sorted(before.names()):
            row = rows.get(path)
            configuration = row is not None and row.kind is Kind.CONFIGURATION
            if configuration and self._tree.has(path) and not before.unchanged(self._tree, path):
                kept.append(path)
            elif self._tree.has(path):
                self._tree.remove(path)
                self._say(f"removed {path}")
        return kept

    # ── the service ────────────────────────────────────────────────────────────────────────

    def _bring_up(self, enable: bool) -> None:
        (rules,) = (row.path for row in self._layout.rows() if row.path.parent.name == "sysusers.d")
        self._machine.make_account(self._tree.at(rules))
        self._say(f"made the user {ACCOUNT}, or found it")
        self._machine.reload()
        if self._machine.restart(UNITS[1]):
            self._say(f"restarted {UNITS[1]}")
        if enable:
            self._machine.enable(UNITS[0])
            self._say(f"enabled {UNITS[0]}")
        elif not self._machine.enabled(UNITS[0]):
            self._say(f"to start it, now and with the machine: systemctl enable --now {UNITS[0]}")

    def _say_what_stays(self, kept: list[Path]) -> None:
        if self._tree.has(STATE):
            stays = " ".join(map(str, [STATE, *kept]))
            self._say(f"the queue stays, and so does the user {ACCOUNT}, whose it is")
            self._say(f"to remove them, with every job: rm -r {stays}; userdel {ACCOUNT}")
            return
        self._machine.remove_account()
        self._say(f"removed the user {ACCOUNT}")
        for path in kept:
            self._say(f"left {path}, which was changed; to remove it: rm {path}")
