"""The backend for PostgreSQL 12 or newer: LISTEN and NOTIFY for live events, tables for history and large values.

A program in any language can publish inside its transaction: ``SELECT telex_publish('room:1', 'text', 50, 60)`` keeps
the last 50 events, none older than 60 seconds; with ``NULL, NULL`` the channel has no history. The event is published
when that transaction commits. A channel with history has a row, which is locked during the commit only: events are
numbered in the order of the commits, and an open transaction does not block other publishers.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, TypeAlias, cast, get_args
from weakref import WeakValueDictionary

from psycopg import Error, Notify, ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from telex.channels.backends.base import ConnectedBackend, Listener, Sink
from telex.channels.backends.postgres.connection import LockHeld, PostgresConnection, Psycopg, connect
from telex.channels.backends.postgres.replay import HistoryRow, completed, parts_of, past_of
from telex.channels.backends.postgres.schema import PREFIX, Statements
from telex.channels.backends.postgres.transaction import execute_in
from telex.channels.delivery.yield_budget import YieldBudget
from telex.channels.events import DataKind, Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException

__all__ = ("PostgresBackend",)

logger: logging.Logger = logging.getLogger("telex.channels")

SWEEP_EVERY: Final = 500
"""The number of published events after which this process deletes expired events."""

PATIENCE: Final = 0.05
"""How long a publish waits for a locked row, in seconds, because it blocks the connection meanwhile."""

PAUSE: Final = 0.1
"""The pause before it tries again, in seconds. A row is usually locked only for the time of a commit."""

_LARGEST: Final = 2**31 - 1
"""The largest ``size``: an ``integer`` of PostgreSQL."""


class _PostgresListener(Listener):
    """Listens on one connection, and reads it only when data has arrived, because statements use the connection too."""

    def __init__(self, link: PostgresConnection, connection: Psycopg, prefix: str, sink: Sink, fetch: _Fetch) -> None:
        self._link = link
        self._connection = connection
        self._prefix = prefix
        self._sink = sink
        self._fetch = fetch
        self._channels: dict[str, str] = {}
        self._readable = asyncio.Event()
        self._heard: deque[tuple[str, str]] = deque()
        self._budget = YieldBudget()
        connection.add_notify_handler(self._note)

    async def subscribe(self, topics: Collection[TopicName]) -> None:
        for topic in topics:
            self._channels[_notice(self._prefix, topic.name)] = topic.name
        await self._run("LISTEN", topics)

    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        await self._run("UNLISTEN", topics)
        for topic in topics:
            self._channels.pop(_notice(self._prefix, topic.name), None)

    async def ping(self) -> None:
        await self._execute("SELECT 1")

    async def _run(self, command: str, topics: Collection[TopicName]) -> None:
        # Safe to format: the names consist of a validated prefix and hexadecimal digests.
        await self._execute("; ".join(f"{command} {_notice(self._prefix, topic.name)}" for topic in topics))

    async def _execute(self, statement: str) -> None:
        async def execute(connection: Psycopg) -> None:
            try:
                await connection.execute(statement.encode())
            finally:
                # psycopg has removed the socket's reader, and may have read notices.
                self._readable.set()

        await self._link.run(execute)

    async def read(self) -> None:
        """Deliver notices until the connection is lost or an error occurs, then call :meth:`Sink.lost`."""
        try:
            while True:
                await self._wait_readable()
                if not self._link.is_busy:
                    self._consume()
                while self._heard:
                    await self._deliver(*self._heard.popleft())
                    if self._budget.is_spent():
                        await self._budget.renew()
        except BackendUnavailable as error:
            self._sink.lost(error)
        except (Error, OSError) as error:
            self._sink.lost(BackendUnavailable(f"PostgreSQL is lost: {error}"))
        except Exception as error:
            # Without this the task would end, and no more events would arrive.
            logger.exception("an event from PostgreSQL could not be delivered")
            self._sink.lost(BackendUnavailable(f"the reader of PostgreSQL failed: {error!r}"))

    async def _wait_readable(self) -> None:
        loop, descriptor = asyncio.get_running_loop(), self._connection.fileno()
        if not self._link.is_busy:
            loop.add_reader(descriptor, self._readable.set)
        try:
            await self._readable.wait()
        finally:
            self._readable.clear()
            if not self._link.is_busy:
                loop.remove_reader(descriptor)

    def _consume(self) -> None:
        pgconn = self._connection.pgconn
        pgconn.consume_input()
        while (found := pgconn.notifies()) is not None:
            self._heard.append((found.relname.decode(), found.extra.decode()))

    def _note(self, notice: Notify) -> None:
        self._heard.append((notice.channel, notice.payload))

    async def _deliver(self, notice: str, payload: str) -> None:
        channel = self._channels.get(notice)
        if channel is None:
            return
        try:
            number, position, previous, kind, data = _read(payload)
        except ValueError:
            logger.warning("ignored a notice for channel %r that was not sent by Telex", channel)
            return
        if data is None:
            data = await self._fetch(channel, number, position is not None)
        if data is not None:
            self._sink.deliver(Event(channel, data, position, previous, kind))
        elif position is None:
            # The value was deleted before it was read. Without history, only a new connection produces a gap.
            raise BackendUnavailable("a large value was gone before it could be read")


_Fetch: TypeAlias = Callable[[str, int, bool], Awaitable[bytes | None]]


class PostgresBackend(ConnectedBackend[PostgresConnection]):
    """Channels over one PostgreSQL database.

    ``url`` is a URL of libpq. All tables, functions and notices start with ``prefix``: at most twenty characters of
    ``a-z``, ``0-9`` and ``_``. The tables and functions are created at the start (see :data:`SCHEMA`, and
    :func:`schema_with` for another prefix) unless ``create_schema`` is false. ``timeout`` (seconds) limits connecting,
    each statement, and the wait for a channel that another transaction has locked.

    :raises ImproperlyConfiguredException: the prefix cannot begin a name in PostgreSQL, or libpq refuses the URL.
    """

    def __init__(self, url: str, *, prefix: str = PREFIX, create_schema: bool = True, timeout: float = 5.0) -> None:
        try:
            conninfo_to_dict(url)
        except ProgrammingError as error:
            raise ImproperlyConfiguredException(f"the URL of PostgreSQL cannot be used: {error}".strip()) from error
        self._url = url
        self._prefix = prefix
        self._statements = Statements.named(prefix)
        self._create_schema = create_schema
        self._timeout = timeout
        self._published = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Publishes may wait for a lock, and reads do not wait for them.
        super().__init__(self._connect_to_publish, self._connect_to_read)

    async def open(self) -> None:
        try:
            await super().open()
            link = await self._publishing.get()
            if self._create_schema:
                await self._create(link)
            await link.ask(self._statements.sweep)
        except BaseException:
            await self.close()
            raise

    async def publish(self, targets: Sequence[Target], data: bytes, kind: DataKind = "bytes") -> Mapping[str, Position]:
        """Publish ``data`` to each target.

        Each channel with history has a row, which is locked while a publish to it commits. A publish that finds it
        locked for longer tries again later, and other publishes go first.

        :raises BackendUnavailable: the connection failed, or another transaction locks a row for longer than the
            time-out.
        """
        ends = asyncio.get_running_loop().time() + self._timeout
        kept = sorted({channel for channel, keep in targets if keep is not None})
        try:
            async with self._in_turn(kept, ends):
                rows = await self._publish_when_free(_parameters(targets, data, kind), ends)
        except LockHeld as error:
            raise BackendUnavailable(self._held(kept)) from error
        await self._sweep_after(len(targets))
        return {channel: Position.parse(position) for channel, position in rows if position}

    async def publish_in(self, transaction: object, targets: Sequence[Target], data: bytes, kind: DataKind) -> None:
        """Publish when ``transaction`` commits: a connection of psycopg, or of SQLAlchemy over psycopg, sync or async.

        With any other library run ``SELECT telex_publish(...)`` yourself.

        :raises ChannelsException: ``transaction`` does not use psycopg.
        """
        await execute_in(transaction, self._statements.publish_at_commit, _parameters(targets, data, kind))
        await self._sweep_after(len(targets))

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        connection = await connect(self._url, self._timeout)
        link = PostgresConnection(connection, self._timeout)
        listener = _PostgresListener(link, connection, self._prefix, sink, self._fetch)
        reader = asyncio.create_task(listener.read(), name="telex.channels.postgres")
        try:
            yield listener
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            await link.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        link = await self._reading.get()
        rows = await link.ask(self._statements.positions, ([channel for channel, _ in targets],))
        return {channel: Position(epoch, last) for channel, epoch, last in rows}

    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        after = since.offset if since is not None else 0
        most = _size(keep) if limit is None or since is not None else min(limit, _size(keep))
        link = await self._reading.get()
        after = after if 0 <= after < 2**63 else 2**63 - 1
        end = 2**63 - 1 if before is None else before
        answer = await link.ask(self._statements.history, (channel, after, end, keep.seconds, most))
        rows = [HistoryRow(*row) for row in answer]
        found: dict[int, bytes] = {}
        for numbers in parts_of(rows):
            found.update(await link.ask(self._statements.values, (channel, numbers)))
        return past_of(channel, completed(rows, found), since)

    # -- connections

    async def _connect_to_read(self) -> PostgresConnection:
        # Many channels may be read at once over a slow connection, each in several statements.
        return PostgresConnection(await connect(self._url, self._timeout), self._timeout, limits_wait=False)

    async def _connect_to_publish(self) -> PostgresConnection:
        patience = min(PATIENCE, self._timeout / 2)
        return PostgresConnection(await connect(self._url, self._timeout, patience), self._timeout)

    async def _create(self, link: PostgresConnection) -> None:
        async def create(connection: Psycopg) -> None:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = 0")
                # Nodes that start at the same time must not create the schema concurrently.
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._prefix,))
                await connection.execute(self._statements.schema.encode())

        await link.run(create)

    async def _fetch(self, channel: str, number: int, is_kept: bool) -> bytes | None:
        """A value that was too large for a notice; ``None`` if it was deleted."""
        link = await self._reading.get()
        if is_kept:
            rows = await link.ask(self._statements.kept_value, (channel, number))
        else:
            rows = await link.ask(self._statements.value, (number,))
        return bytes(rows[0][0]) if rows else None

    # -- publishing

    @asynccontextmanager
    async def _in_turn(self, channels: Iterable[str], ends: float) -> AsyncIterator[None]:
        """Allow one publish to a channel at a time, so that waiting publishes do not all try to lock the same row."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(ends):
                    for channel in channels:
                        await stack.enter_async_context(self._turns.setdefault(channel, asyncio.Lock()))
            except TimeoutError:
                raise LockHeld("others waited before") from None
            yield

    async def _publish_when_free(self, parameters: Sequence[object], ends: float) -> Sequence[tuple[str, str | None]]:
        while True:
            link = await self._publishing.get()
            try:
                return cast("list[tuple[str, str | None]]", await link.ask(self._statements.publish, parameters))
            except LockHeld:
                if asyncio.get_running_loop().time() > ends:
                    raise
                await asyncio.sleep(PAUSE)

    def _held(self, kept: Sequence[str]) -> str:
        names = " or ".join(repr(channel) for channel in kept[:3]) + (" or others" if len(kept) > 3 else "")
        return (
            f"another transaction holds the lock on the row of {names} in {self._prefix}channels, and did not end in"
            f" {self._timeout:g} s"
        )

    async def _sweep_after(self, published: int) -> None:
        before, self._published = self._published, self._published + published
        if before // SWEEP_EVERY == self._published // SWEEP_EVERY:
            return
        # The publish has succeeded, so its caller gets no error of the sweep; the next publish raises it.
        with suppress(BackendUnavailable):
            link = await self._publishing.get()
            await link.ask(self._statements.sweep)


