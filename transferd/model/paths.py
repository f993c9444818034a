"""Names of partial files."""

from __future__ import annotations

import hashlib
import os.path
import re

from transferd.model.job import JobId

_COMPONENT_BYTES = 255
_TEMPORARY = re.compile(r"\..+\.transferd-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.DOTALL)


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


def job_of_temporary(path: str) -> JobId | None:
    """Return whose bytes a file with that name holds; None: it is no temporary of ours."""
    match = _TEMPORARY.fullmatch(os.path.basename(path))
    return None if match is None else JobId(match[1])
