"""Final names: one rename each, durable, repeatable; and the end of partial files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace as replace_struct

from tests.support.inodes import inode_at
from tests.support.isolation import ordinary_user, run_traced
from transferd.model.job import Inode, JobId
from transferd.model.paths import temporary_path
from transferd.wire.chores import Leftover, Publication, Publish, Refusal
from transferd.worker import publication
from transferd.worker.directory import open_directory
from transferd.worker.publication import discard

JOB = JobId("00000000-0000-4000-8000-000000000001")

PUBLISH = """
import sys
import msgspec
from transferd.wire.chores import Publish
from transferd.worker.publication import publish
order = msgspec.json.decode(sys.argv[1], type=Publish)
for refusal in publish(order.files):
    print(refusal.number, refusal.code)
"""


def publish(files: Sequence[Publication], overwrite: bool = True) -> tuple[Refusal, ...]:
    """Publish files whose jobs all say the same."""
    return publication.publish([replace_struct(file, overwrite=overwrite) for file in files])


def whole(local: Path, content: bytes = b"new", index: int = 0) -> Publication:
    """Make a whole temporary file for *local*, as a worker leaves it."""
    temporary = Path(temporary_path(str(local), JOB))
    temporary.write_bytes(content)
    return Publication(index, str(local), str(temporary), inode_at(temporary), True)


def codes(refusals: Sequence[Refusal]) -> list[tuple[int, str]]:
    """Return numbers and codes; every message is a sentence."""
    assert all(refusal.message.startswith("cannot ") for refusal in refusals)
    return [(refusal.number, refusal.code) for refusal in refusals]


def traced_publish(
    files: list[Publication], overwrite: bool, inject: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Publish in a process of its own; return what was refused and its system calls."""
    wanted = tuple(replace_struct(file, overwrite=overwrite) for file in files)
    order = msgspec.json.encode(Publish(1, wanted)).decode()
    calls = "rename,renameat,renameat2,fsync"
    run = run_traced(PUBLISH, [order], calls=calls, inject=inject)
    return run.printed, tuple(call.replace("renameat", "rename", 1) for call in run.calls)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_whole_file_gets_its_name(tmp_path: Path, overwrite: bool) -> None:
    """DESIGN 1.3: the final name appears with the whole file, the temporary one goes."""
    local = tmp_path / "a.iso"
    assert publish([whole(local)], overwrite) == ()
    assert local.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.iso"]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    """DESIGN 3: by default; BITS K5."""
    local = tmp_path / "a.iso"
    local.write_bytes(b"old")
    assert publish([whole(local)], True) == ()
    assert local.read_bytes() == b"new"


def test_an_existing_file_is_kept_when_its_owner_says_so(tmp_path: Path) -> None:
    """DESIGN 3: overwrite=false refuses with a named error, and loses nothing."""
    local = tmp_path / "a.iso"
    local.write_bytes(b"old")
    file = whole(local)
    refusals = publish([file], False)
    assert codes(refusals) == [(0, "local_exists")]
    assert "move it away and complete the job again, or cancel the job" in refusals[0].message
    assert local.read_bytes() == b"old"
    local.unlink()
    assert publish([file], False) == ()


@pytest.mark.parametrize("overwrite", [True, False])
def test_publishing_again_is_success(tmp_path: Path, overwrite: bool) -> None:
    """BITS K4: a crash between the rename and its record is healed by repeating."""
    file = whole(tmp_path / "a.iso")
    assert publish([file], overwrite) == ()
    assert publish([file], overwrite) == ()
    assert (tmp_path / "a.iso").read_bytes() == b"new"


def test_a_file_that_is_nowhere_is_lost(tmp_path: Path) -> None:
    """Somebody else's file at the destination does not count as ours."""
    file = whole(tmp_path / "a.iso")
    Path(file.temporary).unlink()
    assert codes(publish([file], True)) == [(0, "local_lost")]
    (tmp_path / "a.iso").write_bytes(b"old")
    number = (tmp_path / "a.iso").stat().st_ino + 1
    file = Publication(0, file.local, file.temporary, Inode(device=0, number=number), True)
    assert codes(publish([file], True)) == [(0, "local_lost")]
    assert (tmp_path / "a.iso").read_bytes() == b"old"


