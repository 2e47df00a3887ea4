"""The servers, and a client that speaks the frames of telex.v1 by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from telex.types import ASGIApp
from tests.contract.servers import KINDS, ServerKind
from tests.support.live import connected, heard, serving, soon


@pytest.fixture(params=[each for each in KINDS if each.name in {"uvicorn-websockets", "telex"}], ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server, where frames are handled in the frame callback."""
    found: ServerKind = request.param
    return found


class Caller:
    """A client that writes and reads frames by hand, with the foreign ``websockets`` library."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.hello: Any = None
        self._ids = 0

    async def send(self, frame: object) -> None:
        """Send a frame."""
        await self.client.send(json.dumps(frame))

    async def receive(self) -> Any:
        """The next frame; the data of a binary message is under ``bytes``."""
        raw = await heard(self.client)
        if isinstance(raw, str):
            return json.loads(raw)
        end = 4 + int.from_bytes(raw[:4], "big")
        return json.loads(raw[4:end]) | {"bytes": raw[end:]}

    async def begin(self, data: object, **more: object) -> int:
        """Send a call; returns its id."""
        self._ids += 1
        await self.send({"type": "call", "id": self._ids, "data": data, **more})
        return self._ids

    async def call(self, data: object, **more: object) -> Any:
        """The frame that answers a call."""
        call_id = await self.begin(data, **more)
        found = await self.receive()
        assert found["id"] == call_id
        return found

    async def auth(self, token: object) -> Any:
        """The frame that answers a new token."""
        auth_id = await self.begin_auth(token)
        found = await self.receive()
        assert found["id"] == auth_id
        return found

    async def begin_auth(self, token: object) -> int:
        """Send a new token; returns its id."""
        self._ids += 1
        await self.send({"type": "auth", "id": self._ids, "token": token})
        return self._ids

    async def quiet(self) -> None:
        """Fails if a frame comes before the answer to a ping."""
        await self.send({"type": "ping"})
        assert await self.receive() == {"type": "pong"}


@contextlib.asynccontextmanager
async def calling(app: ASGIApp, path: str, kind: ServerKind, **options: Any) -> AsyncIterator[Caller]:
    """A client of ``app`` that has received ``hello``."""
    async with serving(app, kind) as running, connected(running, path, subprotocols=["telex.v1"], **options) as client:
        caller = Caller(client)
        caller.hello = await caller.receive()
        yield caller


async def ended(task: asyncio.Task[object]) -> None:
    """Wait for the end of a task."""
    await soon(asyncio.wait((task,)))
