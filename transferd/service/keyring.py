"""The keys of stored secrets, as whoever looks after them sees them."""

from __future__ import annotations

from typing import Protocol

from transferd.model.upkeep import Finding, Rotation


class KeyRing(Protocol):
    """The keys that seal stored secrets."""

    @property
    def source(self) -> str:
        """Where the key that seals comes from: a path, or what the service manager has given."""
        ...

    async def rotate(self) -> Rotation:
        """Seal every stored secret with a new key, and remove keys that nothing needs any more.

        Returns when that is on disk. After a crash nothing is lost and a repetition goes on.

        Raises:
            Conflict: `key_not_ours` (the key is a credential of the service manager, and there is
                no newer one), `rotation_running`.
            StoreError: a key cannot be made or removed, or the queue file cannot be used.
        """
        ...

    async def findings(self) -> tuple[Finding, ...]:
        """Look at the keys: `key_missing`, `key_exposed`, `key_unusable`, `key_stand_in`,
        `key_unremoved`; nothing when all is well.
        """
        ...
