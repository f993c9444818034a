"""Directories that names are looked up in: opened once, by a walk that the kernel guards.

Symbolic links above the last component are their owners' business: a home may be one. What never
is passed through is a magic link of /proc (`/proc/PID/cwd`, `root`, `fd/N`), which leads past
every name and, as /proc/self, into the worker itself; and what never is opened is a directory of
a file system that holds no files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

_libc = ctypes.CDLL(None, use_errno=True)

#: The number of openat2(2) on all architectures but these.
_SYS_OPENAT2 = 437
_OTHER_NUMBERS = ("alpha", "mips")
_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS = 0x02
#: A kernel before 5.6, a filter of system calls that does not know it; and refusals that are told
#: by name if a link of /proc is the cause.
_WALKED_BY_STEPS = frozenset({errno.ENOSYS, errno.EPERM, errno.ELOOP, errno.EACCES})
#: As many links as the kernel follows in one walk (path_resolution(7)).
_MOST_LINKS = 40

#: <linux/fs.h>
_SYNC_FILE_RANGE_WRITE = 2

_SYNCFS_TELLS = tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (5, 8)

_PROC = 0x9FA0
#: File systems that hold no files, by statfs(2)'s f_type (<linux/magic.h>).
_PSEUDO: Mapping[int, str] = MappingProxyType(
    {
        _PROC: "proc",
        0x9FA1: "openprom",
        0x9FA2: "usbdevice",
        0x62656572: "sysfs",
        0x27E0EB: "cgroup",
        0x63677270: "cgroup2",
        0x64626720: "debugfs",
        0x74726163: "tracefs",
        0x73636673: "securityfs",
        0xF97CFF8C: "selinuxfs",
        0x43415D53: "smackfs",
        0x5A3C69F0: "apparmorfs",
        0x62656570: "configfs",
        0xDE5E81E4: "efivarfs",
        0x6165676C: "pstore",
        0xCAFE4A11: "bpf",
        0x42494E4D: "binfmt_misc",
        0x1CD1: "devpts",
        0x19800202: "mqueue",
        0x65735543: "fusectl",
        0x6E736673: "nsfs",
        0x07655821: "resctrl",
        0x67596969: "rpc_pipefs",
        0x6E667364: "nfsd",
        0x6C6F6F70: "binder",
        0xABBA1974: "xenfs",
        0x958458F6: "hugetlbfs",
        0x0187: "autofs",
        0x50495045: "pipefs",
        0x534F434B: "sockfs",
        0x09041934: "anon_inodefs",
    }
)
#: devtmpfs answers as one of these.
_IN_MEMORY = frozenset({0x01021994, 0x858458F6})
_MOUNTS = "/proc/self/mountinfo"
#: f_type is a long, but for one architecture; every number above has 32 bits.
_F_TYPE = struct.Struct("=I" if platform.machine() == "s390x" else "@l")
_STATFS_BYTES = 256

#: A directory that may not be listed, and file systems that cannot flush one.
_NOT_FLUSHABLE = frozenset({errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


class ForbiddenDirectory(OSError):
    """A place that is not for files: `strerror` says which; the errno is EPERM."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EPERM, what)


class ForeignLink(ForbiddenDirectory):
    """A symbolic link on the way that belongs to somebody else."""


