"""What happened in the serving process: what handlers noted, what was logged, what is held."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from telex import Telex, WebSocket, websocket
from tests.support.limits import rss

__all__ = ("Journal", "journal", "probe", "watched")


class Journal:
    """Notes of handlers and log records in the order in which they came."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.records: list[tuple[str, str, str]] = []
        self.tell: Callable[[str], None] = lambda _: None
        """Called with each note, and with each record as ``LEVEL text``."""
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}

    def note(self, text: str) -> None:
        """Handlers note what they do; only in the loop's own thread."""
        self.notes.append(text)
        self.tell(text)
        for future, (wanted, times) in tuple(self._waiting.items()):
            if text == wanted and self.notes.count(wanted) >= times and not future.done():
                future.set_result(None)

    async def until(self, wanted: str, times: int, start: int) -> None:
        """Wait until ``wanted`` was noted so often since note number ``start``."""
        missing = times - self.notes[start:].count(wanted)
        if missing <= 0:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = (wanted, self.notes.count(wanted) + missing)
        try:
            await future
        finally:
            del self._waiting[future]

    def keep_log(self) -> None:
        """Keep every record from WARNING up, whatever the server does with its handlers and levels."""
        make = logging.getLogRecordFactory()

        def make_and_keep(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(*args, **kwargs)
            if record.levelno >= logging.WARNING:
                trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
                self.records.append((record.levelname, record.name, f"{record.getMessage()}\n{trace}".strip()))
                self.tell(f"{record.levelname} {record.getMessage()}")
            return record

        logging.setLogRecordFactory(make_and_keep)


journal: Final = Journal()
watched: Final[list[Telex]] = []
"""The apps whose connections count."""


def held() -> dict[str, Any]:
    """What this process holds now: tasks, descriptors, connections of the app, and live objects of a connection."""
    tasks = [task for task in asyncio.all_tasks() if not task.done() and task is not asyncio.current_task()]
    return {
        "tasks": [repr(task)[:300] for task in tasks],
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "connections": sum(len(app.connections) for app in watched),
    }


def live_objects() -> dict[str, Any]:
    """How many objects of each class are alive after a collection, and the resident memory in bytes."""
    gc.collect()
    kinds = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return {"kinds": kinds, "rss": rss(os.getpid())}


@websocket("/probe")
async def probe(socket: WebSocket[Any, Any, Any]) -> None:
    """Answers ``begin``, ``held``, ``live``, ``notes``, ``records`` and ``until`` (which waits)."""
    async for command in socket.iter_json():
        match command:
            case ["begin"]:
                answer: object = [held(), len(journal.notes), len(journal.records)]
            case ["held", bool(after_collecting)]:
                if after_collecting:
                    gc.collect()
                answer = held()
            case ["live"]:
                answer = live_objects()
            case ["notes", int(start)]:
                answer = journal.notes[start:]
            case ["records", int(start)]:
                answer = journal.records[start:]
            case ["until", str(wanted), int(times), int(start)]:
                await journal.until(wanted, times, start)
                answer = None
            case _:
                raise ValueError(f"the probe does not know {command!r}")
        await socket.send_text(json.dumps(answer))
