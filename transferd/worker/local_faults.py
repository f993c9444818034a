"""What the kernel says of local files, as failures: translated here, once."""

from __future__ import annotations

import contextlib
import errno
import resource
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure
from transferd.worker.directory import ForbiddenDirectory, ForeignLink

_CODES: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: "disk_full",
        errno.EDQUOT: "disk_full",
        errno.EFBIG: "local_too_large",
        errno.ENOENT: "local_directory_missing",
        errno.ENOTDIR: "local_directory_missing",
        errno.EACCES: "local_access_denied",
        errno.EPERM: "local_access_denied",
        errno.EROFS: "local_access_denied",
        errno.ELOOP: "local_not_regular",
        errno.EISDIR: "local_not_regular",
        errno.ENXIO: "local_not_regular",
        errno.ENODEV: "local_not_regular",
        errno.ENOTEMPTY: "local_not_regular",
        errno.EEXIST: "local_exists",
        # What the machine lacks at the moment is neither the disk's fault nor the owner's.
        errno.EMFILE: "local_busy",
        errno.ENFILE: "local_busy",
        errno.ENOMEM: "local_busy",
        errno.EAGAIN: "local_busy",
        errno.EBUSY: "local_busy",
        errno.ETXTBSY: "local_busy",
    }
)


def local_failure(error: OSError, doing: str, path: str, file: str) -> TransferFailed:
    """Return the failure that *error* means, for *file*, where "cannot *doing* *path*" happened."""
    forbidden = isinstance(error, ForbiddenDirectory)
    code = "local_forbidden" if forbidden else _CODES.get(error.errno or 0, "local_io")
    reason, advice = _explain(error)
    return refused_locally(code, f"cannot {doing} {path}: {reason}", file, advice)


def refused_locally(
    code: str, message: str, file: str, advice: str | None = None
) -> TransferFailed:
    """Return the failure *code* of the local *file*."""
    return TransferFailed(Failure(code=code, message=message, file=file, advice=advice))


@contextlib.contextmanager
def translating(doing: str, path: str, local: str) -> Iterator[None]:
    """Raise the failure of *local* instead of an OSError."""
    try:
        yield
    except OSError as error:
        raise local_failure(error, doing, path, local) from error


def _explain(error: OSError) -> tuple[str, str | None]:
    """Say what has happened, and what helps where the code does not tell."""
    if isinstance(error, ForeignLink):
        return str(error.strerror), "have the files in a new job, whose destinations you choose"
    match error.errno:
        case errno.EDQUOT:
            return (
                "the owner's disk quota is used up",
                "free some space or have the owner's quota raised: it goes on by itself",
            )
        case errno.EFBIG:
            return _explain_size()
    return error.strerror or str(error), None


def _explain_size() -> tuple[str, str | None]:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY:
        return f"the owner may not make files larger than {limit} bytes (ulimit -f)", None
    return (
        "the file system takes no file as large as that",
        "choose a destination on a file system that takes such large files",
    )
