"""FastAPI's WebSocket endpoints with pydantic models, decoded and encoded by pydantic itself: its fastest idiom."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

from benchmarks.messages import READY
from benchmarks.peers import ROUTE, ROUTE_COUNTS


class Move(BaseModel):
    id: int
    player: str
    x: float
    y: float
    tags: list[str]
    urgent: bool = False


class Moved(BaseModel):
    id: int
    player: str
    distance: float
    tags: int


def text() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.websocket("/")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    return app


def typed() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.websocket("/")
    async def move(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                data = Move.model_validate_json(await websocket.receive_text())
                reply = Moved(id=data.id, player=data.player, distance=abs(data.x) + abs(data.y), tags=len(data.tags))
                await websocket.send_text(reply.model_dump_json())
        except WebSocketDisconnect:
            pass

    return app


def fanout() -> FastAPI:
    app = FastAPI(openapi_url=None)
    subscribers: set[WebSocket] = set()

    @app.websocket("/")
    async def subscribe(websocket: WebSocket) -> None:
        await websocket.accept()
        subscribers.add(websocket)
        try:
            await websocket.send_text(READY)
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            subscribers.discard(websocket)

    @app.websocket("/publish")
    async def publish(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                message = await websocket.receive_text()
                for subscriber in tuple(subscribers):
                    await subscriber.send_text(message)
        except WebSocketDisconnect:
            pass

    return app


def routes(count: int) -> FastAPI:
    app = FastAPI(openapi_url=None)

    async def echo(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    for number in range(count):
        app.websocket(ROUTE.format(number, "{name}"))(echo)
    return app


APPS = {
    "text": text,
    "json": typed,
    "fanout": fanout,
    **{f"routes-{count}": partial(routes, count) for count in ROUTE_COUNTS},
}
