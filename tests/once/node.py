"""A server process that kills itself at a point of a call: forked for each line of its input, so that it starts fast.

A line has the policy and the point; the answer is the port of the new process, and its id.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

import uvicorn
from psycopg import AsyncConnection

from examples.docs import orders_once
from examples.docs.orders_once import Order, Placed
from telex import Provide, Telex, websocket_listener
from telex.handlers import ListenerHandler
from telex.once import IdempotencyKey, Once
from telex.once.redis_answers import RedisAnswers

LEASE = 0.3
POINTS = ("before claim", "after claim", "before effect", "before commit", "after commit", "after keep")


class Killer:
    """Ends this process at one point, as a crash does."""

    def __init__(self, point: str) -> None:
        self._point = point

    def at(self, point: str) -> None:
        """Die, if this is the point."""
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_store(self) -> None:
        """Die around a claim, and after an answer was kept."""
        claim, keep = RedisAnswers.claim, RedisAnswers.keep

        async def claim_or_die(store: RedisAnswers, *arguments: Any) -> Any:
            self.at("before claim")
            claimed = await claim(store, *arguments)
            self.at("after claim")
            return claimed

        async def keep_and_die(store: RedisAnswers, *arguments: Any) -> None:
            self.at("after commit")
            await keep(store, *arguments)
            self.at("after keep")

        setattr(RedisAnswers, "claim", claim_or_die)  # noqa: B010  # their signatures are wider
        setattr(RedisAnswers, "keep", keep_and_die)  # noqa: B010


def keyed(killer: Killer) -> ListenerHandler:
    """The example: the key is in the handler's own transaction."""
    example = orders_once.order.fn

    @websocket_listener(
        "/orders",
        idempotent=Once(store=orders_once.REDIS, if_interrupted="run", lease=LEASE),
        dependencies={"db": Provide(orders_once.transaction, scope="message")},
    )
    async def order(data: Order, db: AsyncConnection[Any], key: IdempotencyKey) -> Placed:
        await note_run(data)
        killer.at("before effect")
        placed: Placed = await example(data, db, key)
        killer.at("before commit")
        return placed

    return order


def stored(killer: Killer, policy: Any) -> ListenerHandler:
    """The store alone: the effect knows nothing of the key."""

    @websocket_listener(
        "/orders",
        idempotent=Once(store=orders_once.REDIS, if_interrupted=policy, lease=LEASE),
        dependencies={"db": Provide(orders_once.transaction, scope="message")},
    )
    async def order(data: Order, db: AsyncConnection[Any]) -> Placed:
        await note_run(data)
        killer.at("before effect")
        placed = await db.execute(
            "INSERT INTO orders (article, count) VALUES (%s, 1) RETURNING number", (data.article,)
        )
        row = await placed.fetchone()
        killer.at("before commit")
        assert row is not None
        return Placed(row[0])

    return order


async def note_run(data: Order) -> None:
    """Count a run of the handler, whatever becomes of it."""
    async with await AsyncConnection.connect(orders_once.DATABASE, autocommit=True) as connection:
        await connection.execute("INSERT INTO runs VALUES (%s)", (data.article,))


def serve(listening: socket.socket, policy: str, point: str) -> None:
    """Run until killed."""
    killer = Killer(point)
    killer.watch_store()
    app = orders_once.app
    if policy != "example":
        app = Telex([keyed(killer) if policy == "keyed" else stored(killer, policy)])
    config = uvicorn.Config(app, log_level="error", loop="asyncio")
    uvicorn.Server(config).run(sockets=[listening])


def main() -> None:
    """Fork one process for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        policy, _, point = line.strip().partition(" ")
        listening = socket.create_server(("127.0.0.1", 0))
        pid = os.fork()
        if not pid:
            serve(listening, policy, point)
            os._exit(0)
        sys.stdout.write(f"{listening.getsockname()[1]} {pid}\n")
        sys.stdout.flush()
        listening.close()


if __name__ == "__main__":
    main()
