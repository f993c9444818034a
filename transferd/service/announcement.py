"""What a notification command is given."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from transferd.model.notices import Notice
from transferd.wire.answers import Answers


def announce(answers: Answers, notice: Notice) -> tuple[Mapping[str, str], str]:
    """Return the command's variables and its standard input: the notice, as listeners get it."""
    job = notice.job
    variables = {
        "TRANSFERD_JOB_ID": job.id,
        "TRANSFERD_JOB_NAME": job.settings.name,
        "TRANSFERD_KIND": notice.kind.label,
        "TRANSFERD_NOTICE": str(notice.number),
        "TRANSFERD_ERROR": job.error.code if job.error is not None else "",
    }
    return variables, msgspec.json.encode(answers.notice(notice, ())).decode()
