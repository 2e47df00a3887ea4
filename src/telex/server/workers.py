"""Runs several worker processes that serve one listening socket."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from socket import socket
from types import FrameType
from typing import Final

from uvicorn.config import STARTUP_FAILURE, Config

from telex.server.systemd import notify

__all__ = ("Workers",)

_logger: Final = logging.getLogger("uvicorn.error")
_spawn: Final = multiprocessing.get_context("spawn")
multiprocessing.allow_connection_pickling()

_POLL: Final = 0.2
"""The maximum seconds until a signal is handled."""

_STABLE: Final = 10.0
"""Seconds that a worker must serve before its death counts as the first again."""

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
"""Seconds before a worker is started again: they double with each death of a worker that was not stable."""

Target = Callable[[list[socket], Callable[[], None]], None]
"""Serves on the sockets, and calls the function when it accepts connections."""


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    serving: Event
    """Set when it accepts connections."""
    started: float = field(default_factory=time.monotonic)

    @property
    def alive(self) -> bool:
        return self.process.exitcode is None

    @property
    def stable(self) -> bool:
        return self.serving.is_set() and time.monotonic() - self.started > _STABLE


@dataclass(eq=False)
class _Slot:
    """The place of one worker, which is replaced when it dies and on SIGHUP."""

    worker: _Worker
    deaths: int = 0
    """Deaths since the last stable worker."""
    restart_at: float | None = None
    """When the next worker is started; ``None`` while one runs."""

    def died(self) -> float:
        """Count a death, and return the seconds until the next start."""
        self.deaths = 0 if self.worker.stable else self.deaths + 1
        pause = min(_FIRST_PAUSE * 2.0 ** (self.deaths - 1), _LONGEST_PAUSE) if self.deaths else 0.0
        self.restart_at = time.monotonic() + pause
        return pause


class Workers:
    """Starts ``config.workers`` processes, replaces those that die, and drains all of them on SIGINT or SIGTERM.

    SIGHUP replaces them one after the other: each new worker serves before an old one drains, and one that fails to
    start ends the replacement. A second SIGINT or SIGTERM kills them.
    """

    def __init__(self, target: Target, config: Config) -> None:
        self._target = target
        self._config = config
        self._listener = config.bind_socket()
        self._signals: list[int] = []
        self._slots: list[_Slot] = []
        self._outdated: list[_Worker] = []
        """Workers that the SIGHUP under way has not replaced yet."""
        self._successor: _Worker | None = None
        """The worker that the SIGHUP under way has started, until it serves."""
        self._retired: list[_Worker] = []
        """Replaced workers that drain."""
        self._has_served = False
        # The workers hold the reading end: it reaches its end when this process ends for any reason.
        self._lifeline, self._held = _spawn.Pipe(duplex=False)

    def run(self) -> int:
        """Run until a signal stops it, and return the exit status of the process."""
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, self._on_signal)
        _logger.info("Started parent process [%d]", os.getpid())
        self._slots = [_Slot(self._start()) for _ in range(self._config.workers)]
        status = 0
        while not status and signal.SIGINT not in self._signals and signal.SIGTERM not in self._signals:
            self._wait()
            status = self._replace_dead()
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._begin_replacement()
            self._continue_replacement()
        self._stop()
        return status

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _start(self) -> _Worker:
        serving = _spawn.Event()
        arguments = (self._target, self._config, self._listener, self._lifeline, serving)
        process = _spawn.Process(target=_work, args=arguments)
        process.start()
        return _Worker(process, serving)

    def _wait(self) -> None:
        """Wait for a death or the next look at the signals."""
        sentinels = [worker.process.sentinel for worker in self._all() if worker.alive]
        if sentinels:
            wait(sentinels, timeout=_POLL)
        else:
            time.sleep(_POLL)

    def _all(self) -> list[_Worker]:
        successor = [self._successor] if self._successor is not None else []
        return [*(slot.worker for slot in self._slots), *self._retired, *successor]

    def _replace_dead(self) -> int:
        if not self._has_served and any(slot.worker.serving.is_set() for slot in self._slots):
            self._has_served = True
            notify("READY=1")
        for slot in self._slots:
            if slot.restart_at is not None:
                if time.monotonic() >= slot.restart_at:
                    slot.worker, slot.restart_at = self._start(), None
            elif not slot.worker.alive:
                process = slot.worker.process
                if not self._has_served:
                    _logger.error("Worker [%s] could not start: stopping (status %s)", process.pid, process.exitcode)
                    return STARTUP_FAILURE
                _logger.warning(
                    "Worker [%s] died with status %s: starting another in %.1f s",
                    process.pid,
                    process.exitcode,
                    slot.died(),
                )
        return 0

    def _begin_replacement(self) -> None:
        _logger.info("SIGHUP: replacing %d workers", len(self._slots))
        self._drop_successor()  # it may have the code before the last change
        self._outdated = [slot.worker for slot in self._slots]

    def _continue_replacement(self) -> None:
        self._retired = [worker for worker in self._retired if worker.alive]
        waiting = [slot for slot in self._slots if slot.worker in self._outdated]
        if not waiting:  # the last of them died: its slot has the new code, or gets it
            self._drop_successor()
            return
        new = self._successor
        if new is None:
            if not self._retired:
                self._successor = self._start()
        elif new.serving.is_set():
            slot = waiting[0]
            self._retired.append(slot.worker)
            slot.worker.process.terminate()
            slot.worker, slot.deaths, slot.restart_at = new, 0, None
            self._successor = None
        elif not new.alive:
            _logger.error(
                "Worker [%s] could not start: keeping the old workers (status %s)",
                new.process.pid,
                new.process.exitcode,
            )
            self._successor, self._outdated = None, []

    def _drop_successor(self) -> None:
        if self._successor is not None:
            self._successor.process.kill()  # it does not serve; a start that hangs would not end on SIGTERM
            self._retired.append(self._successor)
            self._successor = None

    def _stop(self) -> None:
        notify("STOPPING=1")
        for worker in self._all():
            if worker not in self._retired:  # a second signal would cut their drain short
                worker.process.terminate()
        asked = len(self._signals)
        while any(worker.alive for worker in self._all()):
            self._wait()
            if len(self._signals) > max(asked, 1):
                for worker in self._all():
                    worker.process.kill()
        self._listener.close()
        _logger.info("Stopped parent process [%d]", os.getpid())


def _work(target: Target, config: Config, listener: socket, lifeline: Connection, serving: Event) -> None:
    os.setpgid(0, 0)  # Ctrl+C in the terminal then signals only the parent, which signals each worker once
    config.configure_logging()
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        target([listener], serving.set)


def _end_with_parent(lifeline: Connection) -> None:
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
