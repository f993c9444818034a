"""The real servers do what the other tests rely on; curl is the witness."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import apache as apache_module
from tests.support import nginx as nginx_module
from tests.support import servers
from tests.support.servers import (
    ODD_PASSWORD,
    ODD_USER,
    PASSWORD,
    REALM,
    USER,
    NotServing,
    Server,
    free_ports,
    public_directory,
    require_program,
    require_server,
    serving,
)

CONTENT = bytes(range(256)) * 64
IDENTITIES = ((USER, PASSWORD), (ODD_USER, ODD_PASSWORD))


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer of a curl run."""

    status: int
    #: Header lines with names in lower case, in order.
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


def curl(url: str, *options: str) -> Answer:
    """Fetch with curl, as nobody of ours would."""
    argv = [require_program("curl"), "-sS", "-i", "--noproxy", "*", *options, url]
    output = subprocess.run(argv, check=True, capture_output=True, timeout=30).stdout
    while True:
        head, _, output = output.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if not output.startswith(b"HTTP/1.1 "):
            break
    pairs = (line.partition(":") for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
    return Answer(int(first.split()[1]), headers, output)


@pytest.fixture
def path(nginx: Server) -> str:
    """A served file; all shared servers serve the same directory."""
    return nginx.put(CONTENT)


def digest(url: str, user: str, password: str) -> Answer:
    """Fetch with curl's Digest."""
    return curl(url, "--digest", "--user", f"{user}:{password}")


def test_nginx_serves_files_with_ranges_and_validators(nginx: Server, path: str) -> None:
    """Rule: a plain place offers everything that a guarded resume needs."""
    answer = curl(nginx.url(path), "--range", "5-9")
    assert (answer.status, answer.body) == (206, CONTENT[5:10])
    assert answer.values("content-range") == [f"bytes 5-9/{len(CONTENT)}"]
    assert answer.values("etag")[0].startswith('"')
    assert answer.values("last-modified")


@pytest.mark.parametrize(
    ("place", "status", "missing"),
    [
        ("noranges", 200, "accept-ranges"),
        ("noetag", 206, "etag"),
        ("bare", 206, "last-modified"),
    ],
)
def test_nginx_leaves_single_manners_away(
    nginx: Server, path: str, place: str, status: int, missing: str
) -> None:
    """Rule: each ill-mannered place lacks just what its name says."""
    answer = curl(nginx.url(f"/{place}{path}"), "--range", "5-9")
    assert (answer.status, answer.values(missing)) == (status, [])


def test_nginx_compresses_for_who_accepts_it(nginx: Server, path: str) -> None:
    """Rule: the gzip place sends another representation, chunked, to clients that ask for it."""
    answer = curl(nginx.url(f"/gzip{path}"), "--header", "Accept-Encoding: gzip")
    assert answer.values("content-encoding") == ["gzip"]
    assert answer.values("content-length") == []
    assert curl(nginx.url(f"/gzip{path}")).body == CONTENT


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("name", ["nginx", "apache", "lighttpd"])
def test_every_server_demands_basic(
    request: pytest.FixtureRequest, path: str, name: str, identity: tuple[str, str]
) -> None:
    """Rule: /basic/ refuses strangers and wrong passwords and takes both test identities."""
    server: Server = request.getfixturevalue(name)
    url = server.url(f"/basic{path}")
    refused = curl(url)
    assert (refused.status, refused.values("www-authenticate")[0][:6]) == (401, "Basic ")
    assert curl(url, "--user", f"{identity[0]}:wrong").status == 401
    assert curl(url, "--user", ":".join(identity)).body == CONTENT


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("place", ["digest", "shortnonce", "either"])
def test_apache_demands_digest(
    apache: Server, path: str, place: str, identity: tuple[str, str]
) -> None:
    """Rule: Apache's Digest places refuse wrong passwords and prove themselves with rspauth."""
    url = apache.url(f"/{place}{path}")
    assert digest(url, identity[0], "wrong").status == 401
    answer = digest(url, *identity)
    assert answer.body == CONTENT
    assert 'rspauth="' in answer.values("authentication-info")[0]


def test_apache_offers_basic_before_digest_but_takes_digest_alone(
    apache: Server, path: str
) -> None:
    """Rule: a client that looks at the first header line only cannot get in at /either/."""
    url = apache.url(f"/either{path}")
    offers = [value.split()[0] for value in curl(url).values("www-authenticate")]
    assert offers == ["Basic", "Digest"]
    assert curl(url, "--basic", "--user", f"{USER}:{PASSWORD}").status == 401


def md5(text: str) -> str:
    """The hash that RFC 7616 calls H, for MD5."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def digest_header(nonce: str, uri: str) -> str:
    """A right answer to a challenge with *nonce* (RFC 7616 section 3.4)."""
    secret, request = md5(f"{USER}:{REALM}:{PASSWORD}"), md5(f"GET:{uri}")
    response = md5(f"{secret}:{nonce}:00000001:0:auth:{request}")
    return (
        f'Authorization: Digest username="{USER}", realm="{REALM}", nonce="{nonce}", uri="{uri}", '
        f'response="{response}", qop=auth, nc=00000001, cnonce="0", algorithm=MD5'
    )


def nonce_of(answer: Answer) -> str:
    """The nonce of a Digest challenge."""
    found = re.search(r'nonce="([^"]+)"', answer.values("www-authenticate")[-1])
    assert found is not None
    return found[1]


def test_a_restarted_apache_calls_older_nonces_stale(served: Path, path: str) -> None:
    """Rule: a nonce of an earlier start is answered with stale=true, so that no test must wait."""
    uri = f"/digest{path}"
    with apache_module.apache(served) as first:
        nonce = nonce_of(curl(first.url(uri)))
        assert curl(first.url(uri), "--header", digest_header(nonce, uri)).body == CONTENT
    with apache_module.apache(served) as second:
        again = curl(second.url(uri), "--header", digest_header(nonce, uri))
    assert again.status == 401
    assert "stale=true" in again.values("www-authenticate")[0]


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("place", ["md5", "sha256", "both", "userhash"])
def test_lighttpd_demands_digest(
    lighttpd: Server, path: str, place: str, identity: tuple[str, str]
) -> None:
    """Rule: lighttpd's Digest places refuse wrong passwords and take both test identities."""
    url = lighttpd.url(f"/{place}{path}")
    assert digest(url, identity[0], "wrong").status == 401
    assert digest(url, *identity).body == CONTENT


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("md5", ["algorithm=MD5,"]),
        ("sha256", ["algorithm=SHA-256,"]),
        ("sha512-256", ["algorithm=SHA-512-256,"]),
        ("both", ["algorithm=SHA-256,", "algorithm=MD5,"]),
        ("userhash", ["algorithm=SHA-256,", "userhash=true"]),
    ],
)
def test_lighttpd_offers_what_the_place_says(
    lighttpd: Server, path: str, place: str, expected: Sequence[str]
) -> None:
    """Rule: each Digest place offers its algorithms, in the order of their strength."""
    offer = " ".join(curl(lighttpd.url(f"/{place}{path}")).values("www-authenticate"))
    positions = [offer.find(part) for part in expected]
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("place", "status"), [("moved", 302), ("moved301", 301), ("moved308", 308)]
)
def test_nginx_redirects_on_the_same_origin(
    nginx: Server, path: str, place: str, status: int
) -> None:
    """Rule: /moved*/ points at the plain file of the same origin."""
    answer = curl(nginx.url(f"/{place}{path}"))
    assert (answer.status, answer.values("location")) == (status, [nginx.url(path)])


