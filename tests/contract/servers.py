"""The servers, each as a process for an app named ``module:attribute`` or in the test's own loop for an app object.

::

    async with server.process("tests.contract.apps:plain") as running:
        async with connect(running.url("/echo")) as client: ...

    async with loop_server.loop(app) as running: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import uvicorn

from telex.types import ASGIApp
from tests.contract.launch import UVICORN
from tests.support.limits import limit_memory
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent.parent
HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds that a server may take to start or to stop."""


@dataclass
class Running:
    """A server that accepts connections. ``pid`` is ``None`` for one in the test's own loop."""

    port: int
    pid: int | None = None
    host: str = HOST
    log_file: Path | None = None
    last_log: str = ""

    def url(self, path: str = "/") -> str:
        """The WebSocket URL of a path."""
        return f"ws://{self.host}:{self.port}{path}"

    def log(self) -> str:
        """All that the process has printed, also after its end. A server in the loop logs into ``caplog`` instead."""
        return self.log_file.read_text("utf-8", "replace") if self.log_file else self.last_log

    def ended(self) -> None:
        """Keeps the log, whose file goes now."""
        self.last_log, self.log_file = self.log(), None


@dataclass(frozen=True)
class ServerKind:
    """One of the servers, not yet running."""

    name: str

    @property
    def serves_in_loop(self) -> bool:
        """Whether it can serve an app object in the test's own loop; granian brings threads and a loop of its own."""
        return self.name != "granian"

    @property
    def mark(self) -> str | None:
        """The mark of what runs on it. The fast lane has Telex's own server."""
        return {"telex": None, "uvicorn-websockets": "stock"}.get(self.name, "peer")

    @contextlib.asynccontextmanager
    async def process(self, app: str, *, mebibytes: int | None = None, **settings: Any) -> AsyncIterator[Running]:
        """Serves ``module:attribute`` in a process of its own, which must start, and stop by SIGTERM, in time.

        :param mebibytes: the most private memory that it may hold.
        :param settings: the server's own: of ``uvicorn.Config``, hypercorn's ``Config`` or ``Granian``.
        """
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            running = Running(0, log_file=Path(folder) / "log")
            stack.callback(running.ended)
            log = stack.enter_context((Path(folder) / "log").open("wb"))
            bound = stack.enter_context(bound_socket())
            running.port = bound.getsockname()[1]
            if not self.serves_in_loop:
                bound.close()  # granian takes a port only
            process = stack.enter_context(launched(self.name, app, bound, running.port, json.dumps(settings), log))
            if mebibytes is not None:
                limit_memory(process.pid, mebibytes)
            running.pid = process.pid
            bound.close()
            await ready(process, running)
            yield running

    @contextlib.asynccontextmanager
    async def loop(self, app: ASGIApp, **settings: Any) -> AsyncIterator[Running]:
        """Serves an app object in the running loop; the settings are those of ``process``."""
        with bound_socket() as bound:
            running = Running(bound.getsockname()[1])
            serving = (
                self._hypercorn(app, bound, settings)
                if self.name == "hypercorn"
                else self._uvicorn(app, bound, settings)
            )
            async with serving:
                yield running

    @contextlib.asynccontextmanager
    async def _uvicorn(self, app: ASGIApp, bound: socket.socket, settings: dict[str, Any]) -> AsyncIterator[None]:
        own = {"ws": UVICORN[self.name], "log_config": None, "timeout_graceful_shutdown": 3, "lifespan": "on"}
        server = LoopServer(uvicorn.Config(app, **{**own, **settings}))
        async with stopped(asyncio.create_task(server.serve([bound])), server.stop):
            await server.ready()
            yield

    @contextlib.asynccontextmanager
    async def _hypercorn(self, app: ASGIApp, bound: socket.socket, settings: dict[str, Any]) -> AsyncIterator[None]:
        # Here, because each worker of the fast lane would import it and run nothing on it.
        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        # hypercorn closes the descriptor that it is given.
        descriptor = os.dup(bound.fileno())
        config = Config.from_mapping({"bind": [f"fd://{descriptor}"], "graceful_timeout": 3, **settings})
        leave = asyncio.Event()
        serving = asyncio.create_task(serve(app, config, shutdown_trigger=leave.wait))  # type: ignore[arg-type]
        async with stopped(serving, leave.set):
            # The socket listens only once the app's lifespan has started.
            await connectable(Running(bound.getsockname()[1]), serving.done)
            yield


class LoopServer(uvicorn.Server):
    """uvicorn without signal handlers, with events for its start and its stop, where uvicorn looks every 0.1 s."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._has_started = asyncio.Event()
        self._must_stop = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._has_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def ready(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._has_started.wait()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._must_stop.wait()

    def stop(self) -> None:
        self.should_exit = True
        self._must_stop.set()


def bound_socket() -> socket.socket:
    """A socket on a free port of the loopback, bound and not yet listening."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((HOST, free_port()))
    return bound


@contextlib.contextmanager
def launched(
    name: str, app: str, bound: socket.socket, port: int, settings: str, log: IO[bytes]
) -> Generator[subprocess.Popen[bytes], None, None]:
    """The process of one server, in a process group of its own, which is gone at the end."""
    descriptors = () if bound.fileno() < 0 else (bound.fileno(),)
    place = descriptors[0] if descriptors else port
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.launch", name, app, str(place), settings],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=descriptors,
        start_new_session=True,
    )
    try:
        yield process
        end(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end(process: subprocess.Popen[bytes]) -> None:
    """Stops a server as an operator does."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the server did not stop within {PATIENCE} s of SIGTERM") from None


async def ready(process: subprocess.Popen[bytes], running: Running) -> None:
    """Waits until the process accepts connections; fails with its log where it does not."""
    try:
        await connectable(running, lambda: process.poll() is not None)
    except (AssertionError, TimeoutError) as error:
        raise AssertionError(f"the server did not start: {error}\n{running.log()}") from None


async def connectable(running: Running, ended: Callable[[], bool]) -> None:
    """Waits until something listens on the port."""
    async with asyncio.timeout(PATIENCE):
        while True:
            assert not ended(), "it ended"
            try:
                _, writer = await asyncio.open_connection(running.host, running.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            await writer.wait_closed()
            return


@contextlib.asynccontextmanager
async def stopped(serving: asyncio.Task[None], stop: Callable[[], None]) -> AsyncIterator[None]:
    """Asks a server in the loop to stop at the end, and waits for it; its own failure comes first."""
    try:
        yield
    finally:
        stop()
        async with asyncio.timeout(PATIENCE):
            await serving


KINDS = tuple(ServerKind(name) for name in ("uvicorn-websockets", "uvicorn-wsproto", "hypercorn", "granian", "telex"))
