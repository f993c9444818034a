"""The kernel's powers: what the daemon keeps of them, and that workers have none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.servers import require_program, require_root
from transferd.capabilities import NEEDED, NONE, Capability, read_capabilities

_ROOT = Path(__file__).resolve().parents[2]
#: Says what is left, here and in a program that is executed.
_TELL = """
import subprocess
print(open("/proc/self/status").read())
print(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
"""


def run(code: str, powers: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run Python code as root with no capability but *powers*."""
    require_root("having capabilities")
    setpriv = require_program("setpriv")
    bounding = ",".join(["-all", *(f"+{power}" for power in powers)])
    argv = [setpriv, f"--bounding-set={bounding}", "--inh-caps=-all", sys.executable, "-c", code]
    return subprocess.run(
        argv, cwd=_ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )


def sets(printed: str) -> list[dict[str, str]]:
    """Return the lines on capabilities of each process that has told of itself."""
    found: list[dict[str, str]] = []
    for line in printed.splitlines():
        name, _, value = line.partition(":")
        if name == "Name":
            found.append({})
        if name.startswith("Cap") or name == "NoNewPrivs":
            found[-1][name] = value.strip().lstrip("0") or "0"
    return found


def test_the_daemon_keeps_three_powers_and_its_children_get_none() -> None:
    """Permitted and effective: SETUID, SETGID, KILL; a program that root executes has nothing."""
    code = f"from transferd.capabilities import confine_daemon; confine_daemon(){_TELL}"
    done = run(code, ["setuid", "setgid", "kill", "setpcap", "net_admin", "dac_override"])
    assert done.stderr == ""
    own, child = sets(done.stdout)
    none = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0")
    assert own == none | {"CapPrm": "e0", "CapEff": "e0", "NoNewPrivs": "1"}
    assert child == none | {"NoNewPrivs": "1"}


def test_a_daemon_that_cannot_empty_the_bounding_set_keeps_no_more() -> None:
    """Without CAP_SETPCAP there is no-new-privileges; root's programs get what there is at most."""
    code = f"from transferd.capabilities import confine_daemon; confine_daemon(){_TELL}"
    done = run(code, ["setuid", "setgid", "kill"])
    own, child = sets(done.stdout)
    assert (own["CapPrm"], own["CapEff"], own["CapInh"], own["CapAmb"]) == ("e0", "e0", "0", "0")
    assert child["CapPrm"] == "e0"  # which is why a worker drops them itself
    assert child["NoNewPrivs"] == "1"


@pytest.mark.parametrize("powers", [["setuid", "setgid", "kill", "setpcap"], ["kill", "chown"], []])
def test_a_worker_drops_everything(powers: list[str]) -> None:
    """Root's as well, whatever it was started with."""
    done = run(f"from transferd.capabilities import drop_all; drop_all(){_TELL}", powers)
    assert done.stderr == ""
    own, _ = sets(done.stdout)
    assert {own[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0"}


@pytest.mark.parametrize(
    ("powers", "missing"),
    [(["setuid", "setgid"], "CAP_KILL"), (["kill"], "CAP_SETGID, CAP_SETUID"), ([], "CAP_SETUID")],
)
def test_a_daemon_without_its_powers_says_what_to_do(powers: list[str], missing: str) -> None:
    """It could start no worker but its own user's, and must not pretend."""
    done = run(
        "import sys; from transferd.__main__ import main; sys.exit(main(['--system']))", powers
    )
    assert done.returncode == 1
    assert missing in done.stderr
    assert "systemctl start transferd" in done.stderr
    assert "leave out --system" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_sets_of_a_process_can_be_read() -> None:
    """As the kernel shows them, of any process."""
    own = read_capabilities()
    assert own.held == own.inheritable | own.permitted | own.effective | own.ambient
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        assert read_capabilities(other.pid).permitted == own.permitted
    assert NEEDED & Capability.SETPCAP == NONE
