"""The live connections of an app, and their end in batches."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest

from telex import Telex, WebSocket, websocket, websocket_listener
from telex import registry as module
from telex.registry import Registry
from tests.support.live import asked, connected, ending, serving, soon
from tests.support.peer import Peer, scope


async def test_it_knows_the_connections_that_live() -> None:
    @websocket_listener("/")
    async def listen(data: str, socket: WebSocket) -> int:
        assert socket in socket.app.connections
        assert list(socket.app.connections).count(socket) == 1
        return len(socket.app.connections)

    app = Telex([listen])
    async with serving(app) as running, connected(running) as first, connected(running) as second:
        assert await asked(first, "x") == "2"
        assert await asked(second, "x") == "2"
    assert len(app.connections) == 0


async def test_drain_closes_all_in_batches_and_ends_their_handlers() -> None:
    cancelled: list[bool] = []
    began = asyncio.Semaphore(0)

    @websocket("/")
    async def busy(socket: WebSocket) -> None:
        await socket.accept()
        began.release()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    app = Telex([busy])
    async with serving(app) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(running)) for _ in range(3)]
        for _ in clients:
            await soon(began.acquire())
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await app.connections.drain(batch=2, interval=0.05) == 3
        assert loop.time() - started >= 0.05
        assert [await ending(client) for client in clients] == [(1012, "service restart")] * 3
    assert cancelled == [True] * 3


async def test_drain_sends_the_given_code_and_reason() -> None:
    assert await Registry().drain() == 0

    @websocket_listener("/")
    async def listen(data: str) -> str:
        return data

    app = Telex([listen])
    async with serving(app) as running, connected(running) as client:
        assert await asked(client, "x") == "x"
        assert await app.connections.drain(code=1001, reason="bye") == 1
        assert await ending(client) == (1001, "bye")


async def test_a_client_that_does_not_read_its_close_frame_delays_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(Peer):
        async def send(self, event: object) -> None:
            if len(self.sent) == 1:
                await asyncio.Event().wait()
            await super().send(event)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "CLOSE_WITHIN", 0.02)
    stuck, fine = Stuck(), Peer()
    registry = Registry()
    sockets: list[WebSocket] = [WebSocket(scope(), peer.receive, peer.send) for peer in (stuck, fine)]
    for socket in sockets:
        await socket.accept()
        registry.add(socket)
    with caplog.at_level(logging.WARNING, "telex"):
        assert await soon(registry.drain()) == 2
    assert fine.kinds[-1] == "websocket.close"
    assert "the close frame of a connection could not be sent" in caplog.text
    assert [socket.is_open for socket in sockets] == [False, False]
