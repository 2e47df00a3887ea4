"""One connection to PostgreSQL that runs one statement at a time, and the translation of its errors."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar

from psycopg import AsyncConnection, Error, InterfaceError, OperationalError
from psycopg.errors import (
    InsufficientPrivilege,
    InvalidSchemaName,
    LockNotAvailable,
    ReadOnlySqlTransaction,
    UndefinedFunction,
    UndefinedTable,
)

from telex.channels.backends.base import BrokerRefusal
from telex.exceptions import BackendUnavailable

__all__ = ("LockHeld", "PostgresConnection", "Psycopg", "answering", "connect")

Psycopg: TypeAlias = "AsyncConnection[tuple[Any, ...]]"

T = TypeVar("T")

_NOT_SET_UP: Final = (InsufficientPrivilege, InvalidSchemaName, UndefinedFunction, UndefinedTable)

_HOW_TO_SET_UP: Final = (
    "run telex.channels.backends.postgres.SCHEMA once as a role that may create tables and functions,"
    " let the role of the app use them, and write PostgresBackend(url, create_schema=False)"
)

_SESSION: Final = (
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; SET lock_timeout = {}"
)


class LockHeld(BackendUnavailable):
    """Another transaction held a lock for too long. The connection stays open, and the statement had no effect."""


async def connect(url: str, timeout: float, lock_timeout: float = 0) -> Psycopg:
    """A connection in autocommit mode with its own isolation level, independent of the database's defaults.

    ``timeout`` and ``lock_timeout`` are in seconds; a ``lock_timeout`` of 0 means no limit.

    :raises BackendUnavailable: the server does not answer.
    """
    connection: Psycopg | None = None
    try:
        async with asyncio.timeout(timeout):
            # A fixed encoding, because psycopg returns bytes for text of an SQL_ASCII database.
            connection = await AsyncConnection.connect(url, autocommit=True, client_encoding="utf8")
            await connection.execute(_SESSION.format(round(lock_timeout * 1000)).encode())
            await _check_primary(connection)
    except BaseException as error:
        if connection is not None:
            await connection.close()
        if isinstance(error, (Error, OSError, TimeoutError)):
            raise BackendUnavailable(f"PostgreSQL does not answer: {error}") from error
        raise
    return connection


async def _check_primary(connection: Psycopg) -> None:
    row = await (await connection.execute("SELECT pg_is_in_recovery()")).fetchone()
    if row is not None and row[0]:
        await connection.close()
        raise BackendUnavailable("this PostgreSQL is a standby: connect to the primary")


class PostgresConnection:
    """One connection. ``timeout`` (seconds) limits each statement, and its wait for earlier ones if ``limits_wait``.

    Without ``limits_wait`` a slow connection delays a statement, and does not fail it. A server that does not answer
    still fails all waiting statements after one ``timeout``, with the first of them.

    Statements run in the connection's own tasks: a cancelled caller does not interrupt its statement, and does not wait
    for psycopg, which would send a cancel request to a server that may not answer.
    """

    def __init__(self, connection: Psycopg, timeout: float, *, limits_wait: bool = True) -> None:
        self._connection = connection
        self._timeout = timeout
        self._longest_wait = timeout if limits_wait else None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        # Not select.select, which fails for descriptors from 1,024 on.
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)

    @property
    def is_busy(self) -> bool:
        """Whether a statement is running."""
        return self._lock.locked()

    @property
    def is_closed(self) -> bool:
        if self._connection.closed or self.is_busy:
            return self._connection.closed
        # An idle connection is readable only if the server has closed it.
        return bool(self._poll.poll(0))

    async def close(self) -> None:
        """Disconnect."""
        if self._tasks:
            _cut(self._connection)
            await asyncio.wait(self._tasks)
        await self._connection.close()

    async def ping(self) -> None:
        """Check that the server answers and is a primary.

        :raises BackendUnavailable: it does not answer in time, or is a standby; the connection is closed.
        """
        await self.run(_check_primary)

    async def ask(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows that ``statement`` returns.

        :raises LockHeld: another transaction held a lock; the statement had no effect.
        :raises BrokerRefusal: the server refused.
        :raises BackendUnavailable: the connection is lost, or earlier statements did not end in time.
        """

        async def execute(connection: Psycopg) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

        return await self.run(execute)

    async def run(self, work: Callable[[Psycopg], Awaitable[T]]) -> T:
        """Run ``work`` with exclusive use of the connection, and return its result.

        :raises BackendUnavailable: as :meth:`ask`.
        """
        task = asyncio.create_task(self._in_turn(work), name="telex.channels.postgres.statement")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Marks the exception as retrieved: the waiting task may have been cancelled.
            task.exception()

    async def _in_turn(self, work: Callable[[Psycopg], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._longest_wait):
                await self._lock.acquire()
        except TimeoutError:
            raise BackendUnavailable(
                f"PostgreSQL is too slow: earlier statements did not end in {self._timeout:g} s"
            ) from None
        try:
            async with answering(self._connection, self._timeout):
                return await work(self._connection)
        finally:
            self._lock.release()


@asynccontextmanager
async def answering(connection: Psycopg, timeout: float) -> AsyncIterator[None]:
    """Limit the statements of the body by ``timeout`` (seconds), and translate their errors.

    After the time-out the socket is shut down, and the statement fails. A cancellation instead would make psycopg send
    a cancel request to the silent server, and wait for it.
    """
    late = asyncio.get_running_loop().call_later(timeout, _cut, connection)
    try:
        yield
    except LockNotAvailable as error:
        raise LockHeld(f"PostgreSQL refused: {error}") from error
    except ReadOnlySqlTransaction as error:
        # The primary has become a standby: the next connection may find the new one.
        await connection.close()
        raise BackendUnavailable(f"PostgreSQL takes no writes: {error}") from error
    except _NOT_SET_UP as error:
        raise BrokerRefusal(f"PostgreSQL refused: {error.diag.message_primary}: {_HOW_TO_SET_UP}") from error
    except (Error, OSError) as error:
        if connection.closed or _is_of_connection(error):
            raise BackendUnavailable(f"PostgreSQL is lost, or did not answer in {timeout:g} s: {error}") from error
        raise BrokerRefusal(f"PostgreSQL refused: {error}") from error
    finally:
        late.cancel()


def _is_of_connection(error: Error | OSError) -> bool:
    if isinstance(error, OperationalError):
        # The server ends connections with an error of class 57P. Other numbered errors concern the statement only.
        return error.sqlstate is None or error.sqlstate.startswith("57P")
    return isinstance(error, (InterfaceError, OSError))


def _cut(connection: Psycopg) -> None:
    with suppress(Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)