class _OpenHow(ctypes.Structure):
    """`struct open_how` of <linux/openat2.h>."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_directory(path: str, *, wary: bool = False) -> int:
    """Open a directory to look names up in.

    One that its owner may use but not list (mode -wx) is opened as well. Who is *wary* follows no
    link but his own and root's: others cannot lead him where only he may write.

    Raises:
        ForbiddenDirectory: the path leads through a magic link, or to a file system without files.
        ForeignLink: it leads through another user's link.
        OSError: it is not there, not a directory, or may not be passed through.
    """
    descriptor = _open(path, wary)
    try:
        kind = _pseudo(descriptor)
        if kind is not None:
            raise ForbiddenDirectory(f"it is on a {kind} file system, which holds no files")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def flush_directory(directory: int) -> None:
    """Make the names in an open directory durable.

    Raises:
        OSError: the disk failed; the names may be lost.
    """
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NOT_FLUSHABLE:
            raise
        os.sync()


def sync_file_system(descriptor: int) -> bool:
    """Make everything durable that is on the file system of an open file (syncfs(2)).

    False: this kernel would not tell of data that got lost; before Linux 5.8 none does.

    Raises:
        OSError: the disk failed.
    """
    if not _SYNCFS_TELLS:
        return False
    if _libc.syncfs(descriptor) != 0:
        raise last_error()
    return True


def begin_writing(descriptor: int, start: int, end: int) -> None:
    """Have the kernel begin to write bytes of an open file to the disk, where it can do that.

    sync_file_range(2): it waits for nothing, and takes no error from a later flush.
    """
    _libc.sync_file_range(
        ctypes.c_int(descriptor),
        ctypes.c_int64(start),
        ctypes.c_int64(end - start),
        ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
    )


def last_error() -> OSError:
    """Return why a call of the C library in this thread has failed just now."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def _open(path: str, wary: bool) -> int:
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return _walk(path, os.O_RDONLY | flags, wary)
    except ForbiddenDirectory:
        raise
    except PermissionError:
        return _walk(path, os.O_PATH | flags, wary)


def _walk(path: str, flags: int, wary: bool) -> int:
    """Open *path*, unless it leads through a magic link."""
    if wary:  # the kernel follows all links or none
        return _walk_by_steps(path, flags, wary)
    try:
        return _openat2(path, flags)
    except OSError as error:
        if error.errno not in _WALKED_BY_STEPS:
            raise
    return _walk_by_steps(path, flags, wary)


def _openat2(path: str, flags: int) -> int:
    if platform.machine().startswith(_OTHER_NUMBERS):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    how = _OpenHow(flags=flags, mode=0, resolve=_RESOLVE_NO_MAGICLINKS)
    while True:
        descriptor: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(_AT_FDCWD),
            ctypes.c_char_p(name),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return descriptor
        error = last_error()
        if error.errno != errno.EINTR:
            raise error


def _walk_by_steps(path: str, flags: int, wary: bool) -> int:
    """Open *path* one name at a time: what openat2 does, where it does not or is not enough.

    Magic links are told from others by where they are: every link of /proc leads to /proc or is a
    magic one, so that none of them leads to files.
    """
    links = 0
    names = _names(path)
    here = _look_up("/" if path.startswith("/") else ".", None)
    try:
        while names:
            found = _look_up(names.pop(), here)
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                os.close(here)
                here = found
                continue
            links += 1
            target = _target(found, links, wary)
            names += _names(target)
            if target.startswith("/"):
                root = _look_up("/", None)
                os.close(here)
                here = root
        return os.open(".", flags, dir_fd=here)
    finally:
        os.close(here)


def _target(link: int, links: int, wary: bool) -> str:
    """Return where an open link leads to, and close it."""
    try:
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if _file_system(link) == _PROC:
            raise ForbiddenDirectory("it leads through a link of /proc")
        owner = os.fstat(link).st_uid
        if wary and owner not in (0, os.geteuid()):
            raise ForeignLink(f"it leads through a symbolic link of user {owner}")
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _names(path: str) -> list[str]:
    """Return the names in a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _look_up(name: str, here: int | None) -> int:
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)


def _pseudo(directory: int) -> str | None:
    """Return the kind of a file system that holds no files."""
    kind = _file_system(directory)
    if kind in _IN_MEMORY and is_devtmpfs(os.fstat(directory).st_dev):
        return "devtmpfs"
    return _PSEUDO.get(kind)


def _file_system(descriptor: int) -> int:
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, found) != 0:
        raise last_error()
    (kind,) = _F_TYPE.unpack_from(found)
    return int(kind) & 0xFFFFFFFF


@lru_cache(64)
def is_devtmpfs(device: int) -> bool:
    """Whether that is the file system of devices.

    There is one for as long as the machine runs, so that no other gets its number meanwhile.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(number == found and kind == "devtmpfs" for found, kind in _mounts())


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield device and file system of every mount (proc_pid_mountinfo(5)), where that is told."""
    with contextlib.suppress(OSError), open(_MOUNTS, encoding="utf-8", errors="replace") as file:
        for line in file:
            mount, _, source = line.partition(" - ")
            yield mount.split()[2], source.split()[0]
