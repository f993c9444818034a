"""The configuration: the sample file and the code say the same, and mistakes are named."""

from __future__ import annotations

import re
import tomllib
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from transferd import __version__
from transferd.assembly import worker_settings
from transferd.config import Config, Source, changes, doubts, load_config, parse_config
from transferd.model.admission import Rules
from transferd.model.costs import DEFAULT_COSTS
from transferd.model.credentials import PassportOptions
from transferd.model.errors import ConfigError
from transferd.model.job import Cost, Priority
from transferd.model.limits import Limits
from transferd.model.rates import FREE, Rates
from transferd.model.schedule import Kind, Period, Schedule
from transferd.sections import Bounds
from transferd.service.clock import local_zone
from transferd.wire.conduct import WorkerSettings

SAMPLE = Path(__file__).parents[2] / "config" / "transferd.toml"
PERIOD = """
[[schedule.periods]]
kind = "work"
days = {days}
from = "{start}"
to = "24:00"
"""


def keys(values: object) -> dict[str, list[str]]:
    """Section → its keys, in order."""
    plain: dict[str, dict[str, object]] = msgspec.to_builtins(values)
    return {section: list(entries) for section, entries in plain.items()}


def test_the_sample_file_lists_every_key_and_no_other() -> None:
    """Rule: config/transferd.toml is the reference: all sections and keys, in the code's order."""
    assert keys(tomllib.loads(SAMPLE.read_text())) == keys(Config())


def test_the_sample_file_is_the_defaults() -> None:
    """Rule: what the sample says of a default is true."""
    assert load_config(SAMPLE) == Config()


def test_every_key_of_the_sample_is_explained() -> None:
    """Rule: each key has a comment beside it."""
    assert re.findall(r"(?m)^(\w+) = [^#\n]*$", SAMPLE.read_text()) == []


def test_no_file_means_defaults() -> None:
    """Rule: nothing has to be configured."""
    assert load_config(None) == parse_config("", "empty") == Config()


def test_one_key_changes_nothing_else() -> None:
    """Rule: what is left out keeps its default."""
    config = parse_config("[queue]\nbackground_slots = 9\n", "x.toml")
    assert config.queue.background_slots == 9
    assert msgspec.structs.replace(config, queue=Config().queue) == Config()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "[queue]\nbackground_slot = 1",
            r"`queue` has no key `background_slot`; did you mean `background_slots`",
        ),
        ("[que]\n", "no section `que`; did you mean `queue`"),
        (
            "[queue]\nbackground_slots = 0",
            r"`queue\.background_slots` must be a whole number, at least 1; it is 0",
        ),
        (
            "[queue]\nbackground_slots = 'many'",
            r"`queue\.background_slots` must be .* without quotes .*; it is .many.",
        ),
        (
            "[queue]\nmin_retry_delay_seconds = 0.5",
            r"`queue\.min_retry_delay_seconds` .* at least 1 ",
        ),
        ("[network]\nheader_bytes = 1", r"`network\.header_bytes` .* at least 8192"),
        ("[durability]\nseconds = 0", r"`durability\.seconds` .* more than 0 "),
        ("[log]\nformat = 'xml'", r"`log\.format`"),
        ("[log]\nlevel = 'INFO'", r"`log\.level` must be one of debug, error, info, warning"),
        ("[limits]\nfiles_per_job = -1", r"`limits\.files_per_job`"),
        (
            "[network]\nkerberos_timeout_seconds = 0",
            r"`network\.kerberos_timeout_seconds` .* more than 0 ",
        ),
        ("[passport]\nconfiguration_url = 'http://n/'", r"`passport\.configuration_url`"),
        ("[passport]\nlogin_host = 'https://l'", r"`passport\.login_host`"),
        ("[passport]\nrealm = 'a,b'", r"`passport\.realm`"),
        (
            "[network]\nlow_cost = 'default'",
            r"`network\.low_cost` must be one of unrestricted, standard",
        ),
        ("[schedule]\ntime_zone = 'Mars/Olympus'", r"`schedule\.time_zone` must be a time zone"),
        ("[schedule]\ntime_zone = '/etc/passwd'", r"`schedule\.time_zone` must be a time zone"),
        ("[schedule.work]\nlow_bytes_per_second = -1", r"`schedule\.work\.low_bytes"),
        ("[schedule.work]\nforeground_bytes_per_second = 1", r"`schedule\.work` has no key"),
        (PERIOD.format(days="[]", start="8:00"), r"`schedule\.periods\[0\]\.days`"),
        (
            PERIOD.format(days="['mo']", start="08:00"),
            r"\.periods\[0\]\.days\[0\]` must be one of mon, tue, wed",
        ),
        (
            PERIOD.format(days="['mon']", start="8:00"),
            r"`schedule\.periods\[0\]\.from` must be a time from .00:00. ",
        ),
        (
            PERIOD.format(days="['mon']", start="24:00"),
            r"`schedule\.periods\[0\]\.from` must be a time from .00:00. ",
        ),
        (f"[bandwidth]\nlow_bytes_per_second = {2**60}", r"`bandwidth\.low_bytes"),
        (f"[schedule.work]\ntotal_bytes_per_second = {10**30}", r"`schedule\.work\.total"),
        (f"[durability]\nbytes = {10**30}", r"`durability\.bytes`"),
        (f"[network]\nmax_redirects = {'9' * 5000}", "digits"),
        (f"queue = {'[' * 50_000}", "recursion"),
        ("[worker.environment]\na = 3", r"`worker\.environment` must be a table of names"),
        ("[pacing]\nlower_effort = 'yes'", r"`pacing\.lower_effort` must be true or false"),
        ("[[schedule.periods]]\nkind = 'work'\n", r"`schedule\.periods\[0\]` lacks `days`"),
        ("[network]\nblocked_interfaces = 'wg*'", r"`network\.blocked_interfaces` must be a list"),
        ("[api]\nadmin_group = 1", r"`api\.admin_group` must be a text in quotes"),
        ("queue = 1", r"`queue`"),
        ("[queue\n", "at line 1"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_file(text: str, named: str) -> None:
    """Rule: an unknown key, a wrong type, a bad range or broken TOML says where it is."""
    with pytest.raises(ConfigError, match=rf"cannot use configuration x\.toml: .*{named}"):
        parse_config(text, "x.toml")


def test_what_may_be_secret_is_not_repeated() -> None:
    """Rule: a variable of workers may have a password in it, and the message goes to a log."""
    with pytest.raises(ConfigError) as refused:
        parse_config('[worker]\nenvironment = { "a=b" = "hush", c = "hush" }', "x.toml")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        (PERIOD.format(days="['mon']", start="08:00"), "no limits in `work`"),
        ("[schedule.maintenance]\nlow_bytes_per_second = 0", "no period is of that kind"),
        ("[schedule.other]\nlow_bytes_per_second = 500", "`other`: `low_.* another unit"),
        ("[bandwidth]\ntotal_bytes_per_second = 500", "500 bytes a second"),
        ("[pacing]\nlow_delay_seconds = 0.5", "longer delay than a higher one"),
        ("[network]\nallowed_interfaces = [' ']", "`allowed_interfaces` has .* empty"),
        ("[fleet]\nrest_seconds = 7200", "shorter than `rest_seconds`"),
    ],
)
def test_what_can_hardly_be_meant_is_doubted(text: str, doubt: str) -> None:
    """Rule: whoever checks a configuration hears what it will not do, though it can be used."""
    (said,) = doubts(parse_config(text, "x.toml"))
    section = text.strip("[\n").partition("]")[0].partition(".")[0]
    assert re.fullmatch(rf"\[{section}\] .*{doubt}.*", said)


