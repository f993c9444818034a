"""What a request says of a job's settings; the same for a new job and for a change of one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from transferd.model import authentication, checks, urls
from transferd.model.credentials import NegotiateOptions, PassportOptions
from transferd.model.errors import BadRequest
from transferd.model.job import Seconds, Settings, Timers
from transferd.model.limits import Limits
from transferd.model.notices import parse_kinds
from transferd.wire.bodies import JobBody, JobPatch, NegotiateBody, NotifyBody, PassportBody
from transferd.wire.decoding import located, locating

_Check = Callable[[Any, Limits], Any]
_Value = TypeVar("_Value", Timers, NegotiateOptions, PassportOptions)

_NEGOTIATE, _PASSPORT = NegotiateOptions(), PassportOptions()
#: Kinds of notices that are remembered as they were named.
_FEW = 8


def _as_it_is(value: Any, _limits: Limits) -> Any:
    return value


def _path_or_none(value: str | None, limits: Limits) -> str | None:
    return None if value is None else checks.check_path(value, limits)


#: Settings that have the same name in a body, and how each is checked.
_CHECKS: Mapping[str, _Check] = MappingProxyType(
    {
        "name": checks.check_name,
        "description": checks.check_description,
        "priority": lambda value, _: checks.check_priority(value),
        "cost": lambda value, _: checks.check_cost(value),
        "on_error": lambda value, _: checks.check_on_error(value),
        "cacert": _path_or_none,
        "max_size": lambda value, _: checks.check_size(value),
        "auto_complete": _as_it_is,
        "overwrite": _as_it_is,
        "allow_cleartext": _as_it_is,
        "max_rate": _as_it_is,
        "streams": _as_it_is,
    }
)

#: Members of `negotiate` and `passport`, and how each is checked.
_MEMBERS: Mapping[type, Mapping[str, _Check]] = MappingProxyType(
    {
        NegotiateOptions: {
            "spn": authentication.check_spn,
            "proxy_spn": authentication.check_spn,
            "keytab": checks.check_path,
            "principal": authentication.check_principal,
            "ccache": authentication.check_ccache,
            "ntlm": _as_it_is,
        },
        PassportOptions: {
            "configuration_url": urls.check_configuration_url,
            "login_host": lambda value, _: urls.check_login_host(value),
            "realm": authentication.check_realm,
        },
    }
)

_TIMER_FLOORS: Mapping[str, Seconds] = MappingProxyType(
    {
        "min_retry_delay": checks.SHORTEST_RETRY_DELAY,
        "no_progress_timeout": 0.0,
        "max_download_time": 0.0,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a body says; what it leaves out stays as it is."""

    settings: Mapping[str, Any]
    timers: Mapping[str, Seconds]
    negotiate: Mapping[str, Any]
    passport: Mapping[str, Any]
    #: What stood as `user:password@` in the proxy's URL.
    proxy_userinfo: str | None = field(repr=False)

    def over(self, settings: Settings) -> Settings:
        """Return *settings* with the changes."""
        return dataclasses.replace(
            settings,
            **self.settings,
            timers=_over(settings.timers, self.timers),
            negotiate=_over(settings.negotiate, self.negotiate),
            passport=_over(settings.passport, self.passport),
        )

    def new(self, timers: Timers, header_names: tuple[str, ...]) -> Settings:
        """Return the settings of a new job, for which everything is said but *timers*."""
        return Settings(
            **self.settings,
            timers=_over(timers, self.timers),
            negotiate=_over(_NEGOTIATE, self.negotiate),
            passport=_over(_PASSPORT, self.passport),
            header_names=header_names,
        )


def read_changes(body: JobBody | JobPatch, path: str, limits: Limits) -> Changes:
    """Check what a body says of the settings; *path* is where it stands.

    Raises:
        BadRequest: a code of model/checks.py, model/authentication.py or model/urls.py.
    """
    settings, userinfo = _plain(body, path, limits), None
    if body.proxy is not UNSET:
        settings["proxy"], userinfo = _proxy(body.proxy, path, limits)
    return Changes(
        settings=settings,
        timers=_timers(body, path),
        negotiate=_options(body.negotiate, _NEGOTIATE, f"{path}.negotiate", limits),
        passport=_options(body.passport, _PASSPORT, f"{path}.passport", limits),
        proxy_userinfo=userinfo,
    )


def _plain(body: JobBody | JobPatch, path: str, limits: Limits) -> dict[str, Any]:
    """Return the settings that have the same name in a body and need no more than a check."""
    settings: dict[str, Any] = {}
    for name, check in _CHECKS.items():
        if (value := getattr(body, name)) is not UNSET:
            try:
                settings[name] = check(value, limits)
            except BadRequest as error:
                raise located(error, f"{path}.{name}") from None
    if isinstance(body.notify, NotifyBody):
        with locating(f"{path}.notify"):
            settings["notify_kinds"] = _notify_kinds(body.notify.kinds)
            settings["notify_command"] = checks.check_command(body.notify.command, limits)
    return settings


def _over(value: _Value, changes: Mapping[str, Any]) -> _Value:
    return dataclasses.replace(value, **changes) if changes else value


def _notify_kinds(names: list[str]) -> int:
    # Enumerations are slow, and most jobs say the same.
    return _few_kinds(tuple(names)) if len(names) < _FEW else int(parse_kinds(names))


@functools.lru_cache(maxsize=64)
def _few_kinds(names: tuple[str, ...]) -> int:
    return int(parse_kinds(names))


def _timers(body: JobBody | JobPatch, path: str) -> dict[str, Seconds]:
    """Return the timers that a body names; null in a new job is the daemon's default."""
    timers = {}
    for name, floor in _TIMER_FLOORS.items():
        if (value := getattr(body, name)) not in (UNSET, None):
            with locating(f"{path}.{name}"):
                timers[name] = checks.check_seconds(value, floor=floor)
    return timers


def _options(
    body: NegotiateBody | PassportBody | UnsetType | None,
    defaults: NegotiateOptions | PassportOptions,
    path: str,
    limits: Limits,
) -> dict[str, Any]:
    """Return the options that a body names; null for a member, or for all, is the default."""
    options: dict[str, Any] = {}
    if body is UNSET:
        return options
    for name, check in _MEMBERS[type(defaults)].items():
        value = getattr(body, name) if body is not None else None
        if value is None:
            options[name] = getattr(defaults, name)
        elif value is not UNSET:
            with locating(f"{path}.{name}"):
                options[name] = check(value, limits)
    return options


def _proxy(text: str | None, path: str, limits: Limits) -> tuple[str | None, str | None]:
    """Return the proxy as it is kept, and its userinfo."""
    if text is None:
        return None, None
    with locating(f"{path}.proxy"):
        address = urls.check_proxy(text, limits)
    return (urls.DIRECT, None) if address is None else (address.url, address.userinfo)
