"""Clients that are not read from: what is kept for them is bounded, and their end and their silence are noticed."""

from __future__ import annotations

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from telex import Telex, websocket_stream
from telex.server import Server
from telex.server.connection import Connection
from telex.types import Receive, Scope, Send
from tests.server.apps import attackable, echo, transport_of
from tests.server.conftest import attacked, connected, echoes, running
from tests.server.test_pipelining import OPENING
from tests.support.raw import BINARY, CONTINUATION, PING, PONG, TEXT, RawClient, close_frame, frame

MIB = 1 << 20
OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")]


def compressed(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Deaf:
    """Accepts, and receives nothing before ``release`` is set; then it keeps all that it is told."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.accepted = asyncio.Event()
        self.ended = asyncio.Event()
        self.received: list[bytes | str] = []
        self.code = 0
        self.connection: Connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        transport = transport_of(scope)
        assert isinstance(transport, Connection)
        self.connection = transport
        transport.set_activity(self)
        await send({"type": "websocket.accept"})
        self.accepted.set()
        await self.release.wait()
        while (event := await receive())["type"] == "websocket.receive":
            self.received.append(event.get("text") or event["bytes"])
        self.code = event["code"]

    @property
    def busy(self) -> bool:
        return not self.release.is_set()

    @property
    def waits(self) -> bool:
        return False

    def go_away(self, within: float, retry_after: float) -> bool:
        return False

    def on_end(self, code: int, reason: str) -> None:
        self.ended.set()

    @property
    def kept(self) -> int:
        """Bytes that wait for the application."""
        return self.connection._queued_bytes


@contextlib.asynccontextmanager
async def deaf(**settings: object) -> AsyncIterator[tuple[Server, Deaf]]:
    app = Deaf()
    async with attacked(app, **settings) as server:
        yield server, app
        app.release.set()


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("early", [False, True])
async def test_the_queue_is_bounded_by_inflated_bytes_after_each_message(kind: int, early: bool) -> None:
    size, count = 300_000, 60
    flood = b"".join(frame(kind, compressed(b"%07d" % number * (size // 7)), rsv=4) for number in range(count))
    async with deaf() as (server, app), await RawClient.open(server.port) as client:
        extension = "".join(f"{name}: {value}\r\n" for name, value in OFFER).encode()
        opening = OPENING.replace(b"GET / ", b"GET /deaf ").replace(b"Host:", extension + b"Host:")
        await client.send(opening + (flood if early else b""))
        assert (await client.read_response()).status == 101
        if not early:
            await client.send(flood)
        await app.accepted.wait()
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert app.kept <= MIB + size
        app.release.set()
        await client.send(close_frame(1000))
        assert (await client.read_close()).code == 1000
        await asyncio.wait_for(app.ended.wait(), 9)
    assert [int(message[:7]) for message in app.received] == list(range(count))


async def test_what_follows_postponed_messages_keeps_its_place() -> None:
    big = frame(BINARY, compressed(b"x" * 300_000), rsv=4)
    async with running(echo) as server, await RawClient.open(server.port) as client:
        await client.handshake("/", OFFER)
        await client.send(
            big + frame(TEXT, b"plain") + frame(PING, b"ping") + big
            + frame(TEXT, b"in ", fin=False) + big[:0] + frame(CONTINUATION, b"two") + close_frame(3001)
        )  # fmt: skip
        got = [one for _ in range(6) if (one := await client.read_frame()).opcode != PONG]  # which overtakes
        assert [one.opcode for one in got] == [BINARY, TEXT, BINARY, TEXT, 8]
        assert [got[1].payload, got[3].payload, got[4].payload] == [b"plain", b"in two", b"\x0b\xb9"]


async def test_a_broken_frame_after_postponed_messages_fails_after_them() -> None:
    big = frame(BINARY, compressed(b"x" * 300_000), rsv=4)
    async with attacked(echo) as server, await RawClient.open(server.port) as client:
        await client.handshake("/", OFFER)
        await client.send(big * 3 + frame(3))
        assert [(await client.read_frame()).opcode for _ in range(3)] == [BINARY] * 3
        assert (await client.read_close()).code == 1002


async def test_frames_that_inflate_a_thousandfold_leave_others_their_turn() -> None:
    flood = frame(BINARY, compressed(bytes(MIB - 1)), rsv=4) * 30

    async def attack(client: RawClient) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await client.send(flood)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        transport_of(scope).set_message_handler(lambda _: None)
        await send({"type": "websocket.accept"})
        await receive()

    async with running(app) as server, connected(server.port) as other, contextlib.AsyncExitStack() as stack:
        attacks = []
        for _ in range(5):
            client = await stack.enter_async_context(await RawClient.open(server.port, timeout=60))
            await client.handshake("/sink", OFFER)
            attacks.append(asyncio.create_task(attack(client)))
        took = []
        for _ in range(20):
            began = time.process_time()
            await echoes(other)
            took.append(time.process_time() - began)
        for task in attacks:
            task.cancel()
        await asyncio.gather(*attacks, return_exceptions=True)
    # Thirty of these in one turn take about 100 ms for each attacker.
    assert sorted(took)[10] < 0.2


@pytest.mark.parametrize(("size", "code"), [(1000, None), (1001, 1009), (5000, 1009), (60_000, 1009), (200_000, 1009)])
async def test_frames_with_the_handshake_have_the_same_limits(size: int, code: int | None) -> None:
    async with attacked(echo, max_message_size=1000) as server, await RawClient.open(server.port) as client:
        await client.send(OPENING + frame(TEXT, b"z" * size) + frame(TEXT, b"after"))
        assert (await client.read_response()).status == 101
        first = await client.read_frame()
        if code is None:
            assert first.payload == b"z" * size
            assert (await client.read_frame()).payload == b"after"
        else:
            assert first.payload[:2] == code.to_bytes(2, "big")
            assert await client.read_to_end() == b""


async def test_frames_with_the_handshake_wait_in_the_same_queue() -> None:
    async with deaf(max_queue=4) as (server, app), await RawClient.open(server.port) as client:
        frames = b"".join(frame(BINARY, b"%05d" % number * 1000) for number in range(40))
        await client.send(OPENING.replace(b"GET / ", b"GET /deaf ") + frames + close_frame(1000))
        assert (await client.read_response()).status == 101
        await app.accepted.wait()
        await asyncio.sleep(0.05)
        assert app.kept < 100_000
        app.release.set()
        assert (await client.read_close()).code == 1000
        await asyncio.wait_for(app.ended.wait(), 9)
    assert [int(message[:5]) for message in app.received] == list(range(40))


@pytest.mark.long
@pytest.mark.parametrize("how", ["reset", "close", "half-close", "close frame"])
@pytest.mark.parametrize("settings", [{}, {"ping_interval": None}, {"deflate": False, "idle_timeout": 60.0}], ids=str)
async def test_the_end_of_a_client_whose_queue_is_full_is_noticed(
    how: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telex.server.liveness.INTERVAL", 0.2)
    async with deaf(max_queue=4, **settings) as (server, app), await RawClient.open(server.port) as client:
        await client.handshake("/deaf")
        # More than the kernel's buffers hold keeps the end from arriving: only a probe shows it.
        await client.send(frame(TEXT, b"x" * (500 if how == "half-close" else 5000)) * 50)
        await app.accepted.wait()
        await asyncio.sleep(0.1)
        if how == "close frame":
            await client.send(close_frame(4001))
        if how == "reset":
            client.reset()
        elif how == "half-close":
            client.close_sending()
        else:
            client.socket.close()
        await asyncio.wait_for(app.ended.wait(), 9)
        closed = app.connection.closed_with
        assert closed is not None
        assert closed.code in ({4001, 1006} if how == "close frame" else {1006})


async def emptied(server: Server) -> None:
    """Waits until there is no connection."""
    async with asyncio.timeout(9):
        while server.status.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.long
@pytest.mark.parametrize("settings", [{"ping_interval": 0.3, "ping_timeout": 0.3}, {"idle_timeout": 0.6}], ids=str)
@pytest.mark.parametrize("path", ["/frame", "/"])
async def test_a_client_that_floods_an_echo_and_never_reads_is_let_go(path: str, settings: dict[str, object]) -> None:
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await attackable(scope, receive, send)
        finally:
            if scope["type"] == "websocket":
                gone.set()

    async with running(app, close_timeout=0.3, **settings) as server:
        async with connected(server.port, path, receive_buffer=4096) as client:
            client.timeout = 0.3
            with contextlib.suppress(TimeoutError, ConnectionError):
                while True:
                    await client.send(frame(TEXT, b"y" * 1000) * 10)
            await asyncio.wait_for(gone.wait(), 8)
        await emptied(server)


@pytest.mark.long
async def test_a_slow_reader_that_takes_a_little_is_kept() -> None:
    async with (
        running(echo, ping_interval=1.0, ping_timeout=1.0) as server,
        connected(server.port, receive_buffer=4096) as client,
    ):
        client.timeout = 0.5
        with contextlib.suppress(TimeoutError):
            while True:
                await client.send(frame(BINARY, b"y" * 50_000))
        client.timeout = 5
        began = time.monotonic()
        while time.monotonic() - began < 3:
            await client.read_exactly(8000)
            await asyncio.sleep(0.02)


@pytest.mark.long
async def test_bytes_of_an_unfinished_frame_are_a_sign_of_life() -> None:
    async with running(echo, ping_interval=0.2, ping_timeout=0.2) as server, connected(server.port) as client:
        slow = frame(TEXT, b"u" * 2000)
        for start in range(0, len(slow), 100):
            await client.send(slow[start : start + 100])
            await asyncio.sleep(0.06)  # the whole takes three times as long as silence may
        while (got := await client.read_frame()).opcode == PING:
            pass
        assert got.payload == b"u" * 2000


async def test_an_unfinished_frame_without_more_bytes_is_silence() -> None:
    async with running(echo, ping_interval=0.2, ping_timeout=0.2) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"u" * 2000)[:100])
        assert (await client.read_close()).code == 1011


async def test_a_flood_to_a_stream_that_reads_nothing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    @websocket_stream("/ticks")
    async def ticks() -> AsyncGenerator[str, None]:
        while True:
            yield "tick"
            await asyncio.sleep(0.05)

    async with running(Telex([ticks])) as server, await RawClient.open(server.port) as client:
        await client.send(OPENING.replace(b"GET / ", b"GET /ticks ") + frame(TEXT, b"") * 5000)
        assert (await client.read_response()).status == 101
        assert (await client.read_close()).code == 1003
    assert len([record for record in caplog.records if "the stream does not receive" in record.getMessage()]) == 1
