"""The shared sender in a process of its own: granian, and thousands of followers under a memory limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection

from tests.channels.delivery.test_forward import read_text
from tests.contract.servers import Running, ServerKind
from tests.support.live import asked, connected
from tests.support.raw import RawClient

APP: Final = "tests.channels.delivery.crowd:app"
PATIENCE: Final = 60.0
CROWD: Final = 2000
EVENTS: Final = 60
PADDING: Final = "." * 16_000
LIMIT: Final = 600
"""MiB of the server: what waits for a crowd that does not read would be 1,900 without a bound on each of them."""


async def figures(client: ClientConnection) -> dict[str, int]:
    found: dict[str, int] = json.loads(await asked(client, ""))
    return found


async def follow(running: Running, **options: Any) -> RawClient:
    client = await RawClient.open(running.port, timeout=PATIENCE, **options)
    assert (await client.handshake("/follow")).status == 101
    assert await read_text(client, 1) == ["follows"]
    return client


@contextlib.asynccontextmanager
async def crowd(running: Running, size: int) -> AsyncIterator[None]:
    """Followers that do not read."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(size):
            await stack.enter_async_context(await follow(running, receive_buffer=4096))
        yield


async def until_left(inside: ClientConnection, followers: int) -> None:
    """Wait until so many follow, and no task is left that sent to the others."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await figures(inside)
            if found["subscribers"] == followers and found["senders"] <= 1:
                return
            await asyncio.sleep(0.05)


@pytest.mark.peer
@pytest.mark.program
@pytest.mark.slow
async def test_on_granian_nobody_misses_an_event_or_waits_for_another() -> None:
    """Each of granian's sends suspends, so every recipient goes on in its own task."""
    async with (
        ServerKind("granian").process(APP) as running,
        connected(running, "/publish") as publisher,
        connected(running, "/figures") as inside,
        await follow(running) as one,
        await follow(running) as two,
    ):
        async with crowd(running, 1):
            for number in range(300):
                event = f"{number} {PADDING}"
                await publisher.send(event)
                assert await read_text(one, 1) == await read_text(two, 1) == [event]
            found = await figures(inside)
            assert found["subscribers"] == 3
            assert found["backlog"] <= 10
            assert found["backlog"] + found["dropped"] <= 300
        await until_left(inside, 2)


@pytest.mark.program
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uvicorn-websockets", "uvicorn-wsproto"])
async def test_thousands_that_do_not_read_take_bounded_memory_and_delay_nobody(kind: str) -> None:
    async with (
        ServerKind(kind).process(APP, mebibytes=LIMIT, ws_ping_interval=None) as running,
        connected(running, "/publish") as publisher,
        connected(running, "/figures") as inside,
        await follow(running) as reader,
    ):
        async with crowd(running, CROWD):
            for number in range(EVENTS):
                event = f"{number} {PADDING}"
                await publisher.send(event)
                async with asyncio.timeout(PATIENCE):
                    assert await read_text(reader, 1) == [event]
            found = await figures(inside)
            assert found["subscribers"] == CROWD + 1
            # What the backlogs could not keep is counted.
            assert found["backlog"] <= 10 * CROWD
            assert found["dropped"] >= CROWD
        await until_left(inside, 1)
