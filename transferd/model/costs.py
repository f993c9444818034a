"""What a link costs, and which jobs may go over it (BITS.md B6, B7)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from transferd.model.choices import Cost, Priority


class LinkCost(enum.IntFlag):
    """What is known of a link (BITS_COST_STATE); nothing of one that nobody has said a word of."""

    UNRESTRICTED = 0x1
    CAPPED_UNKNOWN = 0x2
    BELOW_CAP = 0x4
    NEAR_CAP = 0x8
    OVER_CAP_CHARGED = 0x10
    OVER_CAP_THROTTLED = 0x20
    USAGE_BASED = 0x40
    ROAMING = 0x80


#: BITS_COST_OPTION, without the bit that says to ignore congestion.
_SETS: Mapping[Cost, LinkCost] = MappingProxyType(
    {
        Cost.UNRESTRICTED: LinkCost(0x21),
        Cost.STANDARD: LinkCost(0x67),
        Cost.NO_SURCHARGE: LinkCost(0x6F),
        Cost.NOT_ROAMING: LinkCost(0x7F),
        Cost.ALWAYS: LinkCost(0xFF),
    }
)

#: Where nothing is configured: people wait for foreground jobs, and pay for no others.
DEFAULT_COSTS: Mapping[Priority, Cost] = MappingProxyType(
    {
        Priority.FOREGROUND: Cost.ALWAYS,
        Priority.HIGH: Cost.UNRESTRICTED,
        Priority.NORMAL: Cost.UNRESTRICTED,
        Priority.LOW: Cost.UNRESTRICTED,
    }
)

#: Nothing is known.
UNKNOWN = LinkCost(0)
#: Paid by use, or with so much left that nobody knows: `unrestricted` and `standard` jobs wait, all
#: others go on, since NetworkManager does not tell surcharges and roaming from the rest.
_METERED = LinkCost.USAGE_BASED | LinkCost.NEAR_CAP

#: NMMetered → what it says of the link. A guess counts as much as what a person has set.
NETWORK_MANAGER: Mapping[int, LinkCost] = MappingProxyType(
    {
        0: UNKNOWN,
        1: _METERED,  # yes
        2: LinkCost.UNRESTRICTED,  # no
        3: _METERED,  # guess yes
        4: LinkCost.UNRESTRICTED,  # guess no
    }
)


def goes_over(cost: Cost, link: LinkCost) -> bool:
    """Tell whether a job of this cost, which is not DEFAULT, may go over such a link.

    All that is known of the link must be allowed; one of which nothing is known is anybody's.
    """
    return link & ~_SETS[cost] == 0


def narrowest(link: LinkCost) -> Cost:
    """Return the cost with the fewest links that has such a one."""
    return next(cost for cost in _SETS if goes_over(cost, link))
