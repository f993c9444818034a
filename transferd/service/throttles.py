"""Which limits may hold a job that moves, and what would lift them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from transferd.model.admission import Admission
from transferd.model.job import Blocker, Priority, Settings

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit that a job runs within."""

    rate: int
    #: Whether other jobs that move run within it, too.
    shared: bool
    blocker: Blocker


def limits_of(
    settings: Settings, admission: Admission, others: Collection[Priority], *, paced: bool = False
) -> tuple[Blocker, ...]:
    """Return the limits that may hold a job with *settings*, the tightest first.

    One that stands in a tighter one never does; a wider one does only where *others*, the
    priorities of the other jobs that move, take of it as well. A job whose reads are *paced* is
    held to half of what came at best, or less: no window rules it.
    """
    within = _all_limits(settings, admission, others)  # each stands in those that follow
    found: list[Blocker] = []
    for place, limit in enumerate(within):
        if any(outer.rate <= limit.rate for outer in within[place + 1 :]):
            continue
        if not found:
            found.append(limit.blocker)
        elif limit.shared:
            text = f"beside others it may be less, since {limit.blocker.text}"
            found.append(replace(limit.blocker, text=text))
    return (_PACED, *found) if paced else tuple(found)


def _all_limits(
    settings: Settings, admission: Admission, others: Collection[Priority]
) -> list[_Limit]:
    """Return all limits that are set for a job, from its own to that of all jobs."""
    limits: list[_Limit] = []
    if rate := settings.max_rate:
        text = f"it is limited to {shown_rate(rate)} by its max_rate"
        remedy = "raise --max-rate (max_rate), or lift it with --max-rate 0"
        limits.append(_Limit(rate, False, Blocker(code="rate_limit", text=text, remedy=remedy)))
    for level in (settings.priority, None):
        if rate := admission.rates.at(level):
            shared = bool(others) if level is None else level in others
            limits.append(_Limit(rate, shared, _of_all(level, rate, shared, admission)))
    return limits


def _of_all(level: Priority | None, rate: int, shared: bool, admission: Admission) -> Blocker:
    """Tell of a limit of the jobs of a priority, or of all jobs."""
    if level is None:
        code, whose = "total_rate_limit", "all jobs together"
        helps = ["suspend other jobs"] if shared else []
    else:
        code, whose = "priority_rate_limit", f"all jobs of {level.label} priority together"
        helps = ["change its priority"]
    text = f"{whose} are limited to {shown_rate(rate)}"
    if level in admission.timed:
        return Blocker(
            code=code,
            text=f"{text} by the schedule",
            until=admission.timed[level],
            remedy=", or ".join(["wait", *helps, "have an admin raise the limit ([schedule])"]),
        )
    helps.append("have an admin raise the limit ([bandwidth])")
    return Blocker(code=code, text=text, remedy=", or ".join(helps))


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
