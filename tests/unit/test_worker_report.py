"""What a worker says to the log goes over its link: soon, without secrets, and not too much."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from transferd.wire.codec import decode_from_worker, encode
from transferd.wire.link import Said
from transferd.worker.report import BURST, RATE, Report


class Watch:
    """A clock that stands until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    """A clock."""
    return Watch()


@pytest.fixture
def report(watch: Watch) -> Report:
    """A report on that clock."""
    return Report(watch)


@pytest.fixture
def logger(report: Report) -> Iterator[logging.Logger]:
    """A logger that says it."""
    made = logging.getLogger("transferd.test.report")
    made.propagate = False
    made.setLevel(logging.DEBUG)
    made.addHandler(report)
    yield made
    made.removeHandler(report)


async def test_a_record_becomes_a_message(report: Report, logger: logging.Logger) -> None:
    """Level, event and fields are what they were; a message of the link carries them."""
    said: list[Said] = []
    report.attach(said.append)
    logger.warning("file.stuck", extra={"fields": {"job": "j", "file": 3, "since": None}})
    assert said == [Said("warning", "file.stuck", {"job": "j", "file": 3, "since": None})]
    assert decode_from_worker(encode(said[0]).rstrip()) == said[0]


@pytest.mark.parametrize(
    ("level", "named"),
    [(10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error"), (5, "debug")],
)
async def test_there_are_four_levels(
    report: Report, logger: logging.Logger, level: int, named: str
) -> None:
    """The link knows four."""
    said: list[Said] = []
    report.attach(said.append)
    logger.setLevel(1)
    logger.log(level, "a.b")
    assert said[0].level == named


async def test_what_was_logged_before_the_link_comes_first(
    report: Report, logger: logging.Logger
) -> None:
    """The session is opened before there is a link, and may have failed."""
    said: list[Said] = []
    logger.info("first.one")
    report.attach(said.append)
    logger.info("second.one")
    assert [record.event for record in said] == ["first.one", "second.one"]


async def test_secrets_do_not_go_over(report: Report, logger: logging.Logger) -> None:
    """The daemon writes down what it is told."""
    said: list[Said] = []
    report.attach(said.append)
    fields = {"password": "hunter2", "url": "http://u:hunter2@h/?sig=hunter2"}
    logger.info("a.b", extra={"fields": fields})
    try:
        raise ValueError("Authorization: Basic aHVudGVyMg==")
    except ValueError:
        logger.exception("c.d")
    assert len(said) == 2
    assert "hunter2" not in repr(said)
    assert "aHVudGVyMg" not in repr(said)


async def test_any_text_can_be_sent(report: Report, logger: logging.Logger) -> None:
    """Names of files may be no UTF-8, and libraries log what they like."""
    said: list[Said] = []
    report.attach(said.append)
    logger.info("a.b", extra={"fields": {"file": "/tmp/\udcff"}})
    logger.info("two\nlines")
    assert [encode(record).count(b"\n") for record in said] == [1, 1]
    assert said[1].event == "log"


async def test_too_much_is_counted_and_not_said(
    report: Report, logger: logging.Logger, watch: Watch
) -> None:
    """A worker in a loop neither fills the log nor the link."""
    said: list[Said] = []
    report.attach(said.append)
    for _ in range(BURST + 7):
        logger.info("a.b")
    assert len(said) == BURST
    watch.now += 2.5 / RATE
    for _ in range(5):
        logger.info("c.d")
    assert said[BURST:] == [
        Said("warning", "log.suppressed", {"records": 7}),
        Said("info", "c.d"),
        Said("info", "c.d"),
    ]


async def test_a_thread_may_log(report: Report, logger: logging.Logger) -> None:
    """The link is the loop's: records of disk threads are handed to it."""
    arrived: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
    report.attach(arrived.set_result)
    await asyncio.to_thread(logger.info, "a.b")
    async with asyncio.timeout(5):
        assert (await arrived).event == "a.b"


def test_a_thread_that_outlives_the_loop_is_not_hurt(
    report: Report, logger: logging.Logger
) -> None:
    """A KDC may answer when the worker is about to go."""
    said: list[Said] = []

    async def live() -> None:
        report.attach(said.append)

    asyncio.run(live())
    with asyncio.Runner() as runner:
        runner.run(asyncio.to_thread(logger.info, "a.b"))
    assert said == []
