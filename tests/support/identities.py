"""Identities of a job, and what is to be found of them on the wire."""

from __future__ import annotations

import base64

from tests.support.origin import Document, Origin, Version
from tests.support.worker import (
    PASSWORD,
    USER,
    Desk,
    End,
    credential,
)
from transferd.model.credentials import Scheme
from transferd.wire import link

BODY = b"what only alice may have\n" * 1000
BOTH = (Scheme.BASIC, Scheme.DIGEST)
#: What a credential looks like in any header, should one ever be where it must not be.
CANARIES = (
    PASSWORD,
    base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
    "s3cr3t-header",
    "authorization: basic",
    "authorization: digest",
)


def document() -> Document:
    """The file behind the acceptors."""
    return Document(version=Version(body=BODY))


def held(*schemes: Scheme, password: str = PASSWORD) -> list[link.LinkCredential]:
    """The same identity for several schemes."""
    return [credential(scheme, password=password) for scheme in schemes]


def sent(origin: Origin) -> list[str | None]:
    """The schemes of the credentials that each request carried."""
    values = [seen.get("authorization") for seen in origin.seen]
    return [None if value is None else value.partition(" ")[0] for value in values]


def audited(desk: Desk) -> list[tuple[bool, Scheme, str]]:
    """What was reported of credentials."""
    return [(message.accepted, message.scheme, message.host) for message in desk.of(link.Audited)]


def nothing_secret(*heard: str) -> bool:
    """Whether none of the texts has a trace of a credential."""
    return not any(canary.lower() in text.lower() for canary in CANARIES for text in heard)


def failed(end: End) -> link.Failed:
    """The failure that a run ended with."""
    assert isinstance(end, link.Failed)
    return end
