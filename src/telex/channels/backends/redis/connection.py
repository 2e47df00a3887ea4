"""One connection to Redis that pipelines concurrent requests."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection
from itertools import repeat
from typing import Final, TypeAlias, cast

from redis.asyncio import Connection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from telex.channels.backends.base import BrokerRefusal
from telex.channels.delivery.yield_budget import YieldBudget
from telex.exceptions import BackendUnavailable

__all__ = ("REDIRECTED", "Command", "Demoted", "RedisConnection")

Command: TypeAlias = tuple[str | bytes | int, ...]

REDIRECTED: Final = (AskError, TryAgainError, ClusterDownError)
"""Errors of a cluster node that did nothing: the slot is on another node (MOVED, ASK) or is not served yet."""


class Demoted(BackendUnavailable):
    """The server is a replica: it refuses writes, and events published there reach few subscribers."""


class RedisConnection:
    """One connection that sends commands without waiting for earlier replies. The replies arrive in order.

    It fails if the server sends no reply and accepts no data for ``timeout`` seconds while a reply is due, even if the
    callers were cancelled. A subscribing connection also receives messages; ``on_message`` handles a message and
    returns true, or returns false for a reply.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float,
        on_message: Callable[[list[bytes]], bool] | None = None,
        on_lost: Callable[[BackendUnavailable], None] | None = None,
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._on_message = on_message
        self._on_lost = on_lost
        self._waiting: deque[tuple[asyncio.Future[object], float]] = deque()
        self._unsent: list[bytes] = []
        self._has_unsent = asyncio.Event()
        self._progress = -math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._failure: BackendUnavailable | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_closed(self) -> bool:
        return self._failure is not None

    async def open(self) -> None:
        """Connect.

        :raises BackendUnavailable: the server does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            await self._connection.disconnect(nowait=True)
            raise BackendUnavailable(f"Redis does not answer: {error}") from error
        except BaseException:
            await self._connection.disconnect(nowait=True)
            raise
        self._tasks = [
            asyncio.create_task(self._read(), name="telex.channels.redis"),
            asyncio.create_task(self._write(), name="telex.channels.redis.write"),
        ]

    async def close(self) -> None:
        """Disconnect."""
        # Discards unsent data: closing would wait until the lost server accepts it, possibly for ever.
        if self._failure is not None or self._waiting:
            self._abort()
        self.fail("the connection was closed")
        try:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            # In a finally block, so that a cancelled close() disconnects too.
            await self._connection.disconnect(nowait=True)

    def _abort(self) -> None:
        # Private: redis-py closes its transport, which waits for what is unsent, and has no public way to abort it.
        writer = getattr(self._connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()

    def send(self, *commands: Command) -> list[asyncio.Future[object]]:
        """Send commands; returns a future for the reply of each.

        :raises BackendUnavailable: the connection is lost.
        """
        if self._failure is not None:
            raise BackendUnavailable(self._failure.detail)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[object]] = [loop.create_future() for _ in commands]
        late_at = loop.time() + self._timeout
        self._waiting.extend(zip(futures, repeat(late_at)))
        # Written by the connection's task, so that a cancelled caller does not interrupt the write.
        self._unsent += self._connection.pack_commands(commands)
        self._has_unsent.set()
        if self._alarm is None:
            self._alarm = loop.call_at(late_at, self._check)
        return futures

    def _check(self) -> None:
        """Fail the connection if the server neither replies nor accepts data within the time-out."""
        self._alarm = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        late_at = max(self._waiting[0][1], self._progress + self._timeout)
        if loop.time() < late_at:
            self._alarm = loop.call_at(late_at, self._check)
        else:
            self.fail(f"no answer in {self._timeout:g} s")

    async def answers(self, futures: Collection[asyncio.Future[object]]) -> list[object]:
        """Wait for replies.

        :raises BrokerRefusal: a reply is an error.
        :raises BackendUnavailable: the connection failed before all replies arrived.
        :raises ResponseError: a command did nothing, because the script is not loaded or as in :data:`REDIRECTED`.
        """
        if len(futures) == 1:
            return [await next(iter(futures))]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes

    async def call(self, *commands: Command) -> list[object]:
        """Send commands and wait for their replies.

        :raises BackendUnavailable: as :meth:`answers`.
        """
        return await self.answers(self.send(*commands))

    async def ping(self) -> None:
        """Check that the server answers and is a primary: a demoted server still accepts publishes.

        :raises BackendUnavailable: it does not answer, or is a replica.
        """
        try:
            [info] = await self.call((b"INFO", b"replication"))
        except BrokerRefusal:
            # Not permitted, but the server answers.
            return
        if b"role:master" not in cast("bytes", info):
            error = Demoted("the server is a replica of another one, or has become one: connect to the primary")
            self.fail(error)
            raise error

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._has_unsent.wait()
                self._has_unsent.clear()
                packed, self._unsent = self._unsent, []
                begun = loop.time()
                await self._connection.send_packed_command(packed, check_health=False)
                if loop.time() - begun > self._timeout / 10:
                    # The write had to wait, so the server has read data. A write that returns at once proves nothing.
                    self._progress = loop.time()
        except Exception as error:
            self.fail(error)

    async def _read(self) -> None:
        budget = YieldBudget()
        try:
            while True:
                try:
                    reply = await self._connection.read_response(
                        disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                    )
                except ResponseError as error:
                    reply = error
                self._take(reply)
                if budget.is_spent():
                    # Reading buffered replies never suspends.
                    await budget.renew()
        except Exception as error:
            self.fail(error)

    def _take(self, reply: object) -> None:
        if self._on_message is not None and isinstance(reply, list) and self._on_message(reply):
            return
        future, _ = self._waiting.popleft()
        self._progress = asyncio.get_running_loop().time()
        if isinstance(reply, ResponseError) and not isinstance(reply, (NoScriptError, *REDIRECTED)):
            # Redis 7 reports the error of a script in the first way, Redis 6 in the second.
            is_demoted = isinstance(reply, ReadOnlyError) or "READONLY" in str(reply)
            reply = (Demoted if is_demoted else BrokerRefusal)(f"Redis refused: {reply}")
            if isinstance(reply, Demoted):
                self.fail(reply)
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
            # Marks the exception as retrieved: the waiting task may have been cancelled.
            future.exception()
        else:
            future.set_result(reply)

    def fail(self, reason: object) -> None:
        """Fail the connection: raise in all tasks that wait for a reply, and call ``on_lost``."""
        if self._failure is not None:
            return
        self._failure = reason if isinstance(reason, Demoted) else BackendUnavailable(f"Redis is lost: {reason}")
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(BackendUnavailable(self._failure.detail))
                future.exception()
        self._waiting.clear()
        self._unsent.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._on_lost is not None:
            self._on_lost(self._failure)
