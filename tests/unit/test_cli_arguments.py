"""The command line before anything is done: words, values, names, secrets, statuses."""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from transferd.cli import arguments
from transferd.cli.advice import advice_for
from transferd.cli.arguments import make_parser
from transferd.cli.destination import DEFAULT_NAME, destination, name_from_url
from transferd.cli.get import wished
from transferd.cli.outcomes import CommandError, Exit, code_of, status_of
from transferd.cli.output import Output
from transferd.cli.passwords import Identity, identity, read_headers, read_password
from transferd.cli.references import short_ids
from transferd.cli.tickets import cache_of
from transferd.cli.values import (
    duration,
    printable,
    shown_clock,
    shown_duration,
    shown_size,
    size,
)
from transferd.model.credentials import PASSWORD_SCHEMES, Scheme, Target
from transferd.model.errors import (
    BadRequest,
    Conflict,
    NoDaemon,
    NotAllowed,
    NotFound,
    TransferdError,
    Unavailable,
)
from transferd.model.failures import kind_of


def parse(*words: str) -> argparse.Namespace:
    """Parse a command line."""
    return make_parser().parse_args(words)


def output() -> Output:
    """Return an output that goes nowhere."""
    return Output(json=False, stdout=io.StringIO(), stderr=io.StringIO())


# ── words ──────────────────────────────────────────────────────────────────────────────────

EVERY_COMMAND = [
    ["get", "https://host/a"],
    ["create", "name"],
    ["add", "job", "https://host/a", "b"],
    ["credentials", "set", "job"],
    ["credentials", "remove", "job"],
    ["notify", "job"],
    ["set", "job"],
    ["resume", "job"],
    ["suspend", "job"],
    ["complete", "job"],
    ["cancel", "job"],
    ["wait", "job"],
    ["why", "job"],
    ["show", "job"],
    ["files", "job"],
    ["list"],
    ["events"],
    ["version"],
    ["completion", "bash"],
]


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_every_command_takes_json_and_a_socket(words: list[str]) -> None:
    """DESIGN 6: --json on every command."""
    options = parse(*words, "--json", "--socket", "/s", "--no-start")
    assert options.json is True
    assert options.socket == "/s"


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_json_may_stand_before_the_command(words: list[str]) -> None:
    """It is about the output, whatever the command."""
    assert parse("--json", *words).json is True
    assert parse(*words).json is False


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_every_command_leads_to_a_function(words: list[str]) -> None:
    """The grammar names functions as texts; each must be there."""
    import importlib

    module, _, function = parse(*words).run.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_options_may_stand_between_the_arguments() -> None:
    """People write DEST last."""
    options = parse("get", "https://host/a", "--user", "alice", "dest", "--keep")
    assert (options.url, options.dest, options.user, options.keep) == (
        "https://host/a",
        "dest",
        "alice",
        True,
    )


def test_get_is_foreground_and_waits_fifteen_minutes() -> None:
    """The sample waits 15 minutes; somebody is waiting for the file."""
    options = parse("get", "https://host/a")
    assert options.priority == "foreground"
    assert options.timeout == 15 * 60


def test_no_option_takes_a_password() -> None:
    """A password in argv is visible to everybody (BITS.md A24)."""
    help_text = make_parser().format_help() + _help_of("get") + _help_of("credentials", "set")
    assert "--password " not in help_text
    with pytest.raises(SystemExit):
        parse("get", "https://host/a", "--user", "alice", "--password", "secret")


def test_a_notification_command_keeps_its_own_options() -> None:
    """Everything after -- belongs to the program."""
    options = parse("notify", "job", "--kinds", "error", "--", "/usr/bin/x", "--json", "-a")
    assert options.words == ["/usr/bin/x", "--json", "-a"]
    assert options.json is False


