"""The drain of Telex's server, as handlers see it: idle connections are closed at once, busy ones may finish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest
import websockets

from telex import Telex, WebSocket, websocket, websocket_listener, websocket_stream
from tests.server.conftest import running


async def test_a_drain_closes_idle_connections_and_lets_busy_ones_finish() -> None:
    finish, working = asyncio.Event(), asyncio.Semaphore(0)

    @websocket_listener("/echo")
    async def echo(data: str) -> str:
        return data

    @websocket_listener("/sync")
    def echo_inline(data: str) -> str:
        return data

    @websocket("/raw")
    async def loop(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    @websocket_listener("/work")
    async def work(data: str) -> str:
        working.release()
        await finish.wait()
        return data

    @websocket_stream("/stream")
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        working.release()
        await finish.wait()
        yield 2

    app = Telex([echo, echo_inline, loop, work, stream])
    async with running(app, drain_interval=0.02, drain_timeout=8.0) as server:
        url = f"ws://127.0.0.1:{server.port}"
        waiting = [await websockets.connect(f"{url}{path}") for path in ("/echo", "/sync", "/raw")]
        for each in waiting:
            await each.send("x")
            assert await asyncio.wait_for(each.recv(), 9) == "x"
        async with websockets.connect(f"{url}/work") as at_work, websockets.connect(f"{url}/stream") as streaming:
            await at_work.send("done")
            assert await asyncio.wait_for(streaming.recv(), 9) == "1"
            for _ in range(2):
                await asyncio.wait_for(working.acquire(), 9)
            await watched(app, busy=2)
            server.stop()
            for each in waiting:
                with pytest.raises(websockets.ConnectionClosed):
                    await asyncio.wait_for(each.recv(), 9)
                assert each.close_code == 1012
            assert len(app.connections) == 2
            finish.set()
            assert await asyncio.wait_for(at_work.recv(), 9) == "done"
            assert await asyncio.wait_for(streaming.recv(), 9) == "2"
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(at_work.recv(), 9)
            assert at_work.close_code == 1012


async def watched(app: Telex, busy: int) -> None:
    """Wait until Telex reads ahead on ``busy`` connections, which then look idle to a server that does not ask."""
    until = time.monotonic() + 5
    while sum(socket.event_reader.reads_ahead for socket in app.connections) < busy:
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
