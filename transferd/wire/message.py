"""What all messages of the worker link are."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, tag_field="is", omit_defaults=True):
    """Root of all messages."""
