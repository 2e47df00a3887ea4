"""Small ASGI apps for the tests of the test client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from telex.types import ASGIApp, Message, Receive, Scope, Send

Conversation = Callable[[Scope, Receive, Send], Awaitable[None]]

ACCEPT: Message = {"type": "websocket.accept"}


def websocket_app(conversation: Conversation) -> ASGIApp:
    """An app for WebSockets only that runs ``conversation`` after the connect event."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        await conversation(scope, receive, send)

    return app


def sends(*events: Message) -> ASGIApp:
    """An app that sends these events, then reads until the disconnect."""

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        for event in events:
            await send(event)
        await until_disconnect(receive)

    return websocket_app(conversation)


def says(*messages: str | bytes) -> ASGIApp:
    """An app that accepts, and sends these messages."""
    return sends(
        dict(ACCEPT), *({"type": "websocket.send", "text" if isinstance(m, str) else "bytes": m} for m in messages)
    )


def fails_with(error: BaseException, *events: Message) -> ASGIApp:
    """An app that sends these events, then raises ``error``."""

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        for event in events:
            await send(event)
        raise error

    return websocket_app(conversation)


async def until_disconnect(receive: Receive) -> Message:
    """Read events until the disconnect event, and return it."""
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return event


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send(dict(ACCEPT))
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def _silent(scope: Scope, receive: Receive, send: Send) -> None:
    await send(dict(ACCEPT))
    await until_disconnect(receive)


async def _stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, then waits forever."""
    await send(dict(ACCEPT))
    await asyncio.Event().wait()


echo = websocket_app(_echo)
silent = websocket_app(_silent)
stubborn = websocket_app(_stubborn)


async def _cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    """Awaits a task that was cancelled."""
    await send(dict(ACCEPT))
    task = asyncio.create_task(asyncio.Event().wait())
    task.cancel()
    await task


cancels_itself = websocket_app(_cancels_itself)

SENT: list[tuple[object, dict[str, object]]] = [
    ("grüße", {"text": "grüße"}),
    ("", {"text": ""}),
    (b"\x00\xff", {"bytes": b"\x00\xff"}),
    (bytearray(b"a"), {"bytes": b"a"}),
    (memoryview(b"a"), {"bytes": b"a"}),
    ({"a": [1, None]}, {"text": '{"a":[1,null]}'}),
    (None, {"text": "null"}),
    (1.5, {"text": "1.5"}),
    (False, {"text": "false"}),
]
"""Values for ``send``, and their frames."""


def echo_unless_lifespan(app: Lifespanned) -> ASGIApp:
    """An echo beside the lifespan of ``app``."""

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["type"] == "lifespan" else echo)(scope, receive, send)

    return routed


class Lifespanned:
    """An echo app whose lifespan records its phases."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.states: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            self.states.append(scope["state"])
            scope["state"]["count"] += 1
            await echo(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        for phase in ("startup", "shutdown"):
            event = await receive()
            assert event["type"] == f"lifespan.{phase}"
            scope["state"].update(count=1, shared=self)
            self.diary.append(phase)
            await send({"type": f"lifespan.{phase}.complete"})
