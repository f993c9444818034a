"""The partial file, on real file systems."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.inodes import inode_at
from tests.support.isolation import ordinary_user, run_on_small_disk, run_traced
from transferd.model.errors import TransferFailed
from transferd.model.failures import kind_of
from transferd.model.job import CHECKSUM_ALGORITHMS, Inode
from transferd.transfer.ranges import Coverage
from transferd.worker.local_faults import local_failure
from transferd.worker.partfile import DigestStopped, PartFile


class Place:
    """A destination and its temporary."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.local = str(directory / "a.iso")
        self.path = directory / ".a.iso.transferd-1"
        self.temporary = str(self.path)

    def open(self, offset: int = 0, inode: Inode | None = None) -> PartFile:
        """Open the partial file."""
        return PartFile.open(self.local, self.temporary, Coverage(offset=offset), inode)

    def refusal(self, offset: int = 0, inode: Inode | None = None) -> str:
        """Open a partial file that cannot be opened; return the code."""
        with pytest.raises(TransferFailed) as caught:
            self.open(offset, inode).close()
        failure = caught.value.failure
        assert failure.file == self.local
        assert str(self.directory) in failure.message
        assert failure.message.startswith("cannot ")
        return failure.code


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty directory to download into."""
    return Place(tmp_path)


def test_a_new_file_is_made_under_its_temporary_name_only(place: Place) -> None:
    """DESIGN 7: it is the owner's by umask, and the final name does not appear."""
    old = os.umask(0o027)
    try:
        with place.open() as part:
            found = place.path.stat()
            assert part.kept.size == 0
            assert part.size == 0
            assert (part.inode.device, part.inode.number) == (found.st_dev, found.st_ino)
            assert part.inode == inode_at(place.path)
            assert found.st_mode & 0o777 == 0o640
    finally:
        os.umask(old)
    assert os.listdir(place.directory) == [place.path.name]


def test_what_is_written_stands_one_after_the_other(place: Place) -> None:
    """Chunks of any buffer type, empty ones, and more of them than one system call takes."""
    many = [bytes([number % 251]) * 3 for number in range(3000)]
    with place.open() as part:
        part.cursor(part.end).write(b"ab", bytearray(b"c"), b"", memoryview(b"de"))
        part.cursor(part.end).write()
        part.cursor(part.end).write(*many)
        part.sync()
        assert part.size == 5 + 9000
    assert place.path.read_bytes() == b"abcde" + b"".join(many)


