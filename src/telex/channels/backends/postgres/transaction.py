"""Runs a statement in a user's transaction: that of a psycopg or SQLAlchemy connection."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from typing import Final, Protocol, runtime_checkable

from telex.exceptions import ChannelsException, MissingDependencyException

try:
    import psycopg
except ImportError as _missing:
    raise MissingDependencyException("psycopg", "postgres") from _missing

__all__ = ("execute_in",)

_PSYCOPG: Final = (psycopg.Connection, psycopg.AsyncConnection, psycopg.Cursor, psycopg.AsyncCursor)


class _Dialect(Protocol):
    @property
    def driver(self) -> str: ...


@runtime_checkable
class _SqlalchemyConnection(Protocol):
    """A ``Connection`` or ``AsyncConnection`` of SQLAlchemy. A protocol, so that SQLAlchemy need not be installed."""

    @property
    def dialect(self) -> _Dialect: ...

    def exec_driver_sql(self, statement: str, parameters: tuple[object, ...], /) -> object: ...


@runtime_checkable
class _SqlalchemySession(Protocol):
    """A ``Session``, ``AsyncSession`` or a scoped one."""

    def connection(self) -> object: ...

    def get_bind(self) -> object: ...


async def execute_in(transaction: object, statement: str, parameters: Sequence[object]) -> None:
    """Run ``statement`` in the transaction of ``transaction``, sync or async.

    :raises ChannelsException: ``transaction`` is not a psycopg connection and does not use one.
    """
    done: object
    if isinstance(transaction, _PSYCOPG):
        done = transaction.execute(statement.encode(), parameters)
    else:
        connection = await _sqlalchemy_connection(transaction)
        # Through SQLAlchemy, so that it tracks the transaction that this may begin.
        done = connection.exec_driver_sql(statement, tuple(parameters))
    await _result(done)


async def _sqlalchemy_connection(transaction: object) -> _SqlalchemyConnection:
    found: object = transaction
    if not isinstance(found, _SqlalchemyConnection) and isinstance(found, _SqlalchemySession):
        found = await _result(found.connection())
    if not isinstance(found, _SqlalchemyConnection):
        raise _refusal(_name_of(transaction))
    if found.dialect.driver != "psycopg":
        raise _refusal(f"{_name_of(transaction)} over {found.dialect.driver}")
    return found


async def _result(done: object | Awaitable[object]) -> object:
    return await done if inspect.isawaitable(done) else done


def _refusal(what: str) -> ChannelsException:
    return ChannelsException(
        f"transaction= takes a psycopg connection, not {what}. A session or a connection of SQLAlchemy's will do if its"
        " engine is of postgresql+psycopg://; with any other library execute"
        " SELECT telex_publish(channel, data, size, seconds) in the transaction yourself"
    )


def _name_of(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
