"""Listeners whose clients may send three messages, and handshakes that are limited. Each notes what it takes."""

from __future__ import annotations

from typing import Any

from telex import Router, WebSocket, WebSocketDisconnect, websocket, websocket_listener
from telex.limits import Limit
from tests.contract.subjects.journal import journal

HOUR: Any = {"rate": 1, "per": 3600, "burst": 3}


def on_disconnect(close_code: int) -> None:
    journal.note(f"ended {close_code}")


def take(data: str) -> str:
    journal.note(data)
    return data


async def take_async(data: str) -> str:
    return take(data)


async def take_raw(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(take(await socket.receive_text()))
    except WebSocketDisconnect as left:
        on_disconnect(left.code)


def of(on_exceed: Any) -> Router:
    limit = Limit(**HOUR, on_exceed=on_exceed)
    return Router(
        f"/{on_exceed}",
        route_handlers=[
            websocket_listener("/sync", on_disconnect=on_disconnect)(take),
            websocket_listener("/async", on_disconnect=on_disconnect)(take_async),
            websocket("/raw")(take_raw),
        ],
        message_limit=limit,
    )


def by_header(socket: WebSocket) -> str | None:
    """A key of each test's own: the process serves them all."""
    return socket.headers.get("x-key")


connecting = Limit(**HOUR, key=by_header)
slow = Router(
    "/slow",
    route_handlers=[websocket_listener("/sync")(take), websocket_listener("/async")(take_async)],
    message_limit=Limit(100, burst=10),
)
limits = Router(
    "/limits",
    route_handlers=[
        of("wait"),
        of("reply"),
        of("close"),
        slow,
        websocket_listener("/handshakes", connect_limit=connecting)(take),
        websocket_listener("/open", max_connections_per=(by_header, 1))(take),
    ],
)