def test_a_short_write_is_continued(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take less than it is given; nothing is lost or doubled."""
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda file, views: real(file, [views[0][:3]]))
    with place.open() as part:
        part.cursor(part.end).write(b"0123456789", b"abcd", b"xyz")
    assert place.path.read_bytes() == b"0123456789abcdxyz"


def test_durable_bytes_are_kept_and_what_follows_is_cut_off(place: Place) -> None:
    """DESIGN 7: a resumed file starts at its last durable offset."""
    place.path.write_bytes(b"0123456789")
    with place.open(offset=4) as part:
        assert part.kept.size == 4
        assert part.size == 4
        part.cursor(part.end).write(b"x")
        assert part.end == 5
    assert place.path.read_bytes() == b"0123x"


@pytest.mark.parametrize("content", [None, b"", b"012"])
def test_an_offset_that_the_file_does_not_reach_is_lost(
    place: Place, content: bytes | None
) -> None:
    """A file that is gone or too short has no sound bytes; the caller is told."""
    if content is not None:
        place.path.write_bytes(content)
    with place.open(offset=4) as part:
        assert part.kept.size == 0
        assert part.size == 0


def test_another_file_under_the_name_is_not_continued(place: Place) -> None:
    """Its bytes are somebody else's."""
    place.path.write_bytes(b"0123456789")
    found = place.path.stat()
    with place.open(4, Inode(device=found.st_dev, number=found.st_ino + 1)) as part:
        assert part.kept.size == 0
    place.path.write_bytes(b"0123456789")
    with place.open(4, Inode(device=found.st_dev + 1, number=found.st_ino)) as part:
        assert part.kept.size == 4, "devices are numbered anew at each mount"


def test_a_link_is_not_followed(place: Place) -> None:
    """LESSONS 6.15: neither to a file nor to nothing."""
    victim = place.directory / "victim"
    victim.write_bytes(b"precious")
    place.path.symlink_to(victim)
    assert place.refusal() == "local_not_regular"
    assert victim.read_bytes() == b"precious"
    victim.unlink()
    assert place.refusal() == "local_not_regular"
    assert not victim.exists()


def test_a_file_with_a_second_name_is_not_touched(place: Place) -> None:
    """A hard link would let the transfer overwrite another file."""
    victim = place.directory / "victim"
    victim.write_bytes(b"precious")
    os.link(victim, place.path)
    assert place.refusal() == "local_hard_link"
    assert victim.read_bytes() == b"precious"


def test_what_is_no_file_is_not_waited_for(place: Place) -> None:
    """A FIFO would block, a directory cannot be written."""
    os.mkfifo(place.path)
    assert place.refusal() == "local_not_regular"
    place.path.unlink()
    place.path.mkdir()
    assert place.refusal() == "local_not_regular"


def test_another_owners_file_is_not_continued(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner could change it at any time; shares with one owner are known by the inode."""
    place.path.write_bytes(b"0123456789")
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    assert place.refusal(4) == "local_not_regular"
    found = place.path.stat()
    with place.open(4, Inode(device=found.st_dev, number=found.st_ino)) as part:
        assert part.kept.size == 4


def test_a_file_that_got_the_number_of_ours_is_not_continued(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are used again, by others too where they may write; no two were made at once."""
    monkeypatch.setattr("transferd.worker.inode._born", lambda _: 2)
    place.path.write_bytes(b"0123456789")
    inode = inode_at(place.path)
    with place.open(4, inode) as part:
        assert part.kept.size == 4
    with place.open(4, replace(inode, born=1)) as part:
        assert part.kept.size == 0
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    place.open(0, inode).close()
    assert place.refusal(0, replace(inode, born=1)) == "local_not_regular"


def test_only_one_process_writes_to_a_file(place: Place) -> None:
    """An old worker that is still leaving and its successor do not mix their bytes."""
    with place.open() as part:
        part.cursor(part.end).write(b"0123")
        assert place.refusal() == "local_busy"
        assert part.size == 4, "the one that came second has changed nothing"
    place.open().close()


def test_a_file_that_was_published_meanwhile_is_not_written_to(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, its name can have gone: what counts is the name."""
    place.path.write_bytes(b"0123456789")
    real, names = fcntl.flock, [place.path]

    def lock(descriptor: int, operation: int) -> None:
        while names:
            names.pop().rename(place.local)
            os.unlink(place.local)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock)
    with place.open(4) as part:
        part.cursor(part.end).write(b"x")
        assert part.kept.size == 0
        assert part.inode.number == place.path.stat().st_ino


def test_closing_twice_is_nothing(place: Place) -> None:
    """Whoever cleans up need not know who closed."""
    part = place.open()
    part.close()
    part.close()


def test_directories_are_not_made(place: Place) -> None:
    """DESIGN 7: parents are never created."""
    assert Place(place.directory / "none").refusal() == "local_directory_missing"
    (place.directory / "file").touch()
    assert Place(place.directory / "file").refusal() == "local_directory_missing"


def test_a_directory_that_may_not_be_written_says_so() -> None:
    """The kernel decides for the owner; what it says becomes a named failure."""
    with ordinary_user() as home:
        home.chmod(0o555)
        assert Place(home).refusal() == "local_access_denied"
        home.chmod(0o755)


def test_a_directory_that_may_not_be_listed_serves() -> None:
    """A drop box (mode -wx) takes files, and makes them durable."""
    with ordinary_user() as home:
        home.chmod(0o333)
        with Place(home).open() as part:
            part.cursor(part.end).write(b"x")
            part.sync()
        home.chmod(0o755)


def test_the_bytes_stay_in_the_directory_that_was_opened(place: Place) -> None:
    """A path that is changed under way leads nowhere else."""
    inner = Place(place.directory / "inner")
    inner.directory.mkdir()
    with inner.open() as part:
        inner.directory.rename(place.directory / "moved")
        inner.directory.mkdir()
        part.cursor(part.end).write(b"x")
        part.sync()
    assert os.listdir(inner.directory) == []


def test_a_directory_swapped_before_the_file_is_opened_leads_where_its_owner_may_write() -> None:
    """The walk is the owner's: a link to a directory of others is refused by the kernel."""
    with ordinary_user() as home:
        Place(home).open().close()
        (home / "swapped").symlink_to("/")
        assert Place(home / "swapped").refusal() == "local_access_denied"
        (home / "magic").symlink_to("/proc/self/cwd")
        assert Place(home / "magic").refusal() == "local_forbidden"


@pytest.mark.parametrize("thing", ["nothing", "directory", "link elsewhere", "file"])
def test_a_file_whose_directory_was_swapped_under_way_is_not_whole(
    place: Place, thing: str
) -> None:
    """Nobody could publish it at its path; its bytes have not gone anywhere else."""
    inner = Place(place.directory / "inner")
    inner.directory.mkdir()
    elsewhere = place.directory / "elsewhere"
    elsewhere.mkdir()
    with inner.open() as part:
        part.cursor(part.end).write(b"abcd")
        moved = inner.directory.rename(place.directory / "moved")
        match thing:
            case "directory":
                inner.directory.mkdir()
            case "link elsewhere":
                inner.directory.symlink_to(elsewhere)
            case "file":
                inner.directory.touch()
        part.cursor(part.end).write(b"efgh")
        with pytest.raises(TransferFailed) as caught:
            part.finish(None)
    gone = thing in ("nothing", "file")
    code = "local_directory_missing" if gone else "local_lost"
    assert caught.value.failure.code == code
    assert (moved / inner.path.name).read_bytes() == b"abcdefgh"
    assert os.listdir(elsewhere) == []


def test_a_directory_that_was_moved_and_linked_to_is_still_there(place: Place) -> None:
    """Its owner has made room on another disk, say: the path leads to the same file."""
    inner = Place(place.directory / "inner")
    inner.directory.mkdir()
    with inner.open() as part:
        part.cursor(part.end).write(b"abcd")
        inner.directory.rename(place.directory / "moved")
        inner.directory.symlink_to("moved")
        part.finish(None)
    assert inner.path.read_bytes() == b"abcd"


@pytest.mark.parametrize("thing", ["fifo", "directory", "link", "second name"])
def test_what_could_not_be_replaced_is_refused_before_a_byte_moves(
    place: Place, thing: str
) -> None:
    """Rather than after gigabytes; nothing is made beside it."""
    local = Path(place.local)
    match thing:
        case "fifo":
            os.mkfifo(local)
        case "directory":
            local.mkdir()
        case "link":
            local.symlink_to("nothing")
        case "second name":
            local.touch()
            os.link(local, place.directory / "other")
    code = "local_hard_link" if thing == "second name" else "local_not_regular"
    assert place.refusal() == code
    assert not place.path.exists()


def test_no_device_is_opened_in_place_of_a_partial_file(place: Place) -> None:
    """To open one is to use it: a tape is rewound, a watchdog begins to count."""
    code = """
import os, sys
from transferd.model.errors import TransferFailed
from transferd.worker.partfile import PartFile
os.mkfifo(sys.argv[2])
try:
    PartFile.open(sys.argv[1], sys.argv[2])
except TransferFailed as failed:
    print(failed.failure.code)
"""
    run = run_traced(code, [place.local, place.temporary], calls="openat")
    assert run.printed == "local_not_regular\n"
    (opened,) = [call for call in run.calls if place.path.name in call]
    assert "O_EXCL" in opened
    assert "EEXIST" in opened


def test_the_first_flush_makes_the_name_durable_too(place: Place) -> None:
    """A file whose name is lost in a power cut is lost with all of its durable bytes."""
    code = """
import sys
from transferd.worker.partfile import PartFile
with PartFile.open(sys.argv[1], sys.argv[2]) as part:
    part.cursor(part.end).write(b"a"); part.sync()
    part.cursor(part.end).write(b"b"); part.sync()
    part.finish(0.0)
"""
    run = run_traced(code, [place.local, place.temporary], calls="fsync,fdatasync,utimensat")
    file, directory = f"<{place.temporary}>", f"<{place.directory}>"
    assert [
        (call.split("(")[0], directory if directory in call else file) for call in run.calls
    ] == [
        ("fdatasync", file),
        ("fsync", directory),
        ("fdatasync", file),
        ("utimensat", file),
        ("fsync", file),
    ]


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_failed_flush_is_never_made_good_by_a_later_one(place: Place, call: str) -> None:
    """The kernel forgets the pages that it could not write, and the error with them."""
    code = """
import sys
from transferd.model.errors import TransferFailed
from transferd.worker.partfile import PartFile
with PartFile.open(sys.argv[1], sys.argv[2]) as part:
    part.cursor(part.end).write(b"a")
    for attempt in (part.sync, part.sync, lambda: part.finish(None)):
        try:
            attempt()
        except TransferFailed as failed:
            print(failed.failure.code)
    part.truncate(0)
    part.cursor(part.end).write(b"b")
    part.sync()
    print(part.size)
"""
    run = run_traced(
        code,
        [place.local, place.temporary],
        calls="fsync,fdatasync",
        inject=f"{call}:error=EIO:when=1",
    )
    assert run.printed.split() == ["local_io"] * 3 + ["1"]


def test_a_full_disk_keeps_what_was_written(place: Place) -> None:
    """DESIGN 3: partial data is kept, and the transfer goes on when there is space."""
    code = """
import os, sys
from transferd.model.errors import TransferFailed
from transferd.worker.partfile import PartFile
ballast = os.path.join(sys.argv[1], "ballast")
open(ballast, "wb").write(bytes(512 * 1024))
with PartFile.open(sys.argv[1] + "/a", sys.argv[1] + "/.a.transferd-1") as part:
    assert part.free_space() == 512 * 1024, part.free_space()
    try:
        part.cursor(part.end).write(b"x" * 300_000, b"y" * 300_000)
    except TransferFailed as failed:
        print(failed.failure.code)
    print(part.size, part.free_space())
    part.sync()
    os.unlink(ballast)
    part.cursor(part.end).write(b"z" * 300_000)
    print(part.size)
"""
    printed = run_on_small_disk(code, size="1m").split()
    assert printed == ["disk_full", str(512 * 1024), "0", str(512 * 1024 + 300_000)]


def test_a_file_that_grows_too_large_fails_by_name(place: Place) -> None:
    """A limit of the file system or the process is neither silence nor a crash."""
    code = """
import resource, sys
from transferd.model.errors import TransferFailed
from transferd.worker.partfile import PartFile
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
with PartFile.open(sys.argv[1] + "/a", sys.argv[1] + "/.a.transferd-1") as part:
    try:
        part.cursor(part.end).write(bytes(10_000))
    except TransferFailed as failed:
        print(failed.failure.code, part.size)
"""
    assert run_on_small_disk(code, size="1m").split() == ["local_too_large", "4096"]


def test_truncating_starts_anew(place: Place) -> None:
    """After a reset the next byte is the first."""
    with place.open() as part:
        part.cursor(part.end).write(b"0123456789")
        part.truncate(0)
        part.cursor(part.end).write(b"ab")
    assert place.path.read_bytes() == b"ab"


def test_a_finished_file_has_the_remote_time(place: Place) -> None:
    """BITS F14: the time of modification comes from Last-Modified."""
    with place.open() as part:
        part.cursor(part.end).write(b"x")
        part.finish(784111777.0)
    assert place.path.stat().st_mtime == 784111777.0


@pytest.mark.parametrize("mtime", [1e30, -1e30, float("nan"), float("inf")])
def test_an_impossible_time_is_left(place: Place, mtime: float) -> None:
    """A wrong date is no reason to lose a transfer."""
    with place.open() as part:
        part.cursor(part.end).write(b"x")
        part.finish(mtime)
        assert part.size == 1


@pytest.mark.parametrize("algorithm", CHECKSUM_ALGORITHMS)
def test_every_known_digest_is_that_of_the_bytes_on_disk(place: Place, algorithm: str) -> None:
    """The table names what hashlib has, with its lengths."""
    content = bytes(range(256)) * 9000
    with place.open() as part:
        part.cursor(part.end).write(content)
        digest = part.digest(algorithm, threading.Event())
    assert digest == hashlib.new(algorithm, content).hexdigest()
    assert len(digest) == 2 * CHECKSUM_ALGORITHMS[algorithm]


def test_a_digest_can_be_stopped(place: Place) -> None:
    """A suspended job does not read a large file to its end first."""
    stop = threading.Event()
    stop.set()
    with place.open() as part:
        part.cursor(part.end).write(b"x")
        with pytest.raises(DigestStopped):
            part.digest("sha256", stop)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EFBIG, "local_too_large"),
        (errno.ENOENT, "local_directory_missing"),
        (errno.EROFS, "local_access_denied"),
        (errno.EMFILE, "local_busy"),
        (errno.EIO, "local_io"),
        (errno.ESTALE, "local_io"),
        (None, "local_io"),
    ],
)
def test_every_error_of_the_kernel_has_a_name(number: int | None, code: str) -> None:
    """STYLE 12: translated once; an unknown one is a failure of the disk."""
    error = OSError(number, "it happened") if number else OSError("it happened")
    failure = local_failure(error, "write to", "/x/.a", "/x/a").failure
    assert failure.code == code
    assert failure.kind is kind_of(code)
    assert failure.message.startswith("cannot write to /x/.a: ")
    assert "None" not in failure.message


