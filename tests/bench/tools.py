"""The programs that transferd is measured against, as their users would call them.

Configuration files of whoever runs the benchmark are left out where a program can be told so.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.pairs import Spent
from tests.support.servers import require_program

#: As many connections as a foreground job of ours has.
_ARIA2C = "aria2c -q --no-conf --no-netrc --file-allocation=none"
_WGET2 = "wget2 -q --no-config --no-hsts"

#: One file: `{url}` to `{place}`.
ONE_FILE = {
    "curl": "curl -q -sS -o {place} {url}",
    "aria2c": f"{_ARIA2C} -x4 -s4 -d {{directory}} -o {{name}} {{url}}",
    "wget2": f"{_WGET2} -O {{place}} {{url}}",
}
#: The same when it has to be on disk at the end.
ONE_FILE_SYNCED = {
    "curl": "sh -c 'curl -q -sS -o {place} {url} && sync {place}'",
}
#: The same over https, with the certificate authority `{cacert}`.
ONE_FILE_TLS = {
    "curl": "curl -q -sS --cacert {cacert} -o {place} {url}",
    "aria2c": (
        f"{_ARIA2C} --ca-certificate={{cacert}} -x4 -s4 -d {{directory}} -o {{name}} {{url}}"
    ),
    "wget2": f"{_WGET2} --ca-certificate={{cacert}} -O {{place}} {{url}}",
}
TWO_FILES_TLS = {
    "curl": "curl -q -sS -Z --cacert {cacert} -o {place}-0 {url}-0 -o {place}-1 {url}-1",
}
#: Every file of a list, into a directory.
MANY_FILES = {
    "aria2c": f"{_ARIA2C} -j16 -d {{directory}} -i {{list}}",
    "wget2": f"{_WGET2} --max-threads=16 -P {{directory}} -i {{list}}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program, and the words that it is called with."""

    name: str
    #: With `{url}` and the like, to be put in and to be shown.
    template: str

    async def run(self, words: Mapping[str, str | Path]) -> Spent:
        """Run it to its end; the clock runs as long as the process.

        Raises:
            RuntimeError: it has failed.
        """
        command = [word.format_map(words) for word in shlex.split(self.template)]
        return await asyncio.to_thread(_run, command)


def tools(templates: Mapping[str, str]) -> list[Tool]:
    """Return programs by their templates; all of them must be installed."""
    for name in templates:
        require_program(name)
    return [Tool(name=name, template=template) for name, template in templates.items()]


def _run(command: Sequence[str]) -> Spent:
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    # curl -Z shows its progress also when it is to be silent.
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=plain
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[0]} failed: {said.read().decode(errors='replace')}")
    return Spent(seconds=seconds, cpu_seconds=used.ru_utime + used.ru_stime)
