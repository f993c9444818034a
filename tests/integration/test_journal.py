"""The journal: records with fields, which nothing that was logged can forge."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.journald import Journald, journald, parse
from transferd.journal import Journal, encode, field_name, message_id
from transferd.logs import JournalHandler, Lines, journal_fields
from transferd.model.events import EVENTS

ROOT = Path(__file__).parents[2]
CANARY = "hunter2-X9"


def record(message: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    """A record as the daemon makes them."""
    made = logging.LogRecord("transferd.service", level, "file.py", 1, message, (), None)
    made.fields = fields
    return made


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journald]:
    """A journald."""
    with journald(tmp_path / "socket") as listening:
        yield listening


class Elsewhere(logging.Handler):
    """Keeps what could not be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the event."""
        self.kept.append(record.getMessage())


def handler(path: Path) -> tuple[JournalHandler, Elsewhere]:
    """A handler, and where its records go otherwise."""
    elsewhere = Elsewhere()
    return JournalHandler(Journal(path), elsewhere), elsewhere


def test_a_record_has_journalds_fields_and_ours(journal: Journald) -> None:
    """Rule: what `journalctl -o json` shows can be looked for field by field."""
    sending, _ = handler(journal.path)
    sending.emit(record("auth.rejected", job="0a1b", owner=1000, scheme="ntlm", mechanism=None))
    assert journal.record() == [
        ("MESSAGE", "auth.rejected job=0a1b owner=1000 scheme=ntlm mechanism=null"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "transferd"),
        ("MESSAGE_ID", message_id("auth.rejected")),
        ("TRANSFERD_EVENT", "auth.rejected"),
        ("TRANSFERD_JOB", "0a1b"),
        ("TRANSFERD_OWNER", "1000"),
        ("TRANSFERD_SCHEME", "ntlm"),
    ]
    sending.close()


@pytest.mark.parametrize(
    ("level", "priority"), [(10, "7"), (20, "6"), (30, "4"), (40, "3"), (50, "2")]
)
def test_levels_are_syslogs_priorities(level: int, priority: str) -> None:
    """Rule: `journalctl -p err` shows errors."""
    assert dict(journal_fields(record("a.b", level)))["PRIORITY"] == priority


def test_every_event_has_an_id_for_ever() -> None:
    """Rule: catalogs and alerts rely on ids; an id follows from the name alone."""
    ids = {message_id(event) for event in EVENTS}
    assert len(ids) == len(EVENTS)
    assert message_id("job.created") == "cd7f249b92105859b17d3e322408c0f3"
    namespace = uuid.UUID("6f0e1c52-5a0f-4d59-9d1e-0d8f6c1b7a34")
    assert uuid.UUID(message_id("job.failed")) == uuid.uuid5(namespace, "job.failed")


def test_what_is_no_event_of_ours_has_no_id() -> None:
    """Rule: a library's record is the event `log`; its name for an event is nobody's."""
    fields = dict(journal_fields(record("Unclosed session")))
    assert fields["TRANSFERD_EVENT"] == "log"
    assert fields["TRANSFERD_MESSAGE"] == "Unclosed session"
    assert "MESSAGE_ID" not in fields


FORGERIES = [
    "x\nMESSAGE_ID=00000000000000000000000000000000",
    "x\n_UID=0",
    "\n",
    "x\nTRANSFERD_OWNER\n\x01\x00\x00\x00\x00\x00\x00\x000\n",
    "a=b",
    "\udcff\n",
    "\x00",
]


@pytest.mark.parametrize("value", FORGERIES)
def test_no_value_can_forge_a_field(journal: Journald, value: str) -> None:
    """Rule: a value with a line break is counted, so that it is one value."""
    sending, _ = handler(journal.path)
    sending.emit(record("a.b", name=value))
    names = [name for name, _ in journal.record()]
    assert names == [
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "TRANSFERD_EVENT",
        "TRANSFERD_NAME",
    ]
    sending.close()


@given(values=st.dictionaries(st.text(), st.text(), max_size=4))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_fields_come_back_as_they_went(values: dict[str, str]) -> None:
    """Rule: the protocol loses nothing, whatever names and values are."""
    fields = [(field_name(name), value) for name, value in values.items()]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) for name, _ in fields)
    sent = [(name, value.encode("utf-8", "backslashreplace").decode()) for name, value in fields]
    assert parse(encode(fields)) == sent


@pytest.mark.parametrize(
    "text", [f"Authorization: Basic {CANARY}==", f"https://alice:{CANARY}@host/?sig={CANARY}"]
)
def test_secrets_are_redacted_in_every_field(text: str) -> None:
    """Rule: the journal is no way around redaction."""
    made = record("a.b", reason=text, password=CANARY)
    made.exc_info = (ValueError, ValueError(text), None)
    assert all(CANARY not in value for _, value in journal_fields(made))


def test_a_large_record_is_sent_as_a_sealed_file(journal: Journald) -> None:
    """Rule: what no datagram holds goes in a memfd that nobody can change."""
    sending, elsewhere = handler(journal.path)
    values = {f"field{number}": f"{number}\n" + "é" * 60_000 for number in range(8)}
    made = record("a.b")
    made.fields = values
    sending.emit(made)
    fields = dict(journal.record())
    assert journal.files == 1
    assert {fields[field_name(name)] for name in values} == set(values.values())
    assert elsewhere.kept == []
    sending.close()


def test_without_journald_records_go_where_they_went_before(tmp_path: Path) -> None:
    """Rule: a journald that is away loses no record, and gets the next when it is back."""
    sending, elsewhere = handler(tmp_path / "socket")
    sending.emit(record("a.b"))
    with journald(tmp_path / "socket") as back:
        sending.emit(record("c.d"))
        assert ("TRANSFERD_EVENT", "c.d") in back.record()
    sending.emit(record("e.f"))
    assert elsewhere.kept == ["a.b", "e.f"]
    sending.close()


def run_configured(journal: Path, stream: str) -> str:
    """Log one event in a process of its own, and return its standard error."""
    script = (
        "import logging, os, sys\n"
        "from pathlib import Path\n"
        "from transferd.logs import set_up_logging\n"
        f"set_up_logging('json', 'info', os.environ, sys.stderr, Path({str(journal)!r}))\n"
        "logging.getLogger('x').info('job.created', extra={'fields': {'job': 'a'}})\n"
    )
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as lines:
        found = os.fstat(writer)
        environ = {
            "PYTHONPATH": str(ROOT),
            "JOURNAL_STREAM": stream.format(stream=f"{found.st_dev}:{found.st_ino}"),
        }
        command = [sys.executable, "-c", script]
        subprocess.run(command, env=environ, stderr=writer, check=True, timeout=60)
        os.close(writer)
        return lines.read()


def test_a_service_whose_standard_error_is_the_journals_sends_fields(journal: Journald) -> None:
    """Rule: JOURNAL_STREAM that names our standard error means the native protocol."""
    assert run_configured(journal.path, "{stream}") == ""
    assert ("TRANSFERD_JOB", "a") in journal.record()


def test_a_service_beside_the_journal_writes_lines(journal: Journald) -> None:
    """Rule: with any other standard error, lines go there, in the format that is configured."""
    assert json.loads(run_configured(journal.path, "1:2"))["job"] == "a"


def test_without_journald_lines_carry_their_priority(tmp_path: Path) -> None:
    """Rule: sd-daemon(3): what reads the stream still learns the level."""
    assert run_configured(tmp_path / "nobody", "{stream}").startswith('<6>{"ts":')


def test_a_message_is_the_line_without_time_and_level() -> None:
    """Rule: journald has both by itself."""
    made = record("a.b", k="two words")
    message = dict(journal_fields(made))["MESSAGE"]
    assert Lines().format(made).endswith(f" info {message}")
