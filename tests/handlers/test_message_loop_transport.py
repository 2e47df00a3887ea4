"""Listeners on a server that offers ``telex.transport``, played by a script: what no real client can time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from telex import Telex, WebSocketException, websocket_listener
from telex.types import Transport as Offered
from tests.support.live import soon
from tests.support.peer import Peer, scope


class Transport:
    """The server's side of the fast path. Messages wait in a queue while no handler is installed."""

    def __init__(self) -> None:
        self.waiting: deque[str | bytes] = deque()
        self.sent: list[str | bytes] = []
        self.handler: Callable[[str | bytes], None] | None = None
        self.installed = asyncio.Event()
        self.arrived = asyncio.Event()
        self.peer = Peer()
        self.broken = False
        self.full = False
        self.drained = 0

    def scope(self) -> Any:
        return scope(extensions={"websocket.http.response": {}, "telex.transport": self})

    @property
    def unread(self) -> int:
        return len(self.waiting)

    @property
    def unsent(self) -> int:
        return 0

    def set_message_handler(self, handler: Callable[[str | bytes], None] | None) -> None:
        self.handler = handler
        while self.waiting and self.handler is not None:
            self.handler(self.waiting.popleft())
        if self.handler is not None:
            self.installed.set()

    def hand_over(self, data: str | bytes) -> None:
        self.handler = None
        self.waiting.appendleft(data)
        self.arrived.set()

    def tell(self, *messages: str | bytes) -> None:
        for message in messages:
            if self.handler is not None:
                self.handler(message)
            else:
                self.waiting.append(message)
                self.arrived.set()

    def leave(self, code: int = 1001) -> None:
        self.peer.leave(code)
        self.left = True
        self.arrived.set()

    left = False

    async def receive(self) -> str | bytes | None:
        while True:
            if self.waiting and self.handler is None:
                return self.waiting.popleft()
            if self.left:
                return None
            self.arrived.clear()
            await self.arrived.wait()

    def set_activity(self, activity: object) -> None:
        self.activity = activity

    def send(self, data: str | bytes) -> bool:
        if self.broken:
            raise OSError("gone")
        self.sent.append(data)
        return not self.full

    def open_direct(self, on_end: Callable[[], None]) -> None:
        """It is never the moment."""

    def close_direct(self, on_end: Callable[[], None]) -> None: ...

    async def drain(self) -> None:
        self.drained += 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 as it is about turns of the loop
            await asyncio.sleep(0)


def sync(data: int) -> int | None:
    if data == 13:
        raise KeyError
    return data * 2 if data else None


async def coroutine(data: int) -> int | None:
    await asyncio.sleep(0)
    return sync(data)


def wide(data: str) -> int | None:
    if data.startswith("fail"):
        raise KeyError
    return None if data.startswith("quiet") else len(data)


async def wide_async(data: str) -> int | None:
    return wide(data)


def app(fn: Any, **options: Any) -> Telex:
    handlers: Any = {KeyError: lambda socket, exc: "recovered"}
    return Telex([websocket_listener("/", exception_handlers=handlers, **options)(fn)])


def as_offered(transport: Transport) -> Offered:
    """The script is what servers offer: the type checker holds it to that."""
    return transport


def start(made: Telex, transport: Transport) -> asyncio.Task[None]:
    async def serve() -> None:
        assert as_offered(transport) is transport
        await made(transport.scope(), transport.peer.receive, transport.peer.send)

    return asyncio.create_task(serve())


@pytest.mark.parametrize("fn", [sync, coroutine])
async def test_messages_troubles_and_the_end(fn: Any) -> None:
    transport = Transport()
    task = start(app(fn), transport)
    transport.tell("1", "x", "2", "13", b"ignored", "0", "{", "3")
    await until(lambda: len(transport.sent) == 6)
    assert [each for each in transport.sent if "error" not in str(each)] == ["2", "4", "recovered", "6"]
    transport.tell("4")
    await until(lambda: len(transport.sent) == 7)
    assert transport.sent[-1] == "8"
    transport.leave()
    await soon(task)
    assert transport.peer.kinds == ["websocket.accept"]


