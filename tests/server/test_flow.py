"""Senders and receivers of different speed."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from telex.server.settings import App
from telex.types import Receive, Scope, Send, Transport
from tests.server.apps import attackable, echo, transport_of
from tests.server.conftest import attacked, connected, echoes
from tests.server.process import process
from tests.support.limits import cpu_seconds
from tests.support.raw import BINARY, PING, PONG, TEXT, RawClient, frame

MIB = 1 << 20


async def work_during_echoes(client: RawClient, rounds: int, pid: int | None = None) -> list[float]:
    """The processor time in seconds that the server spent during each of so many round trips, sorted.

    Other load on the machine delays an echo, and does not add to what the server does before it.

    :param pid: the server's process, if it is not this one.
    """
    spent = []
    for _ in range(rounds):
        began = cpu_seconds(pid)
        await echoes(client)
        spent.append(cpu_seconds(pid) - began)
    return sorted(spent)


async def test_a_send_waits_for_a_client_that_does_not_read() -> None:
    sent: list[int] = []
    over = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 10_000})
                sent.append(10_000)
        except OSError:
            over.set()

    async with attacked(app) as server:
        async with connected(server.port, "/pump", receive_buffer=4096):
            before = -1
            while sum(sent) != before:
                before = sum(sent)
                await asyncio.sleep(0.1)
            assert 0 < before < 8 * MIB  # the kernel's buffers and the high-water mark
        await asyncio.wait_for(over.wait(), 9)


async def test_a_broadcast_delays_only_the_slow_client() -> None:
    members: list[Transport] = []
    left: asyncio.Queue[tuple[Transport, int]] = asyncio.Queue()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        member = transport_of(scope)
        members.append(member)
        await send({"type": "websocket.send", "text": "joined"})
        event = await receive()
        assert event["type"] == "websocket.disconnect"
        left.put_nowait((member, event["code"]))

    async with attacked(app, max_write_buffer=2 * MIB) as server, contextlib.AsyncExitStack() as stack:
        slow = await stack.enter_async_context(connected(server.port, "/join", receive_buffer=4096))
        clients = [await stack.enter_async_context(connected(server.port, "/join")) for _ in range(5)]
        for client in (slow, *clients):
            assert (await client.read_frame()).payload == b"joined"
        for number in range(120):
            payload = number.to_bytes(2, "big") * 32_768
            for member in members:
                with contextlib.suppress(OSError):
                    member.send(payload)
            for client in clients:
                assert (await client.read_frame()).payload == payload
        # The client itself sees it only after it has read what the kernel holds for it, 4 KiB at a time.
        assert await asyncio.wait_for(left.get(), 9) == (members[0], 1006)
        assert left.empty()


async def pump(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends for ever, as long as the client is there; echoes on ``/``."""
    with contextlib.suppress(OSError):
        await attackable(scope, receive, send)


@pytest.mark.parametrize("reads", [True, False])
async def test_a_loop_of_sends_does_not_delay_others(reads: bool) -> None:
    async with (
        attacked(pump) as server,
        connected(server.port) as other,
        connected(server.port, "/pump") as client,
    ):
        client.timeout = 60
        reading = asyncio.create_task(client.read_to_end() if reads else asyncio.sleep(0))
        assert (await work_during_echoes(other, 40))[-1] < 0.1
        reading.cancel()
        await asyncio.wait({reading})


async def test_small_sends_without_a_pause_do_not_delay_others() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        transport = transport_of(scope)
        with contextlib.suppress(OSError):
            while True:
                if not transport.send("tick"):
                    await transport.drain()

    async with attacked(app) as server, connected(server.port) as other, connected(server.port, "/ticks") as client:
        client.timeout = 60
        reading = asyncio.create_task(client.read_to_end())
        assert (await work_during_echoes(other, 40))[-1] < 0.1
        reading.cancel()
        await asyncio.wait({reading})