def test_the_readmes_commands_are_understood() -> None:
    """What the front page tells people to type is what the grammar takes."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", readme, re.DOTALL))
    commands = re.findall(r"transferctl ((?:[a-z]+) [^\n)|#&]*)", blocks)
    assert len(commands) > 5
    for command in commands:
        parse(*shlex.split(command))


def test_help_comes_at_once() -> None:
    """A person waits for --help: neither the HTTP client nor rich may be imported for it."""
    code = (
        "import sys; from transferd.cli.__main__ import main; status = main(['get', '--help']);"
        "large = {'aiohttp', 'asyncio', 'rich', 'msgspec', 'shtab'} & set(sys.modules);"
        "print(*large, file=sys.stderr); sys.exit(status)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "examples:" in done.stdout
    # The bar is 0.12 s on a quiet machine; here others may be at work.
    assert time.monotonic() - began < 3


def test_a_look_at_the_queue_comes_at_once() -> None:
    """Scripts ask often: what others bring to talk HTTP or to draw is not imported for `list`."""
    code = (
        "import sys, transferd.cli.views;"
        "large = {'aiohttp', 'yarl', 'rich', 'shtab', 'transferd.model.job'} & set(sys.modules);"
        "print(*large)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_a_command_means_the_same_to_the_grammar_of_its_own(words: list[str]) -> None:
    """Rule: the parts of the grammar that a command line has no use for change nothing in it."""
    given = arguments.parse(words)
    assert given == make_parser().parse_args(words)
    assert arguments.parse(["--json", *words]).json


def _help_of(*words: str) -> str:
    parser = make_parser()
    for word in words:
        action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = action.choices[word]
    return parser.format_help()


# ── values ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("2d", 172800),
        ("0", 0),
        ("0.5h", 1800),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """As people write them."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "15 m", "-1", "1y", "1m30", "inf", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A typing error must not become a long wait."""
    with pytest.raises(argparse.ArgumentTypeError, match="duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("4096", 4096), ("10M", 10**7), ("10MB", 10**7), ("1.5GiB", 1610612736), ("2ki", 2048)],
)
def test_sizes_are_read(text: str, count: int) -> None:
    """M is a million and Mi is 2^20, as the standards have it."""
    assert size(text) == count


def test_what_is_no_size_is_refused() -> None:
    """A typing error must not become a limit."""
    with pytest.raises(argparse.ArgumentTypeError, match="size"):
        size("10 apples")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_950, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (5 * 10**12, "5.0 TB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_are_shown(count: int, text: str) -> None:
    """Three figures are enough, and never 1000.0 of something."""
    assert shown_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (42, "42 s"),
        (185, "3 min 5 s"),
        (900, "15 min"),
        (7800, "2 h 10 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_are_shown(seconds: float, text: str) -> None:
    """Two units at most."""
    assert shown_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (42, "0:42"), (3723, "1:02:03"), (-5, "0:00")]
)
def test_the_rest_of_time_is_a_clock(seconds: float, text: str) -> None:
    """Few columns; an estimate that is over is zero."""
    assert shown_clock(seconds) == text


def test_what_steers_a_terminal_is_not_printed() -> None:
    """Names, URLs and messages come from elsewhere."""
    assert printable("a\x1b[31m\nb\u202ec\x9b") == "a?[31m?b?c?"


def test_short_ids_are_as_long_as_they_must_be() -> None:
    """Eight characters, or more where ids begin alike (as time-ordered UUIDs do)."""
    assert short_ids(["0f8fad5b-d9cb", "1f8fad5b-d9cb"]) == {
        "0f8fad5b-d9cb": "0f8fad5b",
        "1f8fad5b-d9cb": "1f8fad5b",
    }
    assert short_ids(["0f8fad5b-d9cb", "0f8fad5b-d9cc"])["0f8fad5b-d9cb"] == "0f8fad5b-d9cb"
    assert short_ids([]) == {}


