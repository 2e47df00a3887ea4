"""What may be given as ``transaction=``: psycopg's connections, and what SQLAlchemy makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from telex.channels import Channels
from telex.exceptions import ChannelsException
from tests.channels.brokers import Broker
from tests.channels.conftest import KEEP, take_data


@pytest.fixture
def url(running_broker: Callable[[str], Broker]) -> str:
    return running_broker("postgres").url


@pytest.fixture
async def hub(url: str) -> AsyncIterator[Channels]:
    async with Channels(url, arbitrary_channels_allowed=True, history={"kept:*": KEEP}) as hub:
        yield hub


@pytest.fixture
def sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


async def test_events_leave_with_a_session(hub: Channels, sqlalchemy_url: str, name: str) -> None:
    engine = sqlalchemy.create_engine(sqlalchemy_url)
    scoped = scoped_session(sessionmaker(engine))
    async with hub.subscribe([name, f"kept:{name}"]) as events:
        for transaction in (Session(engine), scoped, engine.connect()):
            await hub.publish(f"kept:{name}", "undone", transaction=transaction)
            transaction.rollback()
            await hub.publish([name, f"kept:{name}"], "done", transaction=transaction)
            await hub.publish(f"kept:{name}", "between")
            assert await take_data(events, 1) == ["between"]
            transaction.execute(sqlalchemy.text("SELECT 1"))
            transaction.commit()
            assert await take_data(events, 2) == ["done", "done"]
            transaction.close()
    scoped.remove()
    engine.dispose()


async def test_events_leave_with_an_asynchronous_session(hub: Channels, sqlalchemy_url: str, name: str) -> None:
    engine = create_async_engine(sqlalchemy_url)
    make = async_sessionmaker(engine)
    scoped: async_scoped_session[AsyncSession] = async_scoped_session(make, scopefunc=lambda: None)
    async with hub.subscribe([name, f"kept:{name}"]) as events, make() as session, engine.connect() as connection:
        for transaction in (session, scoped, connection):
            await hub.publish(f"kept:{name}", "undone", transaction=transaction)
            await transaction.rollback()
            await hub.publish([name, f"kept:{name}"], "done", transaction=transaction)
            await hub.publish(f"kept:{name}", "between")
            assert await take_data(events, 1) == ["between"]
            await transaction.execute(sqlalchemy.text("SELECT 1"))
            await transaction.commit()
            assert await take_data(events, 2) == ["done", "done"]
    await scoped.remove()
    await engine.dispose()


async def test_events_leave_with_a_cursor(hub: Channels, url: str, name: str) -> None:
    async with hub.subscribe(name) as events, await psycopg.AsyncConnection.connect(url) as connection:
        await hub.publish(name, "done", transaction=connection.cursor())
        await connection.commit()
        assert await take_data(events, 1) == ["done"]


class Foreign:
    """Has ``execute``, as connections of asyncpg have: but what they take is not what psycopg takes."""

    async def execute(self, query: str, *arguments: object) -> str:
        raise AssertionError


@pytest.mark.parametrize("transaction", ["BEGIN", Foreign(), object(), 5])
async def test_what_is_no_connection_is_named(hub: Channels, transaction: object) -> None:
    kind = type(transaction).__name__
    with pytest.raises(ChannelsException, match=rf"takes a psycopg connection, not \S*{kind}.*SELECT telex_publish"):
        await hub.publish("c", "x", transaction=transaction)


async def test_a_session_over_another_driver_is_named(hub: Channels) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with (
        Session(engine) as session,
        pytest.raises(ChannelsException, match=r"Session over pysqlite.*postgresql\+psycopg://"),
    ):
        await hub.publish("c", "x", transaction=session)
    engine.dispose()