async def test_concurrent_sends_keep_their_order() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        sends = [send({"type": "websocket.send", "bytes": n.to_bytes(2, "big") * 2500}) for n in range(500)]
        await asyncio.gather(*sends)
        await send({"type": "websocket.send", "text": "done"})
        await receive()

    async with attacked(app) as server, connected(server.port, "/sends", receive_buffer=4096) as client:
        await asyncio.sleep(0.1)  # the first sends stall before the client reads
        for number in range(500):
            assert (await client.read_frame()).payload == number.to_bytes(2, "big") * 2500
        assert (await client.read_frame()).payload == b"done"


@pytest.mark.program
@pytest.mark.parametrize("size", [1500, 9000, 70_000])
async def test_frames_stay_whole_when_the_client_stalls(size: int) -> None:
    """Each size takes another way to the socket; replies that wait must not share a buffer with later ones.

    Frames come one by one, so that each reply is written by itself, and are of different sizes, so that one's header
    does not fit the other. On uvloop, whose transport does not copy what it is given.
    """
    count = min(4_500_000 // size, 1000)
    app = "tests.server.apps:attackable"
    async with process(app, loop="uvloop") as server, connected(server.port, "/frame", receive_buffer=4096) as client:

        async def send() -> None:
            for number in range(count):
                await client.send(frame(BINARY, number.to_bytes(3, "big") * (size // 3 + number % 3)))
                await asyncio.sleep(0.001)

        sending = asyncio.create_task(send())
        await asyncio.sleep(1)
        for number in range(count):
            assert (await client.read_frame()).payload == number.to_bytes(3, "big") * (size // 3 + number % 3)
        await sending


async def test_a_client_that_floods_does_not_delay_others(echo_app: App) -> None:
    async with attacked(echo_app) as server, connected(server.port) as other, connected(server.port) as noisy:
        noise = frame(TEXT, b'{"a":1}' * 10_000)

        async def make_noise() -> None:
            for _ in range(200):
                await noisy.send(noise)
                await noisy.read_frame()

        making = asyncio.create_task(make_noise())
        assert (await work_during_echoes(other, 40))[-1] < 0.1
        making.cancel()
        await asyncio.wait({making})


@pytest.mark.long
async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async with attacked(attackable) as server, connected(server.port, "/frame", receive_buffer=4096) as client:
        client.timeout = 1
        block, sent = frame(BINARY, b"x" * 60_000), 0
        with contextlib.suppress(TimeoutError):
            while sent < 100 * MIB:
                await client.send(block)
                sent += len(block)
        assert sent < 30 * MIB
        client.timeout = 20
        for _ in range(sent // len(block)):
            assert len((await client.read_frame()).payload) == 60_000


@pytest.mark.program
@pytest.mark.parametrize("opcode", [PING, PONG])
async def test_a_flood_of_tiny_frames_does_not_delay_others(opcode: int) -> None:
    app = "tests.server.apps:attackable"
    async with process(app) as server, connected(server.port) as other, connected(server.port) as client:
        flood = frame(opcode, b"") * 50_000
        client.timeout = 60

        async def make_noise() -> None:
            while True:
                await client.send(flood)

        making = asyncio.create_task(make_noise())
        # The most may be as much as the kernel holds of the flood while this process, which sends it, does not run.
        assert (await work_during_echoes(other, 40, server.process.pid))[20] < 0.1
        making.cancel()
        await asyncio.wait({making})
        client.reset()
        await echoes(other)
    assert "exception" not in server.last_log


async def test_a_throttled_client_may_still_send_large_messages() -> None:
    async with attacked(attackable) as server, connected(server.port, "/frame") as client:
        tiny, large = frame(TEXT, b"t") * 40_000, frame(BINARY, b"L" * (MIB - 10))
        sending = asyncio.create_task(client.send(tiny + large + tiny))
        for _ in range(40_000):
            assert (await client.read_frame()).payload == b"t"
        assert len((await client.read_frame()).payload) == MIB - 10
        for _ in range(40_000):
            assert (await client.read_frame()).payload == b"t"
        await sending