@pytest.mark.parametrize("fn", [wide, wide_async])
async def test_large_messages_are_handed_over(fn: Any) -> None:
    transport = Transport()
    task = start(app(fn, max_message_size=100), transport)
    await until(lambda: transport.handler is not None or fn is wide_async)
    for message in ("a" * 50, "quiet" * 10, "fail" * 10, "b" * 60):
        transport.tell(message)
    await until(lambda: len(transport.sent) == 3)
    assert transport.sent == ["50", "recovered", "60"]
    transport.tell("c" * 101)
    await soon(task)
    assert transport.peer.sent[-1]["code"] == 1009


async def test_ten_invalid_messages_close_in_the_callback_too() -> None:
    transport = Transport()
    task = start(app(sync, max_invalid_messages=2), transport)
    transport.tell("x", "1", "x", "x")
    await soon(task)
    assert transport.peer.sent[-1]["code"] == 1007
    assert len(transport.sent) == 4


@pytest.mark.parametrize("fn", [sync, coroutine])
async def test_a_connection_that_is_lost_while_answering(fn: Any) -> None:
    codes: list[int] = []

    def on_disconnect(close_code: int) -> None:
        codes.append(close_code)

    transport = Transport()
    transport.broken = True
    task = start(app(fn, on_disconnect=on_disconnect), transport)
    transport.tell("1")
    await soon(task)
    assert codes == [1006]
    assert transport.peer.kinds == ["websocket.accept"]


async def test_a_reply_that_cannot_be_written_closes_1011() -> None:
    def wrong(data: int) -> str:
        return data  # type: ignore[return-value]

    transport = Transport()
    task = start(app(wrong), transport)
    await until(lambda: transport.handler is not None)
    transport.tell("1")
    await soon(task)
    assert transport.peer.sent[-1]["code"] == 1011


async def test_a_full_transport_is_drained_before_the_next_message() -> None:
    transport = Transport()
    transport.full = True
    task = start(app(coroutine), transport)
    transport.tell("1", "2")
    await until(lambda: transport.drained == 2)
    transport.leave()
    await soon(task)


@pytest.mark.parametrize("fn", [sync, coroutine])
async def test_a_cancellation_from_outside_ends_the_connection_and_runs_its_hook(fn: Any) -> None:
    ended: list[int] = []

    def on_disconnect(close_code: int) -> None:
        ended.append(close_code)

    transport = Transport()
    task = start(app(fn, on_disconnect=on_disconnect), transport)
    transport.tell("1")
    await until(lambda: len(transport.sent) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert len(ended) == 1


async def test_a_cancellation_in_the_same_turn_as_a_trouble_counts() -> None:
    transport = Transport()
    task = start(app(sync), transport)
    await until(lambda: transport.handler is not None)
    await asyncio.sleep(0)
    transport.tell("x")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)


async def test_what_the_socket_sends_itself_meets_a_lost_connection() -> None:
    seen: list[str] = []

    async def push(data: str, socket: Any) -> None:
        transport.full, transport.broken = data == "full", data == "broken"
        try:
            await socket.send_text(data)
        except WebSocketException as exc:
            seen.append(type(exc).__name__)

    push.__annotations__["socket"] = Any
    transport = Transport()
    task = start(app(push), transport)
    transport.tell("full")
    await until(lambda: transport.drained == 1)
    transport.tell("broken")
    await soon(task)
    assert seen == ["WebSocketDisconnect"]


async def test_a_handler_that_closes_ends_the_callback() -> None:
    def refuse(data: int) -> None:
        raise WebSocketException(4001, "no")

    transport = Transport()
    task = start(app(refuse), transport)
    await until(lambda: transport.handler is not None)
    transport.tell("1", "2")
    await soon(task)
    assert transport.peer.sent[-1] == {"type": "websocket.close", "code": 4001, "reason": "no"}
