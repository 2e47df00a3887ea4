import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from psycopg import AsyncConnection

from telex import Provide, Telex, websocket_listener
from telex.once import IdempotencyKey, Once

DATABASE = os.environ.get("DATABASE_URL", "postgresql://localhost/shop")
REDIS = os.environ.get("REDIS_URL", "redis://localhost")

TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    number bigint GENERATED ALWAYS AS IDENTITY,
    key text UNIQUE,
    article text NOT NULL,
    count integer NOT NULL
)
"""


class Order(msgspec.Struct):
    article: str
    count: int = 1


class Placed(msgspec.Struct):
    number: int


class KeyReused(Exception):
    """The key belongs to another order, which Redis has forgotten since."""


async def transaction() -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(DATABASE) as connection:
        yield connection  # then it commits, before the answer is recorded and sent


@websocket_listener(
    "/orders",
    idempotent=Once(store=REDIS, if_interrupted="run"),
    dependencies={"db": Provide(transaction, scope="message")},
    errors=[KeyReused],
)
async def order(data: Order, db: AsyncConnection[Any], key: IdempotencyKey) -> Placed:
    placed = await db.execute(
        "INSERT INTO orders (key, article, count) VALUES (%s, %s, %s) ON CONFLICT (key) DO NOTHING RETURNING number",
        (key, data.article, data.count),
    )
    row = await placed.fetchone()
    if row is None:  # placed by a run that ended before its answer was recorded
        found = await db.execute(
            "SELECT number FROM orders WHERE key = %s AND article = %s AND count = %s",
            (key, data.article, data.count),
        )
        row = await found.fetchone()
    if row is None:
        raise KeyReused
    return Placed(row[0])


@asynccontextmanager
async def with_table(_: Telex) -> AsyncIterator[None]:
    async with await AsyncConnection.connect(DATABASE) as connection:
        await connection.execute(TABLE)
    yield


app = Telex([order], lifespan=[with_table])
