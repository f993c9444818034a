"""What can be seen of a service that does not answer: its unit, and its state directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from transferd.model.errors import ConfigError
from transferd.model.upkeep import Severity
from transferd.wire.admin import CheckAnswer, FindingAnswer
from transferd.wire.paths import state_directory

_UNIT = "transferd.service"
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result")
_PATIENCE = 10.0


async def look_from_outside(reason: str, environ: Mapping[str, str]) -> CheckAnswer:
    """Say what is wrong beside the *reason* why nobody answers; starts and changes nothing."""
    findings = [
        FindingAnswer(
            code="not_running",
            severity=Severity.ERROR,
            text=reason,
            remedy="start the service, then check again",
        )
    ]
    for scope in ("--system", "--user"):
        findings += _of_unit(scope, await _unit(scope))
    for place in _state_directories(environ):
        findings += _of_directory(place)
    return CheckAnswer(checked=["socket", "units", "state"], findings=findings)


async def _unit(scope: str) -> Mapping[str, str]:
    """Return the unit's properties; none where there is no systemd to ask."""
    program = shutil.which("systemctl")
    if program is None:
        return {}
    process = await asyncio.create_subprocess_exec(
        program,
        scope,
        "show",
        f"--property={','.join(_PROPERTIES)}",
        _UNIT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            told, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return {}
    lines = told.decode(errors="replace").splitlines()
    return {name: value for name, mark, value in (line.partition("=") for line in lines) if mark}


def _of_unit(scope: str, unit: Mapping[str, str]) -> Iterator[FindingAnswer]:
    if unit.get("LoadState") != "loaded" or unit.get("ActiveState") != "failed":
        return
    command = f"systemctl {scope}".removesuffix(" --system")
    yield FindingAnswer(
        code="unit_failed",
        severity=Severity.ERROR,
        text=f"{_UNIT} ({scope.removeprefix('--')}) has failed: {unit.get('Result', 'unknown')}",
        remedy=f"see `{command} status {_UNIT}`, then `{command} restart {_UNIT}`",
    )


def _state_directories(environ: Mapping[str, str]) -> Iterator[Path]:
    yield state_directory({}, True)
    try:
        yield state_directory(environ, False)
    except ConfigError:
        return


def _of_directory(place: Path) -> Iterator[FindingAnswer]:
    try:
        status = place.stat()
    except OSError:
        return
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        yield FindingAnswer(
            code="state_exposed",
            severity=Severity.ERROR,
            text=f"others can change {place} (uid {status.st_uid}, mode {mode:04o})",
            remedy="run chmod 700 on it as its owner",
        )
    if not os.access(place, os.R_OK | os.X_OK):
        return
    for file in sorted(place.glob("*.key")) + sorted(place.glob("queue.db*")):
        if mode := stat.S_IMODE(file.lstat().st_mode) & 0o077:
            yield FindingAnswer(
                code="key_exposed" if file.suffix == ".key" else "queue_exposed",
                severity=Severity.ERROR,
                text=f"others can reach {file}",
                remedy=f"run chmod 600 {file} as its owner",
            )
