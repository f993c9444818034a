"""What stands in the log: every event by name, and what is said of it.

Names follow those of BITS where it has the event (BITS.md 1.23). A field that does not apply is
null. In the journal each event has a MESSAGE_ID of its own, and a field `job` is TRANSFERD_JOB.
What a worker logs is the event `worker.said` there, with the name in its field `said`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class LogEvent:
    """What an event means, and the names of its fields."""

    meaning: str
    fields: tuple[str, ...] = ()


def _event(meaning: str, fields: str = "") -> LogEvent:
    return LogEvent(meaning, tuple(fields.split()))


_FAILURE = "job owner code context http_status file reason"

EVENTS: Mapping[str, LogEvent] = MappingProxyType(
    {
        # ── jobs and their files ──
        "job.created": _event("a job was made", "job owner files"),
        "job.resumed": _event("its owner started a job, or let it go on", "job owner"),
        "job.suspended": _event("its owner paused a job", "job owner"),
        "job.notify_changed": _event("who is told of a job has changed", "job owner"),
        "job.owner_changed": _event("an admin has taken a job over", "job from to by"),
        "job.transferred": _event("all files of a job are whole", "job owner"),
        "job.completed": _event(
            "a job has left the queue, its files have their names", "job owner"
        ),
        "job.cancelled": _event("a job has left the queue, its partial data is gone", "job owner"),
        "job.failed": _event("a job waits for its owner", _FAILURE),
        "job.stumbled": _event("a job was interrupted, and is tried again", _FAILURE),
        "job.expired": _event("nobody had touched a job for too long", "job"),
        "job.close_delayed": _event("a job could not close by itself yet", "job reason"),
        "server.resting": _event(
            "a server failed several jobs of an owner in a row, and is left alone by them",
            "owner server code seconds",
        ),
        "file.start": _event("a file is being fetched", "job owner file url offset"),
        "file.stop": _event(
            "a file is whole (`done`), or why it stopped",
            "job owner file url status bytes seconds http_status",
        ),
        "file.changed": _event("a file changed while it was fetched", "job file"),
        "file.restart": _event("a file is fetched from its beginning", "job file reason"),
        "file.unchecked": _event("nobody could be asked for changes", "job file reason"),
        "range.given_up": _event("another connection was no help with a file", "job file reason"),
        "file.stuck": _event("the disk takes long to close a file"),
        "checksum.mismatch": _event("a file is not what was expected", "job file found"),
        "auth.accepted": _event(
            "a credential was accepted", "job owner host target scheme mechanism"
        ),
        "auth.rejected": _event(
            "a credential was rejected", "job owner host target scheme mechanism"
        ),
        "notify.exec": _event("a notification command has run", "job notice status"),
        "notify.exec_failed": _event(
            "a notification command failed or did not start", "job notice status detail"
        ),
        "owner.unknown": _event(
            "the user database does not say whether an owner is an admin", "owner reason"
        ),
        "stray.kept": _event("partial data could not be removed", "owner files reason"),
        # ── runs and workers ──
        "run.broken": _event("a fault of the daemon's own in a run", "job"),
        "run.fault": _event("a fault of the worker's own in a run", "job kind trace"),
        "run.overtaken": _event("its owner moved a job while it ran", "job reason"),
        "run.unresponsive": _event("a worker did not leave a job", "job"),
        "worker.started": _event("a worker process runs", "owner pid"),
        "worker.ended": _event("a worker process is gone", "owner pid status"),
        "worker.complained": _event(
            "what a worker wrote before its first word", "owner pid detail"
        ),
        "worker.cut_off": _event(
            "a worker was ended by force, for what it did", "owner pid reason"
        ),
        "worker.said": _event("a line of a worker's own", "owner pid said detail left_out"),
        "worker.unheard": _event("a fault of the daemon's own with a worker", "owner"),
        "worker.unkillable": _event("a worker process could not be killed", "owner pid reason"),
        "worker.unstartable": _event("a fault of the daemon's own at a worker's start", "owner"),
        "worker.fault": _event("a fault of the worker's own"),
        "worker.session": _event("the owner's umask or limits could not be taken", "reason"),
        "log.suppressed": _event("a worker had more to say than is taken", "records"),
        "question.fault": _event("a fault of the worker's own in an answer", "kind"),
        "link.broken": _event("the daemon spoke nonsense to a worker", "reason"),
        # ── the daemon ──
        "daemon.ready": _event("the daemon serves", "socket requeued"),
        "daemon.stopping": _event("the daemon was told to stop"),
        "daemon.stopped": _event("the daemon has stopped"),
        "daemon.idle": _event("a daemon on demand is not needed any more"),
        "daemon.unrecorded": _event("where the daemon listens could not be written down", "error"),
        "config.reloaded": _event("the configuration was read again", "source changed"),
        "config.refused": _event("the configuration stays as it was", "source reason"),
        "key.flawed": _event("a key is not as it should be", "code text remedy"),
        "key.rotated": _event("secrets are sealed with a new key", "key resealed unreadable"),
        "supervisor.unreachable": _event("the service manager does not listen", "said reason"),
        "network.changed": _event(
            "the connection costs something else, or leads elsewhere", "cost interfaces"
        ),
        "network.route_added": _event("a route has appeared: interrupted jobs are tried"),
        "network.unmetered": _event("nobody says now what the connection costs", "reason"),
        "network.unwatched": _event("routes cannot be watched here", "reason"),
        "schedule.changed": _event("other limits are in force", "total high normal low"),
        "store.backed_up": _event("the queue file is kept from before a change", "schema backup"),
        "store.failed": _event("the queue file could not be used", "job notice reason"),
        # ── callers ──
        "api.request": _event("a request was answered", "method route status uid ms"),
        "api.full": _event("callers wait for others to go", "reason"),
        "api.refused": _event("somebody has too many connections", "uid connections"),
        "api.cut_off": _event("requests did not end in time", "seconds"),
        "api.fault": _event("a fault of the daemon's own in a request", "method"),
        "api.malformed_request": _event("somebody does not speak HTTP"),
        "api.connection_lost": _event("a caller has left"),
        "api.unavailable": _event("a request could not be served now", "code reason"),
        "api.stream_ended": _event("an event stream had to end", "reason"),
        "api.stream_fault": _event("a fault of the daemon's own in an event stream"),
    }
)
