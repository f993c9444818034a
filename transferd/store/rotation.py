"""The keys of a running service: found, watched, and changed for new ones.

A rotation makes the new key durable first, seals with it from then on, seals anew in batches what
other keys have sealed, and removes last what nothing needs any more. Whatever it is cut off at,
every secret can be opened with a key that is on the disk, and a repetition leaves one key.

Nothing slips through between two batches: secrets are sealed and put in line for the queue file in
one step of the event loop, and what is in line is written in its order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from transferd.model.errors import Conflict
from transferd.model.upkeep import Finding, Rotation, Severity
from transferd.store import markers
from transferd.store.credentials import (
    anything_sealed,
    count_sealed,
    has_sealed,
    reseal,
    sealers,
)
from transferd.store.database import Database
from transferd.store.keys import (
    CREDENTIAL,
    KEY_FILE,
    OLD_CREDENTIAL,
    KeyFiles,
    StoredKey,
    find_keys,
    forget_draft,
    install_key,
    make_key,
    remove_key,
    stand_in_path,
)
from transferd.store.vault import KEY_BYTES, Vault

log = logging.getLogger(__name__)

#: Secrets that are sealed anew in one transaction; others' writes wait for it.
_BATCH = 200
_LEVELS = {Severity.ERROR: logging.ERROR, Severity.WARNING: logging.WARNING}
_NEW_CREDENTIAL = (
    f"the key is a credential of the service manager, which alone can change it: keep it as"
    f" {OLD_CREDENTIAL} (systemd-creds decrypt --name={CREDENTIAL} {CREDENTIAL}.cred - |"
    f" systemd-creds encrypt --name={OLD_CREDENTIAL} - {OLD_CREDENTIAL}.cred), make a new one"
    f" (head -c {KEY_BYTES} /dev/urandom |"
    f" systemd-creds encrypt --name={CREDENTIAL} - {CREDENTIAL}.cred), have the unit load both,"
    " restart the service and rotate again"
)


class SqliteKeyRing:
    """The keys that seal what is in a queue file (service.ports.KeyRing)."""

    def __init__(
        self,
        database: Database,
        state: Path,
        credentials: Path | None,
        random: Callable[[int], bytes],
        files: KeyFiles,
        sealing: StoredKey,
    ) -> None:
        """Take what was found, and which key seals; see `open`."""
        self._database = database
        self._state = state
        self._credentials = credentials
        self._random = random
        self._files = files
        self._sealing = sealing
        #: Keys that were on the disk once: their secrets are not lost with their files.
        self._remembered = {each.key for each in files.keys}
        #: Held while files and the vault's keys are brought into line.
        self._changing = asyncio.Lock()
        self._rotating = False
        self.vault = Vault(self._in_order(), random)

    @classmethod
    async def open(
        cls,
        database: Database,
        state: Path,
        credentials: Path | None,
        random: Callable[[int], bytes],
    ) -> SqliteKeyRing:
        """Find the keys of a queue file, or make the first; say what is wrong with them.

        The caller holds the state directory's lock.

        Raises:
            StoreError: a key has to be made and cannot, or the queue file cannot be used.
        """
        await asyncio.to_thread(forget_draft, state)
        files = await asyncio.to_thread(find_keys, state, credentials)
        sealing = files.sealing
        if sealing is None:
            pristine = not files.keys and not files.flaws
            fresh = pristine and not await database.read(anything_sealed)
            key = random(KEY_BYTES)
            path = state / KEY_FILE if fresh else stand_in_path(state, key)
            await asyncio.to_thread(make_key, path, key)
            sealing = StoredKey(path=path, key=key, credential=False, seals=True)
            files = KeyFiles(keys=(sealing, *files.keys), flaws=files.flaws)
        ring = cls(database, state, credentials, random, files, sealing)
        await ring._read_markers()
        for finding in await ring.findings():
            fields = {"code": finding.code, "text": finding.text, "remedy": finding.remedy}
            log.log(_LEVELS[finding.severity], "key.flawed", extra={"fields": fields})
        return ring

    @property
    def source(self) -> str:
        """Where the key that seals comes from."""
        if self._sealing.credential:
            return f"{self._sealing.path} (credential of the service manager)"
        return str(self._sealing.path)

    async def look_again(self) -> bool:
        """Look whether keys were put back meanwhile; returns whether there is another one."""
        async with self._changing:
            before = self.vault.retired
            self._adopt(await self._find())
            await self._read_markers()
        return not self.vault.retired <= before

    # ── rotating ─────────────────────────────────────────────────────────────────────────────

    async def rotate(self) -> Rotation:
        """Seal every stored secret with a new key, and remove keys that nothing needs any more.

        A credential of the service manager is no key of ours to make: then everything is sealed
        with it that another key has sealed.

        Raises:
            Conflict: `key_not_ours`, `rotation_running`.
            StoreError: a key cannot be made or removed, or the queue file cannot be used.
        """
        if self._rotating:
            raise Conflict(
                "rotation_running", "cannot rotate the key: a rotation is running; wait for it"
            )
        self._rotating = True
        try:
            return await self._rotate()
        finally:
            self._rotating = False

    async def _rotate(self) -> Rotation:
        async with self._changing:
            self._adopt(await self._find())
            if not self._sealing.credential:
                await self._make_another()
            elif not await self._anything_left():
                raise Conflict("key_not_ours", f"cannot rotate the key: {_NEW_CREDENTIAL}")
            await self._change_marker()
        resealed = 0
        batch = partial(reseal, vault=self.vault, limit=_BATCH)
        while done := await self._database.write(batch):
            resealed += done
        async with self._changing:
            await self._remove_unneeded()
        others = await self._database.aside(sealers) - {self.vault.sealing}
        unreadable = await self._database.aside(partial(count_sealed, keys=others))
        return Rotation(key=self.vault.sealing.hex(), resealed=resealed, unreadable=unreadable)

    async def _make_another(self) -> None:
        key = self._random(KEY_BYTES)
        lost = bool(_strangers(await self._database.aside(sealers), self._files))
        install = partial(install_key, self._state, key, self._files, lost=lost)
        await asyncio.to_thread(install)
        files = await self._find()
        self._adopt(files, next(each for each in files.keys if each.seals and each.key == key))

    async def _anything_left(self) -> bool:
        """Whether there is anything that the key which seals has not sealed, or a key too many."""
        if any(not each.credential for each in self._files.keys):
            return True
        secrets = await self._database.aside(sealers)
        marks = await self._database.aside(markers.sealers)
        return not self.vault.retired.isdisjoint(secrets | marks)

    async def _change_marker(self) -> None:
        # Whoever knew the old key could have tried passwords against the marks of requests.
        marker = self.vault.new_marker()
        sealed = self.vault.seal_marker(marker)
        self.vault.change(self._in_order(), (marker, *self.vault.markers))
        await self._database.write(partial(markers.add_marker, sealed=sealed))
        await self._database.write(partial(markers.reseal_markers, vault=self.vault))
        await self._read_markers()

    async def _remove_unneeded(self) -> None:
        for each in self._files.keys:
            if each.credential or each.path == self._sealing.path:
                continue
            copy = each.key == self._sealing.key
            if copy or not await self._database.write(partial(has_sealed, key=each.id)):
                await asyncio.to_thread(remove_key, each.path)
                self._remembered.discard(each.key)
        self._adopt(await self._find(), self._sealing)

    # ── keys and markers ─────────────────────────────────────────────────────────────────────

    async def _find(self) -> KeyFiles:
        return await asyncio.to_thread(find_keys, self._state, self._credentials)

    def _adopt(self, files: KeyFiles, sealing: StoredKey | None = None) -> None:
        """Go on with keys that were found; with the one that seals now, as long as it may."""
        sealing = sealing or self._sealing
        again = (each for each in files.keys if each.seals and each.key == sealing.key)
        self._files = files
        self._sealing = next(again, files.sealing or sealing)
        self._remembered.update(each.key for each in files.keys)
        self.vault.change(self._in_order(), self.vault.markers)

    def _in_order(self) -> tuple[bytes, ...]:
        return (self._sealing.key, *self._remembered)

    async def _read_markers(self) -> None:
        """Have the vault use every marker that it can open; make one if none marks."""
        found = await self._database.write(partial(markers.read_markers, vault=self.vault))
        keys = found.keys
        if not found.current:
            marker = self.vault.new_marker()
            keys = (marker, *keys)
            sealed = self.vault.seal_marker(marker)
            await self._database.write(partial(markers.add_marker, sealed=sealed))
        self.vault.change(self._in_order(), keys)

    # ── what is wrong ────────────────────────────────────────────────────────────────────────

    async def findings(self) -> tuple[Finding, ...]:
        """Look at the keys, and change nothing."""
        files = await self._find()
        strangers = _strangers(await self._database.aside(sealers), files)
        found = list(files.flaws)
        if strangers:
            count = await self._database.aside(partial(count_sealed, keys=strangers))
            found.append(_missing(self._state / KEY_FILE, strangers, count))
        if not self._sealing.credential and not self._sealing.primary:
            found.append(_stand_in(self._sealing.path, self._state / KEY_FILE))
        elif others := [each for each in files.keys if self._is_left_over(each)]:
            found.append(_left_over(others))
        return tuple(found)

    def _is_left_over(self, each: StoredKey) -> bool:
        return not each.credential and each.path != self._sealing.path


def _strangers(found: frozenset[bytes], files: KeyFiles) -> frozenset[bytes]:
    """Return which keys are not here, by their names."""
    return found - {each.id for each in files.keys}


def _missing(place: Path, strangers: frozenset[bytes], count: int) -> Finding:
    names = ", ".join(sorted(key.hex() for key in strangers))
    return Finding(
        code="key_missing",
        severity=Severity.ERROR,
        text=f"{count} stored secrets were sealed with a key that is missing"
        f" ({names}); jobs that need them fail with secrets_unreadable",
        remedy=f"put the key file back as {place} and resume those jobs,"
        " or set their credentials again",
    )


def _stand_in(path: Path, place: Path) -> Finding:
    return Finding(
        code="key_stand_in",
        severity=Severity.WARNING,
        text=f"new secrets are sealed with {path}, which stands in for {place}",
        remedy=f"put {place} back or mend it, then run `transferctl admin rotate-key`",
    )


def _left_over(others: Iterable[StoredKey]) -> Finding:
    names = ", ".join(str(each.path) for each in others)
    return Finding(
        code="key_unremoved",
        severity=Severity.WARNING,
        text=f"keys lie beside the one that seals: {names}",
        remedy="run `transferctl admin rotate-key`: it removes what nothing needs any more",
    )
