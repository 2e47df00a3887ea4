"""Several processes that serve one listening socket."""

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
from socket import socket
from types import FrameType
from typing import Final

from uvicorn.config import STARTUP_FAILURE, Config

__all__ = ("Workers",)

_logger: Final = logging.getLogger("uvicorn.error")
_spawn: Final = multiprocessing.get_context("spawn")
multiprocessing.allow_connection_pickling()

_POLL: Final = 0.2
"""Seconds after which a signal is noticed at the latest."""

Target = Callable[[list[socket]], None]


class Workers:
    """Starts ``config.workers`` processes, replaces those that die, and drains all of them when a signal says so.

    SIGHUP replaces them one after the other; a second SIGINT or SIGTERM kills them.
    """

    def __init__(self, target: Target, config: Config) -> None:
        self._target = target
        self._config = config
        self._listener = config.bind_socket()
        self._signals: list[int] = []
        self._processes: list[SpawnProcess] = []
        # The workers hold the reading end: it ends when this process does, however that happens.
        self._lifeline, self._held = _spawn.Pipe(duplex=False)

    def run(self) -> int:
        """Work until stopped; the exit status for the process."""
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

    def _start(self) -> SpawnProcess:
        process = _spawn.Process(target=_work, args=(self._target, self._config, self._listener, self._lifeline))
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
        for index, old in enumerate(self._processes):
            self._processes[index] = self._start()
            old.terminate()
            old.join()

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


def _work(target: Target, config: Config, listener: socket, lifeline: Connection) -> None:
    os.setpgid(0, 0)  # the terminal's Ctrl+C is for the parent, which asks for the drain once
    config.configure_logging()
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        target([listener])


def _end_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
