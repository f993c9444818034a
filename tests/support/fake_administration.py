"""The administration behind the API, without a service."""

from __future__ import annotations

from transferd.model.caller import Caller
from transferd.model.errors import Conflict
from transferd.model.states import JobState
from transferd.service import exposition
from transferd.service.figures import Figures
from transferd.wire.admin import (
    CheckAnswer,
    FindingAnswer,
    RotationAnswer,
    StatusAnswer,
    UserAnswer,
)

STATUS = StatusAnswer(
    version="0.1.0",
    pid=4711,
    system=True,
    started="2026-01-31T11:00:00.000Z",
    configured="2026-01-31T11:30:00.000Z",
    configuration="/etc/transferd/transferd.toml",
    key="/var/lib/transferd/vault.key",
    socket="/run/transferd/transferd.sock",
    state_directory="/var/lib/transferd",
    queue_bytes=98304,
    memory=50_000_000,
    connections=1,
    jobs={"queued": 2, "error": 1},
    users=[
        UserAnswer(
            uid=1001, name="alice", jobs={"queued": 2}, worker_pid=4712, worker_memory=40_000_000
        ),
        UserAnswer(uid=1002, name="bob", jobs={"error": 1}, worker_pid=None, worker_memory=None),
    ],
    errors={"http_404": 1},
)


class FakeAdministration:
    """Says what a test wants to hear."""

    def __init__(self, figures: Figures | None = None) -> None:
        self.counted = figures or Figures()
        self.findings: list[FindingAnswer] = []
        #: Whether the key is the service manager's.
        self.foreign_key = False

    async def status(self) -> StatusAnswer:
        """Say how the service is."""
        return STATUS

    async def check(self, caller: Caller) -> CheckAnswer:
        """Find what the test has put there."""
        return CheckAnswer(checked=["queue", "key"], findings=self.findings)

    async def rotate_key(self) -> RotationAnswer:
        """Change nothing."""
        if self.foreign_key:
            raise Conflict("key_not_ours", "cannot change the key: it is a credential")
        return RotationAnswer(key="0123456789abcdef", resealed=3, unreadable=0)

    async def figures(self) -> bytes:
        """Write down what was counted."""
        return exposition.render(self.counted, {JobState.SUSPENDED: 1}, 1)
