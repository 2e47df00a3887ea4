"""A peer's server as a process: alone on its core, with the CPU time and the memory that it and its children take."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.certificate import Certificate
from benchmarks.peers import PEERS

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Server:
    """A peer's server that runs."""

    pid: int
    port: int
    context: ssl.SSLContext | None = None
    """What a client needs to speak TLS with it."""

    def cpu_seconds(self) -> float:
        """User and system time of the process tree so far, by the kernel's nanosecond clock."""
        return sum(time.clock_gettime(cpu_clock(pid)) for pid in tree(self.pid))

    def resident_bytes(self) -> int:
        """Resident memory of the process tree."""
        return sum(resident_bytes(pid) for pid in tree(self.pid))


@contextlib.contextmanager
def serving(peer: str, app: str, core: int | None = None, certificate: Certificate | None = None) -> Iterator[Server]:
    """Runs one app of one peer; its output is shown if something fails meanwhile."""
    files = [certificate.certificate, certificate.key] if certificate else []
    with listening(PEERS[peer].listens) as listener:
        command = ["-m", "benchmarks.serve", peer, app, str(listener.fileno()), str(core), *map(str, files)]
        with running(command, listener, certificate) as server:
            if not PEERS[peer].listens:
                wait_for(server)
            yield server


@contextlib.contextmanager
def listening(at_once: bool = True) -> Iterator[socket.socket]:
    """A socket on a free port. Clients may connect at once; they wait in the backlog until the server takes them.

    Otherwise it only holds the port for a server that will listen there by itself.
    """
    with socket.socket() as listener:
        if not at_once:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        if at_once:
            listener.listen(2048)
        yield listener


def wait_for(server: Server, seconds: float = 15) -> None:
    """Until somebody listens on its port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", server.port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    listener: socket.socket,
    certificate: Certificate | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Runs Python on a listening socket that it inherits."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(),),
        )
        port = listener.getsockname()[1]
        listener.close()
        try:
            yield Server(process.pid, port, certificate.for_client() if certificate else None)
        except Exception:
            log.seek(0)
            print(f"--- output of {' '.join(arguments)} ---\n{log.read()[-10_000:]}", file=sys.stderr)
            raise
        finally:
            # A measured server has nothing to tidy; a graceful end would only take time.
            for pid in tuple(tree(process.pid)):
                os.kill(pid, signal.SIGKILL)
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