def test_a_quota_is_named_as_what_is_full() -> None:
    """Free space on the disk would not help its owner."""
    failure = local_failure(OSError(errno.EDQUOT, "x"), "write to", "/x/.a", "/x/a").failure
    assert failure.code == "disk_full"
    assert "quota" in failure.message
    assert "quota" in failure.remedy


@pytest.mark.parametrize("limit", [4096, resource.RLIM_INFINITY])
def test_a_file_that_is_too_large_says_whose_limit_it_is(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """The owner's own (ulimit -f), or that of the file system."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    failure = local_failure(OSError(errno.EFBIG, "x"), "write to", "/x/.a", "/x/a").failure
    assert failure.code == "local_too_large"
    assert ("4096 bytes (ulimit -f)" in failure.message) is (limit == 4096)
    assert ("ulimit" in failure.remedy) is (limit == 4096)
    assert failure.remedy.endswith(", then resume")


@pytest.mark.parametrize("size", [0, 2, 9], ids=["emptied", "cut", "lengthened"])
def test_a_file_whose_size_somebody_changes_is_given_up(place: Place, size: int) -> None:
    """Going on would leave a hole of zeros, or bytes behind the end, in a file called whole."""
    with place.open() as part:
        part.cursor(part.end).write(b"abcd")
        os.truncate(place.path, size)
        with pytest.raises(TransferFailed) as caught:
            part.cursor(part.end).write(b"efgh")
        assert caught.value.failure.code == "local_lost"
        with pytest.raises(TransferFailed) as caught:
            part.finish(None)
        assert caught.value.failure.code == "local_lost"
        assert part.end == 4
        part.truncate(0)
        part.cursor(part.end).write(b"abcd")
        part.finish(None)
    assert place.path.read_bytes() == b"abcd"


@pytest.mark.parametrize("thing", ["nothing", "file", "link", "fifo"])
def test_a_file_that_is_not_under_its_name_any_more_is_not_finished(
    place: Place, thing: str
) -> None:
    """A job that is called transferred has its files; one that was taken away is fetched anew."""
    with place.open() as part:
        part.cursor(part.end).write(b"abcd")
        kept = place.path.rename(place.directory / "taken away")
        match thing:
            case "file":
                place.path.write_bytes(b"evil")
            case "link":
                place.path.symlink_to("elsewhere")
            case "fifo":
                os.mkfifo(place.path)
        with pytest.raises(TransferFailed) as caught:
            part.finish(None)
        assert caught.value.failure.code == "local_lost"
        assert kept.read_bytes() == b"abcd"
