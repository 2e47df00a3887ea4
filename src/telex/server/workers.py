"""Runs several worker processes that serve one listening socket."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from socket import socket
from types import FrameType
from typing import Final

from uvicorn.config import STARTUP_FAILURE, Config

__all__ = ("Workers",)

_logger: Final = logging.getLogger("uvicorn.error")
_spawn: Final = multiprocessing.get_context("spawn")
multiprocessing.allow_connection_pickling()

_POLL: Final = 0.2
"""The maximum seconds until a signal is handled."""

_STOPPING: Final = {signal.SIGINT, signal.SIGTERM}

Target = Callable[[list[socket], Callable[[], None]], None]
"""Serves on the sockets, and calls the function when it accepts connections."""


class Workers:
    """Starts ``config.workers`` processes, replaces those that die, and drains all of them on SIGINT or SIGTERM.

    SIGHUP replaces them one after the other; a second SIGINT or SIGTERM kills them.
    """

    def __init__(self, target: Target, config: Config) -> None:
        self._target = target
        self._config = config
        self._listener = config.bind_socket()
        self._signals: list[int] = []
        self._processes: list[SpawnProcess] = []
        # The workers hold the reading end: it reaches its end when this process ends for any reason.
        self._lifeline, self._held = _spawn.Pipe(duplex=False)

    def run(self) -> int:
        """Run until a signal stops it, and return the exit status of the process."""
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, self._on_signal)
        _logger.info("Started parent process [%d]", os.getpid())
        self._processes = [self._start() for _ in range(self._config.workers)]
        status = 0
        while not status and signal.SIGINT not in self._signals and signal.SIGTERM not in self._signals:
            wait([process.sentinel for process in self._processes], timeout=_POLL)
            status = self._replace_dead()
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._replace_all()
        self._stop()
        return status

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _start(self, ready: Event | None = None) -> SpawnProcess:
        arguments = (self._target, self._config, self._listener, self._lifeline, ready)
        process = _spawn.Process(target=_work, args=arguments)
        process.start()
        return process

    def _replace_dead(self) -> int:
        for index, process in enumerate(self._processes):
            if process.exitcode is None:
                continue
            if process.exitcode == STARTUP_FAILURE:
                _logger.error("Worker [%s] could not start: stopping", process.pid)
                return STARTUP_FAILURE
            _logger.warning("Worker [%s] died with status %s", process.pid, process.exitcode)
            self._processes[index] = self._start()
        return 0

    def _replace_all(self) -> None:
        """Replace each worker, and stop it when its successor serves. A successor that fails ends the replacement."""
        for index, old in enumerate(self._processes):
            ready = _spawn.Event()
            new = self._start(ready)
            while new.exitcode is None and not ready.wait(_POLL) and not _STOPPING & set(self._signals):
                pass
            if not ready.is_set():
                new.terminate()
                _logger.error("Worker [%s] could not start: keeping the old workers", new.pid)
                return
            self._processes[index] = new
            old.terminate()
            while old.exitcode is None and not _STOPPING & set(self._signals):
                wait([old.sentinel], timeout=_POLL)
            if old.exitcode is None:
                self._processes.append(old)  # _stop waits for it
                return

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        asked = len(self._signals)
        while any(process.exitcode is None for process in self._processes):
            wait([process.sentinel for process in self._processes if process.exitcode is None], timeout=_POLL)
            if len(self._signals) > max(asked, 1):
                for process in self._processes:
                    process.kill()
        self._listener.close()
        _logger.info("Stopped parent process [%d]", os.getpid())


def _work(target: Target, config: Config, listener: socket, lifeline: Connection, ready: Event | None) -> None:
    os.setpgid(0, 0)  # Ctrl+C in the terminal then signals only the parent, which signals each worker once
    config.configure_logging()
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        target([listener], ready.set if ready is not None else lambda: None)


def _end_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