def test_another_file_under_the_temporary_name_is_not_published(tmp_path: Path) -> None:
    """LESSONS 6.15: a swapped file or link never gets the final name."""
    file = whole(tmp_path / "a.iso")
    os.rename(file.temporary, tmp_path / "aside")
    Path(file.temporary).write_bytes(b"swapped")
    assert codes(publish([file], True)) == [(0, "local_lost")]
    Path(file.temporary).unlink()
    Path(file.temporary).symlink_to(tmp_path / "aside")
    assert codes(publish([file], True)) == [(0, "local_lost")]
    assert not (tmp_path / "a.iso").exists()


def test_only_a_regular_file_is_published(tmp_path: Path) -> None:
    """Whatever the record says: a FIFO never gets the final name."""
    fifo = tmp_path / ".a.iso.transferd-1"
    os.mkfifo(fifo)
    inode = Inode(device=fifo.stat().st_dev, number=fifo.stat().st_ino)
    file = Publication(0, str(tmp_path / "a.iso"), str(fifo), inode, True)
    assert codes(publish([file], True)) == [(0, "local_lost")]


def test_a_device_that_is_numbered_anew_does_not_lose_a_file(tmp_path: Path) -> None:
    """After a reboot btrfs, overlayfs and NFS have other device numbers."""
    file = whole(tmp_path / "a.iso")
    moved = Inode(device=file.inode.device + 1, number=file.inode.number)
    assert publish([Publication(0, file.local, file.temporary, moved, True)], True) == ()


