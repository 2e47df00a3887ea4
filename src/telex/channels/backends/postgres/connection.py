"""One connection to PostgreSQL, on which statements wait for each other, and what their failures mean."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

from telex.exceptions import BackendUnavailable, MissingDependencyException

try:
    from psycopg import AsyncConnection, Error, OperationalError
    from psycopg.errors import (
        InsufficientPrivilege,
        InvalidSchemaName,
        LockNotAvailable,
        UndefinedFunction,
        UndefinedTable,
    )
except ImportError as _missing:
    raise MissingDependencyException("psycopg", "postgres") from _missing

__all__ = ("Connection", "Link", "LockHeld", "answering")

Connection: TypeAlias = "AsyncConnection[tuple[Any, ...]]"

_NOT_SET_UP: Final = (InsufficientPrivilege, InvalidSchemaName, UndefinedFunction, UndefinedTable)

_HOW_TO_SET_UP: Final = (
    "run telex.channels.backends.postgres.SCHEMA once as a role that may create tables and functions,"
    " let the role of the app use them, and write PostgresBackend(url, create_schema=False)"
)


class LockHeld(BackendUnavailable):
    """Another transaction holds a lock, and did not end in time. The connection lives, and nothing was done."""


class Link:
    """One connection. ``timeout`` (seconds) bounds the wait for its turn, and each turn."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._lock = asyncio.Lock()
        # Not select.select, which fails for descriptors from 1,024 on.
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)

    @property
    def is_closed(self) -> bool:
        if self._connection.closed or self._lock.locked():
            return self._connection.closed
        # An idle connection has nothing to read, unless the server has left.
        return bool(self._poll.poll(0))

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()

    async def ask(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows that ``statement`` gives.

        :raises LockHeld: nothing was done, for a lock.
        :raises BackendUnavailable: the connection is lost, or the server refused.
        """
        async with self.turn() as connection:
            cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Connection]:
        """The connection for oneself. What fails in the body is translated.

        :raises BackendUnavailable: as above, or those before were not done in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._lock.acquire()
        except TimeoutError:
            raise BackendUnavailable(f"PostgreSQL is too slow: others were not done in {self._timeout:g} s") from None
        try:
            async with answering(self._connection, self._timeout):
                yield self._connection
        finally:
            self._lock.release()


@asynccontextmanager
async def answering(connection: Connection, timeout: float) -> AsyncIterator[None]:
    """Bound what is asked of the server in the body, and translate its failures.

    When the time is over the connection is cut, and the statement fails. To cancel it instead would have psycopg ask
    the silent server to stop, and wait for that.
    """
    late = asyncio.get_running_loop().call_later(timeout, _cut, connection)
    try:
        yield
    except LockNotAvailable as error:
        raise LockHeld(f"PostgreSQL refused: {error}") from error
    except OperationalError as error:
        raise BackendUnavailable(f"PostgreSQL is lost, or did not answer in {timeout:g} s: {error}") from error
    except _NOT_SET_UP as error:
        raise BackendUnavailable(f"PostgreSQL refused: {error.diag.message_primary}: {_HOW_TO_SET_UP}") from error
    except (Error, OSError) as error:
        raise BackendUnavailable(f"PostgreSQL refused: {error}") from error
    finally:
        late.cancel()


def _cut(connection: Connection) -> None:
    with suppress(Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)