def _notice(prefix: str, channel: str) -> str:
    """The channel's name in PostgreSQL, a digest because names are limited to 63 bytes."""
    return prefix + hashlib.sha256(channel.encode()).hexdigest()[:40]


def _read(payload: str) -> tuple[int, Position | None, int | None, DataKind, bytes | None]:
    """The event's number, its position and the previous offset (with history), its kind, and data that the notice has.

    :raises ValueError: ``telex_send`` did not write this notice.
    """
    head, in_full, packed = payload.partition(" ")
    epoch, text, previous, kind = head.split(":")
    if kind not in get_args(DataKind):
        raise ValueError(kind)
    number = int(text)
    position = Position(epoch, number) if epoch else None
    data = base64.b64decode(packed) if in_full else None
    return number, position, int(previous) if epoch else None, cast("DataKind", kind), data


def _size(keep: Keep) -> int:
    return min(keep.size, _LARGEST)


def _parameters(
    targets: Sequence[Target], data: bytes, kind: DataKind
) -> tuple[bytes, DataKind, list[str], list[int | None], list[float | None]]:
    # Sorted, because rows stay locked until the commit: two publishes must not deadlock.
    ordered = sorted(targets, key=lambda target: target[0])
    keeps = [keep for _, keep in ordered]
    return (
        data,
        kind,
        [channel for channel, _ in ordered],
        [_size(keep) if keep else None for keep in keeps],
        [keep.seconds if keep else None for keep in keeps],
    )
