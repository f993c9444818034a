"""One plain request through a proxy, and which proxy that is; tunnels are in test_tunnel.py."""

from __future__ import annotations

import pytest
from yarl import URL

from tests.support.acceptors import Basic
from tests.support.exchanges import body_of, failure, open_exchange
from tests.support.origin import (
    Origin,
    fixed,
)
from tests.support.proxy import ForwardProxy
from transferd.model.errors import TransferFailed
from transferd.worker.proxy import choose_proxy
from transferd.worker.request import Request


async def test_a_proxy_gets_the_absolute_url_and_its_own_credentials(origin: Origin) -> None:
    """Proxy-Authorization goes with a plain request to the proxy, and no further."""
    origin.pages["/f"] = fixed(200, body=b"fetched")
    acceptor = Basic("proxyuser", "proxypass")
    async with ForwardProxy(acceptor).running() as proxy, open_exchange() as exchange:
        request = Request(
            url=origin.url("/f?x=1"),
            proxy=URL(proxy.url),
            proxy_authorization="Basic cHJveHl1c2VyOnByb3h5cGFzcw==",
        )
        assert await body_of(await exchange.send(request)) == b"fetched"
    assert proxy.seen[0].target == request.target == origin.url("/f?x=1")
    assert origin.seen[0].target == "/f?x=1"
    assert "proxy-authorization" not in origin.said


async def test_an_unreachable_proxy_is_named() -> None:
    """proxy_unreachable says that it is the proxy which is gone, not the server."""
    async with ForwardProxy().running() as gone:
        pass
    async with open_exchange() as exchange:
        request = Request(url="http://files.example.org/f", proxy=URL(gone.url))
        failed = await failure(exchange, request)
        lost = await failure(
            exchange, Request(url="http://h.example/", proxy=URL("http://nowhere.invalid:3128"))
        )
    assert failed.failure.code == lost.failure.code == "proxy_unreachable"
    assert str(failed).startswith(f"cannot reach proxy 127.0.0.1:{gone.port}")


def test_the_environment_is_asked_only_when_the_job_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No setting: http_proxy and no_proxy of the owner; `direct`: none; a URL: that one."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    inside, outside = URL("http://host.internal/"), URL("http://host.example/")
    assert choose_proxy(outside, None) is None
    monkeypatch.setenv("http_proxy", "http://u:p%40ss@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "internal")
    chosen = choose_proxy(outside, None)
    assert chosen is not None
    assert chosen.url == URL("http://proxy.example:3128")
    assert (chosen.username, chosen.password and chosen.password.reveal()) == ("u", "p@ss")
    assert "p@ss" not in repr(chosen)
    assert choose_proxy(inside, None) is None
    assert choose_proxy(URL("https://host.example/"), None) is None
    assert choose_proxy(outside, "direct") is None
    other = choose_proxy(inside, "other:8080")
    assert other is not None
    assert other.url == URL("http://other:8080")


@pytest.mark.parametrize("setting", ["socks5://u:secret@h:1", "http://", "http://h:port"])
def test_a_proxy_that_cannot_be_used_is_refused_without_showing_it(setting: str) -> None:
    """The setting may hold a password, so its text is not repeated."""
    with pytest.raises(TransferFailed, match="cannot use the configured proxy") as caught:
        choose_proxy(URL("http://h/"), setting)
    assert caught.value.failure.code == "proxy_unreachable"
    assert "secret" not in str(caught.value)
