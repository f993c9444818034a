"""The journal of a real journald."""

from __future__ import annotations

import json

from tests.support.guest import Guest
from tests.support.guest_user import User
from transferd.journal import message_id


async def test_records_are_found_by_their_fields(machine: Guest, alice: User) -> None:
    """Rule: `journalctl TRANSFERD_OWNER=… TRANSFERD_EVENT=…` answers questions about jobs."""
    job = await alice.json("create", "a job")
    machine.run("journalctl", "--sync")
    found = machine.run(
        "journalctl", "--output=json", "TRANSFERD_EVENT=job.created", f"TRANSFERD_JOB={job['id']}"
    )
    (line,) = found.output.splitlines()
    record = json.loads(line)
    assert record["TRANSFERD_OWNER"] == str(job["owner"]["uid"])
    assert record["MESSAGE"] == f"job.created job={job['id']} owner={job['owner']['uid']} files=0"
    assert record["MESSAGE_ID"] == message_id("job.created")
    assert (record["PRIORITY"], record["SYSLOG_IDENTIFIER"]) == ("6", "transferd")
    assert (record["_TRANSPORT"], record["_SYSTEMD_UNIT"]) == ("journal", "transferd.service")
    assert "__REALTIME_TIMESTAMP" in record
    lines = machine.run("journalctl", "--unit=transferd", "_TRANSPORT=stdout", "--output=cat")
    assert "job.created" not in lines.output
