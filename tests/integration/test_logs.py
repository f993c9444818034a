"""The log: one line a record, nothing secret, nothing forged."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferd.logs import FORMATS, JsonLines, LineHandler, Lines, redact
from transferd.model.credentials import Scheme, Secret
from transferd.model.states import JobState

ROOT = Path(__file__).parents[2]


def record(
    message: str, *args: object, level: int = logging.INFO, fields: object = None
) -> logging.LogRecord:
    """A log record as the daemon makes them."""
    made = logging.LogRecord("transferd.service", level, "file.py", 1, message, args, None)
    made.created = 1_769_860_800.25
    if fields is not None:
        made.fields = fields
    return made


def failure(error: Exception, message: str = "job.failed") -> logging.LogRecord:
    """A record with a traceback."""
    made = record(message, level=logging.ERROR)
    try:
        raise error
    except type(error):
        made.exc_info = sys.exc_info()
    return made


def test_an_event_is_one_line_of_pairs() -> None:
    """Rule: time in UTC, level, event, then the fields in their order."""
    line = Lines().format(
        record("job.created", fields={"job": "0a1b", "owner": 1000, "name": "two words"})
    )
    assert line == (
        '2026-01-31T12:00:00.250Z info job.created job=0a1b owner=1000 name="two words"'
    )


async def test_lines_of_one_turn_are_written_at_once_and_what_is_wrong_is_not_kept() -> None:
    """A write gives the interpreter away; a warning is there before anybody is told of it."""
    written: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    handler = LineHandler(Stream())
    handler.setFormatter(Lines())
    for name in ("a.b", "a.c"):
        handler.handle(record(name))
    assert written == []
    await asyncio.sleep(0)
    assert [text.count("\n") for text in written] == [2]
    handler.handle(record("a.d"))
    handler.handle(record("a.e", level=logging.WARNING))
    assert [text.count("\n") for text in written] == [2, 2]
    handler.handle(record("a.f"))
    handler.flush()  # as at the end of the process
    assert len(written) == 3


def test_an_event_is_one_json_object() -> None:
    """Rule: the same in JSON, with numbers as numbers."""
    line = JsonLines().format(record("job.created", fields={"job": "0a1b", "owner": 1000}))
    assert json.loads(line) == {
        "ts": "2026-01-31T12:00:00.250Z",
        "level": "info",
        "event": "job.created",
        "job": "0a1b",
        "owner": 1000,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.5, "0.5"),
        (JobState.QUEUED, "queued"),
        (Scheme.NTLM, "ntlm"),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("é/ü", "é/ü"),
        ("line\nbreak", '"line\\nbreak"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("left\u202eright", '"left\\u202eright"'),
        ("next\x85line\u2028", '"next\\u0085line\\u2028"'),
        ("\udcff", '"\\udcff"'),
        (Path("/srv/a b"), '"/srv/a b"'),
        (["x", 1], "\"['x', 1]\""),
        (Secret("hunter2"), "Secret(…)"),
    ],
)
def test_values_are_quoted_where_needed(value: object, text: str) -> None:
    """Rule: a value is one word; what could break a line, a field or a terminal is escaped."""
    assert Lines().format(record("a.b", fields={"k": value})).endswith(f" a.b k={text}")


@given(value=st.text(), message=st.text())
def test_no_text_can_begin_another_line(value: str, message: str) -> None:
    """Rule: one record is one line of printable characters, whatever was logged."""
    for lines in FORMATS.values():
        line = lines().format(record("%s", message, fields={"k": value}))
        assert line.isprintable()


@given(value=st.text())
def test_a_quoted_value_can_be_read_back(value: str) -> None:
    """Rule: quoting loses nothing: a value in quotes is a JSON string."""
    line = Lines().format(record("a.b", fields={"k": f" {value}"}))
    assert json.loads(line.partition(" k=")[2]) == redact(f" {value}")


def test_a_library_record_keeps_its_text() -> None:
    """Rule: what is no event of ours is the event `log` with logger and message."""
    line = Lines().format(record("Unclosed %s\nagain", "session", level=logging.ERROR))
    assert line.endswith(' error log logger=transferd.service message="Unclosed session\\nagain"')


def test_a_traceback_is_folded_into_the_line() -> None:
    """Rule: an exception is two fields, its text and its trace with escaped line breaks."""
    line = Lines().format(failure(ValueError("no\nway")))
    assert "\n" not in line
    assert 'error="ValueError: no\\nway"' in line
    assert 'trace="Traceback (most recent call last):\\n' in line


def test_a_long_value_is_cut() -> None:
    """Rule: one value cannot make journald break the line."""
    assert len(Lines().format(record("a.b", fields={"k": "\x01" * 1_000_000}))) < 48 * 1024


def test_a_field_cannot_replace_the_event() -> None:
    """Rule: fields named like the parts of every line are told apart in JSON."""
    line = json.loads(JsonLines().format(record("a.b", fields={"event": "c.d", "ts": 1})))
    assert (line["event"], line["event_"], line["ts_"]) == ("a.b", "c.d", 1)


CANARY = "hunter2-X9"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Basic {CANARY}==",
        f"{{'Authorization': 'Digest username=\"alice\", response=\"{CANARY}\"', 'Host': 'h'}}",
        f'Proxy-Authorization: Digest username="alice", response="{CANARY}"',
        f"sent Bearer {CANARY} to h",
        f"cookie: session={CANARY}; other=1",
        f'("X-Api-Key", "x") X-Api-Key={CANARY}',
        f"cannot fetch http://alice:{CANARY}@host/file: refused",
        f"cannot fetch 'https://alice:p@ss{CANARY}@host:8443/file'",
        f"cannot fetch https://host/file?X-Signature={CANARY}&b=1: refused",
        f"cannot fetch https://host/file#access={CANARY}",
        f'{{"username": "alice", "password": "{CANARY}"}}',
        f"IdentityBody(username='alice', password='{CANARY}')",
        f"password={CANARY}",
        json.dumps(json.dumps({"password": f"p{CANARY}", "x": 1})),
        f'"password": "with \\" quote {CANARY}"',
    ],
)
def test_texts_that_look_like_secrets_are_redacted(text: str) -> None:
    """Rule: a credential that slipped into a message does not reach the log."""
    assert CANARY not in redact(text)
    for lines in FORMATS.values():
        assert CANARY not in lines().format(record("%s", text, fields={"reason": text}))
        assert CANARY not in lines().format(failure(ValueError(text)))


@pytest.mark.parametrize("name", ["password", "Authorization", "api_key", "proxy_passwd", "token"])
def test_fields_that_are_named_like_secrets_are_redacted(name: str) -> None:
    """Rule: the name of a field is enough."""
    for lines in FORMATS.values():
        assert CANARY not in lines().format(record("a.b", fields={name: CANARY}))


@pytest.mark.parametrize(
    "piece", ["a://", "http://h/", "token:'", "authorization:", "Basic ", 'a?"', "a=\\'", "a@"]
)
def test_redaction_is_done_with_any_text_in_no_time(piece: str) -> None:
    """Rule: workers say up to 64 KiB at once, and the daemon's loop waits for each line."""
    text = piece * (64 * 1024 // len(piece))
    began = time.thread_time()
    redact(text)
    assert time.thread_time() - began < 2  # a hundredth of it, or half a minute


@pytest.mark.parametrize(
    "text",
    [
        "cannot use basic authentication over http",
        "Digest challenge without nonce",
        "https://host:8443/dir/file.iso",
        "user@host wrote /srv/a?b",
        "no ticket for Negotiate: ask your administrator",
    ],
)
def test_harmless_texts_stay_as_they_are(text: str) -> None:
    """Rule: redaction leaves prose, plain URLs and paths alone."""
    assert redact(text) == text


def run_configured(
    code: str, *, log_format: str = "key=value", level: str = "info", journal: str = ""
) -> list[str]:
    """Configure logging in a process of its own and return the lines of its standard error.

    `{stream}` in *journal* becomes the device and inode of that standard error.
    """
    script = (
        "import logging, os, sys, warnings\n"
        "from pathlib import Path\n"
        "from transferd.logs import set_up_logging\n"
        "nobody = Path('/nonexistent/journald')\n"
        f"set_up_logging({log_format!r}, {level!r}, os.environ, sys.stderr, nobody)\n"
        "log = logging.getLogger('transferd.test')\n"
        f"{code}\n"
    )
    reader, writer = os.pipe()
    try:
        found = os.fstat(writer)
        environ = {"PYTHONPATH": str(ROOT)}
        environ["JOURNAL_STREAM"] = journal.format(stream=f"{found.st_dev}:{found.st_ino}")
        subprocess.run(
            [sys.executable, "-c", script], env=environ, stderr=writer, check=True, timeout=60
        )
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8") as lines:
        return lines.read().splitlines()


def test_lines_go_to_standard_error_from_the_configured_level_on() -> None:
    """Rule: level and format of the configuration decide what is written."""
    code = "log.info('a.quiet'); log.warning('a.loud', extra={'fields': {'k': 1}})"
    lines = run_configured(code, level="warning")
    assert len(lines) == 1
    assert lines[0].endswith(" warning a.loud k=1")


def test_json_is_written_where_configured() -> None:
    """Rule: the format `json` writes JSON lines."""
    (line,) = run_configured("log.info('a.b')", log_format="json")
    assert json.loads(line)["event"] == "a.b"


def test_requests_of_the_http_server_are_not_logged() -> None:
    """Rule: aiohttp's access log, which has URLs in it, stays silent."""
    assert run_configured("logging.getLogger('aiohttp.access').info('GET /v1/jobs?x=1')") == []


def test_python_warnings_become_records() -> None:
    """Rule: a warning is a line of the log too."""
    (line,) = run_configured("warnings.warn('old ways')")
    assert " warning log logger=py.warnings " in line


@pytest.mark.parametrize(
    ("journal", "expected"),
    [("{stream}", ["<7>", "<6>", "<4>", "<3>", "<2>"]), ("1:2", []), ("", [])],
)
def test_a_journal_that_is_away_gets_priorities(journal: str, expected: list[str]) -> None:
    """Rule: JOURNAL_STREAM counts only where it names our own standard error (systemd.exec(5))."""
    code = "[log.log(level, 'a.b') for level in (10, 20, 30, 40, 50)]"
    lines = run_configured(code, level="debug", journal=journal)
    assert len(lines) == 5
    assert [line[:3] for line in lines if line.startswith("<")] == expected
