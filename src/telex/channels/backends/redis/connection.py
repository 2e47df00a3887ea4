"""One connection to Redis that many use at the same time."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from redis.asyncio import Connection
from redis.exceptions import AskError, ClusterDownError, NoScriptError, RedisError, ResponseError, TryAgainError

from telex.channels.delivery.yield_budget import YieldBudget
from telex.exceptions import BackendUnavailable

__all__ = ("REDIRECTED", "Link")

REDIRECTED: Final = (AskError, TryAgainError, ClusterDownError)
"""What a node of a cluster answers when it did nothing: the channel is elsewhere (MOVED and ASK), or nowhere yet."""


SMALL: Final = 16_384
"""Bytes of a command that the socket takes at once, unless something waits before it."""


class Link:
    """One connection on which commands are sent without waiting for each other, and answered in order.

    A subscribing connection also hears what nobody asked for; ``on_message`` says whether a reply is of that kind.
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
        self._waiting: deque[asyncio.Future[object]] = deque()
        self._failure: BackendUnavailable | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writers: set[asyncio.Task[None]] = set()

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
        self._reader = asyncio.create_task(self._read(), name="telex.channels.redis")

    async def close(self) -> None:
        """Disconnect."""
        try:
            tasks = [*self._writers] if self._reader is None else [self._reader, *self._writers]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        finally:
            # Also for whoever is cancelled while it waits: nobody else would.
            self._abort()
            await self._connection.disconnect(nowait=True)

    def _abort(self) -> None:
        """Forget what a server that is lost did not take: closing would wait for that, maybe for ever."""
        writer = getattr(self._connection, "_writer", None)
        if self._failure is not None and writer is not None:
            writer.transport.abort()

    async def send(self, *command: str | bytes | int, replies: int = 1) -> list[asyncio.Future[object]]:
        """Send one command; gives a future for each of its replies.

        :raises BackendUnavailable: the connection is lost.
        """
        if self._failure is not None:
            raise BackendUnavailable(self._failure.detail)
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(replies)]
        self._waiting.extend(futures)
        packed = self._connection.pack_command(*command)
        try:
            async with asyncio.timeout(self._timeout):
                if self._writers or sum(map(len, packed)) > SMALL:
                    await asyncio.shield(self._writer_of(packed))
                else:
                    await self._write(packed)
        except TimeoutError as error:
            self._fail(TimeoutError(f"it has taken no data for {self._timeout:g} s"))
            raise BackendUnavailable(f"Redis has taken no data for {self._timeout:g} s") from error
        except (RedisError, OSError) as error:
            self._fail(error)
            raise BackendUnavailable(f"Redis is lost: {error}") from error
        return futures

    async def _write(self, packed: list[bytes]) -> None:
        await self._connection.send_packed_command(packed, check_health=False)

    def _writer_of(self, packed: list[bytes]) -> asyncio.Task[None]:
        """What has to wait is written by a task of the link's: a caller that is cancelled takes nothing with it.

        Else the client library would end the connection that others publish by.
        """
        writer = asyncio.create_task(self._write(packed), name="telex.channels.redis.write")
        self._writers.add(writer)
        writer.add_done_callback(self._written)
        return writer

    def _written(self, writer: asyncio.Task[None]) -> None:
        self._writers.discard(writer)
        if not writer.cancelled() and (error := writer.exception()) is not None:
            self._fail(error)

    async def answers(self, futures: Collection[asyncio.Future[object]]) -> list[object]:
        """Wait for replies.

        :raises BackendUnavailable: they do not come, or one is an error.
        :raises ResponseError: one says that the command did nothing: the script is not loaded, or :data:`REDIRECTED`.
        """
        try:
            async with asyncio.timeout(self._timeout):
                outcomes = await asyncio.gather(*futures, return_exceptions=True)
        except TimeoutError as error:
            self._fail(TimeoutError(f"no answer in {self._timeout:g} s"))
            raise BackendUnavailable(f"Redis did not answer in {self._timeout:g} s") from error
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes

    async def call(self, *command: str | bytes | int, replies: int = 1) -> list[object]:
        """Send one command and wait for its replies.

        :raises BackendUnavailable: as above.
        """
        return await self.answers(await self.send(*command, replies=replies))

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
                    # Reading what has arrived already never waits.
                    await budget.renew()
        except asyncio.CancelledError:
            self._fail(ConnectionError("the connection was closed"))
            raise
        except Exception as error:
            self._fail(error)

    def _take(self, reply: object) -> None:
        if self._on_message is not None and isinstance(reply, list) and self._on_message(reply):
            return
        future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(reply, (NoScriptError, *REDIRECTED)):
            future.set_exception(reply)
        elif isinstance(reply, ResponseError):
            future.set_exception(BackendUnavailable(f"Redis refused: {reply}"))
        else:
            future.set_result(reply)

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None:
            return
        self._failure = BackendUnavailable(f"Redis is lost: {error}")
        for future in self._waiting:
            if not future.done():
                future.set_exception(BackendUnavailable(self._failure.detail))
                # Whoever waited may have been cancelled; nobody needs to look.
                future.exception()
        self._waiting.clear()
        if self._on_lost is not None:
            self._on_lost(self._failure)
