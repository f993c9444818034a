"""Request bodies of the socket API → what the service understands. Nothing is made here.

Every refusal is a BadRequest with a stable code; see model/checks.py for those of single values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec
from msgspec import UNSET

from transferd.model import authentication, checks, urls
from transferd.model.credentials import (
    PASSWORD_SCHEMES,
    Credential,
    NegotiateOptions,
    PassportOptions,
    Scheme,
    Target,
    parse_scheme,
    parse_target,
)
from transferd.model.errors import BadRequest
from transferd.model.job import FileSpec, JobSpec, Settings, Timers
from transferd.model.limits import Limits
from transferd.wire.bodies import (
    AcknowledgementBody,
    CredentialBody,
    FileBody,
    FilesBody,
    IdentityBody,
    JobBody,
    JobPatch,
    JobsBody,
    NegotiateBody,
    PassportBody,
)
from transferd.wire.decoding import decode, glance, located, locating
from transferd.wire.settings import read_changes


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
    with locating("$"):
        (credential,) = _named_in_url(Target.SERVER, files.userinfo, limits)
    return Addition(specs=files.specs, credential=credential, origins=files.origins)


def parse_patch(raw: bytes, limits: Limits) -> Callable[[Settings], Settings]:
    """Read the body of a request to change a job; returns the change.

    Raises:
        BadRequest: as parse_creation; `credentials_in_url`: a password in the proxy's URL.
    """
    changes = read_changes(decode(raw, JobPatch), "$", limits)
    if changes.proxy_userinfo is not None:
        raise BadRequest(
            "credentials_in_url",
            "cannot change the proxy to a URL with user:password@; "
            "set the credentials of the job for target proxy instead",
        )
    return changes.over


def parse_identity(raw: bytes, target: Target, scheme: Scheme, limits: Limits) -> Credential:
    """Read the body of a request to set a credential.

    Raises:
        BadRequest: as parse_creation.
    """
    body = decode(raw, IdentityBody)
    return authentication.check_credential(target, scheme, body.username, body.password, limits)


def parse_acknowledgement(raw: bytes) -> tuple[int, ...]:
    """Read the body of a request to acknowledge notices; returns their numbers, each once.

    Raises:
        BadRequest: a code of wire/decoding.py.
    """
    return tuple(dict.fromkeys(decode(raw, AcknowledgementBody).numbers))


# ── jobs ───────────────────────────────────────────────────────────────────────────────────


def _job_spec(body: JobBody, path: str, limits: Limits, defaults: Timers) -> JobSpec:
    files = _files(body.files, path, limits)
    changes = read_changes(body, path, limits)
    with locating(f"{path}.id"):
        job_id = checks.check_id(body.id) if body.id is not None else None
    with locating(f"{path}.type"):
        job_type = checks.check_type(body.type)
    with locating(f"{path}.headers"):
        headers = checks.check_headers(body.headers, limits)
    with locating(f"{path}.credentials"):
        named = {Target.SERVER: files.userinfo, Target.PROXY: changes.proxy_userinfo}
        credentials = _credentials(body.credentials, named, limits)
    settings = changes.new(defaults, tuple(header.name for header in headers))
    return JobSpec(
        settings=settings,
        type=job_type,
        files=files.specs,
        credentials=credentials,
        headers=headers,
        start=body.start,
        id=job_id,
        fingerprint=_fingerprint(body, files.specs, credentials, settings),
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
    with locating(f"{path}.files"):
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
        authentication.check_credential(
            parse_target(body.target),
            parse_scheme(body.scheme),
            body.username,
            body.password,
            limits,
        )
        for body in bodies
    ]
    for target, userinfo in named.items():
        if userinfo is not None:
            credentials += _named_in_url(target, userinfo, limits)
    slots = {(credential.target, credential.scheme) for credential in credentials}
    if len(slots) < len(credentials):
        raise BadRequest(
            "credentials_conflict",
            "cannot use two credentials for the same target and scheme (a user and password in a "
            "URL is one for basic, in a proxy's URL for every scheme but passport); name each once",
        )
    return tuple(credentials)


#: What the user and password of a URL are good for. In a file's URL they are what RFC 3986 3.2.1
#: means by them; which scheme a proxy speaks is nothing that its URL could tell (BITS.md A6).
_SCHEMES_IN_URLS: Mapping[Target, Sequence[Scheme]] = MappingProxyType(
    {Target.SERVER: (Scheme.BASIC,), Target.PROXY: PASSWORD_SCHEMES}
)


def _named_in_url(target: Target, userinfo: str, limits: Limits) -> list[Credential]:
    username, password = urls.split_userinfo(userinfo)
    return [
        authentication.check_credential(target, scheme, username, password, limits)
        for scheme in _SCHEMES_IN_URLS[target]
    ]


def _fingerprint(
    body: JobBody,
    files: Sequence[FileSpec],
    credentials: Sequence[Credential],
    settings: Settings,
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
        proxy=settings.proxy,
        negotiate=_negotiate_body(settings.negotiate),
        passport=_passport_body(settings.passport),
    )
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).digest()


def _negotiate_body(options: NegotiateOptions) -> NegotiateBody:
    # Not by dataclasses.asdict, which takes longer than all checks of a job.
    names = NegotiateBody.__struct_fields__
    return NegotiateBody(**{name: getattr(options, name) for name in names})


def _passport_body(options: PassportOptions) -> PassportBody:
    names = PassportBody.__struct_fields__
    return PassportBody(**{name: getattr(options, name) for name in names})
