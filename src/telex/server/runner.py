"""Telex's own server: uvicorn's server, with limits before the handshake and a staged shutdown (the drain).

The stages of the drain:

1. ``ready`` turns false (:class:`ServerStatus`, in ``scope["state"]["telex.server"]``); the server waits
   ``drain_delay`` seconds, in which load balancers stop sending connections.
2. The server stops accepting connections, refuses pending handshakes with 503 and closes idle HTTP connections.
3. Every ``drain_interval`` the server closes a batch of idle WebSockets, whose application is waiting for messages. The
   code is 1012 (Service Restart); the reason is ``retry-after=SECONDS``, a random time up to the expected duration of
   the drain. Busy connections stay open. A client of telex.v1 is told first, by a ``goaway`` frame: it has
   ``drain_within`` seconds to open another connection and to leave this one, then it is closed as the others are.
4. At ``drain_timeout`` the remaining connections are closed, which their applications are told; what still runs after
   that is cancelled.

A second signal skips to the last stage; while there is nothing to drain, it ends the process at once, as a third does.
What ignores its cancellation is named in the log, and does not keep the process that :meth:`Server.run` serves in.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import socket
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload

from telex import status_codes
from telex.exceptions import ImproperlyConfiguredException
from telex.server.frames import CloseReason
from telex.server.protocol import WebSocketProtocol
from telex.server.settings import App, ServerConfig, Settings
from telex.server.systemd import notify
from telex.server.workers import Workers

__all__ = ("Server", "ServerStatus", "run", "serve")

_logger: Final = logging.getLogger("uvicorn.error")

_LAST_SECONDS: Final = 2.0
"""Seconds that connections have to end after the deadline, and cancelled tasks after that."""

_LAST_FORCED_SECONDS: Final = 0.2
"""The same after a second signal."""

_TOLD_WITHIN: Final = 0.1
"""Seconds in which applications notice the close before they are cancelled: a cancellation has no close code."""

_MAX_REPORTED: Final = 10

_POLL: Final = 0.05
_TICK: Final = 0.1


class ServerStatus:
    """The server's status for the application: ``scope["state"]["telex.server"]``, also in the lifespan scope."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.draining: asyncio.Event = asyncio.Event()
        """Set when the drain begins: a long-running handler can await it and return."""

    @property
    def ready(self) -> bool:
        """Whether the server accepts new connections: the result for a readiness probe."""
        return self._server.started and not self.draining.is_set()

    @property
    def connections(self) -> int:
        """Open connections, HTTP ones included."""
        return len(self._server.server_state.connections)


