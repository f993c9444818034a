"""The sections of the configuration: each key with its default, and what it says to the model.

`config/transferd.toml` lists them all and a test keeps both equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import time
from typing import Annotated, Literal, get_args

import msgspec

from transferd.model.admission import Rules
from transferd.model.checks import LONGEST, check_cost
from transferd.model.choices import Priority
from transferd.model.credentials import PassportOptions
from transferd.model.limits import LEAST_RATE, Limits
from transferd.model.rates import Rates
from transferd.model.schedule import Kind, Period, Schedule


def _one_of(names: Iterable[str]) -> msgspec.Meta:
    # In the order in which they mean something; msgspec would sort them.
    return msgspec.Meta(description=f"one of {', '.join(names)}")


# Seconds, and no more of them than a job may ask for: TOML has an infinity, and JSON has none.
Positive = Annotated[float, msgspec.Meta(gt=0, le=LONGEST)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]
Days = Annotated[float, msgspec.Meta(gt=0, le=LONGEST / 86400)]
# A larger one is no delay that anybody would call background.
Delay = Annotated[float, msgspec.Meta(gt=0, le=1)]
# Workers are told some of them: all are such numbers as JSON and SQLite have.
_MOST = 2**53
Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_CostName = Literal["unrestricted", "standard", "no_surcharge", "not_roaming", "always"]
CostName = Annotated[_CostName, _one_of(get_args(_CostName))]
_DayName = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS = get_args(_DayName)
Day = Annotated[_DayName, _one_of(_DAYS)]
# What an environment can hold (environ(7)).
VariableName = Annotated[str, msgspec.Meta(pattern=r"\A[^=\x00]+\Z")]
VariableValue = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z")]

_START = msgspec.Meta(
    pattern=r"\A([01]\d|2[0-3]):[0-5]\d\Z",
    description='a time from "00:00" to "23:59", with two digits for each',
)
_END = msgspec.Meta(
    pattern=r"\A(([01]\d|2[0-3]):[0-5]\d|24:00)\Z",
    description='a time from "00:00" to "24:00", with two digits for each',
)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Root of the sections."""

    def doubts(self) -> Iterator[str]:
        """Say what may be meant otherwise, though it can be used."""
        return iter(())


class Api(Section, frozen=True):
    """The socket."""

    #: Members see and steer everybody's jobs; "" for none.
    admin_group: str = ""
    heartbeat_seconds: Positive = 15.0


class Queue(Section, frozen=True):
    """Scheduling, retries, timers; what a job does not say is taken from here."""

    foreground_slots: Count = 64
    background_slots: Count = 4
    time_slice_seconds: Positive = 300.0
    min_retry_delay_seconds: Annotated[float, msgspec.Meta(ge=1, le=LONGEST)] = 60.0
    max_retry_delay_seconds: Positive = 3600.0
    #: Delay after a failure that is neither the network's nor the server's.
    soon_seconds: Positive = 1.0
    #: How often a job that waits for disk space looks again.
    space_seconds: Positive = 15.0
    no_progress_timeout_seconds: NotNegative = 1_209_600.0
    max_download_time_seconds: NotNegative = 7_776_000.0
    inactivity_days: Days = 90.0


class Fleet(Section, frozen=True):
    """What keeps many machines from asking one server at one moment.

    The defaults were chosen with `python -m tests.bench.fleet --vary`. `retry_spread`: at 1 the
    second wave after a Retry-After has a hundredth of its peak, at 0.5 a fiftieth; 2 brings half of
    that again, and lets a lone machine wait for up to thrice as long. `start_spread_seconds`: of
    what lets a server that needs five minutes for all serve them with no second request (1.01 for
    each download; 2.0 at 120), the shortest. `rest_failures`: as many as a machine has background
    slots, and one, so that one hiccup of a server does not make it rest; 3 save 7 % of the requests
    in an outage, without rests there are 22 % more. `rest_seconds`: 300 saves 11 % of them, but
    99 % are done a fifth later after a Retry-After.
    """

    #: Background jobs begin at a random moment within this time after a start, or when the schedule
    #: lets them go, and are tried again within it when the network is back.
    start_spread_seconds: NotNegative = 300.0
    #: A wait after a failure is longer by up to this part of itself, Retry-After's, too.
    retry_spread: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    #: So many failures of one user's jobs in a row that are a server's (0: none ever rests)…
    rest_failures: Amount = 5
    #: …within this time, and it is left alone by them…
    rest_window_seconds: Positive = 600.0
    #: …for this long, and twice as long each time that it has not come back…
    rest_seconds: Positive = 60.0
    #: …up to this.
    max_rest_seconds: Positive = 3600.0

    def doubts(self) -> Iterator[str]:
        """See Section."""
        if self.rest_seconds > self.max_rest_seconds:
            yield "`max_rest_seconds` is shorter than `rest_seconds`, and counts for nothing"


