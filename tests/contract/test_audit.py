"""The queue file as a whole: faults, errors by code, directories, beside what goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.store import ALICE, BOB, Queue, file_specs, spec
from transferd.model.job import FileSpec
from transferd.model.queue import Change
from transferd.model.states import JobEvent


def tamper(directory: Path, *statements: str) -> None:
    """Change the queue file behind the store's back."""
    with closing(sqlite3.connect(directory / "state" / "queue.db", isolation_level=None)) as cx:
        for statement in statements:
            cx.execute(statement)


async def test_a_sound_queue_has_no_faults(queue: Queue) -> None:
    """Rule: nothing is said without a reason."""
    await queue.transferred()
    await queue.failed()
    assert await queue.jobs.verify() == ()


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE tallies SET jobs = jobs + 1", "numbers of jobs"),
        ("DELETE FROM tallies", "numbers of jobs"),
        ("DELETE FROM job_ids", "ids of jobs"),
        ("INSERT INTO job_ids VALUES ('other', 99)", "ids of jobs"),
        ("UPDATE shares SET stored = stored + 1", "bytes of owners"),
        ("UPDATE shares SET told = told + 1", "bytes of owners"),
        ("INSERT INTO headers (job, sealed) VALUES (99, x'00')", "belongs to no row of jobs"),
        ("CREATE UNIQUE INDEX twice ON files (remote)", ""),
    ],
)
async def test_faults_are_found(queue: Queue, tmp_path: Path, statement: str, fault: str) -> None:
    """Rule: sums and references are held against the rows; another index is no fault."""
    await queue.make(spec(2))
    tamper(tmp_path, statement)
    faults = await queue.jobs.verify()
    assert bool(faults) == bool(fault)
    assert all(fault in each for each in faults)


async def test_a_file_that_is_no_database_any_more_is_a_fault(queue: Queue, tmp_path: Path) -> None:
    """Rule: what cannot be read is told, and raises nothing."""
    with (tmp_path / "state" / "queue.db").open("r+b") as file:
        file.write(b"\0" * 4096)
    (fault,) = await queue.jobs.verify()
    assert str(tmp_path / "state" / "queue.db") in fault


async def test_errors_are_counted_by_code(queue: Queue) -> None:
    """Rule: jobs that are in error now, and no others."""
    await queue.failed()
    await queue.failed()
    job = await queue.make()
    await queue.apply(job.id, JobEvent.DISPATCH, JobEvent.STUMBLE, change=Change())
    assert await queue.jobs.error_codes() == {"http_404": 2}


async def test_directories_are_those_of_each_owners_files_and_strays(queue: Queue) -> None:
    """Rule: each directory once, with its slash; what is left of a cancelled job counts too."""
    await queue.make(spec(3))
    odd = tuple(
        FileSpec(remote=f"https://h/{n}", local=local)
        for n, local in enumerate(("/root-file", "/a/b c/ü/x", "/a/b c/ü/y"))
    )
    await queue.make(replace(spec(), files=odd), owner=BOB)
    gone = await queue.make(replace(spec(), files=file_specs(1)), owner=BOB)
    await queue.apply(gone.id, JobEvent.DISPATCH, JobEvent.SUSPEND, JobEvent.CANCEL)
    assert await queue.jobs.directories() == {
        ALICE: ("/home/alice/",),
        BOB: ("/", "/a/b c/ü/", "/home/alice/"),
    }


async def test_tallies_are_by_owner_and_state(queue: Queue) -> None:
    """Rule: owners without a job are not in them."""
    await queue.failed()
    job = await queue.make(owner=BOB)
    await queue.apply(job.id, JobEvent.CANCEL)
    tallies = await queue.jobs.tallies()
    assert {owner: sum(states.values()) for owner, states in tallies.items()} == {ALICE: 1}
