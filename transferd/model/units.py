"""Units, for types to name."""

from __future__ import annotations

from typing import TypeAlias

#: A duration; fractions are allowed.
Seconds: TypeAlias = float
