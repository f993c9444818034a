"""A worker finds partial files of ours, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from transferd.model.job import JobId
from transferd.model.paths import job_of_temporary, temporary_path
from transferd.worker.survey import survey

JOB = JobId(str(uuid4()))


@given(name=st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1))
def test_the_job_of_a_temporary_stands_in_its_name(name: str) -> None:
    """Rule: whatever a file is called, and however long that is."""
    assert job_of_temporary(temporary_path(f"/srv/{name}", JOB)) == JOB


def test_only_files_with_such_a_name_are_found(tmp_path: Path) -> None:
    """Rule: no directory, no link, no name that is nearly one; both ways to write a directory."""
    ours = Path(temporary_path(str(tmp_path / "a"), JOB))
    ours.touch()
    Path(temporary_path(str(tmp_path / "b"), JOB)).mkdir()
    Path(temporary_path(str(tmp_path / "c"), JOB)).symlink_to(ours)
    for name in ("a", ".a.transferd-x", f"a.transferd-{JOB}", f"..transferd-{JOB.upper()}"):
        (tmp_path / name).touch()
    assert survey([f"{tmp_path}/"]) == survey([str(tmp_path)]) == (str(ours),)


def test_what_cannot_be_looked_into_has_nothing(tmp_path: Path) -> None:
    """Rule: a directory that is gone keeps none of the others from being looked at."""
    ours = Path(temporary_path(str(tmp_path / "a"), JOB))
    ours.touch()
    (tmp_path / "file").touch()
    assert survey(["/nowhere", str(tmp_path / "file"), str(tmp_path)]) == (str(ours),)


def test_a_name_that_is_no_text_is_passed_over(tmp_path: Path) -> None:
    """Rule: no destination can have it, and the link could not tell it."""
    name = b".\xff.transferd-" + JOB.encode()
    os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert survey([str(tmp_path)]) == ()