@pytest.mark.parametrize("name", ["temporary", "local"])
def test_a_file_that_got_the_number_of_ours_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where others may write, they remove a file, make another, and the number is used again."""
    monkeypatch.setattr("transferd.worker.inode._born", lambda _: 2)
    file = whole(tmp_path / "a.iso")
    os.rename(file.temporary, getattr(file, name))
    earlier = msgspec.structs.replace(file, inode=replace(file.inode, born=1))
    assert codes(publish([earlier], True)) == [(0, "local_lost")]
    assert publish([file], True) == ()


@pytest.mark.parametrize("overwrite", [True, False])
def test_directories_and_special_files_are_not_replaced(tmp_path: Path, overwrite: bool) -> None:
    """Only a regular file may stand where the file goes."""
    places = [tmp_path / name for name in ("directory", "fifo", "link", "null")]
    places[0].mkdir()
    os.mkfifo(places[1])
    places[2].symlink_to(places[0])
    places[3].symlink_to("/dev/null")
    files = [whole(local, index=index) for index, local in enumerate(places)]
    assert codes(publish(files, overwrite)) == [
        (index, "local_not_regular") for index in range(len(places))
    ]
    assert all(Path(file.temporary).exists() for file in files)
    assert os.readlink(places[3]) == "/dev/null"


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("target", ["target", "nothing", "."])
def test_a_link_at_the_destination_is_neither_followed_nor_replaced(
    tmp_path: Path, target: str, overwrite: bool
) -> None:
    """Nothing but regular files is replaced: a link would part from its file silently."""
    (tmp_path / "target").write_bytes(b"precious")
    local = tmp_path / "a.iso"
    local.symlink_to(target)
    file = whole(local)
    assert codes(publish([file], overwrite)) == [(0, "local_not_regular")]
    assert os.readlink(local) == target
    assert (tmp_path / "target").read_bytes() == b"precious"
    local.unlink()
    assert publish([file], overwrite) == ()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_with_a_second_name_is_not_replaced(tmp_path: Path, overwrite: bool) -> None:
    """Whoever reads it under the other name would go on with the old content."""
    local = tmp_path / "a.iso"
    local.write_bytes(b"old")
    os.link(local, tmp_path / "other")
    file = whole(local)
    assert codes(publish([file], overwrite)) == [(0, "local_hard_link")]
    assert local.read_bytes() == b"old"
    (tmp_path / "other").unlink()
    assert publish([file], True) == ()
    assert local.read_bytes() == b"new"


def test_what_was_put_in_place_meanwhile_is_not_called_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the directory can swap names between two looks at them."""
    file = whole(tmp_path / "a.iso")
    real = os.rename

    def swap(name: str, final: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        real(file.temporary, tmp_path / "aside")
        Path(file.temporary).symlink_to("aside")
        real(name, final, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", swap)
    assert codes(publish([file], True)) == [(0, "local_lost")]
    assert (tmp_path / "aside").read_bytes() == b"new"


def test_one_refusal_does_not_stop_the_others(tmp_path: Path) -> None:
    """BITS K4: what can be published is."""
    (tmp_path / "d").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "gone").mkdir()
    files = [
        whole(tmp_path / "a", index=3),
        whole(tmp_path / "b", index=5),
        whole(tmp_path / "gone" / "c", index=7),
        whole(tmp_path / "d" / "d", index=9),
        whole(tmp_path / "e", index=11),
    ]
    os.rename(tmp_path / "gone", tmp_path / "moved")
    assert sorted(codes(publish(files, True))) == [
        (5, "local_not_regular"),
        (7, "local_directory_missing"),
    ]
    assert [(tmp_path / name).read_bytes() for name in ("a", "d/d", "e")] == [b"new"] * 3


def test_a_directory_that_may_not_be_written_refuses() -> None:
    """The owner's permissions decide at the time of the rename."""
    with ordinary_user() as home:
        file = whole(home / "a.iso")
        home.chmod(0o555)
        assert codes(publish([file], True)) == [(0, "local_access_denied")]
        assert codes(publish([file], False)) == [(0, "local_access_denied")]
        assert codes(discard([Leftover(4, file.temporary)])) == [(4, "local_access_denied")]
        home.chmod(0o000)
        assert codes(publish([file], True)) == [(0, "local_access_denied")]
        assert codes(discard([Leftover(4, file.temporary)])) == [(4, "local_access_denied")]
        home.chmod(0o333)
        assert publish([file], True) == ()
        home.chmod(0o755)


def test_names_are_flushed_once_for_a_directory_after_all_renames(tmp_path: Path) -> None:
    """DESIGN 7: rename, fsync the directory; a batch costs one flush, a repetition as well."""
    files = [whole(tmp_path / f"{index}", index=index) for index in range(3)]
    calls = [traced_publish(files, True)[1] for _ in range(2)]
    assert [call.split("(")[0] for call in calls[0]] == ["rename"] * 3 + ["fsync"]
    assert [call.split("(")[0] for call in calls[1]] == ["fsync"]
    assert f"<{tmp_path}>" in calls[0][-1]


def test_directories_are_flushed_when_everything_has_its_name(tmp_path: Path) -> None:
    """One flush writes the journal with the names of all of them; the others find it written."""
    files = []
    for index in range(3):
        (tmp_path / f"{index}").mkdir()
        files.append(whole(tmp_path / f"{index}" / "a", index=index))
    calls = [call.split("(")[0] for call in traced_publish(files, True)[1]]
    assert calls == ["rename"] * 3 + ["fsync"] * 3


def test_files_of_several_jobs_get_their_names_as_each_of_them_says(tmp_path: Path) -> None:
    """One question is about files of any jobs; whether to replace is asked of each."""
    files = [whole(tmp_path / name, index=index) for index, name in enumerate("ab")]
    for file in files:
        Path(file.local).write_bytes(b"old")
    files[1] = replace_struct(files[1], overwrite=False)
    assert codes(publication.publish(files)) == [(1, "local_exists")]
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"new", b"old"]


def test_a_name_that_could_not_be_flushed_is_not_published(tmp_path: Path) -> None:
    """An answer is a promise that holds after a power cut; repeating makes it good."""
    file = whole(tmp_path / "a.iso")
    printed, _ = traced_publish([file], True, inject="fsync:error=EIO:when=1")
    assert printed.split() == ["0", "local_io"]
    assert publish([file], True) == ()