class Server(uvicorn.Server):
    """Serves one app in one process. Await :meth:`serve`, or call :meth:`run`."""

    def __init__(self, app: App, settings: Settings) -> None:
        super().__init__(ServerConfig(app, settings))
        self.settings = settings
        self.status: ServerStatus = ServerStatus(self)
        self.listening: asyncio.Event = asyncio.Event()
        """Set when the server accepts connections: for programs that run the server beside other tasks."""
        self.port: int = settings.port
        """The TCP port; if the setting is 0, the port that the system chose (after the start)."""
        self.on_listening: Callable[[], None] | None = None
        """Called when ``listening`` is set: for a parent process that waits for this one."""
        self.on_draining: Callable[[], None] | None = None
        """Called when the drain begins."""
        self._owns_process = False
        self._can_drain = False
        """Whether the server is past its start, and not yet in the app's shutdown."""
        self._signal: int | None = None
        """The first signal."""
        self._cancelled = False
        self._stopped = asyncio.Event()

    def run(self, sockets: list[socket] | None = None) -> None:
        """Serve in an event loop of its own. A signal ends the process, even if tasks ignore their cancellation."""
        self._owns_process = threading.current_thread() is threading.main_thread()
        super().run(sockets)

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Serve until a signal or the cancellation of the task; both begin the drain."""
        await super().serve(sockets)
        if self._cancelled:
            raise asyncio.CancelledError

    def stop(self) -> None:
        """Begin the drain, as a signal does. Call it only inside the event loop."""
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        """Run uvicorn's tick every tenth of a second, until a tick or :meth:`stop` ends the loop."""
        ticks = 0
        try:
            while not await self.on_tick(ticks):
                ticks += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await self._stopped.wait()
        except asyncio.CancelledError:
            self._cancelled = True

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Put the status into the lifespan state, and start."""
        self.lifespan.state["telex.server"] = self.status
        loop = asyncio.get_running_loop()
        if self.config.ssl is not None:
            # uvicorn sets no timeout, and asyncio's default is one minute.
            listen = partial(loop.create_server, ssl_handshake_timeout=self.settings.handshake_timeout)
            loop.create_server = listen  # type: ignore[method-assign]
        try:
            await super().startup(sockets=sockets)
        finally:
            vars(loop).pop("create_server", None)
        name = self.servers[0].sockets[0].getsockname()
        if isinstance(name, tuple):
            self.port = int(name[1])
        self._can_drain = True
        self.listening.set()
        if self.on_listening is not None:
            self.on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain on the first signal, and end it on the second."""
        if self._signal is None:
            self._signal = sig
            self.force_exit: bool = self.should_exit  # the program has begun the drain
        elif self._owns_process and (self.force_exit or not self._can_drain):
            _end_process(sig)
        else:
            self.force_exit = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain; the module's docstring lists the stages."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.drain_timeout
        self.status.draining.set()
        if self.on_draining is not None:
            self.on_draining()
        cause = f" on {signal.Signals(self._signal).name}" if self._signal is not None else ""
        _logger.info("Draining%s: no longer ready", cause)
        await self._wait(min(deadline, loop.time() + self.settings.drain_delay))
        self._stop_accepting(sockets)
        await self._close_in_batches(deadline)
        await self._wait(deadline, until_empty=True)
        await self._end_the_rest()
        for server in self.servers:
            await server.wait_closed()
        if not sockets:
            # Remove it here: after this method returns, uvicorn raises the signal again, which ends the process.
            _remove_socket(self.settings)
        self._can_drain = False
        if not self.force_exit:
            await self.lifespan.shutdown()
        if self._owns_process and self._signal is not None:
            await self._end_tasks(self._signal)

    def _stop_accepting(self, sockets: list[socket] | None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            if not isinstance(connection, WebSocketProtocol) or not connection.accepted:
                connection.shutdown()

    def _websockets(self) -> list[WebSocketProtocol]:
        return [one for one in self.server_state.connections if isinstance(one, WebSocketProtocol) and one.open]

    async def _close_in_batches(self, deadline: float) -> None:
        loop, settings = asyncio.get_running_loop(), self.settings
        total = len(self._websockets())
        spread = total / max(1, settings.drain_batch) * settings.drain_interval
        _logger.info("Draining: %d WebSockets, %d at a time", total, settings.drain_batch)
        leave_by: dict[WebSocketProtocol, float] = {}
        while not self.force_exit and (now := loop.time()) < deadline and (left := self._websockets()):
            within = min(settings.drain_within, deadline - now)
            room = settings.drain_batch
            for connection in left:
                if not room:
                    break
                if connection not in leave_by:
                    is_told = connection.go_away(within, random.uniform(0.0, min(spread, within / 4)))  # noqa: S311
                    leave_by[connection] = now + within if is_told else now
                    room -= is_told
                if leave_by[connection] <= now and connection.idle:
                    connection.close(_restart(spread))
                    room -= 1
            await self._wait(min(deadline, loop.time() + settings.drain_interval))

    async def _wait(self, until: float, *, until_empty: bool = False) -> None:
        loop = asyncio.get_running_loop()
        while not self.force_exit and (left := until - loop.time()) > 0:
            if until_empty and not self.server_state.connections and not self.server_state.tasks:
                return
            await asyncio.sleep(min(left, _POLL))

    async def _end_the_rest(self) -> None:
        loop = asyncio.get_running_loop()
        if left := self._websockets():
            _logger.warning("Draining: closing %d WebSockets that are still busy", len(left))
        for connection in left:
            connection.close(_restart(0.0))
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_TOLD_WITHIN)
        for task in self.server_state.tasks:
            task.cancel()
        if not self.force_exit:
            await self._wait(loop.time() + _LAST_SECONDS, until_empty=True)
        for remaining in list(self.server_state.connections):
            remaining.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=self._patience)
        _report(self.server_state.tasks)

    @property
    def _patience(self) -> float:
        return _LAST_FORCED_SECONDS if self.force_exit else _LAST_SECONDS

    async def _end_tasks(self, sig: int) -> None:
        """Cancel every other task, as ``asyncio.run`` does. What does not end in time ends with the process."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=self._patience)
        _report(left - self.server_state.tasks)
        if left or self.force_exit:
            _logger.warning("Exiting without waiting for %d tasks", len(left))
            _end_process(sig)


def _report(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Name what ignores its cancellation: one line for each of the first names."""
    for name, count in Counter(task.get_name() for task in tasks).most_common(_MAX_REPORTED):
        _logger.error("Draining: %s still runs after its cancellation (tasks: %d)", name, count)


