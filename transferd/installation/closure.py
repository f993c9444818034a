"""Which distributions transferd needs, as far as they are installed here."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: Extras of transferd that belong to a service, where what they need is installed.
_EXTRAS = ("", "kerberos")


def needed(name: str = "transferd") -> dict[str, Distribution]:
    """Return *name* and what it needs in turn, by canonical names.

    Raises:
        PackageNotFoundError: *name* itself is not installed.
    """
    found = {canonicalize_name(name): distribution(name)}
    waiting: list[tuple[Distribution, tuple[str, ...]]] = [(distribution(name), _EXTRAS)]
    while waiting:
        wanting, extras = waiting.pop()
        for requirement in map(Requirement, wanting.requires or ()):
            key = canonicalize_name(requirement.name)
            if key in found or not _holds(requirement, extras):
                continue
            try:
                found[key] = distribution(requirement.name)
            except PackageNotFoundError:
                continue  # of an extra; what cannot be done without is missed when it is tried
            waiting.append((found[key], ("", *requirement.extras)))
    return {str(key): value for key, value in found.items()}


def _holds(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
