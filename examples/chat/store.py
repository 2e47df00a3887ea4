"""The messages, stored in SQLite: an embedded database in one file, without a server.

SQLite's calls block, so they run in one thread of their own, one after another.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from examples.chat.messages import Said

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0
"""Seconds to wait for another process that creates the file."""
SCHEMA = """
    create table if not exists messages (
        number integer primary key autoincrement,
        room text not null,
        author text not null,
        text text not null,
        at text not null
    );
    create index if not exists messages_of_room on messages (room, number);
    create table if not exists totals (room text primary key, messages integer not null);
"""


class History:
    """The messages of all rooms. Use it inside ``async with history.open()``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file, and create it if there is none."""
        with ThreadPoolExecutor(1, "history") as self._thread:
            loop = asyncio.get_running_loop()
            self._connection = await loop.run_in_executor(self._thread, _connect, self.path)
            try:
                yield
            finally:
                await loop.run_in_executor(self._thread, self._connection.close)
                self._connection = self._thread = None

    async def add(self, room: str, author: str, text: str) -> Said:
        """Store a message; returns it with its number and time."""
        return await self._run(_add, room, author, text)

    async def last(self, room: str, count: int, before: int | None = None) -> list[Said]:
        """The last ``count`` messages of a room, or the last ones before a number; the oldest first."""
        return await self._run(_last, room, count, before)

    async def totals(self) -> dict[str, int]:
        """The number of messages of each room."""
        return await self._run(_totals)

    async def _run(self, query: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **_: P.kwargs) -> T:
        if self._connection is None:
            raise RuntimeError("the history is not open: the app's lifespan opens it")
        return await asyncio.get_running_loop().run_in_executor(self._thread, query, self._connection, *args)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
            connection.executescript(SCHEMA)
            break
        except sqlite3.OperationalError:
            # Another process creates the file at this moment: SQLite does not wait for the journal's mode as it does
            # for everything else.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    connection.execute("pragma synchronous = normal")
    return connection


def _add(connection: sqlite3.Connection, room: str, author: str, text: str) -> Said:
    at = datetime.now(UTC)
    with connection:
        cursor = connection.execute(
            "insert into messages (room, author, text, at) values (?, ?, ?, ?)", (room, author, text, at.isoformat())
        )
        connection.execute(
            "insert into totals values (?, 1) on conflict (room) do update set messages = messages + 1", (room,)
        )
    return Said(cursor.lastrowid or 0, author, text, at)


def _last(connection: sqlite3.Connection, room: str, count: int, before: int | None) -> list[Said]:
    rows = connection.execute(
        "select number, author, text, at from messages where room = ? and (? is null or number < ?)"
        " order by number desc limit ?",
        (room, before, before, count),
    ).fetchall()
    return [Said(number, author, text, datetime.fromisoformat(at)) for number, author, text, at in reversed(rows)]


def _totals(connection: sqlite3.Connection) -> dict[str, int]:
    return dict(connection.execute("select room, messages from totals").fetchall())
