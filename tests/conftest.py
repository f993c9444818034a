"""Fixtures for everybody: the real servers, one of each for a test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import apache as apache_server
from tests.support import apache_gssapi as gssapi_server
from tests.support import apache_proxy as proxy_server
from tests.support import kdc as kerberos
from tests.support import lighttpd as lighttpd_server
from tests.support import nginx as nginx_server
from tests.support import squid as squid_server
from tests.support.matrix import cell as cell
from tests.support.matrix import pytest_terminal_summary as pytest_terminal_summary
from tests.support.servers import (
    Proxies,
    Server,
    public_directory,
    require_module,
    require_server,
)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Honour `@pytest.mark.server(name)`: such a test needs that server's program."""
    for mark in item.iter_markers("server"):
        require_server(*mark.args)


@pytest.fixture(scope="session")
def served() -> Iterator[Path]:
    """The directory that all shared servers serve; put files there with `Server.put`."""
    with public_directory() as root:
        yield root


@pytest.fixture(scope="session")
def nginx(served: Path) -> Iterator[Server]:
    """A running nginx; its places stand in tests/support/nginx.py."""
    with nginx_server.nginx(served) as server:
        yield server


@pytest.fixture(scope="session")
def apache(served: Path) -> Iterator[Server]:
    """A running Apache httpd; its places stand in tests/support/apache.py."""
    with apache_server.apache(served) as server:
        yield server


@pytest.fixture(scope="session")
def lighttpd(served: Path) -> Iterator[Server]:
    """A running lighttpd; its places stand in tests/support/lighttpd.py."""
    with lighttpd_server.lighttpd(served) as server:
        yield server


@pytest.fixture(scope="session")
def kdc() -> Iterator[kerberos.Kdc]:
    """A running MIT KDC; who stops or shifts it makes one of its own, `tests.support.kdc.kdc()`."""
    for module in ("gssapi", "krb5"):
        require_module(module, "kerberos")
    with kerberos.kdc() as served:
        yield served


@pytest.fixture(scope="session")
def apache_gssapi(served: Path, kdc: kerberos.Kdc) -> Iterator[Server]:
    """An Apache httpd for Kerberos and NTLM; places: tests/support/apache_gssapi.py."""
    with gssapi_server.apache_gssapi(served, kdc) as server:
        yield server


@pytest.fixture(scope="session")
def apache_proxy(served: Path, kdc: kerberos.Kdc) -> Iterator[Proxies]:
    """An Apache httpd as forward proxy; ports: tests/support/apache_proxy.py."""
    with proxy_server.apache_proxy(served, kdc) as proxies:
        yield proxies


@pytest.fixture(scope="session")
def squid(nginx: Server, kdc: kerberos.Kdc) -> Iterator[squid_server.Squid]:
    """A squid as forward proxy and as server before nginx; ports: tests/support/squid.py."""
    with squid_server.squid(nginx, kdc) as proxies:
        yield proxies


@pytest.fixture(scope="session")
def lighttpd_kerberos(served: Path, kdc: kerberos.Kdc) -> Iterator[Server]:
    """A lighttpd that knows the KDC besides; its places stand in tests/support/lighttpd.py."""
    with lighttpd_server.lighttpd(served, kdc) as server:
        yield server
