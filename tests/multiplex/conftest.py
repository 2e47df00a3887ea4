"""A client that opens routes on one socket, and writes and reads their frames by hand."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from telex.types import ASGIApp
from tests.contract.servers import KINDS, Running, ServerKind
from tests.support.live import connected, heard, serving


@pytest.fixture(params=[each for each in KINDS if each.name in {"uvicorn-websockets", "telex"}], ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server, where frames are handled in the frame callback."""
    found: ServerKind = request.param
    return found


class Route:
    """One route of a :class:`Shared` socket."""

    def __init__(self, shared: Shared, c: int) -> None:
        self.shared = shared
        self.c = c
        self.opened: Any = None
        self._ids = 0

    async def send(self, frame: dict[str, object], data: bytes | None = None) -> None:
        """Send a frame of this route; ``data`` goes behind it."""
        await self.shared.send({**frame, "c": self.c}, data)

    async def receive(self) -> Any:
        """The next frame of this route, without its ``c``."""
        return await self.shared.next_of(self.c)

    async def call(self, data: object, **more: object) -> Any:
        """The frame that answers a call."""
        self._ids += 1
        await self.send({"type": "call", "id": self._ids, "data": data, **more})
        return await self.receive()

    async def notify(self, data: object) -> None:
        """Send a notify."""
        await self.send({"type": "notify", "data": data})

    async def close(self, code: int = 1000, reason: str = "") -> Any:
        """Close the route; returns the frame that ends it."""
        await self.send({"type": "close", "code": code, "reason": reason})
        return await self.receive()


class Shared:
    """A socket that carries routes."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.hello: Any = None
        self.highest = 0
        self._kept: dict[int | None, deque[Any]] = {}

    async def send(self, frame: object, data: bytes | None = None) -> None:
        """Send a frame."""
        text = json.dumps(frame)
        await self.client.send(text if data is None else len(text).to_bytes(4, "big") + text.encode() + data)

    async def receive(self) -> Any:
        """The next frame of the socket, whatever its route."""
        raw = await heard(self.client)
        if isinstance(raw, str):
            return json.loads(raw)
        end = 4 + int.from_bytes(raw[:4], "big")
        return json.loads(raw[4:end]) | {"bytes": raw[end:]}

    async def next_of(self, c: int | None) -> Any:
        """The next frame of a route, or of the socket itself; frames of others are kept."""
        kept = self._kept.setdefault(c, deque())
        while not kept:
            found = await self.receive()
            self._kept.setdefault(found.pop("c", None), deque()).append(found)
        return kept.popleft()

    def kept(self, c: int | None) -> list[Any]:
        """The frames that were read for others."""
        return list(self._kept.get(c, ()))

    async def ask_open(self, path: str, **more: object) -> Route:
        """Send ``open`` with the next number."""
        self.highest += 1
        await self.send({"type": "open", "c": self.highest, "path": path, **more})
        return Route(self, self.highest)

    async def open(self, path: str, **more: object) -> Route:
        """Open a route."""
        route = await self.ask_open(path, **more)
        route.opened = await route.receive()
        assert route.opened["type"] == "opened", route.opened
        return route

    async def refused(self, path: str, **more: object) -> Any:
        """The frame that refuses a route."""
        route = await self.ask_open(path, **more)
        found = await route.receive()
        assert found["type"] == "denied", found
        return found

    async def settle(self) -> None:
        """Wait until the server has read all that was sent."""
        await self.send({"type": "ping"})
        assert await self.next_of(None) == {"type": "pong"}


@contextlib.asynccontextmanager
async def sharing(app: ASGIApp, kind: ServerKind, path: str = "/socket", **options: Any) -> AsyncIterator[Shared]:
    """A socket of ``app`` that has received ``hello``."""
    async with serving(app, kind) as running, joined(running, path, **options) as shared:
        yield shared


@contextlib.asynccontextmanager
async def joined(running: Running, path: str = "/socket", **options: Any) -> AsyncIterator[Shared]:
    """The same on a server that runs."""
    async with connected(running, path, subprotocols=["telex.v1"], **options) as client:
        shared = Shared(client)
        shared.hello = await shared.receive()
        assert shared.hello["type"] == "hello"
        yield shared
