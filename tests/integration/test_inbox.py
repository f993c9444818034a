"""What waits between the link and a run: in order, and bounded."""

from __future__ import annotations

import asyncio

import pytest

from transferd.model.job import JobId, Part
from transferd.service.inbox import Batch, Inbox, Lost
from transferd.wire import link

JOB = JobId("00000000-0000-4000-8000-000000000001")


def durable(file: int, offset: int, *parts: Part) -> link.Durable:
    """So much of a file is on disk."""
    return link.Durable(JOB, 1, file, offset, 9, parts=parts)


def opened(file: int) -> link.Reset:
    """Something about a file."""
    return link.Reset(JOB, 1, file)


async def test_messages_are_taken_in_their_order() -> None:
    """Of offsets of one file in a row the last one is enough."""
    inbox = Inbox()
    for message in (durable(0, 1), durable(0, 2), durable(1, 1), opened(0), durable(0, 3)):
        inbox.put(message)
    taken = await inbox.take()
    assert taken == Batch([durable(0, 2), durable(1, 1), opened(0), durable(0, 3)], None)


async def test_what_is_taken_ends_where_somebody_has_to_decide() -> None:
    """What comes after that is for another time."""
    inbox, drained = Inbox(), link.Drained(JOB, 1)
    for message in (opened(0), drained, Lost("it died")):
        inbox.put(message)
    assert await inbox.take() == Batch([opened(0)], drained)
    assert await inbox.take() == Batch([], Lost("it died"))


async def test_what_was_put_back_comes_first() -> None:
    """The queue file could not be written: it is tried again, in the same order."""
    inbox = Inbox()
    for message in (opened(0), opened(1)):
        inbox.put(message)
    inbox.put_back((await inbox.take()).said)
    inbox.put(opened(2))
    assert await inbox.take() == Batch([opened(0), opened(1), opened(2)], None)


async def test_parts_that_were_told_before_are_replaced_with_their_offset() -> None:
    """A message tells of all of them."""
    inbox, part = Inbox(), Part(start=4, end=5)
    for message in (durable(0, 1, part), durable(0, 2, part), durable(0, 5)):
        inbox.put(message)
    assert (await inbox.take()).said == [durable(0, 5)]


async def test_whoever_fills_it_waits_until_the_run_has_caught_up() -> None:
    """The link is not read meanwhile, and the kernel holds the worker back."""
    inbox = Inbox(room=2)
    await inbox.room()
    inbox.put(opened(0))
    inbox.put(opened(1))
    waiting = asyncio.create_task(inbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await inbox.take()
    await waiting


@pytest.mark.parametrize("message", [opened(1), Lost("it died")])
async def test_a_run_that_is_over_holds_nobody_up(message: link.Reset | Lost) -> None:
    """Nothing is kept for it any more."""
    inbox = Inbox(room=1)
    inbox.put(opened(0))
    waiting = asyncio.create_task(inbox.room())
    await asyncio.sleep(0)
    inbox.close()
    await waiting
    inbox.put(message)
    assert len(inbox) == 0
    await inbox.room()


async def test_a_full_one_still_takes_the_end() -> None:
    """That its worker is lost has to reach the run."""
    inbox = Inbox(room=1)
    inbox.put(opened(0))
    inbox.put(Lost("it died"))
    assert await inbox.take() == Batch([opened(0)], Lost("it died"))
