"""Memory and queues under attack, through the public settings."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import zlib
from collections.abc import AsyncIterator

import pytest

from tests.server.apps import Recorder, attackable, echo
from tests.server.conftest import attacked, connected, echoes, running
from tests.server.process import Running, process
from tests.support.limits import peak_rss, rss
from tests.support.raw import BINARY, CONTINUATION, PING, PONG, TEXT, RawClient, frame

MIB = 1 << 20
APP = "tests.server.apps:attackable"
OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]


@contextlib.asynccontextmanager
async def measured(**settings: object) -> AsyncIterator[tuple[Running, int]]:
    """A server under a hard memory limit, its resident memory once warm, and a control client that must survive."""
    async with process(APP, mebibytes=400, log_level="warning", **settings) as server:
        async with connected(server.port) as control:
            await echoes(control, b"w" * 60_000)
            yield server, rss(server.process.pid)
            await echoes(control)
        assert "Traceback" not in server.log()


@pytest.mark.parametrize(("size", "code"), [(4095, None), (4096, None), (4097, 1009)])
@pytest.mark.parametrize("fragments", [1, 2, 7])
async def test_the_message_limit_is_exact(size: int, code: int | None, fragments: int) -> None:
    async with attacked(echo, max_message_size=4096) as server, connected(server.port) as client:
        step = -(-size // fragments)
        parts = [b"x" * min(step, size - start) for start in range(0, size, step)]
        for index, part in enumerate(parts):
            opcode = CONTINUATION if index else BINARY
            await client.send(frame(opcode, part, fin=index == len(parts) - 1))
        if code is None:
            assert len((await client.read_frame()).payload) == size
        else:
            assert (await client.read_close()).code == code


@pytest.mark.parametrize(("count", "code"), [(4095, None), (4096, None), (4097, 1009)])
async def test_the_limit_on_fragments_is_exact(count: int, code: int | None) -> None:
    async with attacked(echo, max_message_size=4096) as server, connected(server.port) as client:
        empty = frame(CONTINUATION, b"", fin=False)
        await client.send(frame(TEXT, b"x", fin=False) + empty * (count - 2) + frame(CONTINUATION))
        if code is None:
            assert (await client.read_frame()).payload == b"x"
        else:
            assert (await client.read_close()).code == code


async def test_a_message_byte_by_byte() -> None:
    async with attacked(echo) as server, connected(server.port) as client:
        for byte in frame(TEXT, b"dribble" * 30):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.read_frame()).payload == b"dribble" * 30


@pytest.mark.program
@pytest.mark.memory
async def test_memory_stays_flat() -> None:
    async with measured() as (server, before):
        async with connected(server.port) as client:  # fragments without end
            part = frame(CONTINUATION, b"x" * 65_536, fin=False)
            with contextlib.suppress(ConnectionError):
                await client.send(frame(BINARY, b"x", fin=False) + part * 64)
            assert (await client.read_close()).code == 1009
        async with connected(server.port) as client:  # a length that is a lie, and a blast behind it
            await client.send(frame(BINARY, claims=1 << 40, length_bytes=8))
            blast = asyncio.create_task(blasted(client, 100 * MIB))
            assert (await client.read_close()).code == 1009
            await blast
        async with connected(server.port) as client:  # a legal message in small pieces
            whole = frame(BINARY, b"d" * (MIB - 1))
            for start in range(0, len(whole), 1024):
                await client.send(whole[start : start + 1024])
            assert len((await client.read_frame()).payload) == MIB - 1
        assert peak_rss(server.process.pid) - before < 12 * MIB


async def blasted(client: RawClient, size: int) -> None:
    """Sends until the server has had enough."""
    block = b"\0" * MIB
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(size // MIB):
            await client.send(block)


@functools.cache
def bomb(size: int, *, whole: bool = True) -> bytes:
    """A deflate stream of so many zero bytes; a fragment that is not the last keeps the end of its block."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed[:-4] if whole else packed


@pytest.mark.program
@pytest.mark.memory
async def test_a_deflate_bomb() -> None:
    async with measured() as (server, before):
        for messages in (
            [frame(BINARY, bomb(200 * MIB), rsv=4)],
            # a fragment that inflates to exactly the limit, then the bomb; one less, one more
            *[
                [frame(BINARY, bomb(MIB + more, whole=False), rsv=4, fin=False), frame(CONTINUATION, bomb(200 * MIB))]
                for more in (-1, 0, 1)
            ],
            # with the window of the message before
            [frame(BINARY, bomb(1000), rsv=4), frame(BINARY, bomb(200 * MIB), rsv=4)],
        ):
            async with await RawClient.open(server.port) as client:
                assert (await client.handshake("/", OFFER)).status == 101
                with contextlib.suppress(ConnectionError):
                    await client.send(b"".join(messages))
                assert (await client.read_close()).code == 1009
        assert peak_rss(server.process.pid) - before < 12 * MIB


