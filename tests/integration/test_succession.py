"""Whether files can be carried on by another owner: asked of real files and directories."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.people import people
from tests.support.servers import public_directory, require_root
from transferd.model.errors import TransferFailed
from transferd.model.job import JobId
from transferd.model.paths import temporary_path
from transferd.wire.chores import Holding, Refusal
from transferd.worker.directory import ForeignLink, open_directory
from transferd.worker.inode import inode_of
from transferd.worker.partfile import PartFile
from transferd.worker.succession import assume

JOB = JobId("0f8fad5b-d9cb-469f-a165-70867728950e")
OTHER = 54321


class Had:
    """A file that somebody else's job has had so far."""

    def __init__(self, place: Path) -> None:
        self.local = place / "a.iso"
        self.temporary = Path(temporary_path(str(self.local), JOB))

    def ask(self, *, known: bool = False, former: int | None = None) -> tuple[Refusal, ...]:
        """Ask about it; *known*: the queue knows which temporary file it has.

        The *former* owner is somebody for whom every directory is open, unless one is named.
        """
        inode = None
        if known:
            with self.temporary.open("rb") as file:
                inode = inode_of(file.fileno())
        holding = Holding(7, str(self.local), str(self.temporary), inode)
        return assume([holding], os.geteuid() if former is None else former)


@pytest.fixture
def had(tmp_path: Path) -> Had:
    """A file that is not begun."""
    return Had(tmp_path)


def test_what_is_not_begun_can_be_begun(had: Had) -> None:
    """Nothing there is nothing in the way, and nothing is made."""
    assert had.ask() == ()
    assert not list(had.local.parent.iterdir())


def test_a_missing_directory_is_told_by_name(had: Had) -> None:
    """The refusal is the one that the transfer would fail with."""
    elsewhere = Had(had.local.parent / "gone")
    (refusal,) = elsewhere.ask()
    assert (refusal.number, refusal.code) == (7, "local_directory_missing")
    assert "gone" in refusal.message


def test_ones_own_partial_data_is_carried_on(had: Had) -> None:
    """On some file systems everything is everybody's."""
    had.temporary.write_bytes(b"half")
    assert had.ask(known=True) == had.ask() == ()
    assert had.temporary.read_bytes() == b"half"


@pytest.mark.parametrize("thing", ["fifo", "link", "second name"])
def test_what_is_no_partial_file_is_not_opened(had: Had, thing: str) -> None:
    """Somebody may have put it there since."""
    target = had.local.parent / "target"
    target.write_bytes(b"mine")
    match thing:
        case "fifo":
            os.mkfifo(had.temporary)
        case "link":
            had.temporary.symlink_to(target)
        case _:
            had.temporary.hardlink_to(target)
    (refusal,) = had.ask()
    assert refusal.code in {"local_not_regular", "local_hard_link"}
    assert str(had.temporary) in refusal.message
    assert target.read_bytes() == b"mine"


def test_a_destination_that_cannot_be_replaced_is_refused(had: Had) -> None:
    """It would be refused when the job is completed, and be the new owner's trouble."""
    had.local.mkdir()
    (refusal,) = had.ask()
    assert refusal.code == "local_not_regular"


def test_anothers_partial_data_is_carried_on_if_the_queue_knows_it(had: Had) -> None:
    """By its inode; a file that he has put there meanwhile is another one."""
    require_root("giving files to others")
    had.temporary.write_bytes(b"half")
    os.chown(had.temporary, OTHER, OTHER)
    assert had.ask(known=True) == ()
    (refusal,) = had.ask()
    assert refusal.code == "local_not_regular"
    assert f"it belongs to user {OTHER}" in refusal.message


@pytest.mark.parametrize(
    ("mode", "owner", "right"),
    [
        (0o755, 0, False),
        (0o757, 0, True),
        (0o755, OTHER, True),
        (0o775, 0, False),
        (0o557, OTHER, False),
    ],
)
def test_nothing_is_written_where_the_former_owner_could_not(
    mode: int, owner: int, right: bool
) -> None:
    """He has chosen the place: `~/.bashrc` of an admin, say, who then takes the job over."""
    require_root("giving directories to others")
    with public_directory() as above:
        place = above / "place"
        place.mkdir()
        place.chmod(mode | 0o700 if owner == 0 else mode)
        os.chown(place, owner, owner)
        refusals = Had(place).ask(former=OTHER)
        if right:
            assert refusals == ()
            above.chmod(0o700)  # there is no way for him
            refusals = Had(place).ask(former=OTHER)
        (refusal,) = refusals
    assert refusal.code == "local_forbidden"
    assert refusal.message == f"user {OTHER} has chosen {place}, where he may not write himself"


def test_a_group_of_the_former_owner_counts(tmp_path: Path) -> None:
    """All of them, as its user database says."""
    require_root("becoming several users")
    with people() as machine:
        place = machine.directory / "crew"
        place.mkdir()
        place.chmod(0o770)
        os.chown(place, 0, machine.alice.groups[1])
        ask = (
            "import os, sys; from transferd.worker.permission import could_write;"
            " print([could_write(int(n), os.open(sys.argv[1], os.O_RDONLY)) for n in sys.argv[2:]])"
        )
        uids = [str(person.uid) for person in (machine.alice, machine.bob, machine.root)]
        said = machine.run(machine.root, sys.executable, "-c", ask, str(place), *uids, check=True)
    assert said.stdout == "[True, False, True]\n"


def test_no_link_of_others_is_followed_by_the_wary(tmp_path: Path) -> None:
    """Nor is a file made behind one; one's own and root's lead on."""
    require_root("giving links to others")
    place, way = tmp_path / "place", tmp_path / "way"
    place.mkdir()
    way.symlink_to(place)
    os.close(open_directory(str(way), wary=True))
    os.lchown(way, OTHER, OTHER)
    os.close(open_directory(str(way)))
    with pytest.raises(ForeignLink, match=f"a symbolic link of user {OTHER}"):
        open_directory(str(way), wary=True)
    behind = Had(way)
    (refusal,) = behind.ask()
    assert refusal.code == "local_forbidden"
    with pytest.raises(TransferFailed) as failed:
        PartFile.open(str(behind.local), str(behind.temporary), wary=True)
    assert failed.value.failure.code == "local_forbidden"
    assert "in a new job" in failed.value.failure.remedy
    assert not list(place.iterdir())
