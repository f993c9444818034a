"""A secret that is wiped: gone for good, and never half."""

from __future__ import annotations

import sys
from types import FrameType
from typing import TYPE_CHECKING

from transferd.model.credentials import Secret

if TYPE_CHECKING:
    from _typeshed import TraceFunction

TEXT = "open sesame"


def test_whoever_looks_while_a_secret_is_wiped_sees_all_of_it_or_nothing() -> None:
    """A thread that was left behind would show a half-wiped password to a KDC as a wrong one."""
    secret, seen = Secret(TEXT), set[str]()

    def look(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        if frame.f_code is Secret.wipe.__code__:
            seen.add(secret.reveal())
            return look
        return None

    before = sys.gettrace()
    sys.settrace(look)
    try:
        secret.wipe()
    finally:
        sys.settrace(before)
    assert seen == {TEXT, ""}
    assert len(secret) == 0
