"""What is asked for: one request, with everything that it carries and where it may travel."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from yarl import URL

from transferd.worker.faults import Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, with everything that it carries."""

    method: str = "GET"
    #: Absolute and escaped; it goes out byte for byte.
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorization: str | None = field(default=None, repr=False)
    #: Without userinfo.
    proxy: URL | None = None
    #: Goes to the proxy only: with CONNECT where there is a tunnel, with the request otherwise.
    proxy_authorization: str | None = field(default=None, repr=False)
    #: Whose connection it may travel on. One that carried a request of another identity is closed
    #: rather than used: whoever authenticated it would lend his name. None: nobody's.
    identity: str | None = None
    #: The connection that it must travel on (`Answer.connection`), or not at all.
    connection: object = None

    @property
    def parsed(self) -> URL:
        """The URL in parts, never quoted again."""
        return parse(self.url)

    @property
    def peer(self) -> Peer:
        """Who is asked, for messages."""
        proxy = self.proxy
        return Peer(_place(self.parsed), None if proxy is None else _place(proxy))

    @property
    def tunnelled(self) -> bool:
        """Whether a proxy carries it without seeing it."""
        return self.proxy is not None and self.parsed.scheme == "https"

    @property
    def target(self) -> str:
        """The request target as it goes out (RFC 9112 3.2)."""
        if self.proxy is not None and not self.tunnelled:
            return str(self.parsed.with_fragment(None))
        return self.origin_form

    @property
    def origin_form(self) -> str:
        """The request target as the server gets it, whatever stands between."""
        return self.parsed.raw_path_qs


@lru_cache(64)
def parse(url: str) -> URL:
    """Return a URL in parts, never quoted again."""
    return URL(url, encoded=True)


def _place(url: URL) -> str:
    return f"{url.host_subcomponent}:{url.port}"
