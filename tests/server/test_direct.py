"""``Transport.open_direct``: the sender itself, as long as nothing is unusual, and not a moment longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import websockets

from telex.server import Server
from telex.types import DirectSend, Receive, Scope, Send, Transport
from tests.server.apps import echo, transport_of
from tests.server.conftest import connected, echoes, running
from tests.support.raw import BINARY, PING, PONG, TEXT, close_frame, frame


class Accepted:
    """Accepts, echoes, and hands its transport out."""

    def __init__(self) -> None:
        self.transports: asyncio.Queue[Transport] = asyncio.Queue()
        self.before_echo: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        transport = transport_of(scope)
        self.transports.put_nowait(transport)
        while (data := await transport.receive()) is not None:
            self.before_echo()
            if not transport.send(data):
                await transport.drain()

    async def transport(self) -> Transport:
        async with asyncio.timeout(9):
            return await self.transports.get()


class Ends:
    """Counts the calls of ``on_end``."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@asynccontextmanager
async def accepting() -> AsyncIterator[tuple[Accepted, Server]]:
    app = Accepted()
    async with running(app) as server:
        yield app, server


def opened(transport: Transport, on_end: Callable[[], None]) -> DirectSend:
    for _ in range(20):
        # A connection that says little has none yet.
        direct = transport.open_direct(on_end)
        if direct is not None:
            return direct
    raise AssertionError("it was never the moment")


async def test_messages_reach_a_foreign_client() -> None:
    async with accepting() as (app, server), websockets.connect(f"ws://127.0.0.1:{server.port}/") as client:
        direct = opened(await app.transport(), Ends())
        for text in ("", "hello", "ü€😀" * 50, "x" * direct.limit):
            direct.send(TEXT, text.encode())
            assert await client.recv() == text
        direct.send(BINARY, b"\x00\xff")
        assert await client.recv() == b"\x00\xff"


async def test_it_is_not_for_what_is_to_be_compressed() -> None:
    async with accepting() as (app, server), websockets.connect(f"ws://127.0.0.1:{server.port}/") as client:
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]  # type: ignore[union-attr]
        compressing = opened(await app.transport(), Ends())
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/", compression=None):
            assert compressing.limit < opened(await app.transport(), Ends()).limit


async def test_replies_that_gather_end_it_and_come_before_what_follows() -> None:
    async with accepting() as (app, server), connected(server.port) as client:
        transport, ends, again = await app.transport(), Ends(), Ends()
        opened(transport, ends)
        later: list[DirectSend | None] = []

        def in_between() -> None:
            assert ends.count == 1
            later.append(transport.open_direct(again))
            transport.close_direct(again)

        app.before_echo = in_between
        await client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(3)) + frame(PING))
        got = [await client.read_frame() for _ in range(4)]
        assert sorted(each.payload for each in got if each.opcode != PONG) == [b"0", b"1", b"2"]
        app.before_echo = lambda: None
        await echoes(client)
        assert None in later
        opened(transport, again).send(TEXT, b"after")
        assert (await client.read_frame()).payload == b"after"


async def test_a_client_that_does_not_read_ends_it() -> None:
    async with accepting() as (app, server), connected(server.port, receive_buffer=4096) as client:
        transport, ends = await app.transport(), Ends()
        direct, sent = opened(transport, ends), 0
        while not ends.count:
            direct.send(BINARY, b"%08d" % sent + bytes(8000))
            sent += 1
        assert transport.open_direct(ends) is None
        for number in range(sent):
            assert (await client.read_frame()).payload.startswith(b"%08d" % number)
        async with asyncio.timeout(9):
            await transport.drain()
        opened(transport, ends).send(BINARY, b"again")
        assert (await client.read_frame()).payload == b"again"
        assert ends.count == 1


async def test_the_end_of_the_connection_ends_it() -> None:
    async with accepting() as (app, server):
        ended = asyncio.Event()
        async with connected(server.port) as client:
            transport, forgotten = await app.transport(), Ends()
            opened(transport, ended.set)
            opened(transport, forgotten)
            transport.close_direct(forgotten)
            transport.close_direct(forgotten)
            await client.send(close_frame(1000))
            assert (await client.read_close()).code == 1000
        async with asyncio.timeout(9):
            await ended.wait()
        assert transport.open_direct(forgotten) is None
        assert forgotten.count == 0


async def test_a_client_that_vanishes_ends_it() -> None:
    async with accepting() as (app, server):
        ended = asyncio.Event()
        async with connected(server.port) as client:
            direct = opened(await app.transport(), ended.set)
            client.reset()
            async with asyncio.timeout(9):
                while not ended.is_set():
                    direct.send(TEXT, b"anybody?")
                    await asyncio.sleep(0)


async def test_a_connection_that_says_little_has_no_sender_of_its_own() -> None:
    async with accepting() as (app, server), connected(server.port) as client:
        transport, ends = await app.transport(), Ends()
        for _ in range(3):
            await echoes(client)
        assert transport.open_direct(ends) is None
        opened(transport, ends).send(TEXT, b"much to say")
        assert (await client.read_frame()).payload == b"much to say"


async def test_silence_takes_the_sender_back_unless_somebody_uses_it() -> None:
    app = Accepted()
    async with running(app, ping_interval=0.05) as server, connected(server.port) as client:
        transport, ends = await app.transport(), Ends()
        direct = opened(transport, ends)
        assert (await client.read_frame()).opcode == PING
        direct.send(TEXT, b"in use")
        assert (await client.read_frame()).payload == b"in use"
        transport.close_direct(ends)
        await client.send(frame(PONG))
        while (await client.read_frame()).opcode != PING:
            pass
        assert transport.open_direct(ends) is None
        await echoes(client)
        assert ends.count == 0
