"""How workers are to behave: what they have to know of the daemon's configuration."""

from __future__ import annotations

import msgspec

from transferd.model.job import Priority, Seconds


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the worker behaves; from the daemon's configuration."""

    user_agent: str
    connect_timeout: Seconds = 30.0
    #: A body must bring stall_bytes in each stall_window, or it counts as stalled.
    stall_window: Seconds = 60.0
    stall_bytes: int = 1024
    max_redirects: int = 10
    header_bytes: int = 65536
    #: An offset is made durable at least this often while bytes move…
    durable_seconds: Seconds = 2.0
    #: …and after this many bytes.
    durable_bytes: int = 64 * 1024 * 1024
    progress_seconds: Seconds = 0.5
    command_timeout: Seconds = 300.0
    #: A Kerberos library may be busy with a KDC for so long before a scheme counts as not usable.
    kerberos_timeout: Seconds = 15.0
    #: The queueing delay that background bodies may cause, by priority.
    high_delay: Seconds = 0.025
    normal_delay: Seconds = 0.010
    low_delay: Seconds = 0.005
    #: Whether routers may let everybody else's packets pass before theirs (RFC 8622).
    lower_effort: bool = False

    def delay(self, priority: Priority) -> Seconds | None:
        """Return the queueing delay that bodies of a priority may cause; None: any."""
        match priority:
            case Priority.HIGH:
                return self.high_delay
            case Priority.NORMAL:
                return self.normal_delay
            case Priority.LOW:
                return self.low_delay
            case _:
                return None