class Notices(Section, frozen=True):
    """Delivery of notices."""

    #: A notice that is not acknowledged is delivered again after this long.
    redeliver_seconds: Positive = 30.0
    #: So many deliveries to listeners without an acknowledgement, then the command runs.
    deliveries_before_command: Count = 2
    retention_days: Days = 30.0
    #: Shortest time between two modification events of a job.
    modification_seconds: Positive = 0.5
    command_timeout_seconds: Positive = 300.0


class Network(Section, frozen=True):
    """How servers are talked to."""

    connect_timeout_seconds: Positive = 30.0
    #: A body must bring stall_bytes in each window, or it counts as stalled.
    stall_window_seconds: Positive = 60.0
    stall_bytes: Count = 1024
    max_redirects: Amount = 10
    header_bytes: Annotated[int, msgspec.Meta(ge=8192, le=_MOST)] = 65536
    #: A scheme whose Kerberos library has not answered by then counts as not usable.
    kerberos_timeout_seconds: Positive = 15.0
    #: Over which links jobs of a priority go that do not say.
    foreground_cost: CostName = "always"
    high_cost: CostName = "unrestricted"
    normal_cost: CostName = "unrestricted"
    low_cost: CostName = "unrestricted"
    #: Interfaces that background jobs stay away from, as shell patterns…
    blocked_interfaces: tuple[str, ...] = ()
    #: …and the only ones that they use; none: all others.
    allowed_interfaces: tuple[str, ...] = ()

    def doubts(self) -> Iterator[str]:
        """See Section."""
        for name in ("blocked_interfaces", "allowed_interfaces"):
            if not all(pattern.strip() for pattern in getattr(self, name)):
                yield f"`{name}` has a pattern that is empty, and fits no interface"

    def rules(self) -> Rules:
        """Return what is said of links."""
        return Rules(
            costs={
                priority: check_cost(getattr(self, f"{priority.label}_cost"))
                for priority in Priority
            },
            blocked=self.blocked_interfaces,
            allowed=self.allowed_interfaces,
        )


class PeriodOfWeek(Section, frozen=True):
    """Time that comes again each week."""

    kind: Literal["work", "maintenance"]
    #: On which it begins.
    days: Annotated[tuple[Day, ...], msgspec.Meta(min_length=1)]
    start: Annotated[str, _START] = msgspec.field(name="from")
    #: On the next day where it is not later.
    end: Annotated[str, _END] = msgspec.field(name="to")

    def period(self) -> Period:
        """Return it by its days and times."""
        return Period(
            kind=Kind(self.kind),
            days=frozenset(map(_DAYS.index, self.days)),
            start=time.fromisoformat(self.start),
            end=time.fromisoformat(self.end.replace("24:", "00:")),
        )


class BytesPerSecond(Section, frozen=True):
    """Limits of all users together; None: none, 0: nothing moves."""

    total_bytes_per_second: Amount | None = None
    high_bytes_per_second: Amount | None = None
    normal_bytes_per_second: Amount | None = None
    low_bytes_per_second: Amount | None = None

    def doubts(self) -> Iterator[str]:
        """See Section."""
        return _slow(self)

    def rates(self) -> Rates:
        """Return those that there are."""
        own = {
            Priority.HIGH: self.high_bytes_per_second,
            Priority.NORMAL: self.normal_bytes_per_second,
            Priority.LOW: self.low_bytes_per_second,
        }
        return Rates(
            total=self.total_bytes_per_second,
            by_priority={priority: rate for priority, rate in own.items() if rate is not None},
        )


class Weekly(Section, frozen=True):
    """How much of the line transfers may take, and when."""

    #: Of the wall clock that the periods are meant by; "": the machine's.
    time_zone: Annotated[
        str, msgspec.Meta(pattern=r"\A[\w+/-]*\Z", description="the name of a time zone")
    ] = ""
    periods: tuple[PeriodOfWeek, ...] = ()
    work: BytesPerSecond = BytesPerSecond()
    #: Outside of all periods.
    other: BytesPerSecond = BytesPerSecond()
    #: Goes before both.
    maintenance: BytesPerSecond = BytesPerSecond()

    def doubts(self) -> Iterator[str]:
        """See Section."""
        kinds = {period.period().kind for period in self.periods}
        for kind in Kind:
            limits = getattr(self, kind.value)
            yield from (f"`{kind}`: {doubt}" for doubt in limits.doubts())
            if kind in kinds and limits == BytesPerSecond():
                yield f"there are periods of kind {kind}, and no limits in `{kind}`"
            if kind is not Kind.OTHER and kind not in kinds and limits != BytesPerSecond():
                yield f"`{kind}` has limits, and no period is of that kind"

    def schedule(self) -> Schedule:
        """Return all of it but the zone."""
        return Schedule(
            periods=tuple(period.period() for period in self.periods),
            limits={kind: getattr(self, kind.value).rates() for kind in Kind},
        )