# ── where the file goes ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/dir/a.iso", "a.iso"),
        ("https://host/a%20b.iso?x=1#y", "a b.iso"),
        ("https://host/%C3%A4.iso", "ä.iso"),
        ("https://host/", DEFAULT_NAME),
        ("https://host", DEFAULT_NAME),
        ("https://host/..", DEFAULT_NAME),
        ("https://host/%2e%2e", DEFAULT_NAME),
        ("https://host/%2E", DEFAULT_NAME),
        ("https://host/..%2F..%2Fetc%2Fpasswd", ".._.._etc_passwd"),
        ("https://host/a%00b", "a_b"),
        ("https://host/a%0Ab%1b%5b2J", "a_b_[2J"),
        ("https://host/%252e%252e", "%2e%2e"),
        ("https://host/%ff", "\ufffd"),
    ],
)
def test_names_from_urls_stay_in_their_directory(url: str, name: str) -> None:
    """A server names a file, not a path."""
    assert name_from_url(url) == name


def test_a_name_that_is_too_long_keeps_its_suffix() -> None:
    """255 bytes are what a directory entry holds."""
    name = name_from_url(f"https://host/{'%C3%A4' * 300}.tar")
    assert name.endswith("ä.tar")
    assert 250 < len(name.encode()) <= 255


def test_the_destination_is_here_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without DEST the name comes from the URL."""
    monkeypatch.chdir(tmp_path)
    assert destination(None, "https://host/a.iso") == str(tmp_path / "a.iso")


def test_a_destination_is_resolved_by_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has another working directory and another home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "isos").mkdir()
    url = "https://host/a.iso"
    assert destination("b.iso", url) == str(tmp_path / "b.iso")
    assert destination("isos", url) == str(tmp_path / "isos/a.iso")
    assert destination("~/isos/", url) == str(tmp_path / "isos/a.iso")
    assert destination("isos/../c.iso", url) == str(tmp_path / "c.iso")


@pytest.mark.parametrize("dest", ["missing/a.iso", "missing/", "file/a.iso", "file/"])
def test_a_missing_directory_is_said_before_a_job_exists(
    dest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parents are never made unless asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="make it first") as refused:
        destination(dest, "https://host/a.iso")
    assert refused.value.status is Exit.USAGE


# ── secrets ────────────────────────────────────────────────────────────────────────────────


def test_a_password_is_one_line_of_a_file(tmp_path: Path) -> None:
    """The line's end is not part of it; blanks are."""
    for content in (b"pass word \n", b"pass word \r\n", b"pass word ", b"pass word \nmore\n"):
        file = tmp_path / "secret"
        file.write_bytes(content)
        assert read_password(str(file), "?").reveal() == "pass word "


def test_a_password_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard input, as everywhere."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("pä\n".encode())))
    assert read_password("-", "?").reveal() == "pä"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n"])
def test_a_password_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    """An empty file is a mistake, and what is not UTF-8 cannot be sent."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(CommandError, match="password") as refused:
        read_password(str(file), "?")
    assert refused.value.status is Exit.USAGE


def test_a_password_file_that_is_missing_is_a_usage_error() -> None:
    """Nothing has begun yet."""
    with pytest.raises(CommandError, match="/nonexistent: No such file"):
        read_password("/nonexistent", "?")


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script must not hang, nor have its input taken for a password."""

    def refuse(*_: object) -> int:
        raise OSError(6, "No such device or address")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CommandError, match="--password-file") as refused:
        read_password(None, "?")
    assert refused.value.status is Exit.USAGE


def test_without_a_scheme_every_one_is_set_but_passport(tmp_path: Path) -> None:
    """BITS.md A6: if the scheme is not known, set the same identity for each."""
    (tmp_path / "secret").write_text("s")
    who = identity(Target.SERVER, None, "alice", str(tmp_path / "secret"))
    assert who is not None
    assert set(who.schemes) == {Scheme.BASIC, Scheme.DIGEST, Scheme.NTLM, Scheme.NEGOTIATE}


