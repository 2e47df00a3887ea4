"""The page's two ways to stream and receive at once, in all four combinations of handler and task group.

On real servers, and with what the page leaves open: which side accepts, what ends the stream, what is left.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from websockets.asyncio.client import connect

from telex import Telex, WebSocket, send_websocket_stream, websocket, websocket_listener
from telex.types import ASGIApp, Message, Receive, Scope, Send
from tests.contract.servers import KINDS, ServerKind
from tests.support.leaks import no_leaks

Lifespan = Callable[[WebSocket], AbstractAsyncContextManager[None]]
ENDED: list[str] = []


async def numbers() -> AsyncGenerator[int, None]:
    try:
        for number in itertools.count():
            yield number
            await asyncio.sleep(0.01)
    finally:
        ENDED.append("stream")


@asynccontextmanager
async def asyncio_lifespan(socket: WebSocket) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send_websocket_stream(socket, numbers()))
        yield


@asynccontextmanager
async def anyio_lifespan(socket: WebSocket) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send_websocket_stream, socket, numbers())
        yield


@asynccontextmanager
async def eager_lifespan(socket: WebSocket) -> AsyncIterator[None]:
    """The stream accepts first: the listener must work with that."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send_websocket_stream(socket, numbers()))
        await asyncio.sleep(0)
        yield


async def asyncio_handler(socket: WebSocket) -> None:
    async with asyncio.TaskGroup() as tasks:
        streaming = tasks.create_task(send_websocket_stream(socket, numbers()))
        async for message in socket.iter_text():
            await socket.send_text(message)
        streaming.cancel()


async def anyio_handler(socket: WebSocket) -> None:
    async def answer() -> None:
        async for message in socket.iter_text():
            await socket.send_text(message)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        tasks.start_soon(send_websocket_stream, socket, numbers())


def listener_app(lifespan: Lifespan) -> Telex:
    @websocket_listener("/", connection_lifespan=lifespan)
    async def echo(data: str) -> str:
        return data

    return Telex([echo])


def handler_app(handler: Callable[[WebSocket], object]) -> Telex:
    return Telex([websocket("/")(handler)])  # type: ignore[arg-type]


WAYS = {
    "listener-asyncio": listener_app(asyncio_lifespan),
    "listener-anyio": listener_app(anyio_lifespan),
    "listener-eager": listener_app(eager_lifespan),
    "handler-asyncio": handler_app(asyncio_handler),
    "handler-anyio": handler_app(anyio_handler),
}


def hesitating(app: ASGIApp) -> ASGIApp:
    """``app`` behind a middleware that suspends in every receive and send, as some servers do."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        async def hesitating_receive() -> Message:
            await asyncio.sleep(0)
            return await receive()

        async def hesitating_send(event: Message) -> None:
            await asyncio.sleep(0)
            await send(event)

        await app({**scope, "extensions": {}}, hesitating_receive, hesitating_send)

    return middleware


def straight(app: ASGIApp) -> ASGIApp:
    return app


@pytest.mark.parametrize("kind", [one for one in KINDS if one.name in {"uvicorn-websockets", "telex"}], ids=str)
@pytest.mark.parametrize("behind", [straight, hesitating])
@pytest.mark.parametrize("way", WAYS)
async def test_both_directions_run_and_nothing_is_left(
    way: str, behind: Callable[[ASGIApp], ASGIApp], kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    ENDED.clear()
    app = behind(WAYS[way])
    async with (
        kind.loop(app, lifespan="off") as running,
        no_leaks(),
        asyncio.timeout(10),
        connect(running.url()) as client,
    ):
        assert await client.recv() == "0"
        for message in ("a", "b", "c"):
            await client.send(message)
        received = [await client.recv() for _ in range(20)]
    assert [each for each in received if each in {"a", "b", "c"}] == ["a", "b", "c"]
    counted = [int(each) for each in received if each not in {"a", "b", "c"}]
    assert counted == list(range(1, len(counted) + 1))
    assert ENDED == ["stream"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