def _slow(section: Section) -> Iterator[str]:
    for name, rate in msgspec.structs.asdict(section).items():
        if rate is not None and 0 < rate < LEAST_RATE:
            yield f"`{name}` is {rate} bytes a second; is it meant in another unit?"


class Bandwidth(Section, frozen=True):
    """How much of the line all jobs together may take, in bytes a second; 0: no limit."""

    total_bytes_per_second: Amount = 0
    high_bytes_per_second: Amount = 0
    normal_bytes_per_second: Amount = 0
    low_bytes_per_second: Amount = 0

    def doubts(self) -> Iterator[str]:
        """See Section."""
        return _slow(self)

    def rates(self) -> Rates:
        """Return the limits that are set."""
        return BytesPerSecond(
            total_bytes_per_second=self.total_bytes_per_second or None,
            high_bytes_per_second=self.high_bytes_per_second or None,
            normal_bytes_per_second=self.normal_bytes_per_second or None,
            low_bytes_per_second=self.low_bytes_per_second or None,
        ).rates()


class Pacing(Section, frozen=True):
    """How background jobs leave the line to others."""

    #: The queueing delay that they may cause, by priority.
    high_delay_seconds: Delay = 0.025
    normal_delay_seconds: Delay = 0.010
    low_delay_seconds: Delay = 0.005
    #: Whether their packets are marked for routers to let all others pass (RFC 8622).
    lower_effort: bool = False

    def doubts(self) -> Iterator[str]:
        """See Section."""
        if not self.high_delay_seconds >= self.normal_delay_seconds >= self.low_delay_seconds:
            yield "a lower priority may cause a longer delay than a higher one"


class Passport(Section, frozen=True):
    """Whom Passport trusts, where a job says nothing; "" for nobody."""

    #: Where the login server's address is asked for; https, or http to this machine.
    configuration_url: str = ""
    #: The only `host` or `host:port` that is ever sent a password.
    login_host: str = ""
    #: The realm that the login server must name; "": the one that is named with its address.
    realm: str = ""

    def options(self) -> PassportOptions:
        """Return what is said."""
        return PassportOptions(
            configuration_url=self.configuration_url or None,
            login_host=self.login_host or None,
            realm=self.realm or None,
        )


class Durability(Section, frozen=True):
    """How often the offset of a moving file is made durable."""

    seconds: Positive = 2.0
    bytes: Count = 64 * 1024 * 1024


class Worker(Section, frozen=True):
    """Worker processes."""

    #: A worker without a job leaves after this long.
    idle_seconds: Positive = 60.0
    #: Whether a system service runs jobs of uid 0.
    allow_root: bool = True
    #: Variables that a system service gives to workers, beside HOME, USER and the like.
    environment: Annotated[
        dict[VariableName, VariableValue],
        msgspec.Meta(description="a table of names, without =, and their texts in quotes"),
    ] = {}


class Log(Section, frozen=True):
    """What the daemon writes to standard error."""

    #: key=value or json
    format: Literal["key=value", "json"] = "key=value"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Bounds(Section, frozen=True):
    """How much a caller may ask for."""

    files_per_job: Count = 100_000
    jobs_per_user: Count = 10_000
    jobs_per_machine: Count = 1_000_000
    #: Bytes of all files in the queue, as far as their sizes are known; 0: no limit.
    bytes_per_user: Amount = 0
    bytes_per_machine: Amount = 0
    #: Bytes that the jobs of one user take in the queue file; 0: no limit.
    stored_bytes_per_user: Amount = 256 * 1024 * 1024
    jobs_per_request: Count = 1_000
    body_bytes: Count = 64 * 1024 * 1024

    def limits(self) -> Limits:
        """Return all limits."""
        return Limits(
            files_per_job=self.files_per_job,
            jobs_per_user=self.jobs_per_user,
            jobs_per_machine=self.jobs_per_machine,
            bytes_per_user=self.bytes_per_user or None,
            bytes_per_machine=self.bytes_per_machine or None,
            stored_bytes_per_user=self.stored_bytes_per_user or None,
            jobs_per_request=self.jobs_per_request,
            body_bytes=self.body_bytes,
        )
