"""Names of partial files."""

from __future__ import annotations

import hashlib
import os.path

from transferd.model.job import JobId

_COMPONENT_BYTES = 255


def temporary_path(local: str, job_id: JobId) -> str:
    """Return where the bytes of *local* are kept until the job is completed.

    It is in the same directory, so that publishing is one rename, and is named
    `.NAME.transferd-JOBID`; a NAME that leaves no room is cut and marked with its digest.
    """
    directory, name = os.path.split(local)
    suffix = f".transferd-{job_id}"
    room = _COMPONENT_BYTES - 1 - len(suffix.encode())
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > room:
        mark = hashlib.sha256(encoded).hexdigest()[:16]
        kept = encoded[: room - len(mark) - 1].decode("utf-8", "ignore")
        name = f"{kept}~{mark}"
    return os.path.join(directory, f".{name}{suffix}")
