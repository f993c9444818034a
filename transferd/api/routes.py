"""All routes, as one table: the server and the OpenAPI document are both made from it."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from types import UnionType

from transferd.api import events, handlers
from transferd.api.handlers import Handler
from transferd.api.parameters import HEARING, IN_PATH, LISTING, PAGE, Parameter
from transferd.wire.admin import CheckAnswer, RotationAnswer, StatusAnswer
from transferd.wire.api import (
    AcknowledgementAnswer,
    BlockersAnswer,
    FilesAnswer,
    HealthAnswer,
    JobAnswer,
    JobsAnswer,
    NoticeAnswer,
    VersionAnswer,
)
from transferd.wire.bodies import (
    AcknowledgementBody,
    FileBody,
    FilesBody,
    IdentityBody,
    JobBody,
    JobPatch,
    JobsBody,
)


class Access(enum.Enum):
    """Who may call a route."""

    #: Everybody who can connect.
    OPEN = "open"
    #: Users that this daemon works for.
    SERVED = "served"
    #: Those, and what they name must be theirs; admins may name everybody's. The service decides.
    OWNER = "owner"
    #: Admins, and whose daemon it is.
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An answer that is no error."""

    status: int
    text: str
    #: What the JSON holds; None: the media type says it all.
    body: type | UnionType | None = None
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path."""

    method: str
    path: str
    handler: Handler
    access: Access
    summary: str
    outcomes: tuple[Outcome, ...]
    #: What the request's JSON holds; None: no body is read.
    body: type | UnionType | None = None
    parameters: tuple[Parameter, ...] = ()
    #: Statuses of errors beyond those that follow from the rest.
    errors: tuple[int, ...] = ()

    @property
    def looks(self) -> bool:
        """Whether it only looks at something, and ends by itself."""
        return self.method == "GET" and self.handler is not events.stream

    @property
    def path_parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the path names."""
        return tuple(IN_PATH[name] for name in re.findall(r"{(\w+)}", self.path))

    @property
    def query_names(self) -> tuple[str, ...]:
        """Names of the query's parameters."""
        return tuple(each.name for each in self.parameters if each.place == "query")

    @property
    def problems(self) -> tuple[int, ...]:
        """Statuses of all errors."""
        # Each route knows its query, and refuses any other.
        statuses = {400, 500, 503, *self.errors}
        if self.access is not Access.OPEN:
            statuses.add(403)
        if self.path_parameters:
            statuses.add(404)
        if self.body is not None:
            statuses |= {413, 415}
        return tuple(sorted(statuses))


_JOB = (Outcome(status=200, text="The job as it is now.", body=JobAnswer),)
_LAST = (Outcome(status=200, text="The job as it was when it left.", body=JobAnswer),)

_JOBS = "/v1/jobs"
_ONE = "/v1/jobs/{id}"
_CREDENTIAL = "/v1/jobs/{id}/credentials/{target}/{scheme}"
_OPEN, _SERVED, _OWNER, _OPERATOR = Access.OPEN, Access.SERVED, Access.OWNER, Access.OPERATOR