def test_defaults_and_usual_schedules_are_not_doubted() -> None:
    """Rule: a right file is fine, and that is all that is said of it."""
    text = (
        PERIOD.format(days="['mon']", start="08:00") + "[schedule.work]\nlow_bytes_per_second = 0"
    )
    for config in (Config(), parse_config(text, "x.toml")):
        assert doubts(config) == ()


def test_a_schedule_is_read_by_its_days_times_and_limits() -> None:
    """BITS B5: absent is no limit, 0 is none of the line; 24:00 is the end of the day."""
    text = PERIOD.format(days='["sun", "mon"]', start="18:30")
    limits = "[schedule.work]\ntotal_bytes_per_second = 9\nlow_bytes_per_second = 0\n"
    assert parse_config(text + limits, "x.toml").schedule.schedule() == Schedule(
        periods=(Period(kind=Kind.WORK, days=frozenset({6, 0}), start=time(18, 30), end=time(0)),),
        limits={
            Kind.WORK: Rates(total=9, by_priority={Priority.LOW: 0}),
            Kind.OTHER: FREE,
            Kind.MAINTENANCE: FREE,
        },
    )


def test_links_are_ruled_as_bits_does_unless_configured() -> None:
    """BITS B8: foreground jobs always, background jobs where it costs nothing."""
    assert Config().network.rules() == Rules()
    assert dict(Rules().costs) == dict(DEFAULT_COSTS)
    text = "[network]\nlow_cost = 'standard'\nallowed_interfaces = ['eth*']"
    rules = parse_config(text, "x.toml").network.rules()
    assert (rules.costs[Priority.LOW], rules.allowed) == (Cost.STANDARD, ("eth*",))


