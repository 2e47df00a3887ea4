"""The least that can be done on ASGI: a hand-written loop. What a framework adds is what it costs beyond this."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.messages import Move, moved


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


APPS = {"text": text, "json": typed, "routes-10": text, "routes-1000": text}
