"""How large things may be (BITS.md 1.18, with larger numbers where those are dated)."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes a second: slower than that, servers take a transfer for a dead one.
LEAST_RATE = 1024
#: Connections that one job may have at a time.
MOST_STREAMS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a caller may ask for."""

    name_chars: int = 256
    description_chars: int = 1024
    url_chars: int = 8192
    path_bytes: int = 4095
    path_component_bytes: int = 255
    username_chars: int = 300
    password_chars: int = 65_536
    principal_chars: int = 1024
    realm_chars: int = 1024
    headers_bytes: int = 16384
    command_args: int = 64
    command_bytes: int = 4000
    proxy_chars: int = 4000
    files_per_job: int = 100_000
    jobs_per_user: int = 10_000
    jobs_per_machine: int = 1_000_000
    #: Of the files of all queued jobs, as far as their sizes are known; None: no limit.
    bytes_per_user: int | None = None
    bytes_per_machine: int | None = None
    #: What one user's jobs take in the queue file, with the partial data that could not be removed
    #: yet; None: no limit.
    stored_bytes_per_user: int | None = 256 * 1024 * 1024
    jobs_per_request: int = 1_000
    body_bytes: int = 64 * 1024 * 1024

    @property
    def quota(self) -> Quota:
        """What of it is for a caller who is not exempt."""
        return Quota(
            jobs_per_user=self.jobs_per_user,
            jobs_per_machine=self.jobs_per_machine,
            bytes_per_user=self.bytes_per_user,
            bytes_per_machine=self.bytes_per_machine,
            stored_bytes_per_user=self.stored_bytes_per_user,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much of the queue one caller may fill; None in a field: as much as he likes.

    Admins are exempt from all of it (BITS.md 1.18).
    """

    jobs_per_user: int | None = None
    jobs_per_machine: int | None = None
    bytes_per_user: int | None = None
    bytes_per_machine: int | None = None
    stored_bytes_per_user: int | None = None

    @property
    def bounds_bytes(self) -> bool:
        """Whether it matters how large files are."""
        return self.bytes_per_user is not None or self.bytes_per_machine is not None


#: Of admins, and of changes that nobody has asked for.
UNBOUNDED = Quota()
