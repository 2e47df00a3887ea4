"""Dependencies are cleaned up once, in reverse, however a connection ends; 1,000 lost clients leave nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import pytest

from tests.contract.servers import KINDS, ServerKind
from tests.contract.site import ON_BOTH_PATHS, PATIENCE, SUBJECTS, Site, closing_of, said
from tests.support.raw import TEXT, RawClient, close_frame, frame

ENTERED = ["enter outer", "enter inner"]

# what a low-level handler gets, and what its dependencies see of it
ENDS = {
    "return": "quietly",
    "close": "quietly",
    "raise": "KeyError",
}


@pytest.mark.parametrize("order", ENDS)
async def test_every_end_of_a_handler_is_followed_by_cleanup(site: Site, order: str) -> None:
    async with site.connect("/lifetimes/cleanup/raw") as client:
        await client.send(order)
        close = await closing_of(client)
    assert close.code == {"return": 1000, "close": 4000, "raise": 1011}[order]
    await site.settled()
    how = ENDS[order]
    assert await site.notes() == [*ENTERED, "ready", f"exit inner {how}", f"exit outer {how}"]
    assert len(await site.records()) == (order == "raise")


@ON_BOTH_PATHS
async def test_a_handler_that_cancels_itself_is_cleaned_up_after(site: Site) -> None:
    async with site.connect("/lifetimes/cleanup/raw") as client:
        await client.send("cancel")
        await closing_of(client)
    await site.settled()
    how = "CancelledError"
    assert await site.notes() == [*ENTERED, "ready", f"exit inner {how}", f"exit outer {how}"]
    await site.records()  # what servers log when an app was cancelled


async def leave(client: RawClient, how: str) -> None:
    if how == "reset":
        client.reset()
    else:
        await client.send(close_frame(1001))
        await client.read_close()


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_a_waiting_handler_is_cleaned_up_after(site: Site, how: str) -> None:
    async with site.raw("/lifetimes/cleanup/raw") as client:
        await site.until("ready")
        await leave(client, how)
        await site.settled()
    left = "WebSocketDisconnect"
    assert await site.notes() == [*ENTERED, "ready", f"exit inner {left}", f"exit outer {left}"]


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_a_busy_handler_is_cleaned_up_after(site: Site, how: str) -> None:
    async with site.raw("/lifetimes/cleanup/raw") as client:
        await client.send(frame(TEXT, b"sleep"))
        await site.until("busy")
        await leave(client, how)
        await site.settled()
    left = "WebSocketDisconnect"
    assert await site.notes() == [*ENTERED, "ready", "busy", f"exit inner {left}", f"exit outer {left}"]


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_a_stream_closes_the_generator_first(site: Site, how: str) -> None:
    async with site.raw("/lifetimes/cleanup/stream") as client:
        assert (await client.read_frame()).payload == b"outer"
        await leave(client, how)
        await site.settled()
    notes = await site.notes()
    assert notes[:3] == [*ENTERED, "ready"]
    assert notes[3] in {"exit stream CancelledError", "exit stream GeneratorExit"}
    assert notes[4:] == ["exit inner WebSocketDisconnect", "exit outer WebSocketDisconnect"]


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_dependencies_of_a_message_are_closed_before_those_of_the_connection(site: Site, how: str) -> None:
    async with site.raw("/lifetimes/cleanup/listener") as client:
        for number in range(3):
            await client.send(frame(TEXT, b"hello"))
            assert (await client.read_frame()).payload == b"hello"
            await site.until("exit each quietly", number + 1)
        await client.send(frame(TEXT, b"sleep"))
        await site.until("busy")
        await leave(client, how)
        await site.settled()
    notes = await site.notes()
    assert notes[:9] == [*ENTERED, "ready", *["enter each", "exit each quietly"] * 3]
    assert notes[9:11] == ["enter each", "busy"]
    assert [note.split()[1] for note in notes[11:]] == ["each", "inner", "outer"]


async def test_a_message_that_fails_is_cleaned_up_after(site: Site) -> None:
    async with site.connect("/lifetimes/cleanup/listener") as client:
        await client.send("raise")
        assert (await closing_of(client)).code == 1011
    await site.settled()
    exits = [f"exit {name} KeyError" for name in ("each", "inner", "outer")]
    assert await site.notes() == [*ENTERED, "ready", "enter each", *exits]
    assert len(await site.records()) == 1


async def test_a_cleanup_that_fails_frees_the_others(site: Site) -> None:
    async with site.connect("/lifetimes/cleanup/breaks") as client:
        assert (await closing_of(client)).code == 1011
    await site.settled()
    exits = ["exit breaks", "exit inner ValueError", "exit outer ValueError"]
    assert await site.notes() == [*ENTERED, "enter breaks", *exits]
    assert len(await site.records()) == 1


async def test_a_setup_that_fails_half_way_frees_what_was_made(site: Site) -> None:
    assert (await site.handshake("/lifetimes/cleanup/half")).status == 500
    await site.settled()
    assert await site.notes() == [*ENTERED, "exit inner ValueError", "exit outer ValueError"]
    assert len(await site.records()) == 1


CUTS_SHORT = {"granian"}
"""granian ends its process without waiting for connections, so it is not tested here."""


def drop(clients: list[RawClient]) -> None:
    for client in clients:
        client.socket.close()


@pytest.mark.program
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name not in CUTS_SHORT], ids=lambda kind: kind.name)
async def test_a_server_that_stops_cleans_up(kind: ServerKind) -> None:
    clients = []
    async with kind.process(SUBJECTS) as running:
        for order in ("sleep", "receive", "send") * 3:
            client = await RawClient.open(running.port)
            clients.append(client)
            await client.handshake("/lifetimes/shutdown")
            await client.send(frame(TEXT, order.encode()))
            await client.read_frame()
        assert running.pid is not None
        os.kill(running.pid, signal.SIGTERM)
        if kind.name == "hypercorn" and sys.version_info >= (3, 12):
            # It cancels nothing before its connections have ended: asyncio's ``Server.wait_closed`` waits for them.
            drop(clients)
        async with asyncio.timeout(PATIENCE):
            while running.log().count("cleaned up") < len(clients):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        drop(clients)
    assert "was destroyed" not in running.log()


ENOUGH = {"uvicorn-websockets": 1000, "telex": 1000}
"""The number of clients that vanish on one server; 300 on the others."""
VANISHING = [
    ("/control", b"hello", 1),
    ("/lifetimes/cleanup/join", b"hello", 1),
    ("/lifetimes/cleanup/raw", b"sleep", 0),
    ("/lifetimes/cleanup/listener", b"sleep", 0),
    ("/lifetimes/cleanup/stream", b"", 1),
]
"""The path, the messages, and the number of frames that are read before the client vanishes."""


@pytest.mark.long
async def test_a_thousand_clients_that_vanish_leave_nothing(site: Site) -> None:
    gate = asyncio.Semaphore(20)

    async def vanish(number: int) -> None:
        path, message, frames = VANISHING[number % len(VANISHING)]
        async with gate, site.raw(path) as client:
            if message:
                await client.send(frame(TEXT, message))
            for _ in range(frames):
                await client.read_frame()
            client.reset()

    async def vanish_all(count: int) -> dict[str, Any]:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(vanish(number))
        await site.settled()
        # A task's end and the release of what its last frames refer to are two moments.
        live: dict[str, Any] = await site.ask("live")
        async with asyncio.timeout(PATIENCE):
            while live["kinds"]["telex.connection.WebSocket"] > idle:
                await asyncio.sleep(0.05)
                live = await site.ask("live")
        return live

    idle = (await site.ask("live"))["kinds"]["telex.connection.WebSocket"]
    await vanish_all(100)
    before = await vanish_all(100)
    count = ENOUGH.get(site.kind.name, 300)
    after = await vanish_all(count)
    more = {kind: number - before["kinds"].get(kind, 0) for kind, number in after["kinds"].items()}
    # Cancelled timers, which refer to nothing, lie until their moment has come: asyncio's, and those of our server.
    for kind in ("asyncio.events.TimerHandle", "_contextvars.Context", "telex.server.timer_wheel.Timer"):
        more.pop(kind, None)
    assert {kind: number for kind, number in more.items() if number > count // 20} == {}
    assert after["kinds"]["telex.connection.WebSocket"] == before["kinds"]["telex.connection.WebSocket"]
    assert after["rss"] - before["rss"] < 12 << 20
    notes = await site.notes()
    for name in ("outer", "inner", "each"):
        exits = [note for note in notes if note.startswith(f"exit {name}")]
        assert notes.count(f"enter {name}") == len(exits) > 0
    async with site.connect("/control") as client:
        assert await said(client, "hello") == "hello"
