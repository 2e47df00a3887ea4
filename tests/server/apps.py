"""Plain ASGI apps for the server's tests: no framework, so that only the server is tested."""

from __future__ import annotations

import asyncio

from telex.types import Message, Receive, Scope, Send, Transport


async def lifespan(receive: Receive, send: Send) -> None:
    """Starts and stops without doing anything."""
    while (event := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{event['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def answer_http(send: Send, status: int = 200, body: bytes = b"hello") -> None:
    """One plain HTTP response."""
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", str(len(body)).encode())]}
    )
    await send({"type": "http.response.body", "body": body})


def transport_of(scope: Scope) -> Transport:
    """The fast path of a connection."""
    transport: Transport = scope["extensions"]["telex.transport"]
    return transport


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes through ASGI's events."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "http":
        await answer_http(send)
    else:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})


async def echo_in_frame(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes inside the frame callback."""
    if scope["type"] != "websocket":
        await echo(scope, receive, send)
        return
    await receive()
    transport = transport_of(scope)
    transport.set_message_handler(lambda data: ignore(transport.send(data)))
    await send({"type": "websocket.accept"})
    assert (await receive())["type"] == "websocket.disconnect"


async def echo_without_events(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes through the transport's receive, send and drain."""
    if scope["type"] != "websocket":
        await echo(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    transport = transport_of(scope)
    while (data := await transport.receive()) is not None:
        if not transport.send(data):
            await transport.drain()


def ignore(_: object) -> None:
    """For handlers that need not know whether to drain: the server stops reading by itself."""


ECHOES = {"events": echo, "frame": echo_in_frame, "transport": echo_without_events}


class Recorder:
    """An app that echoes and keeps every event it got; ``disconnected`` is set at the first disconnect."""

    def __init__(self) -> None:
        self.events: list[Message] = []
        self.scopes: list[Scope] = []
        self.disconnected = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        self.scopes.append(scope)
        self.events.append(await receive())
        await send({"type": "websocket.accept"})
        while True:
            event = await receive()
            self.events.append(event)
            if event["type"] == "websocket.disconnect":
                self.disconnected.set()
                return
            await send({**event, "type": "websocket.send"})

    @property
    def end(self) -> tuple[int, str]:
        """Code and reason of the one disconnect event."""
        (event,) = [event for event in self.events if event["type"] == "websocket.disconnect"]
        return event["code"], event["reason"]


async def attackable(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes on ``/`` and ``/frame``; ``/deaf`` never receives, ``/pump`` sends for ever, ``/sleep`` does nothing."""
    if scope["type"] != "websocket" or scope["path"] == "/":
        await echo(scope, receive, send)
        return
    if scope["path"] == "/frame":
        await echo_in_frame(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while scope["path"] == "/pump":
        await send({"type": "websocket.send", "bytes": b"\0" * 65_536})
    await asyncio.sleep(3600)
