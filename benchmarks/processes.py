"""A peer's server as a process: alone on its core, with the CPU time and the memory that it and its children take."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Server:
    """A peer's server that runs."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """User and system time of the process tree so far, by the kernel's nanosecond clock."""
        return sum(time.clock_gettime(cpu_clock(pid)) for pid in tree(self.pid))

    def resident_bytes(self) -> int:
        """Resident memory of the process tree."""
        return sum(resident_bytes(pid) for pid in tree(self.pid))


@contextlib.contextmanager
def serving(peer: str, app: str, core: int | None = None) -> Iterator[Server]:
    """Runs one app of one peer; its output is shown if something fails meanwhile."""
    with socket.socket() as listening, tempfile.TemporaryFile("w+") as log:
        listening.bind(("127.0.0.1", 0))
        # Clients may connect from now on; they wait in the backlog until the server takes them.
        listening.listen(2048)
        port = listening.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.serve", peer, app, str(listening.fileno()), str(core)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(listening.fileno(),)
        )
        listening.close()
        try:
            yield Server(process.pid, port)
        except Exception:
            log.seek(0)
            print(f"--- output of {peer} {app} ---\n{log.read()}", file=sys.stderr)
            raise
        finally:
            # A measured server has nothing to tidy; a graceful end would only take time.
            process.kill()
            process.wait()


def cpu_clock(pid: int) -> int:
    """The clock id of a process's CPU time: what clock_getcpuclockid(3) computes."""
    return ~pid << 3 | 2


def tree(pid: int) -> Iterator[int]:
    """A process and everything below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def resident_bytes(pid: int) -> int:
    """Resident memory of one process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def raise_descriptor_limit() -> None:
    """Lets this process, and those it starts, open as many sockets as the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cores() -> tuple[int | None, int | None]:
    """A core for the server and one for the load; nothing where there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else (None, None)