@pytest.mark.parametrize("rest", [b"\xff" * MIB, b"\x00\x00", b"x"])
@pytest.mark.parametrize("fragments", [1, 2, 3])
async def test_nothing_is_kept_after_the_end_of_a_compressed_stream(rest: bytes, fragments: int) -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    final = packer.compress(b"end") + packer.flush(zlib.Z_FINISH)
    parts = {1: [final + rest], 2: [final, rest], 3: [final[:1], final[1:], rest]}[fragments]
    async with attacked(echo, max_message_size=2 * MIB) as server, await RawClient.open(server.port) as client:
        assert (await client.handshake("/", OFFER)).status == 101
        for index, part in enumerate(parts):
            opcode = CONTINUATION if index else BINARY
            await client.send(frame(opcode, part, rsv=0 if index else 4, fin=False))
        assert (await client.read_close()).code == 1007


@pytest.mark.parametrize(("more", "code"), [(-1, None), (0, None), (1, 1009)])
async def test_the_limit_after_inflating_is_exact(more: int, code: int | None) -> None:
    async with attacked(echo, max_message_size=5000) as server, await RawClient.open(server.port) as client:
        assert (await client.handshake("/", OFFER)).status == 101
        await client.send(frame(BINARY, bomb(5000 + more), rsv=4))
        if code is None:
            assert (await client.read_frame()).rsv == 4
        else:
            assert (await client.read_close()).code == code


@pytest.mark.program
@pytest.mark.memory
async def test_an_application_that_never_receives() -> None:
    async with measured() as (server, before), connected(server.port, "/deaf") as client:
        client.timeout = 1
        sent = 0
        block = frame(BINARY, b"x" * 65_000)
        with contextlib.suppress(TimeoutError):
            while sent < 250 * MIB:
                await client.send(block)
                sent += len(block)
        # The rest is in the kernel's buffers: TCP pushes back.
        assert sent < 30 * MIB
        assert peak_rss(server.process.pid) - before < 10 * MIB


@pytest.mark.parametrize("messages", [3, 4, 5])
async def test_reading_stops_at_the_queues_length(messages: int) -> None:
    app = Recorder()
    async with running(app, max_queue=4) as server, connected(server.port) as client:
        for number in range(messages):
            await client.send(frame(TEXT, b"%d" % number))
        assert [int((await client.read_frame()).payload) for _ in range(messages)] == list(range(messages))


@pytest.mark.program
@pytest.mark.memory
async def test_a_flood_of_pings_that_reads_no_pong() -> None:
    async with measured() as (server, before), connected(server.port, receive_buffer=4096) as client:
        flood = frame(PING, b"p" * 100) * 1000
        with contextlib.suppress(TimeoutError):
            for _ in range(300):
                await client.send(flood)
        assert peak_rss(server.process.pid) - before < 10 * MIB
        # The answers that came are whole, and the last ping gets one.
        await client.send(frame(PING, b"last"))
        while (got := await client.read_frame()).payload != b"last":
            assert (got.opcode, got.payload) == (PONG, b"p" * 100)


@pytest.mark.program
@pytest.mark.memory
async def test_idle_connections_give_large_buffers_back() -> None:
    settings = {"ping_interval": 0.3, "ping_timeout": 20.0, "max_message_size": 4 * MIB}
    async with measured(**settings) as (server, before), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server.port, "/deaf")) for _ in range(40)]
        for client in clients:
            await client.send(frame(BINARY, b"x" * 64_000 * 8))
        for _ in range(2):  # by the second ping the parser was renewed
            for client in clients:
                ping = await client.read_frame()
                assert ping.opcode == PING
                await client.send(frame(PONG, ping.payload))
        # Half a MiB of message waits for each application; the parser's MiB is gone.
        assert rss(server.process.pid) - before < 40 * MIB


@pytest.mark.long
async def test_idle_connections_still_work_after_their_buffer_shrank() -> None:
    async with attacked(echo, ping_interval=0.1) as server, connected(server.port) as client:
        big = os.urandom(300_000)
        for _ in range(2):
            await client.send(frame(BINARY, big))
            assert (await client.read_frame()).payload == big
            ping = await client.read_frame()
            assert ping.opcode == PING
            await client.send(frame(PONG, ping.payload) + frame(TEXT, b"at once"))
            assert (await client.read_frame()).payload == b"at once"
            ping = await client.read_frame()
            await client.send(frame(PONG, ping.payload))
            await asyncio.sleep(0)


def test_the_attackable_app_is_what_the_process_serves() -> None:
    assert f"{attackable.__module__}:{attackable.__name__}" == APP
