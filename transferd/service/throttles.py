"""Which limits hold a job that moves, and what would lift them."""

from __future__ import annotations

from transferd.model.job import Blocker, Settings
from transferd.model.rates import Rates

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def limits_of(settings: Settings, rates: Rates, *, paced: bool = False) -> tuple[Blocker, ...]:
    """Return the limits that a job with *settings* runs within, the tightest first.

    One whose reads are *paced* is held to half of what came at best, or less: no window rules it.
    """
    level = settings.priority
    limits: list[tuple[int, Blocker]] = []
    if settings.max_rate:
        text = f"it is limited to {shown_rate(settings.max_rate)} by its max_rate"
        remedy = "raise --max-rate (max_rate), or lift it with --max-rate 0"
        limits.append((settings.max_rate, Blocker(code="rate_limit", text=text, remedy=remedy)))
    if rate := rates.by_priority.get(level):
        text = f"all jobs of {level.label} priority together are limited to {shown_rate(rate)}"
        remedy = "change its priority, or have an admin raise the limit ([bandwidth])"
        limits.append((rate, Blocker(code="priority_rate_limit", text=text, remedy=remedy)))
    if rates.total:
        text = f"all jobs together are limited to {shown_rate(rates.total)}"
        remedy = "suspend other jobs, or have an admin raise the limit ([bandwidth])"
        limits.append((rates.total, Blocker(code="total_rate_limit", text=text, remedy=remedy)))
    found = tuple(blocker for _, blocker in sorted(limits, key=lambda limit: limit[0]))
    return (_PACED, *found) if paced else found


_PACED = Blocker(
    code="paced_reads",
    text=(
        "somebody on the way, as a proxy, keeps what is sent for later, so that no window tells"
        " when others need the line; it takes half of what it took at best, or less while others"
        " seem to need it"
    ),
    remedy="wait: it is tried again; or say --max-rate (max_rate), or --priority foreground",
)


def shown_rate(rate: int) -> str:
    """Show bytes a second as people write them: `500 kB/s`."""
    for factor, unit in _UNITS:
        if rate >= factor:
            return f"{rate / factor:.1f}".removesuffix(".0") + f" {unit}/s"
    return f"{rate} B/s"
