"""Channel listeners that tests follow in telex.v1."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed

from telex import Telex, channel_listener
from telex.channels import Channels, Keep
from telex.protocol.envelope import SUBPROTOCOL
from tests.channels.conftest import KEEP, Engine
from tests.contract.servers import Running, ServerKind
from tests.protocol.conftest import Caller
from tests.support.live import connected, serving

TELEX = ServerKind("telex")
HUB: dict[str, Any] = {"arbitrary_channels_allowed": True, "history": {"room:*": Keep(10)}}


@asynccontextmanager
async def site(hub: Channels, kind: ServerKind, *handlers: Any) -> AsyncIterator[Running]:
    app = Telex(list(handlers), plugins=[hub], allowed_origins=["*"])
    async with app.lifespan(), serving(app, kind) as running:
        yield running


@asynccontextmanager
async def following(running: Running, path: str = "/", **options: Any) -> AsyncIterator[tuple[Caller, Any]]:
    """A client that speaks telex.v1, and its ``subscribed`` frame."""
    async with connected(running, path, subprotocols=[SUBPROTOCOL], **options) as client:
        caller = Caller(client)
        assert (await caller.receive())["type"] == "hello"
        begin = await caller.receive()
        assert begin["type"] == "subscribed"
        yield caller, begin


async def rest(caller: Caller) -> tuple[list[Any], int]:
    """The frames until the server closes, and its code."""
    frames: list[Any] = []
    try:
        while True:
            frames.append(await caller.receive())
    except ConnectionClosed as closed:
        return frames, closed.rcvd.code if closed.rcvd else 1006


def on(engine: Engine, **options: Any) -> Channels:
    return Channels(engine.new_backend(), **{"arbitrary_channels_allowed": True, "history": KEEP, **options})


def room(**options: Any) -> Any:
    return channel_listener("/{name:str}", channel=lambda name: name, **options)
