"""The configuration: one frozen value, read from one TOML file at the start and at each reload."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from transferd.model.authentication import check_realm
from transferd.model.errors import BadRequest, ConfigError
from transferd.model.limits import Limits
from transferd.model.urls import check_configuration_url, check_login_host
from transferd.sections import (
    Api,
    Bandwidth,
    Bounds,
    Durability,
    Fleet,
    Log,
    Network,
    Notices,
    Pacing,
    Passport,
    Queue,
    Section,
    Weekly,
    Worker,
)


class Config(Section, frozen=True):
    """Everything that can be configured."""

    api: Api = Api()
    queue: Queue = Queue()
    fleet: Fleet = Fleet()
    notices: Notices = Notices()
    network: Network = Network()
    schedule: Weekly = Weekly()
    bandwidth: Bandwidth = Bandwidth()
    pacing: Pacing = Pacing()
    passport: Passport = Passport()
    durability: Durability = Durability()
    worker: Worker = Worker()
    log: Log = Log()
    limits: Bounds = Bounds()


def parse_config(text: str, source: str) -> Config:
    """Read TOML.

    Raises:
        ConfigError: it is not TOML, a key is unknown or a value is wrong; names the key.
    """
    try:
        data = tomllib.loads(text)
    # Some of what is no TOML has an error of its own: numbers and nests without an end.
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cannot use configuration {source}: {error}") from error
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        from transferd.mistakes import explain  # costs those nothing who make none

        reason = explain(error, data, Config)
        raise ConfigError(f"cannot use configuration {source}: {reason}") from error
    _check_zone(config.schedule.time_zone, source)
    return msgspec.structs.replace(config, passport=_checked(config.passport, source))


def _check_zone(name: str, source: str) -> None:
    try:
        ZoneInfo(name or "UTC")
    except (OSError, ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigError(
            f"cannot use configuration {source}: `schedule.time_zone` must be a time zone of this"
            f" machine, such as Europe/Berlin; it is {name!r}"
        ) from error


def _checked(passport: Passport, source: str) -> Passport:
    """Check as a job's own options are."""
    checks: dict[str, Callable[[str], str]] = {
        "configuration_url": partial(check_configuration_url, limits=Limits()),
        "login_host": check_login_host,
        "realm": partial(check_realm, limits=Limits()),
    }
    kept = {}
    for name, check in checks.items():
        if text := getattr(passport, name):
            try:
                kept[name] = check(text)
            except BadRequest as error:
                raise ConfigError(
                    f"cannot use configuration {source}: `passport.{name}`: {error}"
                ) from error
    return Passport(**kept)


def doubts(config: Config) -> tuple[str, ...]:
    """Return what may be meant otherwise, though it can be used: `[pacing] …`."""
    return tuple(
        f"[{name}] {doubt}"
        for name in Config.__struct_fields__
        for doubt in getattr(config, name).doubts()
    )


def changes(before: Config, after: Config) -> tuple[str, ...]:
    """Return the keys that have another value: `queue.background_slots`."""
    return tuple(
        f"{section}.{key}"
        for section in Config.__struct_fields__
        for key in getattr(after, section).__struct_fields__
        if getattr(getattr(before, section), key) != getattr(getattr(after, section), key)
    )


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration comes from."""

    path: Path | None
    #: Whether somebody has named it; else it is read where it exists.
    named: bool = True

    def read(self) -> tuple[Config, Path | None]:
        """Return the configuration, and the file that it was read from; None: the defaults.

        Raises:
            ConfigError: it cannot be read, or is wrong.
        """
        if self.path is None or not (self.named or _is_there(self.path)):
            return Config(), None
        return load_config(self.path), self.path


def _is_there(path: Path) -> bool:
    """Tell whether there is something, be it unreadable: that is an error, and no default."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def load_config(path: Path | None) -> Config:
    """Read a file; None: the defaults.

    Raises:
        ConfigError: it cannot be read, or is wrong.
    """
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration {path}: {error}") from error
    return parse_config(text, str(path))