def _end_process(sig: int) -> None:
    """End the process by the signal's default action: for the parent process it has died of the signal."""
    signal.signal(sig, signal.SIG_DFL)
    signal.raise_signal(sig)


def _restart(spread: float) -> CloseReason:
    """Code 1012 with a random retry delay of at most ``spread`` seconds."""
    return CloseReason(
        status_codes.WS_1012_SERVICE_RESTART,
        f"retry-after={random.uniform(0.0, spread):.2f}",  # noqa: S311 - a spread, not a secret
    )


async def serve(app: App, settings: Settings | None = None, **given: object) -> None:
    """Serve ``app`` in the running event loop until a signal stops it or the task is cancelled.

    Pass :class:`Settings`, or single settings by name: ``await serve(app, port=9000)``. The environment supplies
    settings that are not passed by name.
    """
    await Server(app, settings or Settings.read(given)).serve()


def run(
    app: App, settings: Settings | None = None, *, environ: Mapping[str, str] | None = None, **given: object
) -> None:
    """Serve ``app`` until a signal stops it: in this process, in ``workers`` processes, or with ``reload``.

    Exits the process with status 3 when the app does not start.

    :raises ImproperlyConfiguredException: ``workers`` or ``reload`` with an app that other processes cannot import.
    """
    settings = settings or Settings.read(given, environ)
    if (settings.reload or settings.workers > 1) and not isinstance(app, str):
        raise ImproperlyConfiguredException(
            "workers and reload start processes that import the app: pass it as 'module:attribute'."
        )
    try:
        if settings.reload:
            _run_reloading(str(app), settings)
        elif settings.workers > 1:
            sys.exit(Workers(partial(_serve_on, str(app), settings), ServerConfig(app, settings)).run())
        else:
            _run_here(app, settings)
    finally:
        _remove_socket(settings)


def _remove_socket(settings: Settings) -> None:
    if settings.uds is not None:
        Path(settings.uds).unlink(missing_ok=True)


def _run_here(app: App, settings: Settings) -> None:
    server = Server(app, settings)
    server.on_listening = partial(notify, "READY=1")
    server.on_draining = partial(notify, "STOPPING=1")
    _drain_on_hangup(server)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again, after the shutdown
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _drain_on_hangup(server: Server) -> None:
    """Make SIGHUP (the terminal closed) begin the drain, unless ``nohup`` or the program set another action."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, partial(_on_hangup, server))


def _on_hangup(server: Server, number: int, frame: FrameType | None) -> None:
    _logger.info("SIGHUP: draining, as on SIGTERM (only a server with several workers replaces them)")
    server.handle_exit(signal.SIGTERM, frame)


def _run_reloading(app: str, settings: Settings) -> None:
    config = ServerConfig(app, settings)
    # A developer waits for the reload: close the connections at once instead of draining.
    quick = replace(settings, reload=False, reload_dirs=(), drain_delay=0.0, drain_interval=0.01, drain_timeout=0.1)
    ChangeReload(config, target=partial(_serve_on, app, quick), sockets=[config.bind_socket()]).run()


def _serve_on(
    app: str, settings: Settings, sockets: list[socket] | None, on_listening: Callable[[], None] | None = None
) -> None:
    server = Server(app, settings)
    server.on_listening = on_listening
    server.run(sockets)
