"""All that a scenario finds: two ends of a link, a server, a place in memory, a foreground."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.tools import ONE_FILE
from tests.lab.link import Link
from tests.lab.programs import running
from tests.lab.proxy import proxy
from tests.lab.site import Site, site
from tests.lab.topology import Role, Topology, topology

#: tmpfs everywhere.
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A link with a server and a client."""

    topology: Topology
    site: Site
    #: Of the client, in memory.
    directory: Path
    #: What background downloads go through; None: they go to the server.
    proxy: str | None = None

    @property
    def link(self) -> Link:
        """The bottleneck."""
        return self.topology.link

    @contextlib.contextmanager
    def foreground(self) -> Iterator[None]:
        """Let somebody download a large file who is not to be disturbed."""
        words = {"url": self.site.long(Role.FOREGROUND), "place": "/dev/null"}
        with running(self.topology.client, ONE_FILE["curl"], words, self.directory / "log"):
            yield


@contextlib.contextmanager
def scene(
    link: Link, *, foreground: str, background: str, tls: bool, proxied: bool
) -> Iterator[Scene]:
    """Build it; the server has these congestion controls, and TLS for background downloads.

    Where those are *proxied* they go through a proxy on the client's side of the link.
    """
    controls = {role: background for role in (Role.BACKGROUND, Role.SECOND, Role.PROXY)}
    controls |= {role: foreground for role in (Role.FOREGROUND, Role.PROBE)}
    with (
        tempfile.TemporaryDirectory(prefix="lab-", dir=MEMORY) as name,
        topology(link, controls) as built,
        site(built, Path(name), tls=tls) as served,
        proxy(built) if proxied else contextlib.nullcontext() as between,
    ):
        directory = Path(name, "client")
        directory.mkdir()
        yield Scene(topology=built, site=served, directory=directory, proxy=between)
