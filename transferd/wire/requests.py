"""Request bodies of the socket API → what the service understands. Nothing is made here.

Every refusal is a BadRequest with a stable code; see model/checks.py for those of single values.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET

from transferd.model import checks, urls
from transferd.model.credentials import Credential, Scheme, Target, parse_scheme, parse_target
from transferd.model.errors import BadRequest
from transferd.model.job import FileSpec, JobSpec, Seconds, Settings, Timers
from transferd.model.limits import Limits
from transferd.model.notices import parse_kinds
from transferd.wire.api import (
    CredentialBody,
    FileBody,
    FilesBody,
    IdentityBody,
    JobBody,
    JobPatch,
    JobsBody,
    NotifyBody,
)
from transferd.wire.decoding import decode, glance, located


class _Shape(msgspec.Struct):
    """Tells a body with one thing from a body with many."""

    jobs: msgspec.Raw | msgspec.UnsetType = UNSET
    files: msgspec.Raw | msgspec.UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """Jobs to create, all or none."""

    specs: tuple[JobSpec, ...]
    #: Whether the caller sent a list, and gets one.
    many: bool


def parse_creation(raw: bytes, limits: Limits, defaults: Timers) -> Creation:
    """Read the body of a request to create one job, or several (`{"jobs": […]}`).

    Raises:
        BadRequest: `too_many_jobs`, `too_many_files`, `credentials_conflict`, or a code of
            wire/decoding.py or model/checks.py.
    """
    if glance(raw, _Shape).jobs is UNSET:
        body = decode(raw, JobBody)
        return Creation(specs=(_job_spec(body, "$", limits, defaults),), many=False)
    bodies = decode(raw, JobsBody).jobs
    if not bodies:
        raise BadRequest("value_invalid", "cannot create no job; name at least one - at `$.jobs`")
    if len(bodies) > limits.jobs_per_request:
        raise BadRequest(
            "too_many_jobs",
            f"cannot create {len(bodies)} jobs in one request; "
            f"at most {limits.jobs_per_request} are allowed",
        )
    specs = tuple(
        _job_spec(body, f"$.jobs[{index}]", limits, defaults) for index, body in enumerate(bodies)
    )
    ids = [spec.id for spec in specs if spec.id is not None]
    if len(ids) != len(set(ids)):
        raise BadRequest("id_invalid", "cannot use one id for two jobs - at `$.jobs`")
    return Creation(specs=specs, many=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """Files to add to a job that exists, all or none."""

    specs: tuple[FileSpec, ...]
    #: What stood as `user:password@` in their URLs…
    credential: Credential | None
    #: …and the origins that it was written for.
    origins: frozenset[urls.Origin]


def parse_addition(raw: bytes, limits: Limits) -> Addition:
    """Read the body of a request to add one file, or several (`{"files": […]}`).

    Raises:
        BadRequest: as parse_creation.
    """
    if glance(raw, _Shape).files is UNSET:
        bodies = [decode(raw, FileBody)]
    else:
        bodies = decode(raw, FilesBody).files
        if not bodies:
            raise BadRequest(
                "value_invalid", "cannot add no file; name at least one - at `$.files`"
            )
    files = _files(bodies, "$", limits)
    if files.userinfo is None:
        return Addition(specs=files.specs, credential=None, origins=frozenset())
    with _locating("$"):
        credential = _basic(Target.SERVER, files.userinfo, limits)
    return Addition(specs=files.specs, credential=credential, origins=files.origins)


def parse_patch(raw: bytes, limits: Limits) -> Callable[[Settings], Settings]:
    """Read the body of a request to change a job; returns the change.

    Raises:
        BadRequest: as parse_creation; `credentials_in_url`: a password in the proxy's URL.
    """
    body = decode(raw, JobPatch)
    changes, timers = _settings(body, limits), _timers(body)
    if body.proxy is not UNSET:
        changes["proxy"], userinfo = _proxy(body.proxy, "$", limits)
        if userinfo is not None:
            raise BadRequest(
                "credentials_in_url",
                "cannot change the proxy to a URL with user:password@; "
                "set the credentials of the job for target proxy instead",
            )

    def change(settings: Settings) -> Settings:
        replaced = dataclasses.replace(settings.timers, **timers)
        return dataclasses.replace(settings, **changes, timers=replaced)

    return change


def parse_identity(raw: bytes, target: Target, scheme: Scheme, limits: Limits) -> Credential:
    """Read the body of a request to set a credential.

    Raises:
        BadRequest: as parse_creation.
    """
    body = decode(raw, IdentityBody)
    return checks.check_credential(target, scheme, body.username, body.password, limits)


# ── settings ───────────────────────────────────────────────────────────────────────────────

_Check = Callable[[Any, Limits], Any]


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
        "on_error": lambda value, _: checks.check_on_error(value),
        "cacert": _path_or_none,
        "max_size": lambda value, _: checks.check_size(value),
        "auto_complete": _as_it_is,
        "overwrite": _as_it_is,
        "allow_cleartext": _as_it_is,
        "streams": _as_it_is,
    }
)

_TIMER_FLOORS: Mapping[str, Seconds] = MappingProxyType(
    {
        "min_retry_delay": checks.SHORTEST_RETRY_DELAY,
        "no_progress_timeout": 0.0,
        "max_download_time": 0.0,
    }
)


def _settings(body: JobBody | JobPatch, limits: Limits, path: str = "$") -> dict[str, Any]:
    """Return the settings that a body names, but for proxy and timers."""
    settings: dict[str, Any] = {}
    for name, check in _CHECKS.items():
        if (value := getattr(body, name)) is not UNSET:
            with _locating(f"{path}.{name}"):
                settings[name] = check(value, limits)
    if isinstance(body.notify, NotifyBody):
        with _locating(f"{path}.notify"):
            settings["notify_kinds"] = int(parse_kinds(body.notify.kinds))
            settings["notify_command"] = checks.check_command(body.notify.command, limits)
    return settings


def _timers(body: JobBody | JobPatch, path: str = "$") -> dict[str, Seconds]:
    """Return the timers that a body names; null in a new job is the daemon's default."""
    timers = {}
    for name, floor in _TIMER_FLOORS.items():
        if (value := getattr(body, name)) not in (UNSET, None):
            with _locating(f"{path}.{name}"):
                timers[name] = checks.check_seconds(value, floor=floor)
    return timers


