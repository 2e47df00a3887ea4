"""The servers themselves, with a raw ASGI app and a foreign client."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from telex.types import Receive, Scope, Send
from tests.contract.apps import echo, lifespan, plain
from tests.contract.servers import ServerKind
from tests.support.leaks import no_leaks
from tests.support.limits import rss_of_tree
from tests.support.raw import PING, PONG, TEXT, Close, Frame, RawClient, close_frame, frame

APP = "tests.contract.apps:plain"


@pytest.mark.program
async def test_a_process_serves_and_stops(server: ServerKind) -> None:
    async with server.process(APP) as running:
        assert running.pid is not None
        assert rss_of_tree(running.pid) > 1 << 20
        async with connect(running.url("/echo")) as client:
            for message in ("text", b"bytes", "grüße 🙂", "x" * 200_000):
                await client.send(message)
                assert await asyncio.wait_for(client.recv(), 9) == message
        async with connect(running.url("/offer"), subprotocols=[Subprotocol("two"), Subprotocol("one")]) as client:
            assert client.subprotocol == "two"
        async with connect(running.url("/close/4001/enough")) as client:
            with pytest.raises(ConnectionClosed) as caught:
                await asyncio.wait_for(client.recv(), 9)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
        with pytest.raises(InvalidStatus) as refused:
            await connect(running.url("/deny")).__aenter__()
        assert refused.value.response.status_code in {401, 403}
    assert "Traceback" not in running.log()


async def test_an_app_object_is_served_in_the_loop(loop_server: ServerKind) -> None:
    async with loop_server.loop(plain) as running, connect(running.url("/echo")) as client:
        await client.send("here")
        assert await asyncio.wait_for(client.recv(), 9) == "here"


async def test_the_app_learns_that_a_client_vanished(loop_server: ServerKind) -> None:
    vanished = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        await echo(receive, send)
        vanished.set()

    async with loop_server.loop(app) as running, no_leaks():
        client = await RawClient.open(running.port)
        assert (await client.handshake()).status == 101
        client.reset()
        await asyncio.wait_for(vanished.wait(), 9)


async def test_the_raw_client_speaks_the_protocol(loop_server: ServerKind) -> None:
    async with loop_server.loop(plain) as running, await RawClient.open(running.port) as client:
        response = await client.handshake("/echo")
        assert response.status == 101
        await client.send(frame(TEXT, b"hel", fin=False) + frame(PING, b"?") + frame(0, b"lo"))
        assert {(await client.read_frame()), (await client.read_frame())} == {Frame(PONG, b"?"), Frame(TEXT, b"hello")}
        await client.send(close_frame(1000, b"bye"))
        assert (await client.read_close()).code == 1000
        assert await client.read_to_end() == b""


async def test_the_raw_client_may_break_the_protocol(loop_server: ServerKind) -> None:
    async with loop_server.loop(plain) as running, await RawClient.open(running.port) as client:
        await client.handshake("/echo")
        await client.send(frame(TEXT, b"hello", mask=None))
        assert (await client.read_close()).code in {1002, 1006}


async def test_a_close_frame_is_read(loop_server: ServerKind) -> None:
    async with loop_server.loop(plain) as running, await RawClient.open(running.port) as client:
        await client.handshake("/close/4321/so")
        assert await client.read_close() == Close(4321, "so")
