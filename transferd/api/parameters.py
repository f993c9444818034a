"""Parameters of routes: in paths, queries and headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from transferd.api import events
from transferd.api.query import DEFAULT_LIMIT, MAX_LIMIT
from transferd.model.credentials import Scheme, Target
from transferd.model.notices import NoticeKind, kind_labels
from transferd.model.states import JobState

Schema: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of path, query or headers."""

    name: str
    #: `path`, `query` or `header`.
    place: str
    schema: Schema
    text: str
    #: Several values, separated by commas.
    many: bool = False


_POSITION: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}

IN_PATH = {
    "id": Parameter(
        name="id", place="path", schema={"type": "string", "format": "uuid"}, text="The job."
    ),
    "target": Parameter(
        name="target",
        place="path",
        schema={"type": "string", "enum": [target.value for target in Target]},
        text="Who asks for the credential; in any case.",
    ),
    "scheme": Parameter(
        name="scheme",
        place="path",
        schema={"type": "string", "enum": [scheme.value for scheme in Scheme]},
        text="How the credential is presented; in any case.",
    ),
    "number": Parameter(name="number", place="path", schema=_POSITION, text="The notice."),
}

PAGE = (
    Parameter(
        name="limit",
        place="query",
        schema={"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        text="Entries of a page; there may be fewer where they are long.",
    ),
    Parameter(
        name="after",
        place="query",
        schema={"type": "string", "pattern": "^[0-9]{1,18}$"},
        text="`next` of the page before.",
    ),
)

_EVERYBODY = Parameter(
    name="all_users",
    place="query",
    schema={"type": "boolean"},
    text="Jobs of everybody; for admins.",
)

LISTING = (
    Parameter(
        name="state",
        place="query",
        schema={"type": "string", "enum": [state.label for state in JobState]},
        text="Only jobs in these states.",
        many=True,
    ),
    _EVERYBODY,
    *PAGE,
)

HEARING = (
    Parameter(
        name="job",
        place="query",
        schema={"type": "string", "format": "uuid"},
        text="Only this job.",
    ),
    _EVERYBODY,
    Parameter(
        name="kinds",
        place="query",
        schema={"type": "string", "enum": kind_labels(~NoticeKind(0))},
        text=f"What to hear; default: {', '.join(kind_labels(events.DEFAULT_KINDS))}.",
        many=True,
    ),
    Parameter(
        name="after", place="query", schema=_POSITION, text="Replay what comes after this number."
    ),
    Parameter(
        name="Last-Event-ID",
        place="header",
        schema=_POSITION,
        text="As `after`, and wins over it: where a broken stream had got to.",
    ),
)