ROUTES = (
    Route(
        method="POST",
        path=_JOBS,
        handler=handlers.create_jobs,
        access=_SERVED,
        summary="Create a job, or several, all or none.",
        body=JobBody | JobsBody,
        outcomes=(
            Outcome(status=201, text="Made, and safe on disk.", body=JobAnswer | JobsAnswer),
            Outcome(
                status=200,
                text="The same request had made it before.",
                body=JobAnswer | JobsAnswer,
            ),
        ),
        errors=(409,),
    ),
    Route(
        method="GET",
        path=_JOBS,
        handler=handlers.list_jobs,
        access=_SERVED,
        summary="List jobs, newest last.",
        parameters=LISTING,
        outcomes=(Outcome(status=200, text="A page of jobs.", body=JobsAnswer),),
    ),
    Route(
        method="GET",
        path=_ONE,
        handler=handlers.get_job,
        access=_OWNER,
        summary="Look at a job.",
        outcomes=_JOB,
    ),
    Route(
        method="PATCH",
        path=_ONE,
        handler=handlers.change_job,
        access=_OWNER,
        summary="Change settings of a job; what is not named stays.",
        body=JobPatch,
        outcomes=_JOB,
        errors=(409,),
    ),
    Route(
        method="GET",
        path=f"{_ONE}/files",
        handler=handlers.list_files,
        access=_OWNER,
        summary="List the files of a job, in order.",
        parameters=PAGE,
        outcomes=(Outcome(status=200, text="A page of files.", body=FilesAnswer),),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/files",
        handler=handlers.add_files,
        access=_OWNER,
        summary="Add a file to a job, or several, all or none.",
        body=FileBody | FilesBody,
        outcomes=(Outcome(status=201, text="The new files.", body=FilesAnswer),),
        errors=(409,),
    ),
    Route(
        method="PUT",
        path=_CREDENTIAL,
        handler=handlers.set_credential,
        access=_OWNER,
        summary="Set a credential, in place of one for the same target and scheme; without user "
        "and password the owner's own identity, for negotiate only.",
        body=IdentityBody,
        outcomes=_JOB,
        errors=(409,),
    ),
    Route(
        method="DELETE",
        path=_CREDENTIAL,
        handler=handlers.remove_credential,
        access=_OWNER,
        summary="Remove a credential; 404 `credential_not_found` tells that there was none.",
        outcomes=_JOB,
        errors=(409,),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/resume",
        handler=handlers.resume_job,
        access=_OWNER,
        summary="Start a job, or continue it at once.",
        outcomes=_JOB,
        errors=(409,),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/suspend",
        handler=handlers.suspend_job,
        access=_OWNER,
        summary="Pause a job.",
        outcomes=_JOB,
        errors=(409,),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/complete",
        handler=handlers.complete_job,
        access=_OWNER,
        summary="Publish what is whole under its final name, and end the job.",
        outcomes=_LAST,
        errors=(409,),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/cancel",
        handler=handlers.cancel_job,
        access=_OWNER,
        summary="End a job and remove partial data.",
        outcomes=_LAST,
        errors=(409,),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/take-ownership",
        handler=handlers.take_ownership,
        access=_OWNER,
        summary="Make the caller, an admin, the owner of a job, without the credentials, headers, "
        "commands and trust that were the former owner's.",
        outcomes=_JOB,
        errors=(409,),
    ),
    Route(
        method="GET",
        path=f"{_ONE}/why",
        handler=handlers.why,
        access=_OWNER,
        summary="Say what keeps a job from moving, and what would help.",
        outcomes=(Outcome(status=200, text="All reasons.", body=BlockersAnswer),),
    ),
    Route(
        method="GET",
        path="/v1/events",
        handler=events.stream,
        access=_SERVED,
        summary="Hear what happens, as server-sent events.",
        parameters=HEARING,
        outcomes=(
            Outcome(
                status=200,
                text="`event` is a kind with a notice as data, or `gap` with its bounds.",
                media_type=events.MEDIA_TYPE,
            ),
        ),
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/notices/{number}/ack",
        handler=handlers.acknowledge,
        access=_OWNER,
        summary="Acknowledge a notice, so that it is not delivered again.",
        outcomes=(Outcome(status=200, text="The notice, settled.", body=NoticeAnswer),),
    ),
    Route(
        method="POST",
        path="/v1/notices/ack",
        handler=handlers.acknowledge_all,
        access=_SERVED,
        summary="Acknowledge notices, each by itself: one that cannot be keeps none of the others.",
        body=AcknowledgementBody,
        outcomes=(Outcome(status=200, text="What became of each.", body=AcknowledgementAnswer),),
    ),
    Route(
        method="GET",
        path="/v1/health",
        handler=handlers.health,
        access=_OPEN,
        summary="Say how the service is; with figures of the caller's own jobs, for admins of all.",
        outcomes=(Outcome(status=200, text="It works.", body=HealthAnswer),),
    ),
    Route(
        method="GET",
        path="/v1/version",
        handler=handlers.version,
        access=_OPEN,
        summary="Say what the service is, and what it can do.",
        outcomes=(Outcome(status=200, text="Version and features.", body=VersionAnswer),),
    ),
    Route(
        method="GET",
        path="/v1/openapi.json",
        handler=handlers.openapi,
        access=_OPEN,
        summary="Describe this API.",
        outcomes=(Outcome(status=200, text="An OpenAPI 3.1 document."),),
    ),
    Route(
        method="GET",
        path="/v1/metrics",
        handler=handlers.figures,
        access=_OPERATOR,
        summary="Figures for Prometheus.",
        outcomes=(Outcome(status=200, text="Prometheus' text format.", media_type="text/plain"),),
    ),
    Route(
        method="GET",
        path="/v1/admin/status",
        handler=handlers.admin_status,
        access=_OPERATOR,
        summary="Say how the service is, user by user.",
        outcomes=(Outcome(status=200, text="The service.", body=StatusAnswer),),
    ),
    Route(
        method="POST",
        path="/v1/admin/check",
        handler=handlers.admin_check,
        access=_OPERATOR,
        summary="Look for what is wrong, and change nothing.",
        outcomes=(Outcome(status=200, text="What was found.", body=CheckAnswer),),
    ),
    Route(
        method="POST",
        path="/v1/admin/rotate-key",
        handler=handlers.rotate_key,
        access=_OPERATOR,
        summary="Seal every secret under a new key, and forget the old ones.",
        outcomes=(Outcome(status=200, text="Done, and on disk.", body=RotationAnswer),),
        errors=(409,),
    ),
)