def test_nginx_redirects_to_another_origin(nginx: Server, path: str) -> None:
    """Rule: /away/ leads to localhost; /protected-away/ asks for Basic before it does."""
    answer = curl(nginx.url(f"/away{path}"))
    assert answer.values("location") == [nginx.url(path, host="localhost")]
    url = nginx.url(f"/protected-away{path}")
    assert curl(url).status == 401
    away = curl(url, "--user", f"{USER}:{PASSWORD}")
    expected = nginx.url(f"/basic{path}", host="localhost")
    assert (away.status, away.values("location")) == (302, [expected])


@pytest.mark.parametrize(("place", "status"), [("busy", 503), ("throttled", 429)])
def test_nginx_asks_to_come_back_later(nginx: Server, path: str, place: str, status: int) -> None:
    """Rule: the overloaded places name a Retry-After."""
    answer = curl(nginx.url(f"/{place}{path}"))
    assert (answer.status, answer.values("retry-after")) == (status, ["7"])


def test_nginx_limits_the_rate_of_slow(nginx: Server) -> None:
    """Rule: /slow/ sends 64 KiB at once and then leaves the rest for later."""
    url = nginx.url("/slow" + nginx.put(bytes(1024 * 1024)))
    argv = [
        require_program("curl"),
        "-sS",
        "--noproxy",
        "*",
        "--max-time",
        "0.5",
        "-o",
        "/dev/null",
    ]
    argv += ["-w", "%{size_download}", url]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 28
    assert 0 < int(run.stdout) < 512 * 1024


