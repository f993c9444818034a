"""Which proxy a request goes through: the job's, the owner's environment's, or none."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL

from transferd.model.credentials import Secret
from transferd.model.errors import TransferFailed
from transferd.model.failures import Failure

#: The setting that means: no proxy, whatever the environment says.
DIRECT = "direct"


@dataclass(frozen=True, slots=True, eq=False)
class Proxy:
    """A proxy, and the identity that its URL carried."""

    url: URL
    username: str | None = None
    password: Secret | None = field(default=None, repr=False)


def choose_proxy(url: URL, setting: str | None) -> Proxy | None:
    """Return the proxy for *url*, spoken to over http or https; None: connect directly.

    Setting None asks the environment (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`).

    Raises:
        TransferFailed: `proxy_unreachable`, it is no http or https proxy.
    """
    chosen = _from_environment(url) if setting is None else setting
    if not chosen or chosen == DIRECT:
        return None
    proxy = _parse(chosen)
    if proxy is None:
        # The text may hold a password: it is not shown.
        message = "cannot use the configured proxy: it is no http:// or https:// URL with a host"
        raise TransferFailed(Failure(code="proxy_unreachable", message=message))
    return proxy


def _from_environment(url: URL) -> str | None:
    proxies = getproxies_environment()
    if proxy_bypass(f"{url.host}:{url.port}", proxies):
        return None
    return proxies.get(url.scheme) or proxies.get("all")


def _parse(text: str) -> Proxy | None:
    try:
        url = URL(text if "://" in text else f"http://{text}")
        bare = url.origin()
    except ValueError:
        return None
    if bare.scheme not in ("http", "https"):
        return None
    if url.user is None:
        return Proxy(bare)
    return Proxy(bare, url.user, Secret(url.password or ""))
