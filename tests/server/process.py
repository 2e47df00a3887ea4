"""Telex's own server in a process of its own: ``python -m tests.server.process APP SETTINGS-AS-JSON``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telex.server import Server, Settings
from tests.support.limits import limit_memory

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Running:
    """A server process that accepts connections."""

    port: int
    process: asyncio.subprocess.Process
    log_file: Path
    last_log: str = ""
    """All that it printed, once it has ended."""

    def log(self) -> str:
        """What it printed so far."""
        return running_log(self.log_file)


@contextlib.asynccontextmanager
async def process(app: str, *, mebibytes: int | None = None, **settings: Any) -> AsyncIterator[Running]:
    """Serves ``module:attribute`` on a free port, under a memory limit if one is given; SIGTERM at the end."""
    with tempfile.TemporaryDirectory() as folder:
        log_file = Path(folder) / "log"
        with log_file.open("wb") as log:
            given = json.dumps({"port": 0, "drain_timeout": 1.0, **settings})
            command = [sys.executable, "-m", "tests.server.process", app, given]
            started = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            running = Running(await _port_of(started, log_file), started, log_file)
            if mebibytes is not None:
                limit_memory(started.pid, mebibytes)
            yield running
            if started.returncode is None:
                started.terminate()
            await asyncio.wait_for(started.wait(), 15)
            running.last_log = running.log()
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()


async def _port_of(started: asyncio.subprocess.Process, log_file: Path) -> int:
    """The port, from the line that uvicorn prints once it listens."""
    async with asyncio.timeout(20):
        while not (announced := announced_ports(log_file)):
            assert started.returncode is None, running_log(log_file)
            await asyncio.sleep(0.02)
        return announced[0]


def announced_ports(log_file: Path) -> list[int]:
    """The ports that server processes say they listen on."""
    return [int(line.split()[1]) for line in running_log(log_file).splitlines() if line.startswith("listening ")]


def running_log(log_file: Path) -> str:
    """What was printed so far."""
    return log_file.read_text("utf-8", "replace")


class Announced(Server):
    """Says where it listens, whatever the log level."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say where."""
        await super().startup(sockets)
        sys.stdout.write(f"listening {self.port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    Announced(sys.argv[1], Settings.read(json.loads(sys.argv[2]))).run()
