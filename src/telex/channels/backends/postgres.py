"""Channels over PostgreSQL 12 and newer: LISTEN and NOTIFY for what is live, tables for history and large values.

Everything is done by one SQL function, ``telex_publish(channel, data, size, seconds)``, so that any program in any
language can publish inside its own transaction: ``SELECT telex_publish('room:1', 'text', NULL, NULL)``. The event
leaves when that transaction commits. Until then it holds the channel's row if the channel has history: its events are
numbered in the order of their commits, and other publishers to that channel wait.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import os
import select
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, LiteralString, Protocol, TypeAlias, cast

from telex.channels.backends.base import ChannelsBackend, Listener, OnDemand, Sink, Target, Topic
from telex.channels.backends.postgres_schema import SCHEMA
from telex.channels.history import Event, Keep, Past, Position
from telex.exceptions import BackendUnavailable, ChannelsException, MissingDependencyException

try:
    from psycopg import AsyncConnection, Error, Notify, OperationalError
except ImportError as _missing:
    raise MissingDependencyException("psycopg", "postgres") from _missing

__all__ = ("SCHEMA", "PostgresBackend")

_Connection: TypeAlias = "AsyncConnection[tuple[Any, ...]]"

PREFIX: Final = "telex_"

SWEEP_EVERY: Final = 1000
"""After so many publishes of this process what nobody can replay any more is deleted."""

_PUBLISH: Final[LiteralString] = (
    "SELECT telex_publish(channel, %s, size, seconds)"
    " FROM unnest(%s::text[], %s::int[], %s::float8[]) AS target (channel, size, seconds)"
)
_BEGIN_LOGS: Final[LiteralString] = (
    "INSERT INTO telex_channels SELECT channel, substr(md5(random()::text || clock_timestamp()::text), 1, 12), 0,"
    " clock_timestamp() + make_interval(secs => seconds + 86400)"
    " FROM unnest(%s::text[], %s::float8[]) AS target (channel, seconds) ON CONFLICT DO NOTHING"
)
_POSITIONS: Final[LiteralString] = "SELECT channel, epoch, last FROM telex_channels WHERE channel = ANY(%s)"
_HISTORY: Final[LiteralString] = (
    # One statement sees one moment: the head and the events agree.
    "SELECT c.epoch, c.last, e.id, e.data FROM telex_channels c LEFT JOIN telex_events e ON e.channel = c.channel"
    " AND e.id > %s AND e.at > clock_timestamp() - make_interval(secs => %s) WHERE c.channel = %s ORDER BY e.id"
)
_SWEEP: Final[LiteralString] = "DELETE FROM telex_channels WHERE expires < clock_timestamp()"
_LARGE: Final[LiteralString] = "SELECT data FROM telex_values WHERE id = %s"
_LARGE_KEPT: Final[LiteralString] = (
    "SELECT e.data FROM telex_events e JOIN telex_channels c USING (channel)"
    " WHERE c.channel = %s AND c.epoch = %s AND e.id = %s"
)


class Executes(Protocol):
    """An open connection of the user's, such as psycopg's, sync or async."""

    def execute(self, query: Any, params: Any = None, /) -> object:
        """Run one statement."""


class _Link:
    """One connection for statements."""

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection

    @property
    def is_closed(self) -> bool:
        if self.connection.closed or self.connection.lock.locked():
            return self.connection.closed
        # An idle connection has nothing to read, unless the server has left.
        return bool(select.select([self.connection.fileno()], [], [], 0)[0])

    async def close(self) -> None:
        """Disconnect."""
        await self.connection.close()


class _PostgresListener(Listener):
    """Listens on one connection, and reads it only when something is there: statements and notices share it."""

    def __init__(self, connection: _Connection, timeout: float, sink: Sink, fetch: _Fetch) -> None:
        self._connection = connection
        self._timeout = timeout
        self._sink = sink
        self._fetch = fetch
        self._channels: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._readable = asyncio.Event()
        self._heard: deque[tuple[str, str]] = deque()
        connection.add_notify_handler(self._note)

    async def subscribe(self, topics: Collection[Topic]) -> None:
        for topic in topics:
            self._channels[_notice(topic.name)] = topic.name
        await self._run("LISTEN", topics)

    async def unsubscribe(self, topics: Collection[Topic]) -> None:
        await self._run("UNLISTEN", topics)
        for topic in topics:
            self._channels.pop(_notice(topic.name), None)

    async def ping(self) -> None:
        await self._execute("SELECT 1")

    async def _run(self, command: str, topics: Collection[Topic]) -> None:
        await self._execute("; ".join(f"{command} {_notice(topic.name)}" for topic in topics))

    async def _execute(self, statement: str) -> None:
        async with self._lock, _answering(self._connection, self._timeout):
            try:
                # Names are hexadecimal digests: nothing in the statement comes from outside.
                await self._connection.execute(statement.encode())
            finally:
                # psycopg took the socket's reader away, and may have read notices.
                self._readable.set()

    async def read(self) -> None:
        """Deliver until the connection is lost, and say so."""
        try:
            while True:
                await self._wait_readable()
                async with self._lock:
                    self._consume()
                while self._heard:
                    await self._deliver(*self._heard.popleft())
        except BackendUnavailable as error:
            self._sink.lost(error)
        except (Error, OSError) as error:
            self._sink.lost(BackendUnavailable(f"PostgreSQL is lost: {error}"))

    async def _wait_readable(self) -> None:
        loop, descriptor = asyncio.get_running_loop(), self._connection.fileno()
        if not self._lock.locked():
            loop.add_reader(descriptor, self._readable.set)
        try:
            await self._readable.wait()
        finally:
            self._readable.clear()
            if not self._lock.locked():
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
        head, in_full, packed = payload.partition(" ")
        epoch, _, number = head.partition(":")
        position = Position(epoch, int(number)) if epoch else None
        data = base64.b64decode(packed) if in_full else await self._fetch(channel, epoch, int(number))
        if data is not None:
            self._sink.deliver(Event(channel, data, position, position.offset - 1 if position else None))
        elif position is None:
            # The value was deleted before we came to it: without history only a new connection marks the gap.
            raise BackendUnavailable("a large value was gone before it could be read")


_Fetch: TypeAlias = Callable[[str, str, int], Awaitable[bytes | None]]


class PostgresBackend(ChannelsBackend):
    """Channels over one PostgreSQL database.

    ``url`` is as libpq takes it. The tables and the function are created at the start (see :data:`SCHEMA`) unless
    ``create_schema`` is false. ``timeout`` (seconds) bounds connecting and each statement.
    """

    def __init__(self, url: str, *, create_schema: bool = True, timeout: float = 5.0) -> None:
        self._url = url
        self._create_schema = create_schema
        self._timeout = timeout
        self._published = 0
        self._statements = OnDemand(self._connect)

    async def open(self) -> None:
        link = await self._statements.get()
        async with _answering(link.connection, self._timeout):
            if self._create_schema:
                async with link.connection.transaction():
                    # Nodes that start together must not create the same things at the same time.
                    await link.connection.execute("SELECT pg_advisory_xact_lock(hashtext('telex'))")
                    await link.connection.execute(SCHEMA)
            await link.connection.execute(_SWEEP)

    async def close(self) -> None:
        await self._statements.close()

    async def publish(self, targets: Sequence[Target], data: bytes) -> None:
        await self._query(_PUBLISH, _parameters(targets, data))
        self._published += 1
        if self._published % SWEEP_EVERY == 0:
            await self._query(_SWEEP, ())

    async def publish_in(self, transaction: object, targets: Sequence[Target], data: bytes) -> None:
        """Publish through ``transaction``: a connection with ``execute``, such as psycopg's, sync or async.

        With any other library run ``SELECT telex_publish(...)`` yourself.

        :raises ChannelsException: it has no ``execute``.
        """
        if not hasattr(transaction, "execute"):
            raise ChannelsException(f"transaction= takes a psycopg connection, not {type(transaction).__name__}")
        done = cast("Executes", transaction).execute(_PUBLISH, _parameters(targets, data))
        if inspect.isawaitable(done):
            await done

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        link = await self._connect()
        listener = _PostgresListener(link.connection, self._timeout, sink, self._fetch)
        reader = asyncio.create_task(listener.read(), name="telex.channels.postgres")
        try:
            yield listener
        finally:
            reader.cancel()
            await asyncio.wait([reader])
            await link.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        channels = sorted(channel for channel, _ in targets)
        seconds = {channel: keep.seconds for channel, keep in targets}
        await self._query(_BEGIN_LOGS, (channels, [seconds[channel] for channel in channels]))
        rows = await self._query(_POSITIONS, (channels,))
        return {channel: Position(epoch, last) for channel, epoch, last in rows}

    async def history(
        self, channel: str, keep: Keep, *, since: Position | None = None, limit: int | None = None
    ) -> Past:
        after = since.offset if since is not None else 0
        rows = await self._query(_HISTORY, (min(after, 2**63 - 1), keep.seconds, channel))
        if not rows:
            position = (await self.positions([(channel, keep)]))[channel]
            return Past((), position, complete=since is None)
        epoch, last = rows[0][:2]
        events = tuple(
            Event(channel, data, Position(epoch, number), number - 1)
            for _, _, number, data in rows
            if number is not None and number > last - keep.size
        )
        head = Position(epoch, last)
        if since is None:
            return Past(events if limit is None else events[max(0, len(events) - limit) :], head, complete=True)
        whole = since.epoch == epoch and since.offset + len(events) == last
        return Past(events if whole else (), head, complete=whole)

    # -- connections

    async def _connect(self) -> _Link:
        try:
            async with asyncio.timeout(self._timeout):
                return _Link(await AsyncConnection.connect(self._url, autocommit=True))
        except (Error, OSError, TimeoutError) as error:
            raise BackendUnavailable(f"PostgreSQL does not answer: {error}") from error

    async def _query(self, statement: LiteralString, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        link = await self._statements.get()
        async with _answering(link.connection, self._timeout):
            cursor = await link.connection.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def _fetch(self, channel: str, epoch: str, number: int) -> bytes | None:
        """A value that was too large for a notice; ``None`` when it is gone."""
        rows = await self._query(*((_LARGE_KEPT, (channel, epoch, number)) if epoch else (_LARGE, (number,))))
        return bytes(rows[0][0]) if rows else None


@asynccontextmanager
async def _answering(connection: _Connection, timeout: float) -> AsyncIterator[None]:
    """Bound what is asked of the server in the body, and translate its failures.

    When the time is over the connection is cut, and the statement fails. To cancel it instead would have psycopg ask
    the silent server to stop, and wait for that.
    """
    late = asyncio.get_running_loop().call_later(timeout, _cut, connection)
    try:
        yield
    except OperationalError as error:
        raise BackendUnavailable(f"PostgreSQL is lost, or did not answer in {timeout:g} s: {error}") from error
    except (Error, OSError) as error:
        raise BackendUnavailable(f"PostgreSQL refused: {error}") from error
    finally:
        late.cancel()


def _cut(connection: _Connection) -> None:
    with suppress(Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


def _notice(channel: str) -> str:
    """The name that PostgreSQL knows a channel by: its own may be no longer than 63 bytes."""
    return PREFIX + hashlib.sha256(channel.encode()).hexdigest()[:40]


def _parameters(
    targets: Sequence[Target], data: bytes
) -> tuple[bytes, list[str], list[int | None], list[float | None]]:
    # In one order for all, as each channel's row is held until the end: two publishers must not wait for each other.
    ordered = sorted(targets, key=lambda target: target[0])
    keeps = [keep for _, keep in ordered]
    return (
        data,
        [channel for channel, _ in ordered],
        [keep.size if keep else None for keep in keeps],
        [keep.seconds if keep else None for keep in keeps],
    )
