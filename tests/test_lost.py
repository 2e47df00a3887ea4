"""A send finds that the client has left before the server tells of it: the handler must end all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from telex import Multiplex, Telex, WebSocket, websocket_listener
from telex import event_reader as module
from telex.event_reader import EventReader, supervised
from telex.exceptions import WebSocketDisconnect
from telex.server.connection import Connection
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import joined
from tests.protocol.apps import Journal
from tests.support.live import connected, serving, soon
from tests.support.peer import Peer

TELEX = ServerKind("telex")


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.Transport]:
    """The transports of Telex's server: one that is aborted tells of it in the next turn of the loop."""
    found: list[asyncio.Transport] = []
    unchanged = Connection.open

    def open_and_keep(self: Connection, wire: asyncio.Transport, *rest: Any) -> None:
        found.append(wire)
        unchanged(self, wire, *rest)

    monkeypatch.setattr(Connection, "open", open_and_keep)
    return found


@pytest.mark.parametrize("others", [0, 2])
async def test_by_a_route_of_a_shared_socket(wires: list[asyncio.Transport], others: int) -> None:
    journal = Journal()

    @websocket_listener("/sends", on_disconnect=lambda: journal.note("gone"))
    async def sends(data: str, socket: WebSocket) -> None:
        wires[0].abort()
        await socket.notify(data)

    app: Any = Telex([sends, Multiplex("/socket", routes=[sends])])
    async with asyncio.timeout(5), serving(app, TELEX) as running, joined(running) as shared:
        routes = [await shared.open("/sends") for _ in range(1 + others)]
        await routes[0].notify("x")
        await shared.client.wait_closed()
    assert journal.entries == ["gone"] * (1 + others)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("subprotocols", [(), ("telex.v1",)])
async def test_by_a_task_that_is_not_the_handler(
    wires: list[asyncio.Transport], subprotocols: tuple[str, ...], waits: bool
) -> None:
    journal, sockets = Journal(), list[WebSocket]()

    async def connect(socket: WebSocket) -> None:
        sockets.append(socket)

    @websocket_listener("/", on_accept=connect, on_disconnect=lambda: journal.note("gone"))
    async def waiting(data: str) -> None:
        journal.note("began")
        await asyncio.Event().wait()

    async with asyncio.timeout(5), serving(Telex([waiting]), TELEX) as running:
        async with connected(running, subprotocols=subprotocols) as client:
            if waits:
                await client.send('{"type":"notify","data":"x"}' if subprotocols else "x")
                await journal.until("began")
            while not sockets:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            wires[0].abort()
            with pytest.raises(WebSocketDisconnect):
                await sockets[0].notify("x")
            await client.wait_closed()
        await journal.until("gone")


async def test_the_owner_is_interrupted_once_where_no_server_tells_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.01)
    reader = EventReader(Peer(connect=False).receive)
    interrupts = 0

    async def work() -> None:
        nonlocal interrupts
        try:
            await asyncio.Event().wait()
        finally:
            interrupts += 1
            reader.on_end(1006, "")
            await asyncio.sleep(0.05)
            interrupts += 1

    task = asyncio.create_task(supervised(work(), reader))
    await asyncio.sleep(0)
    end = reader.note_lost(WebSocketDisconnect(1006))
    assert reader.note_lost(WebSocketDisconnect(1001)) is end
    with pytest.raises(WebSocketDisconnect) as caught:
        await soon(task)
    assert caught.value is end
    assert interrupts == 2
    await reader.aclose()


@pytest.mark.parametrize("another_first", [False, True])
async def test_an_owner_that_knows_is_not_interrupted(another_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.01)
    reader = EventReader(Peer(connect=False).receive)
    reader.server_reports_end = True

    async def work() -> str:
        if another_first:
            await asyncio.create_task(note())
        reader.note_lost(WebSocketDisconnect(1006))
        reader.on_end(1006, "")
        await asyncio.sleep(0.05)
        return "cleaned up"

    async def note() -> None:
        reader.note_lost(WebSocketDisconnect(1006))

    assert await soon(supervised(work(), reader)) == "cleaned up"
    await reader.aclose()
