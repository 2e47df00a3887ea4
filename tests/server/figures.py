"""Measures the server under attack, idle and draining, as Markdown: ``python -m tests.server.figures``.

The numbers in ``docs/conformance.md`` come from here. Everything runs on the loopback of one machine, the server in a
process of its own; latencies are those of a well-behaved client beside the attack, in this (busy) process.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.server.conftest import connected, echoes
from tests.server.process import Running, process
from tests.server.test_limits import OFFER, bomb
from tests.support.limits import peak_rss, rss
from tests.support.raw import BINARY, PING, RawClient, frame

APP = "tests.server.apps:attackable"
MIB = 1 << 20
SECONDS = 3.0

Attack = Callable[[int], Awaitable[None]]


async def flood(port: int) -> None:
    """Sends as fast as it can, and reads the echoes."""
    async with connected(port) as client:
        block = frame(BINARY, b"x" * 100) * 200
        while True:
            await client.send(block)
            await client.read_exactly(200 * 102)


async def never_reads(port: int) -> None:
    """Sends as fast as it can, and reads nothing."""
    async with connected(port, "/frame", receive_buffer=4096) as client:
        while True:
            await client.send(frame(BINARY, b"x" * 60_000))


async def pinging(port: int) -> None:
    """Sends pings as fast as it can, and reads no pong."""
    async with connected(port, receive_buffer=4096) as client:
        while True:
            await client.send(frame(PING, b"p" * 100) * 500)


async def dribbling(port: int) -> None:
    """A hundred handshakes, a byte now and then."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.open(port)) for _ in range(100)]
        for byte in b"GET / HTTP/1.1\r\nHost: example\r\nX-Slow: " + b"y" * 1000:
            for client in clients:
                with contextlib.suppress(ConnectionError):
                    await client.send(bytes([byte]))
            await asyncio.sleep(0.02)


async def bombing(port: int) -> None:
    """One deflate bomb of 200 MiB after the other."""
    while True:
        async with await RawClient.open(port) as client:
            await client.handshake("/", OFFER)
            await client.send(frame(BINARY, bomb(200 * MIB), rsv=4))
            await client.read_close()


async def latencies(port: int, until: float) -> list[float]:
    """Round trips of a well-behaved client, in milliseconds, sorted."""
    took = []
    async with connected(port) as client:
        while time.monotonic() < until:
            began = time.perf_counter()
            await echoes(client)
            took.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.002)
    return sorted(took)


async def attacked(name: str, attack: Attack | None) -> str:
    """One row of the table."""
    async with process(APP, log_level="warning", handshake_timeout=2.0) as server:
        await latencies(server.port, time.monotonic() + 0.3)
        before = rss(server.process.pid)
        attacking = asyncio.create_task(quietly(attack, server.port)) if attack else None
        took = await latencies(server.port, time.monotonic() + SECONDS)
        if attacking is not None:
            attacking.cancel()
            await asyncio.wait({attacking})
        await asyncio.sleep(0.5)
        peak, after = peak_rss(server.process.pid), rss(server.process.pid)
    middle, p99, worst = took[len(took) // 2], took[len(took) * 99 // 100], took[-1]
    sizes = " | ".join(f"{size / MIB:.1f}" for size in (before, peak, after))
    return f"| {name} | {sizes} | {middle:.2f} | {p99:.2f} | {worst:.1f} |"


async def quietly(attack: Attack, port: int) -> None:
    """The attack, whose end is not our business."""
    with contextlib.suppress(ConnectionError, EOFError, TimeoutError):
        await attack(port)


@contextlib.asynccontextmanager
async def crowd(server: Running, count: int) -> AsyncIterator[list[RawClient]]:
    """So many accepted connections."""
    async with contextlib.AsyncExitStack() as stack:
        clients: list[RawClient] = []
        while len(clients) < count:
            batch = [stack.enter_async_context(connected(server.port, "/sleep-not")) for _ in range(50)]
            clients += await asyncio.gather(*batch)
        yield clients


async def idle(count: int) -> str:
    """Memory of idle connections."""
    app = "tests.server.apps:echo_in_frame"
    async with process(app, log_level="warning") as server, crowd(server, 100):
        before = rss(server.process.pid)
        async with crowd(server, count):
            each = (rss(server.process.pid) - before) / count / 1024
    return f"{count} idle connections: {each:.1f} KiB each"


async def drained(count: int) -> str:
    """When the connections of a stopping server are closed."""
    app = "tests.server.apps:echo"
    async with process(app, log_level="warning", drain_timeout=20.0) as server, crowd(server, count) as clients:
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()

        async def closed(client: RawClient) -> float:
            client.timeout = 30
            assert (await client.read_close()).code == 1012
            at = time.monotonic() - began
            client.socket.close()
            return at

        times = sorted(await asyncio.gather(*map(closed, clients)))
        await asyncio.wait_for(server.process.wait(), 20)
        ended = time.monotonic() - began
    marks = ", ".join(f"{times[count * part // 100 - 1]:.2f} s ({part} %)" for part in (10, 25, 50, 75, 100))
    return f"Drain of {count} connections, 100 every 0.1 s: closed after {marks}; process ended after {ended:.2f} s"


async def main() -> None:
    """All of it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attacks: dict[str, Attack | None] = {
        "none": None,
        "flood of messages": flood,
        "client that never reads": never_reads,
        "flood of pings, unread": pinging,
        "100 slow handshakes": dribbling,
        "deflate bombs": bombing,
    }
    lines = [
        "| attack | memory before, MiB | peak | after | others' round trip, ms: median | 99 % | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, attack in attacks.items():
        lines.append(await attacked(name, attack))
    lines += ["", await idle(min(10_000, most - 1000)), "", await drained(1000)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