def test_nginx_serves_tls_that_its_own_authority_vouches_for(nginx: Server, path: str) -> None:
    """Rule: https works with cacert, for both names, and not without."""
    for host in ("localhost", "127.0.0.1"):
        url = nginx.tls_url(path, host=host)
        assert curl(url, "--cacert", str(nginx.cacert)).body == CONTENT
    with pytest.raises(subprocess.CalledProcessError) as caught:
        curl(nginx.tls_url(path))
    assert caught.value.returncode == 60


def test_a_new_version_of_a_file_has_another_etag(nginx: Server) -> None:
    """Rule: put with another age changes the validator even where the size stays."""
    path = nginx.put(b"one", age=7200)
    first = curl(nginx.url(path)).values("etag")
    nginx.put(b"two", name=path[1:], age=3600)
    assert curl(nginx.url(path)).values("etag") != first


def test_a_server_ends_with_its_block() -> None:
    """Rule: nothing listens any more, and no process is left, when the block is over."""
    with public_directory() as root:
        with nginx_module.nginx(root) as server:
            port = server.port
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect(("127.0.0.1", port))
        assert list(root.iterdir()) == []


def test_a_taken_port_is_given_up_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: losing the race for a port means another try, never somebody else's server."""
    program = require_server("nginx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        choices = [[taken.getsockname()[1]], free_ports(1)]
        free = choices[1][0]
        monkeypatch.setattr(servers, "free_ports", lambda count: choices.pop(0))
        monkeypatch.setattr(servers, "_START_SECONDS", 0.5)

        def command(ports: Sequence[int]) -> Sequence[str]:
            config = tmp_path / "nginx.conf"
            config.write_text(
                f"daemon off; pid {tmp_path}/pid; error_log stderr;"
                f"{'user root;' if os.getuid() == 0 else ''} events {{}} http {{ access_log off;"
                f" server {{ listen 127.0.0.1:{ports[0]}; root {tmp_path}; }} }}"
            )
            return [program, "-c", str(config)]

        with serving(command, root=tmp_path, log=tmp_path / "log") as ports:
            assert ports == [free]


def test_a_server_that_never_answers_is_reported_with_its_log(tmp_path: Path) -> None:
    """Rule: a broken configuration ends in an error that shows what the server said."""
    program = require_server("nginx")
    with (
        pytest.raises(NotServing, match="no_such_directive"),
        serving(
            lambda ports: [program, "-g", "no_such_directive on;"],
            root=tmp_path,
            log=tmp_path / "log",
        ),
    ):
        pytest.fail("it cannot serve")


def test_a_missing_program_fails_the_test_where_ci_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: CI never passes because something was not installed; elsewhere the reason is shown."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-server"):
        require_program("no-such-server")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-server"):
        require_program("no-such-server")
