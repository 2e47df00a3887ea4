"""A stream beside a handler that fails does not cut the cleanup of a message that was answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from telex import Provide, Telex, WebSocket, websocket_listener
from tests.contract.servers import ServerKind
from tests.support.live import PATIENCE, connected, serving
from tests.support.peer import Peer, scope


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("turns", [0, 1, 2, None], ids=["before", "one turn before", "two turns before", "during"])
@pytest.mark.parametrize("kind", ["telex", "uvicorn-websockets", "uvicorn-wsproto"])
async def test_a_failing_stream_does_not_cut_the_cleanup_of_an_answered_message(
    kind: str, turns: int | None, concurrency: int, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[str] = []
    fail, failing, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def resource() -> AsyncIterator[str]:
        try:
            yield "it"
        finally:
            if turns is None:
                fail.set()
                await asyncio.wait_for(failing.wait(), PATIENCE)
            for _ in range(10):
                await asyncio.sleep(0)
            notes.append("cleaned up")

    async def broken() -> AsyncGenerator[str, None]:
        await fail.wait()
        failing.set()
        if failing.is_set():
            raise LookupError("broken stream")
        yield "never"

    async def connection() -> AsyncIterator[str]:
        try:
            yield "connection"
        finally:
            notes.append("closed")
            closed.set()

    dependencies = {"resource": Provide(resource, scope="message"), "connection": Provide(connection)}

    @websocket_listener("/", dependencies=dependencies, max_concurrency=concurrency)
    async def handler(data: str, socket: WebSocket, resource: str, connection: str) -> None:
        socket.start_stream(broken())
        await socket.send_text("answer")
        await asyncio.sleep(0)  # the stream waits now
        if turns is not None:
            fail.set()
            for _ in range(turns):
                await asyncio.sleep(0)

    async with serving(Telex([handler]), ServerKind(kind)) as server, connected(server) as client:
        await client.send("go")
        assert await asyncio.wait_for(client.recv(), PATIENCE) == "answer"
        await asyncio.wait_for(client.wait_closed(), PATIENCE)
        await asyncio.wait_for(closed.wait(), PATIENCE)
    assert client.close_code == 1011
    assert notes == ["cleaned up", "closed"]
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "broken stream" in str(record.exc_info and record.exc_info[1])


@pytest.mark.parametrize("beside", ["stream", "message"])
async def test_a_cancellation_by_the_server_hides_no_failure(beside: str, caplog: pytest.LogCaptureFixture) -> None:
    begun, fail = asyncio.Event(), asyncio.Event()

    async def broken() -> AsyncGenerator[str, None]:
        begun.set()
        await fail.wait()
        if fail.is_set():
            raise LookupError("broken")
        yield "never"

    @websocket_listener("/", max_concurrency=2)
    async def handler(data: str, socket: WebSocket) -> None:
        if beside == "stream":
            socket.start_stream(broken())
        else:
            async for _ in broken():
                pass

    peer = Peer()
    peer.tell("go")
    serving_one = asyncio.create_task(Telex([handler])(scope(), peer.receive, peer.send))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    fail.set()
    await asyncio.sleep(0)
    serving_one.cancel()
    await asyncio.wait_for(asyncio.wait([serving_one]), PATIENCE)
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "broken" in str(record.exc_info and record.exc_info[1])
