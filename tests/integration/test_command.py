"""Notification commands, as real processes."""

from __future__ import annotations

import asyncio
import os
import pwd
import select
import signal
import sys
from pathlib import Path

import pytest

from transferd.worker.command import run_command

SHELL = "/bin/sh"


async def shell(
    script: str, *, stdin: str = "", environment: dict[str, str] | None = None, timeout: float = 30
) -> tuple[int | None, str]:
    """Run a shell script as the command."""
    return await run_command([SHELL, "-c", script], environment or {}, stdin, timeout)


async def ended(pid: int) -> bool:
    """Wait until a process that need not be our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = await asyncio.to_thread(select.select, [handle], [], [], 30)
    finally:
        os.close(handle)
    return bool(readable)


async def test_the_exit_status_is_told() -> None:
    """A command that fails is told from one that ends well."""
    assert await shell("exit 0") == (0, "")
    assert await shell("exit 3") == (3, "")


async def test_the_notice_is_read_from_standard_input() -> None:
    """DESIGN 2, BITS N10: JSON of the notice, whole and however long; nobody has to read it."""
    notice = '{"text": "ü' + "x" * 300_000 + '"}'
    count = len(notice.encode())
    assert await shell(f'test "$(wc -c)" = {count}', stdin=notice) == (0, "")
    assert await shell('read line; echo "$line" >&2', stdin="ä b\nc") == (0, "ä b")
    assert await shell("true", stdin=notice) == (0, "")


async def test_the_end_of_standard_error_is_the_detail() -> None:
    """Whoever debugs a command sees its last words; nobody's memory is filled by them."""
    status, detail = await shell("seq 200000 >&2; echo last words >&2; echo unheard; exit 1")
    assert status == 1
    assert detail.endswith("199999\n200000\nlast words")
    assert len(detail) <= 500


async def test_the_last_words_are_never_missed() -> None:
    """What a program says just before it ends is there when it has ended."""
    for number in range(40):
        assert await shell(f"echo {number} >&2") == (0, str(number))


async def test_arguments_are_passed_as_they_are(tmp_path: Path) -> None:
    """No shell: nothing is expanded, split or quoted."""
    arguments = ["$HOME", "a b", "*", "`id`", "", "ü"]
    code = "import sys, json; print(json.dumps(sys.argv[1:]), file=sys.stderr)"
    status, detail = await run_command([sys.executable, "-c", code, *arguments], {}, "", 30)
    assert status == 0
    assert detail == '["$HOME", "a b", "*", "`id`", "", "\\u00fc"]'


async def test_the_environment_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the worker's environment reaches the command."""
    monkeypatch.setenv("CANARY", "hunter2")
    status, detail = await run_command(
        [sys.executable, "-c", "import os, sys; print(*sorted(os.environ), file=sys.stderr)"],
        {"TRANSFERD_JOB": "1"},
        "",
        30,
    )
    assert status == 0
    assert set(detail.split()) - {"XDG_RUNTIME_DIR", "LC_CTYPE"} == {
        "HOME",
        "LANG",
        "PATH",
        "TRANSFERD_JOB",
        "USER",
    }
    assert await shell("test $HOME = " + pwd.getpwuid(os.geteuid()).pw_dir) == (0, "")


async def test_a_command_has_a_session_of_its_own() -> None:
    """It has no terminal, and a signal to the worker's group does not reach it."""
    script = 'test "$(ps -o sid= -p $$ | tr -d " ")" = $$ && test "$(pwd)" = /'
    assert await shell(script) == (0, "")


@pytest.mark.parametrize("argv", [[], ["sh", "-c", "true"], ["./sh"], [""]])
async def test_only_an_absolute_path_is_run(argv: list[str]) -> None:
    """DESIGN: no PATH search; what runs is what its owner named."""
    status, detail = await run_command(argv, {}, "", 30)
    assert status is None
    assert "absolute path" in detail


async def test_a_program_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    """Missing, not executable, not a program, or no valid argument."""
    script = tmp_path / "script"
    script.write_text("echo")
    for argv, reason in (
        (["/nonexistent/notify"], "No such file or directory"),
        ([str(script)], "Permission denied"),
        ([SHELL, "a\0b"], "null byte"),
    ):
        status, detail = await run_command(argv, {}, "", 30)
        assert status is None
        assert detail.startswith(f"cannot run {argv[0]}: ")
        assert reason in detail


async def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    """DESIGN: a dead end never blocks the worker; the whole process group goes."""
    pids = tmp_path / "pids"
    status, detail = await shell(f"sleep 1000 & echo $! $$ > {pids}; wait", timeout=1)
    assert status is None
    assert detail == f"{SHELL} did not end within 1 s and was killed"
    for pid in pids.read_text().split():
        assert await ended(int(pid))


async def test_a_cancelled_command_is_killed_and_waited_for(tmp_path: Path) -> None:
    """A worker that leaves takes its commands with it."""
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    running = asyncio.ensure_future(shell(f"sleep 1000 & echo $! $$ > {pids}; wait"))
    heard = await asyncio.to_thread(pids.read_text)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    child, leader = (int(pid) for pid in heard.split())
    with pytest.raises(ProcessLookupError):
        os.kill(leader, 0)
    assert await ended(child)


async def test_a_command_that_is_cancelled_while_it_starts_is_killed_with_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may have started something before its start is known here."""
    killed: list[int] = []
    kill = os.killpg

    def killpg(group: int, number: int) -> None:
        killed.append(group)
        kill(group, number)

    monkeypatch.setattr(os, "killpg", killpg)
    running = asyncio.ensure_future(shell("sleep 1000 & wait"))
    for _ in range(2):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (leader,) = killed
    with pytest.raises(ProcessLookupError):
        os.kill(leader, 0)


async def test_a_signal_is_no_exit_status() -> None:
    """A command that crashed is told by name."""
    assert await shell("kill -SEGV $$") == (None, f"{SHELL} was ended by SIGSEGV")


async def test_what_is_left_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    """A command may start a program that stays, even one that keeps standard error open."""
    pid = tmp_path / "pid"
    async with asyncio.timeout(30):
        assert await shell(f"sleep 1000 & echo $! > {pid}; echo done >&2") == (0, "done")
    os.kill(int(pid.read_text()), signal.SIGKILL)