@pytest.mark.parametrize("auth", [None, "Negotiate"])
@pytest.mark.parametrize("name", ["NULL", "null", "Null"])
def test_null_is_the_implicit_identity(name: str, auth: str | None) -> None:
    """The sample compares with NULL in any case; only negotiate has such an identity."""
    who = identity(Target.SERVER, auth, name, None)
    assert who is not None
    assert (who.schemes, who.username, who.password) == ((Scheme.NEGOTIATE,), None, None)


@pytest.mark.parametrize("auth", ["basic", "digest", "NTLM", "passport"])
def test_null_is_refused_for_other_schemes_before_a_job_exists(auth: str) -> None:
    """BITS.md A8: they need explicit values."""
    with pytest.raises(BadRequest) as refused:
        identity(Target.SERVER, auth, "NULL", None)
    assert refused.value.code == "credentials_incomplete"


@pytest.mark.parametrize(
    ("auth", "implied"), [("negotiate", False), ("negotiate", True), (None, True)]
)
def test_negotiate_and_a_keytab_need_no_user(auth: str | None, implied: bool) -> None:
    """The ticket or the keytab says who it is."""
    who = identity(Target.SERVER, auth, None, None, implied=implied)
    assert who is not None
    assert (who.schemes, who.username) == ((Scheme.NEGOTIATE,), None)
    assert identity(Target.SERVER, None, None, None) is None


@pytest.mark.parametrize("scheme", ["BASIC", "Digest", "nTLM", "NEGOTIATE", "Passport"])
def test_schemes_are_compared_without_case(scheme: str, tmp_path: Path) -> None:
    """The sample uses _wcsicmp."""
    (tmp_path / "secret").write_text("s")
    who = identity(Target.SERVER, scheme, "alice", str(tmp_path / "secret"))
    assert who is not None
    assert who.schemes == (Scheme(scheme.lower()),)


def test_an_unknown_scheme_is_refused_before_a_password_is_asked_for() -> None:
    """The sample: "Invalid authentication scheme specified", and no job."""
    with pytest.raises(
        BadRequest, match=r"invalid .* scheme 'kerberos'.*\(Kerberos is negotiate\)"
    ):
        identity(Target.SERVER, "kerberos", "alice", "/nonexistent")


