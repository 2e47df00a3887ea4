"""Clients that go quiet, vanish or do not let go."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from telex.server.settings import App
from telex.types import Receive, Scope, Send
from tests.server.apps import Recorder, echo, transport_of
from tests.server.conftest import attacked, connected, echoes, running
from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, RawClient, close_frame, frame


async def test_a_client_that_does_not_pong_is_closed() -> None:
    app = Recorder()
    async with running(app, ping_interval=0.2, ping_timeout=0.2) as server:
        began = time.monotonic()
        async with connected(server.port) as client:
            assert (await client.read_frame()).opcode == PING
            assert (await client.read_close()).code == 1011
            await asyncio.wait_for(app.disconnected.wait(), 9)
            assert time.monotonic() - began > 0.35
            assert await client.read_to_end() == b""
    assert app.end == (1011, "keepalive ping timeout")


async def test_a_client_that_neither_reads_nor_pongs_is_closed() -> None:
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 60_000})
        gone.set()

    settings = {"ping_interval": 0.2, "ping_timeout": 0.2, "close_timeout": 0.2}
    async with running(app, **settings) as server, connected(server.port, receive_buffer=4096):
        await asyncio.wait_for(gone.wait(), 9)


@pytest.mark.long
async def test_pongs_keep_a_quiet_client() -> None:
    async with running(echo, ping_interval=0.1, ping_timeout=0.2) as server, connected(server.port) as client:
        for _ in range(5):
            ping = await client.read_frame()
            assert ping.opcode == PING
            await client.send(frame(PONG, ping.payload))
        await echoes(client)


async def test_a_client_whose_pongs_are_not_read_stays_connected() -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await release.wait()
            for _ in range(8):
                event = await receive()
                await send({**event, "type": "websocket.send"})
            await receive()
        else:
            await echo(scope, receive, send)

    settings = {"max_queue": 2, "ping_interval": 0.1, "ping_timeout": 0.1}
    async with running(app, **settings) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"x") * 4)
        await asyncio.sleep(0.5)  # several pings would have been missed
        release.set()
        await client.send(frame(TEXT, b"y") * 4)
        got: list[bytes] = []
        while len(got) < 8:
            one = await client.read_frame()
            if one.opcode == PING:
                await client.send(frame(PONG, one.payload))
            else:
                got.append(one.payload)
    assert got == [b"x"] * 4 + [b"y"] * 4


@pytest.mark.long
async def test_a_client_that_goes_quiet_is_closed() -> None:
    app = Recorder()
    async with running(app, idle_timeout=0.8, ping_interval=None) as server, connected(server.port) as client:
        opened = began = time.monotonic()
        while began < opened + 1.0:
            began = time.monotonic()
            await echoes(client)
            await asyncio.sleep(0.05)
        assert (await client.read_close()).code == 1001
        assert time.monotonic() - began > 0.7
    assert app.end == (1001, "idle timeout")


async def test_a_connection_ends_at_its_maximum_age() -> None:
    async with running(echo, max_lifetime=0.3) as server, connected(server.port) as client:
        got = await client.read_close()
        assert (got.code, got.reason) == (1001, "maximum lifetime reached")


async def closing(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes at once; echoes on ``/``."""
    if scope["type"] != "websocket" or scope["path"] == "/":
        await echo(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4000})


async def test_a_client_that_does_not_answer_the_close() -> None:
    async with attacked(closing, close_timeout=0.3) as server, connected(server.port, "/close") as client:
        began = time.monotonic()
        assert (await client.read_close()).code == 4000
        assert await client.read_to_end() == b""
        assert time.monotonic() - began > 0.2


async def test_a_client_that_talks_on_after_a_failure() -> None:
    async with attacked(echo, close_timeout=0.3) as server, connected(server.port) as client:

        async def talk_on() -> None:
            while True:
                await client.send(frame(TEXT, b"and another thing"))
                await asyncio.sleep(0.01)

        await client.send(frame(3))
        assert (await client.read_close()).code == 1002
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(talk_on(), 9)


@pytest.mark.parametrize(
    "before",
    [b"", frame(TEXT, b"half")[:-2], frame(TEXT, b"x", fin=False), frame(BINARY, b"x" * 500)[:300]],
    ids=["idle", "mid-frame", "mid-message", "mid-frame of 500"],
)
@pytest.mark.parametrize("how", ["half-close", "reset"])
async def test_clients_that_vanish(before: bytes, how: str) -> None:
    app = Recorder()
    async with running(app) as server, connected(server.port) as client:
        await client.send(before)
        if how == "reset":
            client.reset()
        else:
            client.close_sending()
            assert await client.read_to_end() == b""
        await asyncio.wait_for(app.disconnected.wait(), 9)
    assert app.end == (1006, "")


async def test_resets_in_every_stage_leave_nothing_behind(echo_app: App) -> None:
    async with attacked(echo_app) as server:
        for number in range(60):
            client = await RawClient.open(server.port, receive_buffer=4096)
            if number % 4:
                await client.handshake()
            if number % 4 == 2:
                await client.send(frame(TEXT, b"x" * 100_000) * 8)  # echoes that it does not read
            elif number % 4 == 3:
                await client.send(close_frame(1000))
            else:
                await client.send(b"GET / HTTP/1.1\r\nUpgrade: web" if not number % 4 else frame(TEXT, b"y")[:-1])
            client.reset()


async def test_a_client_that_leaves_while_it_is_accepted() -> None:
    outcomes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        outcomes.append((await receive())["type"])
        try:
            await send({"type": "websocket.accept"})
        except OSError:
            outcomes.append("OSError")

    async with attacked(app) as server:
        client = await RawClient.open(server.port)
        request = (
            b"GET /accept HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await client.send(request)
        client.reset()
    assert outcomes == ["websocket.disconnect", "OSError"]


async def test_a_send_that_waits_learns_that_the_client_is_gone() -> None:
    outcome = asyncio.get_running_loop().create_future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        transport = transport_of(scope)
        try:
            while True:
                if not transport.send(b"x" * 50_000):
                    await transport.drain()
        except OSError as error:
            outcome.set_result(error)

    async with attacked(app) as server:
        async with connected(server.port, "/pump", receive_buffer=4096) as client:
            await asyncio.sleep(0.1)
            client.reset()
        assert isinstance(await asyncio.wait_for(outcome, 9), OSError)


async def test_the_close_frame_is_sent_once() -> None:
    async with attacked(closing) as server, connected(server.port, "/close") as client:
        await client.send(close_frame(1000))
        assert (await client.read_frame()).opcode == CLOSE
        assert await client.read_to_end() == b""
