"""Programs as processes: tests wait for what they print, and no process is left at the end.

::

    with program(TELEX, "run", "examples.chat.app:app", "--port", "0") as running:
        connect(running.url("/rooms/lobby"))
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TELEX = str(Path(sys.executable).with_name("telex"))
"""The command as pip installed it."""
PATIENCE = 20.0
"""Seconds that a program may take to start, to say something or to stop."""
_ADDRESS = r"running on https?://([\d.]+):(\d+)"


class Program:
    """A running program; ``log`` is all that it has printed, on either output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name=f"output of {process.pid}")
        self._reader.start()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    @property
    def port(self) -> int:
        """The port that a server says it listens on, once it has said so."""
        return int(self.wait_for(_ADDRESS)[2])

    def accepts(self, address: tuple[str, int] | str, within: float = PATIENCE) -> None:
        """Waits until something listens there: a host and port, or the path of a Unix socket."""
        deadline = time.monotonic() + within
        kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        while True:
            with socket.socket(kind) as trying, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                trying.connect(address)
                return
            assert self.process.poll() is None, f"it has ended:\n{self.log}"
            assert time.monotonic() < deadline, f"nothing listens on {address} after {within} s:\n{self.log}"
            time.sleep(0.02)

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """The address of a path of a server."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def wait_for(self, pattern: str, times: int = 1, within: float = PATIENCE) -> re.Match[str]:
        """Waits until the program has printed this so many times; the last match."""
        with self._news:
            self._news.wait_for(lambda: self._ended or len(re.findall(pattern, self.log)) >= times, within)
        found = list(re.finditer(pattern, self.log))
        if len(found) < times:
            raise AssertionError(f"{pattern!r} was printed {len(found)} times and not {times}:\n{self.log}")
        return found[times - 1]

    def wait(self, within: float = PATIENCE) -> int:
        """Waits until it has ended, and until all that it has printed is in ``log``; its exit status."""
        status = self.process.wait(within)
        self._reader.join(within)
        return status

    def stop(self, by: signal.Signals = signal.SIGTERM, within: float = PATIENCE) -> int:
        """Stops it as an operator does; its exit status."""
        self.process.send_signal(by)
        try:
            return self.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {within} s of {by.name}:\n{self.log}") from None

    def clean_up(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@contextlib.contextmanager
def program(
    *command: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None, descriptors: Sequence[int] = ()
) -> Iterator[Program]:
    """Runs a command in a process group of its own, of which nothing is left at the end.

    :param env: added to this process's environment.
    :param descriptors: of this process, which the program gets too.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=descriptors,
        start_new_session=True,
    )
    running = Program(process)
    try:
        yield running
    finally:
        running.clean_up()


def output_of(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
    )