@pytest.mark.parametrize(
    ("auth", "user", "file"),
    [
        ("basic", None, None),
        (None, None, "/x"),
        ("negotiate", None, "/x"),
        (None, "NULL", "/x"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    auth: str | None, user: str | None, file: str | None
) -> None:
    """Half an identity is a mistake."""
    with pytest.raises(CommandError) as refused:
        identity(Target.SERVER, auth, user, file)
    assert refused.value.status is Exit.USAGE


def test_headers_are_read_from_words_and_a_file(tmp_path: Path) -> None:
    """A token in a file is not in argv."""
    file = tmp_path / "headers"
    file.write_text("X-Token: a:b\n\nX-Other:c\n")
    headers = read_headers(["Accept: text/plain"], str(file))
    assert headers == {"Accept": "text/plain", "X-Token": "a:b", "X-Other": "c"}


@pytest.mark.parametrize("given", [["no colon"], [": x"], ["A: 1", "a: 2"]])
def test_headers_that_are_none_are_refused(given: list[str]) -> None:
    """What cannot be sent is said at once, without its value."""
    with pytest.raises(CommandError) as refused:
        read_headers(given, None)
    assert "no colon" not in str(refused.value)


# ── what get makes of it ───────────────────────────────────────────────────────────────────


def wish(tmp_path: Path, *words: str) -> Any:
    """Check a command line of `get`."""
    return wished(parse("get", "https://host/a.iso", str(tmp_path), *words), output())


def test_everything_is_checked_before_a_job_exists(tmp_path: Path) -> None:
    """A usage error leaves nothing behind."""
    for words in (
        ["--checksum", "sha256:xyz"],
        ["--cacert", "/nonexistent"],
        ["--proxy", "socks5://host:1"],
        ["--auth", "nonsense", "--user", "alice"],
        ["--detach", "--keep"],
        ["--user", "a", "--password-file", "-", "--proxy-user", "b", "--proxy-password-file", "-"],
    ):
        with pytest.raises((CommandError, BadRequest)) as refused:
            wish(tmp_path, *words)
        assert status_of(refused.value) is Exit.USAGE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-rate", "1K"), "--max-rate: must be at least 1024 bytes a second, such as 2K"),
        (("--streams", "0"), "--streams: must be a number from 1 to 64"),
        (("--streams", "65"), "--streams: must be a number from 1 to 64"),
        (("--streams", "many"), "--streams: must be a number from 1 to 64"),
    ],
)
def test_a_number_that_no_job_may_have_is_refused_with_those_that_it_may(
    words: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the words of the command line, before anybody is asked."""
    for command in (("get", "https://host/a"), ("set", "job")):
        with pytest.raises(SystemExit):
            parse(*command, *words)
        assert said in capsys.readouterr().err


def test_a_url_that_is_none_is_refused_before_a_job_exists(tmp_path: Path) -> None:
    """Only http and https are transferred."""
    with pytest.raises(BadRequest, match="ftp"):
        wished(parse("get", "ftp://host/a", str(tmp_path)), output())


def test_a_password_in_the_url_works_but_is_warned_of(tmp_path: Path) -> None:
    """BITS.md A16: it moves into the vault as basic, and out of the URL."""
    told = io.StringIO()
    url = "https://alice:p%40ss@host/a.iso"
    made = wished(
        parse("get", url, str(tmp_path)), Output(json=False, stdout=io.StringIO(), stderr=told)
    )
    assert made.url == "https://host/a.iso"
    (who,) = made.identities
    assert who.password is not None
    assert (who.schemes, who.username, who.password.reveal()) == ((Scheme.BASIC,), "alice", "p@ss")
    assert "use --user" in told.getvalue()
    assert "p@ss" not in repr(made) + told.getvalue()


def test_a_user_in_the_url_and_one_in_the_options_contradict(tmp_path: Path) -> None:
    """One of them would be ignored."""
    with pytest.raises(CommandError, match="take it out of the URL"):
        wished(parse("get", "https://a:b@host/x", str(tmp_path), "--user", "c"), output())


def test_settings_reach_the_job(tmp_path: Path) -> None:
    """Every option has its field; what is not said is left to the daemon."""
    made = wish(
        tmp_path,
        "--no-overwrite",
        "--allow-cleartext",
        "--max-size",
        "1k",
        "--max-rate",
        "500K",
        "--min-retry-delay",
        "5s",
        "--cost",
        "not_roaming",
    )
    assert made.settings == {
        "priority": "foreground",
        "cost": "not_roaming",
        "overwrite": False,
        "allow_cleartext": True,
        "max_size": 1000,
        "max_rate": 500_000,
        "min_retry_delay": 5.0,
    }
    assert made.name == "a.iso"


def test_how_a_scheme_is_spoken_reaches_the_job(tmp_path: Path) -> None:
    """Each option is a member of its group; an empty one is the default."""
    (tmp_path / "keytab").touch()
    words = {
        "--spn": "HTTP/www",
        "--proxy-spn": "proxy",
        "--proxy-auth": "negotiate",
        "--keytab": str(tmp_path / "keytab"),
        "--principal": "alice",
        "--ccache": "",
    }
    made = wish(tmp_path, "--allow-ntlm", *(word for pair in words.items() for word in pair))
    assert made.settings["negotiate"] == {
        "spn": "HTTP/www",
        "proxy_spn": "proxy",
        "keytab": str(tmp_path / "keytab"),
        "principal": "alice",
        "ccache": None,
        "ntlm": True,
    }
    assert [(who.target, who.schemes, who.username) for who in made.identities] == [
        (target, (Scheme.NEGOTIATE,), None) for target in (Target.SERVER, Target.PROXY)
    ]


_PASSPORT = {
    "--passport-configuration": "https://n/",
    "--passport-login-host": "l",
    "--passport-realm": "r",
}


def test_whom_passport_trusts_reaches_the_job(tmp_path: Path) -> None:
    """Beside the credentials that it is about."""
    (tmp_path / "secret").write_text("s")
    alice = ("--auth", "passport", "--user", "a@b", "--password-file", str(tmp_path / "secret"))
    made = wish(tmp_path, *alice, *(word for pair in _PASSPORT.items() for word in pair))
    assert made.settings["passport"] == {
        "configuration_url": "https://n/",
        "login_host": "l",
        "realm": "r",
    }


@pytest.mark.parametrize(
    ("option", "missing"),
    [
        (["--spn", "w"], "--auth negotiate"),
        (["--proxy-spn", "w"], "--proxy-auth negotiate"),
        (["--spn", "w", "--proxy-auth", "negotiate"], "--auth negotiate"),
        *((list(pair), "--auth passport --user NAME") for pair in _PASSPORT.items()),
        (["--passport-realm", "r", "--auth", "negotiate"], "--auth passport --user NAME"),
    ],
)
def test_options_of_a_scheme_that_nobody_speaks_are_refused(
    option: list[str], missing: str, tmp_path: Path
) -> None:
    """They would be overlooked without a word."""
    with pytest.raises(CommandError, match=rf"cannot use {option[0]} without .*{missing}"):
        wish(tmp_path, *option)


def test_passport_is_refused_at_a_proxy_before_a_password_is_asked_for(tmp_path: Path) -> None:
    """MS-PASS 1.3: no proxy asks for it; no job is made for nothing."""
    for words in (["--proxy-user", "a@b"], ["--proxy", "http://a:b@proxy:1"]):
        with pytest.raises(CommandError, match="cannot use passport at a proxy; ") as refused:
            wish(tmp_path, "--proxy-auth", "passport", *words)
        assert refused.value.status is Exit.USAGE


@pytest.mark.parametrize("option", ["--ccache", "--principal"])
def test_a_ticket_that_is_named_needs_no_user(option: str, tmp_path: Path) -> None:
    """It says who the job is as a keytab does."""
    (who,) = wish(tmp_path, option, "KCM:").identities
    assert (who.target, who.schemes, who.username) == (Target.SERVER, (Scheme.NEGOTIATE,), None)
    with pytest.raises(CommandError, match=f"{option} beside --user alice, who has a password"):
        wish(tmp_path, option, "KCM:", "--user", "alice")


# ── the caller's tickets ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("named", "cache"),
    [
        ("/tmp/cc", "FILE:/tmp/cc"),
        ("FILE:/tmp/cc", "FILE:/tmp/cc"),
        ("FILE:cc", "FILE:{here}/cc"),
        ("cc", "FILE:{here}/cc"),
        ("DIR:/tmp/all", "DIR:/tmp/all"),
        ("DIR::/tmp/all/tkt", "DIR::/tmp/all/tkt"),
        ("KCM:1000:2", "KCM:1000:2"),
        ("KEYRING:persistent:1000", "KEYRING:persistent:1000"),
        ("MEMORY:mine", None),
        ("FILE:", None),
        ("", None),
    ],
)
def test_the_callers_ticket_cache_is_named_so_that_a_daemon_finds_it(
    named: str, cache: str | None
) -> None:
    """One in memory is of another process; a relative path is of another directory."""
    expected = None if cache is None else cache.format(here=Path.cwd())
    assert cache_of({"KRB5CCNAME": named}) == expected
    assert cache_of({}) is None


@pytest.mark.parametrize(
    ("words", "cache"),
    [
        (["--auth", "negotiate"], "FILE:/tmp/cc"),
        (["--proxy-auth", "negotiate"], "FILE:/tmp/cc"),
        (["--principal", "alice"], "FILE:/tmp/cc"),
        (["--ccache", "KCM:"], "KCM:"),
        (["--auth", "negotiate", "--ccache", ""], None),
        (["--keytab", "keytab"], None),
        ([], None),
    ],
)
def test_the_callers_tickets_are_those_of_the_job(
    words: list[str], cache: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon may have been started from another session, with another environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KRB5CCNAME", "/tmp/cc")
    (tmp_path / "keytab").touch()
    assert wish(tmp_path, *words).settings.get("negotiate", {}).get("ccache") == cache


def test_a_keytab_beside_a_user_with_a_password_is_refused(tmp_path: Path) -> None:
    """It stands in place of a password; asking for one would leave it unread without a word."""
    (tmp_path / "keytab").touch()
    keytab = ("--keytab", str(tmp_path / "keytab"))
    with pytest.raises(
        CommandError, match=r"--keytab beside --user alice.*--principal alice chooses"
    ) as refused:
        wish(tmp_path, *keytab, "--user", "alice")
    assert refused.value.status is Exit.USAGE
    (tmp_path / "secret").write_text("s")
    alice = ("--user", "alice", "--password-file", str(tmp_path / "secret"))
    made = wish(tmp_path, *keytab, *alice, "--proxy-user", "NULL")
    assert [who.username for who in made.identities] == ["alice", None]
    assert len(wish(tmp_path, *keytab, "--user", "null").identities) == 1


def test_a_keytab_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    """A usage error leaves nothing behind."""
    with pytest.raises(CommandError, match="cannot read the keytab") as refused:
        wish(tmp_path, "--keytab", str(tmp_path / "none"))
    assert refused.value.status is Exit.USAGE


@pytest.mark.parametrize(
    ("auth", "schemes"), [([], PASSWORD_SCHEMES), (["--proxy-auth", "NTLM"], (Scheme.NTLM,))]
)
def test_a_user_in_the_proxys_url_is_for_every_scheme_or_the_named_one(
    auth: list[str], schemes: tuple[Scheme, ...], tmp_path: Path
) -> None:
    """The URL does not tell what the proxy speaks (BITS.md A6)."""
    made = wish(tmp_path, "--proxy", "https://u:p@proxy:3128", *auth)
    assert made.settings["proxy"] == "https://proxy:3128"
    (who,) = made.identities
    assert (who.target, who.schemes, who.username) == (Target.PROXY, schemes, "u")


def test_a_user_in_the_url_is_for_basic(tmp_path: Path) -> None:
    """Another scheme is named with its user."""
    with pytest.raises(CommandError, match="which is for basic"):
        wished(parse("get", "https://a:b@host/x", str(tmp_path), "--auth", "ntlm"), output())


# ── statuses ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadRequest("unknown_scheme", ""), 2, "unknown_scheme"),
        (NoDaemon(""), 3, "no_daemon"),
        (NotAllowed("not_allowed", ""), 4, "not_allowed"),
        (NotFound("job_not_found", ""), 4, "job_not_found"),
        (Conflict("invalid_state", ""), 1, "invalid_state"),
        (Unavailable("worker_lost", ""), 1, "worker_lost"),
        (TransferdError(""), 1, "failed"),
        (ValueError(""), 1, "failed"),
        (CommandError(Exit.TIMED_OUT, "", code="timed_out"), 124, "timed_out"),
    ],
)
def test_exit_statuses_are_those_of_the_manual(error: Exception, status: int, code: str) -> None:
    """Scripts rely on them."""
    assert status_of(error) == status
    assert code_of(error) == code


@pytest.mark.parametrize("words", [["get"], ["credentials", "set"]])
def test_help_names_the_schemes_that_there_are(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What help offers must not be refused."""
    with pytest.raises(SystemExit):
        parse(*words, "--help")
    shown = capsys.readouterr().out
    assert all(scheme in shown for scheme in Scheme)


_REFUSERS = {"http_401": Target.SERVER, "http_407": Target.PROXY}


def named(target: Target, *schemes: Scheme) -> Identity:
    """Make somebody with a password."""
    return Identity(
        target=target, schemes=schemes or PASSWORD_SCHEMES, username="alice", password=None
    )


@pytest.mark.parametrize(
    ("code", "identified", "advice"),
    [
        ("http_401", [], "run it again with --user NAME"),
        ("http_401", [Target.SERVER], "run it again with another --user, password"),
        ("http_401", [Target.SERVER], "with the URL there"),
        ("http_407", [], "run it again with --proxy-user NAME"),
        ("tls_failed", [], "run it again with --cacert FILE"),
        ("unheard_of", [], "what would help: mend it"),
    ],
)
def test_advice_can_be_followed_without_the_job(
    code: str, identified: list[Target], advice: str
) -> None:
    """`get` has cancelled it: nothing can be set for it any more, and nothing resumes."""
    remedy = "mend it, then resume" if code == "unheard_of" else kind_of(code).advice
    shown = advice_for(code, remedy, [], [named(target) for target in identified])
    assert advice in shown
    assert "resume" not in shown


@pytest.mark.parametrize("code", ["http_401", "http_407"])
@pytest.mark.parametrize("sep", [",", ";"])
def test_what_the_scheme_advises_is_better_than_what_the_status_tells(code: str, sep: str) -> None:
    """A missing ticket is not mended by another password."""
    remedy = f"get a ticket with kinit{sep} then resume"
    shown = advice_for(code, remedy, [], [named(Target.SERVER), named(Target.PROXY)])
    assert shown == f"get a ticket with kinit{sep} then run it again"


_REMEDY = "set credentials, then resume"


@pytest.mark.parametrize(
    ("code", "schemes", "advice"),
    [
        ("http_401", ["ntlm", "basic"], "--user NAME"),
        (
            "http_401",
            ["negotiate", "basic"],
            "--auth negotiate (your Kerberos ticket), --keytab FILE or --user NAME",
        ),
        ("http_401", ["passport"], "--auth passport --user NAME"),
        ("http_407", ["digest"], "--proxy-user NAME"),
    ],
)
def test_who_has_named_nobody_is_told_how(code: str, schemes: list[str], advice: str) -> None:
    """By the options of the schemes that are asked for."""
    assert advice_for(code, _REMEDY, schemes, []) == f"run it again with {advice}"


def test_another_scheme_than_the_named_one_is_told() -> None:
    """--auth narrows down what a password is for; a ticket is for negotiate alone."""
    basic = named(Target.SERVER, Scheme.BASIC)
    told = "run it again without --auth or with --auth digest"
    assert advice_for("http_401", _REMEDY, ["digest"], [basic]) == told
    ticket = replace(named(Target.SERVER, Scheme.NEGOTIATE), username=None)
    assert advice_for("http_401", _REMEDY, ["digest"], [ticket]) == "run it again with --user NAME"
    passport = "run it again with --auth passport"
    assert advice_for("http_401", _REMEDY, ["passport"], [basic]) == passport


def test_credentials_that_stayed_behind_a_redirect_are_told() -> None:
    """Another server asks for what was named for the first one."""
    told = advice_for("http_401", _REMEDY, ["basic"], [named(Target.SERVER)])
    assert "if it was redirected to another server, with the URL there" in told


def test_a_password_of_the_url_that_is_not_asked_for_is_told() -> None:
    """It is for basic alone, which is not offered."""
    who = replace(named(Target.SERVER, Scheme.BASIC), from_url=True)
    told = advice_for("http_401", _REMEDY, ["digest"], [who])
    assert told == "a URL's password is for basic alone; run it again with --user NAME"


@pytest.mark.parametrize(
    ("code", "remedy", "advice"),
    [
        ("http_401", "set the right credentials, then resume", "--user or password"),
        ("http_407", "for the proxy, set the right credentials, then resume", "--proxy-user or"),
    ],
)
def test_a_wrong_password_is_told_by_its_option(code: str, remedy: str, advice: str) -> None:
    """There is no job any more to set credentials of."""
    told = advice_for(code, remedy, [], [named(_REFUSERS[code])])
    assert told.startswith(f"run it again with another {advice}")
