"""Somebody in front of the socket who sends many requests, each on a connection of its own.

    with speaking(service, machine.alice) as alice:
        alice.ask("GET", "/v1/jobs").status

The requests are sent by one process of that person's, so that the kernel vouches for it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from tests.support.people import Person
from tests.support.system_service import SystemService

_SPEAK = r"""
import http.client, json, socket, sys

class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(sys.argv[1])

for line in sys.stdin:
    method, path, body, until = json.loads(line)
    connection = Connection("transferd")
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.getheader("Content-Type", "").startswith("text/event-stream"):
        told = []
        while until is not None and until not in "".join(told[-1:]):
            text = answer.readline().decode()
            if text.startswith("data: "):
                told.append(text[6:])
        content = "[" + ",".join(told) + "]"
    else:
        content = answer.read().decode()
    connection.close()
    print(json.dumps([answer.status, content]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON; of a stream, the list of its events."""
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The code of a problem."""
        return str(self.json["code"])


class Speaker:
    """One person's process."""

    def __init__(self, person: Person, requests: IO[str], answers: IO[str]) -> None:
        self.person = person
        self._requests = requests
        self._answers = answers

    def ask(self, method: str, path: str, body: object = None, *, until: str | None = None) -> Said:
        """Send a request; of an event stream, read up to the event with *until*, or nothing."""
        self._requests.write(json.dumps([method, path, body, until]) + "\n")
        self._requests.flush()
        answer = self._answers.readline()
        assert answer, f"{self.person.name} got no answer to {method} {path}"
        status, text = json.loads(answer)
        return Said(status, text)

    def make(self, **body: object) -> dict[str, Any]:
        """Make a job and return it."""
        said = self.ask("POST", "/v1/jobs", body)
        assert said.status == 201, said.text
        made: dict[str, Any] = said.json
        return made


@contextlib.contextmanager
def speaking(service: SystemService, person: Person) -> Iterator[Speaker]:
    """Let somebody speak with a service until the block ends."""
    command = service.machine.command(person)
    argv = [*command, sys.executable, "-I", "-c", _SPEAK, str(service.socket)]
    environment = service.machine.environment(person)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Speaker(person, process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.wait()