def test_the_machines_zone_is_its_environments_or_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zone that there is not is no reason to fail."""
    monkeypatch.setenv("TZ", ":Asia/Tokyo")
    assert local_zone() == ZoneInfo("Asia/Tokyo")
    for odd in ("CET-1CEST", "/etc/localtime", "Mars/Olympus", ""):
        monkeypatch.setenv("TZ", odd)
        assert local_zone() != ZoneInfo("Asia/Tokyo")


def _durations() -> list[tuple[str, str]]:
    """Every key that is a number with a fraction: section and name."""
    return [
        (section, name)
        for section, entries in msgspec.to_builtins(Config()).items()
        for name, value in entries.items()
        if isinstance(value, float)
    ]


@pytest.mark.parametrize(("section", "name"), _durations())
@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
def test_no_time_is_endless(section: str, name: str, value: str) -> None:
    """Rule: what neither a date nor the worker link can hold is refused at the start."""
    with pytest.raises(ConfigError, match=rf"`{section}\.{name}` must be a number"):
        parse_config(f"[{section}]\n{name} = {value}", "x.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Rule: a missing file, a directory or a file that is no text is a ConfigError, no default."""
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing.toml", tmp_path, binary):
        with pytest.raises(ConfigError, match=f"cannot read configuration {path}: "):
            load_config(path)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """Rule: a default path counts where something is, a named one always."""
    path = tmp_path / "transferd.toml"
    assert Source(path, named=False).read() == (Config(), None)
    assert Source(path / "x", named=False).read() == (Config(), None)
    assert Source(None).read() == (Config(), None)
    with pytest.raises(ConfigError, match="cannot read configuration"):
        Source(path).read()
    path.write_text("[log]\nlevel = 'debug'\n")
    for named in (True, False):
        config, origin = Source(path, named=named).read()
        assert (config.log.level, origin) == ("debug", path)


def test_a_default_file_that_cannot_be_read_is_no_default(tmp_path: Path) -> None:
    """Rule: what was meant to count is never passed over in silence."""
    path = tmp_path / "transferd.toml"
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot read configuration"):
        Source(path, named=False).read()


def test_changed_keys_are_named() -> None:
    """Rule: the log of a reload says what is different, and nothing else."""
    before = parse_config("[queue]\nbackground_slots = 9\n[log]\nlevel = 'info'\n", "x")
    after = parse_config("[api]\nadmin_group = 'g'\n[worker]\nenvironment = { A = 'b' }\n", "x")
    assert changes(before, before) == ()
    assert changes(before, after) == (
        *("api.admin_group", "queue.background_slots", "worker.environment"),
    )


def test_passport_is_configured_as_a_job_would_say_it() -> None:
    """Rule: what the file leaves empty is said by nobody."""
    assert Config().passport.options() == PassportOptions()
    text = "[passport]\nconfiguration_url = 'https://n/c'\nlogin_host = 'L:443'\nrealm = 'r'"
    assert parse_config(text, "x").passport.options() == PassportOptions(
        configuration_url="https://n/c", login_host="l:443", realm="r"
    )


def test_the_worker_is_told_how_long_kerberos_may_take() -> None:
    """Rule: [network] is how servers are talked to."""
    config = parse_config("[network]\nkerberos_timeout_seconds = 3", "x")
    assert worker_settings(config).kerberos_timeout == 3


def test_the_bandwidth_of_all_jobs_is_configured_with_zero_for_no_limit() -> None:
    """Rule: what the file leaves at 0 limits nothing."""
    assert Config().bandwidth.rates() == FREE
    text = "[bandwidth]\ntotal_bytes_per_second = 9\nlow_bytes_per_second = 3\n"
    assert parse_config(text, "x").bandwidth.rates() == Rates(
        total=9, by_priority={Priority.LOW: 3}
    )


def test_the_worker_is_told_how_to_pace() -> None:
    """Rule: [pacing] says how background jobs leave the line to others."""
    assert worker_settings(Config()) == WorkerSettings(user_agent=f"transferd/{__version__}")
    text = "[pacing]\nhigh_delay_seconds = 0.5\nlow_delay_seconds = 0.002\nlower_effort = true\n"
    settings = worker_settings(parse_config(text, "x"))
    assert [settings.delay(priority) for priority in Priority] == [None, 0.5, 0.010, 0.002]
    assert settings.lower_effort


def test_the_configured_limits_are_the_models() -> None:
    """Rule: defaults of the limits stand in one place and say the same in both."""
    assert Config().limits.limits() == Limits()
    changed = Bounds(files_per_job=1, jobs_per_user=2, jobs_per_request=3, body_bytes=4).limits()
    assert (changed.files_per_job, changed.jobs_per_user) == (1, 2)
    assert (changed.jobs_per_request, changed.body_bytes) == (3, 4)


@pytest.mark.parametrize(
    "variable", ['"" = "x"', '"a=b" = "x"', '"a\\u0000" = "x"', 'a = "\\u0000"']
)
def test_variables_for_workers_are_such_as_a_process_can_have(variable: str) -> None:
    """Found out when the configuration is read, not when a worker is started."""
    with pytest.raises(ConfigError, match=r"worker\.environment"):
        parse_config(f"[worker.environment]\n{variable}\n", "test")
    assert parse_config('[worker]\nenvironment = { a = "" }', "t").worker.environment == {"a": ""}
