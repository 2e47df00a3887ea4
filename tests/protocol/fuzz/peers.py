"""Ways to a listener on telex.v1: a socket, the test client, a route of a Multiplex. Each sends and receives frames."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from telex import Telex, WebSocketDisconnect
from telex.exceptions import ConnectionStateError
from telex.testing import AsyncTestClient, AsyncWebSocketTestSession
from tests.contract.servers import Running, ServerKind
from tests.support.live import PATIENCE, connected, serving


class Peer(ABC):
    """One way; :meth:`start` once, then connections one after another."""

    def __init__(self, app: Telex) -> None:
        self.app = app
        self.exits = AsyncExitStack()

    @abstractmethod
    async def start(self) -> None:
        """Serve the app."""

    @abstractmethod
    async def connect(self, path: str) -> None:
        """Begin a connection."""

    @abstractmethod
    async def send(self, frame: dict[str, Any]) -> None:
        """Send a frame; does nothing after the end."""

    @abstractmethod
    async def receive(self) -> dict[str, Any] | None:
        """The next frame; ``None`` after the end."""

    @abstractmethod
    async def close(self, *, abort: bool) -> None:
        """End the connection, as a client that says so or as one that is lost."""

    async def stop(self) -> None:
        """End everything."""
        await self.exits.aclose()


class OnASocket(Peer):
    """A real socket."""

    kind = ServerKind("telex")

    async def start(self) -> None:
        self.running: Running = await self.exits.enter_async_context(serving(self.app, self.kind))

    async def connect(self, path: str) -> None:
        self.exit = AsyncExitStack()
        self.client: ClientConnection = await self.exit.enter_async_context(
            connected(self.running, path, subprotocols=["telex.v1"], ping_interval=None, max_queue=None)
        )

    async def send(self, frame: dict[str, Any]) -> None:
        try:
            await self.client.send(json.dumps(frame))
        except ConnectionClosed:
            await asyncio.sleep(0)

    async def receive(self) -> dict[str, Any] | None:
        try:
            return json.loads(await self.client.recv())  # type: ignore[no-any-return]
        except ConnectionClosed:
            return None

    async def close(self, *, abort: bool) -> None:
        if abort:
            self.client.transport.abort()
        await self.exit.aclose()


class OnUvicorn(OnASocket):
    """The same on stock uvicorn, through ASGI events."""

    kind = ServerKind("uvicorn-websockets")


class InProcess(Peer):
    """The test client."""

    async def start(self) -> None:
        client = AsyncTestClient(self.app, max_queued=10_000, timeout=PATIENCE)
        self.client: AsyncTestClient = await self.exits.enter_async_context(client)

    async def connect(self, path: str) -> None:
        self.session: AsyncWebSocketTestSession = await self.client.websocket_connect(path, ["telex.v1"])

    async def send(self, frame: dict[str, Any]) -> None:
        try:
            await self.session.send(frame)
        except (WebSocketDisconnect, ConnectionStateError):
            await asyncio.sleep(0)

    async def receive(self) -> dict[str, Any] | None:
        try:
            return await self.session.receive_json(timeout=3600)  # type: ignore[no-any-return]
        except WebSocketDisconnect:
            return None

    async def close(self, *, abort: bool) -> None:
        await self.session.aclose()


class OnARoute(OnASocket):
    """A route on a socket of many. Routes follow each other on one socket, until it is lost."""

    def __init__(self, app: Telex) -> None:
        super().__init__(app)
        self.c = 0
        self.is_up = self.is_over = False

    async def connect(self, path: str) -> None:
        if not self.is_up:
            await super().connect("/socket")
            self.is_up, self.c = True, 0
            assert (await super().receive() or {})["type"] == "hello"
        self.c += 1
        self.is_over = False
        await super().send({"type": "open", "c": self.c, "path": path, "credit": 60_000})

    async def send(self, frame: dict[str, Any]) -> None:
        await super().send(frame if frame["type"] == "ping" else {**frame, "c": self.c})

    async def receive(self) -> dict[str, Any] | None:
        if self.is_over:
            return None
        found = await super().receive()
        if found is None:
            return None
        if found["type"] != "pong":
            assert found.pop("c", None) == self.c, found  # nothing of an earlier route
        self.is_over = found["type"] == "closed"
        return None if self.is_over else found

    async def close(self, *, abort: bool) -> None:
        if abort:
            self.is_up = False
            await super().close(abort=True)
        elif not self.is_over:
            await self.send({"type": "close", "code": 1000})

    async def stop(self) -> None:
        if self.is_up:
            await super().close(abort=False)
        await super().stop()
