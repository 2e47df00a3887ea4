"""A raw ASGI app whose paths say what it does: it tests the servers before Telex runs on them."""

from __future__ import annotations

import json

from telex.types import Receive, Scope, Send


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """``/echo`` echoes, ``/offer`` picks the first subprotocol, ``/close/CODE/REASON`` closes, ``/deny`` refuses."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    kind, *rest = scope["path"].strip("/").split("/")
    if kind == "deny":
        await deny(scope, send)
        return
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0] if kind == "offer" else None})
    if kind == "close":
        await send({"type": "websocket.close", "code": int(rest[0]), "reason": rest[1]})
    else:
        await echo(receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        await send({"type": f"lifespan.{phase}.complete"})


async def deny(scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000})
        return
    body = json.dumps({"detail": "members only"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def echo(receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"]})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
