"""The least that can be done on ASGI: a hand-written loop. What a framework adds is what it costs beyond this."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.messages import READY, Move, moved
from benchmarks.peers import ROUTE_COUNTS


def text() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})

    return app


def typed() -> Any:
    decode = msgspec.json.Decoder(Move).decode
    encode = msgspec.json.Encoder().encode

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            reply = encode(moved(decode(event["text"])))
            await send({"type": "websocket.send", "text": reply.decode()})

    return app


def fanout() -> Any:
    subscribers: set[Any] = set()

    async def subscribe(receive: Any, send: Any) -> None:
        subscribers.add(send)
        try:
            await send({"type": "websocket.send", "text": READY})
            while (await receive())["type"] == "websocket.receive":
                pass
        finally:
            subscribers.discard(send)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] != "/publish":
            await subscribe(receive, send)
            return
        while (event := await receive())["type"] == "websocket.receive":
            message = {"type": "websocket.send", "text": event["text"]}
            for subscriber in tuple(subscribers):
                await subscriber(message)

    return app


# By hand there is one way to reach many, and one path is as good as another.
APPS = {
    "text": text,
    "json": typed,
    "fanout": fanout,
    "channels": fanout,
    **{f"routes-{count}": text for count in ROUTE_COUNTS},
}