@pytest.mark.parametrize("error", ["EINVAL", "ENOSYS"])
def test_a_file_system_without_exclusive_rename_replaces_nothing_either(
    tmp_path: Path, error: str
) -> None:
    """The way round it, a link and the removal of the old name, refuses as well."""
    fresh, taken = tmp_path / "fresh", tmp_path / "taken"
    taken.write_bytes(b"old")
    files = [whole(fresh, index=0), whole(taken, index=1)]
    printed, _ = traced_publish(files, False, inject=f"renameat2:error={error}")
    assert printed.split() == ["1", "local_exists"]
    assert taken.read_bytes() == b"old"
    assert fresh.read_bytes() == b"new"
    assert not Path(files[0].temporary).exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_crash_between_link_and_removal_is_healed(tmp_path: Path, overwrite: bool) -> None:
    """Two names of one file: a rename would do nothing and leave the temporary one."""
    file = whole(tmp_path / "a.iso")
    os.link(file.temporary, file.local)
    assert publish([file], overwrite) == ()
    assert os.listdir(tmp_path) == ["a.iso"]


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_nothing_is_published_in_a_directory_that_was_swapped_in(
    tmp_path: Path, overwrite: bool, link: bool
) -> None:
    """The file goes where its partial file is, by its inode, or nowhere."""
    (tmp_path / "inner").mkdir()
    file = whole(tmp_path / "inner" / "a.iso")
    (tmp_path / "inner").rename(tmp_path / "moved")
    other = tmp_path / "other" if link else tmp_path / "inner"
    other.mkdir()
    if link:
        (tmp_path / "inner").symlink_to("other")
    assert codes(publish([file], overwrite)) == [(0, "local_lost")]
    assert os.listdir(other) == []
    (other / os.path.basename(file.temporary)).write_bytes(b"planted")
    (other / "a.iso").write_bytes(b"old")
    assert codes(publish([file], overwrite)) == [(0, "local_lost")]
    assert (other / "a.iso").read_bytes() == b"old"
    assert len(os.listdir(other)) == 2
    assert os.listdir(tmp_path / "moved") == [os.path.basename(file.temporary)]


def test_a_directory_that_was_moved_and_linked_to_is_published_in(tmp_path: Path) -> None:
    """The path leads to the same file, by way of its owner's link."""
    (tmp_path / "inner").mkdir()
    file = whole(tmp_path / "inner" / "a.iso")
    (tmp_path / "inner").rename(tmp_path / "moved")
    (tmp_path / "inner").symlink_to("moved")
    assert publish([file], True) == ()
    assert (tmp_path / "moved" / "a.iso").read_bytes() == b"new"


def test_both_names_are_looked_up_in_the_directory_that_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped in the very moment of publishing: the path is not walked a second time."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "other").mkdir()
    file = whole(tmp_path / "inner" / "a.iso")

    def swap(path: str, *, wary: bool) -> int:
        directory = open_directory(path, wary=wary)
        (tmp_path / "inner").rename(tmp_path / "moved")
        (tmp_path / "inner").symlink_to("other")
        return directory

    monkeypatch.setattr("transferd.worker.publication.open_directory", swap)
    assert publish([file], True) == ()
    assert os.listdir(tmp_path / "moved") == ["a.iso"]
    assert os.listdir(tmp_path / "other") == []


def test_leftovers_are_removed(tmp_path: Path) -> None:
    """BITS K6: partial data goes with its job; what is gone already is removed."""
    there = whole(tmp_path / "a").temporary
    leftovers = [
        Leftover(1, there),
        Leftover(2, str(tmp_path / ".b.transferd-1")),
        Leftover(3, str(tmp_path / "none" / ".c.transferd-1")),
        Leftover(4, str(tmp_path / "file" / ".d.transferd-1")),
    ]
    (tmp_path / "file").touch()
    assert discard(leftovers) == ()
    assert discard(leftovers) == ()
    assert os.listdir(tmp_path) == ["file"]


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    """A wrong order cannot delete the owner's own files, nor follow a link to them."""
    precious = tmp_path / "a.transferd-1"
    precious.write_bytes(b"precious")
    hidden = tmp_path / ".profile"
    hidden.touch()
    link = tmp_path / ".link.transferd-1"
    link.symlink_to(precious)
    directory = tmp_path / ".directory.transferd-1"
    directory.mkdir()
    paths = [precious, hidden, link, directory]
    leftovers = [Leftover(number, str(path)) for number, path in enumerate(paths)]
    assert codes(discard(leftovers)) == [(number, "local_not_regular") for number in range(4)]
    assert precious.read_bytes() == b"precious"
    assert len(os.listdir(tmp_path)) == 4