def _proxy(text: str | None, path: str, limits: Limits) -> tuple[str | None, str | None]:
    """Return the proxy as it is kept, and its userinfo."""
    if text is None:
        return None, None
    with _locating(f"{path}.proxy"):
        address = urls.check_proxy(text, limits)
    return (urls.DIRECT, None) if address is None else (address.url, address.userinfo)


@contextmanager
def _locating(path: str) -> Iterator[None]:
    """Say where in the body a refused value stands."""
    try:
        yield
    except BadRequest as error:
        raise located(error, path) from None


# ── jobs ───────────────────────────────────────────────────────────────────────────────────


def _job_spec(body: JobBody, path: str, limits: Limits, defaults: Timers) -> JobSpec:
    files = _files(body.files, path, limits)
    settings = _settings(body, limits, path)
    settings["timers"] = dataclasses.replace(defaults, **_timers(body, path))
    settings["proxy"], proxy_userinfo = _proxy(body.proxy, path, limits)
    with _locating(f"{path}.id"):
        job_id = checks.check_id(body.id) if body.id is not None else None
    with _locating(f"{path}.type"):
        job_type = checks.check_type(body.type)
    with _locating(f"{path}.headers"):
        headers = checks.check_headers(body.headers, limits)
    with _locating(f"{path}.credentials"):
        named = {Target.SERVER: files.userinfo, Target.PROXY: proxy_userinfo}
        credentials = _credentials(body.credentials, named, limits)
    settings["header_names"] = tuple(header.name for header in headers)
    return JobSpec(
        settings=Settings(**settings),
        type=job_type,
        files=files.specs,
        credentials=credentials,
        headers=headers,
        start=body.start,
        id=job_id,
        fingerprint=_fingerprint(body, files.specs, credentials, settings["proxy"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Files of one body."""

    specs: tuple[FileSpec, ...]
    #: The one `user:password` that stands in their URLs…
    userinfo: str | None = field(repr=False)
    #: …and in those of which origins.
    origins: frozenset[urls.Origin]


def _files(bodies: Sequence[FileBody], path: str, limits: Limits) -> _Files:
    if len(bodies) > limits.files_per_job:
        raise BadRequest(
            "too_many_files",
            f"cannot put {len(bodies)} files into one job; "
            f"at most {limits.files_per_job} are allowed",
        )
    specs, addresses = [], []
    for index, body in enumerate(bodies):
        try:
            address = urls.check_remote(body.remote, limits)
            local = checks.check_destination(body.local, limits)
            checksum = checks.check_checksum(body.checksum) if body.checksum is not None else None
        except BadRequest as error:
            raise located(error, f"{path}.files[{index}]") from None
        addresses.append(address)
        specs.append(FileSpec(remote=address.url, local=local, checksum=checksum))
    with _locating(f"{path}.files"):
        checks.check_distinct(specs)
        userinfo, origins = _one_userinfo(addresses)
    return _Files(specs=tuple(specs), userinfo=userinfo, origins=origins)


def _one_userinfo(addresses: Sequence[urls.Address]) -> tuple[str | None, frozenset[urls.Origin]]:
    """Return the userinfo of the URLs, and the origins that it stands for.

    A job shows its credentials to every origin of its files, so that a password in one URL would
    reach origins that it was not written for.
    """
    named = {address.userinfo for address in addresses if address.userinfo is not None}
    meant = {address.origin for address in addresses if address.userinfo is not None}
    if not named:
        return None, frozenset()
    if len(named) > 1 or any(address.origin not in meant for address in addresses):
        raise BadRequest(
            "credentials_conflict",
            "cannot use a user and password in a URL beside a URL of another origin or with "
            "other ones; make a job for each, or set the credentials of the job",
        )
    return named.pop(), frozenset(meant)


def _credentials(
    bodies: Sequence[CredentialBody], named: Mapping[Target, str | None], limits: Limits
) -> tuple[Credential, ...]:
    """Return the credentials of a body, and those *named* in its URLs."""
    credentials = [
        checks.check_credential(
            parse_target(body.target),
            parse_scheme(body.scheme),
            body.username,
            body.password,
            limits,
        )
        for body in bodies
    ]
    credentials += [
        _basic(target, userinfo, limits)
        for target, userinfo in named.items()
        if userinfo is not None
    ]
    slots = {(credential.target, credential.scheme) for credential in credentials}
    if len(slots) < len(credentials):
        raise BadRequest(
            "credentials_conflict",
            "cannot use two credentials for the same target and scheme (a user and password in a "
            "URL is one for basic); name each once",
        )
    return tuple(credentials)


def _basic(target: Target, userinfo: str, limits: Limits) -> Credential:
    username, password = urls.split_userinfo(userinfo)
    return checks.check_credential(target, Scheme.BASIC, username, password, limits)


def _fingerprint(
    body: JobBody,
    files: Sequence[FileSpec],
    credentials: Sequence[Credential],
    proxy: str | None,
) -> bytes:
    """Digest what was asked for, to tell a repeated request from another one with the same id.

    Passwords and header values do not enter: a digest of them, kept beside the job, could be
    tried against a list of passwords. Two requests that differ in nothing else count as one.
    """
    plain = msgspec.structs.replace(
        body,
        id=None,
        files=[
            FileBody(
                remote=file.remote,
                local=file.local,
                checksum=str(file.checksum) if file.checksum is not None else None,
            )
            for file in files
        ],
        credentials=[
            CredentialBody(target=each.target, scheme=each.scheme, username=each.username)
            for each in credentials
        ],
        headers=dict.fromkeys(body.headers, ""),
        proxy=proxy,
    )
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).digest()
