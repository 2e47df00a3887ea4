"""The client of a test connection that speaks ``telex.v1``: what it called, what it answers, and its credit.

It sees each message of the app before the test does, takes what belongs to a call of its own, and leaves the rest to
``receive`` and ``expect``.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from inspect import isawaitable
from typing import Any, Final, NamedTuple

from telex.codecs import Reader, as_validation_error, frame_reader
from telex.exceptions import CallError, WebSocketDisconnect
from telex.protocol.asking import read_data
from telex.protocol.envelope import SUBPROTOCOL
from telex.protocol.frames import Encoded
from telex.protocol.jobs import PARTS_AHEAD
from telex.testing.frames import Error, ErrorBody, Frame, FrameHead, Reply, encode, fields_of, head_of
from telex.testing.matching import disconnect_of, show
from telex.testing.tasks import stop
from telex.types import Message

__all__ = ("FrameClient", "OpenCall")

_SHOWN: Final = 12


class OpenCall:
    """A call of the test without a final frame, or with one that the test has not read."""

    def __init__(self, call_id: int) -> None:
        self.id = call_id
        self.items: deque[FrameHead] = deque()
        self.granted = PARTS_AHEAD
        """The items that the app may still send."""
        self.drops = False
        """Whether its items are of no interest."""
        self.final: FrameHead | None = None
        self.closed: WebSocketDisconnect | None = None
        self.changed: asyncio.Event = asyncio.Event()

    async def next(self) -> FrameHead:
        """The next item, or the final frame.

        :raises WebSocketDisconnect: the connection ended before.
        """
        while not self.items:
            if self.final is not None:
                return self.final
            if self.closed is not None:
                raise WebSocketDisconnect(self.closed.code, self.closed.reason)
            self.changed.clear()
            await self.changed.wait()
        return self.items.popleft()


class _Answerer(NamedTuple):
    read_json: Reader | None
    read_bytes: Reader | None
    answer: Callable[[Any], object]


class FrameClient:
    """The frames of one test connection."""

    def __init__(self, send: Callable[[Encoded], Awaitable[None]], fail: Callable[[BaseException], None]) -> None:
        """``send`` sends a message to the app; ``fail`` takes an exception of a function that answers."""
        self.active: bool = False
        """Whether the app has selected ``telex.v1``."""
        self.hello: dict[str, Any] | None = None
        self.began: asyncio.Event = asyncio.Event()
        """The first frame came, or the end."""
        self.send = send
        self._fail = fail
        self._context = copy_context()
        self._ids = 0
        self._open: dict[int, OpenCall] = {}
        self._credit: float = 0
        self._freed = asyncio.Event()
        self._answerers: list[_Answerer] = []
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._shown: deque[str] = deque(maxlen=_SHOWN)
        self._is_over = False
        self._closed: WebSocketDisconnect | None = None
        self._take_of_route: Callable[[int, Message], bool] | None = None
        self._end_routes: Callable[[WebSocketDisconnect], None] | None = None

    # -- the test's side

    async def begin(self, write: Callable[[int], Encoded]) -> OpenCall:
        """Send a call as soon as there is credit; ``write`` makes its frame."""
        await self._take_credit()
        self._ids += 1
        call = self._open[self._ids] = OpenCall(self._ids)
        call.closed = self._closed
        await self.send(write(self._ids))
        return call

    async def wait_for_first(self) -> None:
        """Wait for the first frame of the app, or the end."""
        await self.began.wait()

    async def notify(self, payload: Encoded) -> None:
        """Send a notify as soon as there is credit."""
        await self._take_credit()
        await self.send(payload)

    def answer(self, kind: Any, function: Callable[[Any], object]) -> None:
        """Let ``function`` answer the calls of the server whose data can be read as ``kind``."""
        self._answerers.insert(0, _Answerer(*frame_reader(kind), function))

    def note(self, event: Message, *, sent: bool) -> None:
        """Keep a message for error texts."""
        if "text" in event or "bytes" in event:
            self._shown.append(f"  {'sent' if sent else 'got '} {show(event)}")

    def transcript(self) -> str:
        """The last messages, for error texts."""
        return "\n".join(("; the last frames:", *self._shown)) if self._shown else ""

    async def aclose(self) -> None:
        """End the functions that still answer."""
        self._is_over = True
        for task in tuple(self._tasks):
            await stop(task)

    def carry(self, take: Callable[[int, Message], bool], end: Callable[[WebSocketDisconnect], None]) -> None:
        """Pass the frames of routes to ``take``, and the end of the connection to ``end``."""
        self._take_of_route, self._end_routes = take, end

    # -- the app's side

    def take(self, event: Message) -> bool:
        """Whether an event of the app is for this client and not for the test."""
        match event["type"]:
            case "websocket.accept":
                self.active = event.get("subprotocol") == SUBPROTOCOL
            case "websocket.close":
                self.end(disconnect_of(event))
            case "websocket.send" if self.active:
                self.note(event, sent=False)
                head = head_of(event)
                is_mine = head is not None and self._route(head, event)
                self.began.set()
                return is_mine
        return False

    def end(self, closed: WebSocketDisconnect) -> None:
        """The connection has ended."""
        self.began.set()
        if self._end_routes is not None:
            self._end_routes(closed)
        self._freed.set()
        self._credit = math.inf
        self._closed = self._closed or closed
        for call in self._open.values():
            call.closed = call.closed or closed
            call.changed.set()

    def _route(self, head: FrameHead, event: Message) -> bool:
        if head.c is not None and self._take_of_route is not None:
            return self._take_of_route(head.c, event)
        match head.type:
            case "hello" if not self.began.is_set():
                self._hello(event)
            case "reply" | "item" | "end" | "error" if head.id in self._open:
                self._deliver(self._open[head.id], head)
            case "call" if head.id is not None:
                return self._asked(head.id, head)
            case "cancel" if head.id in self._answering:
                self._answering[head.id].cancel()
            case "credit":
                self._free(head.n)
            case "ping":
                self._spawn(self._pong())
            case _:
                return False
        return True

    async def _pong(self) -> None:
        await self.send('{"type":"pong"}')

    def _hello(self, event: Message) -> None:
        self.hello = fields_of(event) or {}
        self._credit = self.hello.get("credit", math.inf)

    def _deliver(self, call: OpenCall, head: FrameHead) -> None:
        if head.type == "item":
            call.granted -= 1
            if not call.drops:
                call.items.append(head)
            if call.granted < 0:
                self._fail(AssertionError(f"the app sent an item of the call {call.id} without credit"))
        else:
            call.final = head
            del self._open[call.id]
            self._free(1)
        call.changed.set()

    def _free(self, count: int) -> None:
        self._credit += count
        self._freed.set()

    async def _take_credit(self) -> None:
        while self._credit < 1:
            self._freed.clear()
            await self._freed.wait()
        self._credit -= 1

    # -- calls of the server

    def _asked(self, call_id: int, head: FrameHead) -> bool:
        for each in self._answerers:
            try:
                data = read_data(head.data, head.payload, each.read_json, each.read_bytes)
            except Exception as exc:
                if as_validation_error(exc) is None:
                    raise
                continue
            self._answering[call_id] = self._spawn(self._give_answer(call_id, each.answer, data))
            return True
        return False

    async def _give_answer(self, call_id: int, function: Callable[[Any], object], data: Any) -> None:
        answer: Frame
        try:
            value = function(data)
            answer = Reply(call_id, await value if isawaitable(value) else value)
        except asyncio.CancelledError:
            answer = Error(ErrorBody("cancelled"), call_id)
        except CallError as error:
            answer = Error(ErrorBody(error.code, error.message, data=error.data), call_id)
        except Exception as error:
            self._fail(error)
            answer = Error(ErrorBody("internal"), call_id)
        finally:
            self._answering.pop(call_id, None)
        if not self._is_over:
            await self.send(encode(answer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
