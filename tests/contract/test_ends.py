"""Who ends a connection, and what is running then: what is cancelled, finished, told, cleaned up and logged.

A row of ``RUNNING`` is what runs, a row of ``ENDS`` who ends it. What a cell must show follows from both: the work is
over first, ``on_disconnect`` is told the code that went over the wire, and the connection's dependencies close last.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from telex import Provide, Telex, WebSocket, websocket, websocket_listener, websocket_stream
from tests.contract.servers import KINDS, ServerKind
from tests.contract.site import PATIENCE, Site, closing_of, said
from tests.contract.subjects.ends import LONGEST_DATA, LONGEST_MESSAGE
from tests.support.live import serving
from tests.support.raw import TEXT, Close, RawClient, frame

PINGING = {"telex", "uvicorn-websockets"}
"""Servers that send pings of their own, as often as they are told."""
TOLD = {"hypercorn": (1006, ""), "granian": (4000, "")}
"""What these servers make of a client's close frame with 4000 and a reason."""
LOST = {"uvicorn-websockets": 1005, "uvicorn-wsproto": 1005, "granian": 1005}
"""What these servers say of a connection that is lost without a close frame; the others say 1006."""


@dataclass(frozen=True)
class Running:
    """What runs: whether the client asks for it, how it is over when it is interrupted, whether it may be awaited."""

    asked: bool = True
    interrupted: str | None = "cancelled"
    """The note of work that something else ends; ``None`` when nothing runs."""
    hooks: bool = True
    """Whether ``on_disconnect`` may be given."""


RUNNING = {
    "nothing": Running(interrupted=None),
    "sync": Running(interrupted=None),
    "async": Running(),
    "concurrent": Running(),
    "thread": Running(interrupted="finished"),
    "cleanup": Running(interrupted="finished"),
    "started": Running(),
    "hook": Running(asked=False),
    "stream": Running(asked=False, hooks=False),
    "raw": Running(asked=False, hooks=False),
}
FOLLOWS_ORDERS = ["async", "concurrent", "cleanup", "started", "hook", "stream", "raw"]
SLOW = {"concurrent", "sync", "hook"}
"""Rows whose cells repeat a neighbour's."""


def cells(rows: list[str]) -> list[object]:
    return [pytest.param(row, marks=[pytest.mark.slow] if row in SLOW else []) for row in rows]


class Case:
    """One connection whose work has begun, and somebody to do things from elsewhere."""

    def __init__(self, site: Site, running: str, client: ClientConnection, control: ClientConnection) -> None:
        self.site, self.name, self.client, self.control = site, running, client, control
        self.running = RUNNING[running]

    async def begin(self) -> None:
        if self.running.asked:
            await self.client.send("go")
        if self.name == "cleanup":
            assert await self.client.recv() == "answered"
        await self.site.until("begun")

    async def tell(self, command: str) -> None:
        assert await said(self.control, command) == command

    async def finish_what_is_awaited(self) -> None:
        """Work that an end must not interrupt goes on until the test lets it end."""
        if self.running.interrupted == "finished":
            await asyncio.sleep(0.1)  # for what must not happen
            notes = await self.site.notes()
            assert notes == ["begun"], notes
            await self.tell("end thread" if self.name == "thread" else "finish")

    async def check(self, work: str | None, code: int, reason: str = "") -> None:
        await self.site.until("closed")
        begun, *notes = await self.site.notes()
        assert begun == "begun"
        if work is not None:
            assert notes.pop(0) == work
        assert notes.pop() == "closed"
        if self.running.hooks:
            assert notes == [f"told {code} {reason}".strip()]
        else:
            assert not notes


@contextlib.asynccontextmanager
async def opened(site: Site, running: str) -> AsyncIterator[Case]:
    async with site.connect("/ends/control") as control, site.connect(f"/ends/{running}") as client:
        case = Case(site, running, client, control)
        await case.begin()
        yield case


def reset(client: ClientConnection) -> None:
    """Ends the connection without a close frame, and without what is still to be sent."""
    connection: socket.socket = client.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


ALL = pytest.mark.parametrize("running", cells(list(RUNNING)))


@ALL
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_client_ends_it(site: Site, running: str, how: str) -> None:
    async with opened(site, running) as case:
        if how == "close":
            closing = asyncio.create_task(case.client.close(4000, "bye"))
        else:
            reset(case.client)
        await case.finish_what_is_awaited()
        if how == "close":
            await case.check(case.running.interrupted, *TOLD.get(site.kind.name, (4000, "bye")))
            await asyncio.wait_for(closing, PATIENCE)
        else:
            await case.check(case.running.interrupted, LOST.get(site.kind.name, 1006))
            assert await site.records() == []


@ALL
async def test_another_task_closes_it(site: Site, running: str) -> None:
    async with opened(site, running) as case:
        await case.tell("kick")
        assert await closing_of(case.client) == Close(4101, "kicked")
        await case.finish_what_is_awaited()
        await case.check(case.running.interrupted, 4101, "kicked")


@ALL
async def test_a_drain_ends_it(site: Site, running: str) -> None:
    async with opened(site, running) as case:
        await case.tell("drain")
        assert await closing_of(case.client) == Close(1012, "service restart")
        await case.finish_what_is_awaited()
        await case.check(case.running.interrupted, 1012, "service restart")


@pytest.mark.parametrize("running", cells([*FOLLOWS_ORDERS, "nothing", "sync"]))
async def test_an_exception_ends_it(site: Site, running: str) -> None:
    async with opened(site, running) as case:
        await (case.tell if running in FOLLOWS_ORDERS else case.client.send)("raise")
        assert await closing_of(case.client) == Close(1011, "internal error")
        if running in {"nothing", "sync"}:
            await site.until("closed")
            assert await site.notes() == ["begun", "begun", "told 1011 internal error", "closed"]
        else:
            await case.check("raised KeyError", 1011, "internal error")
        [(level, _, text)] = await site.records()
        assert level == "ERROR"
        assert "KeyError: 'broken'" in text


@pytest.mark.parametrize("running", cells([*FOLLOWS_ORDERS, "nothing", "sync"]))
async def test_a_close_code_that_is_raised_ends_it(site: Site, running: str) -> None:
    async with opened(site, running) as case:
        await (case.tell if running in FOLLOWS_ORDERS else case.client.send)("refuse")
        assert await closing_of(case.client) == Close(4200, "refused")
        if running in {"nothing", "sync"}:
            await site.until("closed")
            assert await site.notes() == ["begun", "begun", "told 4200 refused", "closed"]
        else:
            await case.check("raised WebSocketException", 4200, "refused")


@pytest.mark.parametrize("running", cells([row for row in FOLLOWS_ORDERS if row != "stream"]))
async def test_the_handler_itself_closes_it(site: Site, running: str) -> None:
    async with opened(site, running) as case:
        await case.tell("close")
        assert await closing_of(case.client) == Close(4100, "inside")
        # granian's ``receive`` returns at once when the app closes: a message loop ends before its child task does.
        child = site.kind.name == "granian" and running in {"concurrent", "started"}
        await case.check("cancelled" if child else "finished", 4100, "inside")


LIMITS = {
    "size": ("x" * (LONGEST_MESSAGE + 1), Close(1009, f"message over {LONGEST_MESSAGE} bytes")),
    "invalid": ("x" * (LONGEST_DATA + 1), Close(1007, f"Expected `str` of length <= {LONGEST_DATA}")),
}
"""A message that is over the limit, and how the server closes."""


@pytest.mark.parametrize("running", cells([row for row in RUNNING if row not in {"stream", "raw"}]))
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_message_over_a_limit_ends_it(site: Site, running: str, limit: str) -> None:
    message, close = LIMITS[limit]
    async with opened(site, running) as case:
        await case.client.send(message)
        await case.finish_what_is_awaited()
        # The message is behind the work; or the loop itself closes, which interrupts no handler.
        behind = running in {"async", "hook"}
        if behind:
            await case.tell("finish")
        assert await closing_of(case.client) == close
        await case.check("finished" if behind else case.running.interrupted, close.code, close.reason)
        assert await site.records() == []


@pytest.mark.parametrize("running", cells(["async", "raw", "concurrent"]))
@pytest.mark.parametrize("unread", [20, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["close", pytest.param("reset", marks=pytest.mark.slow)])
async def test_unread_messages_do_not_hide_the_end(site: Site, running: str, unread: int, how: str) -> None:
    async with opened(site, running) as case:
        if running == "concurrent":
            for _ in range(3):
                await case.client.send("all places are taken")
            await site.until("begun", 4)
        for number in range(unread):
            await case.client.send(f"unread {number}")
        if how == "close":
            # The close frame may stay in the kernel behind what is not read: then the end of the connection shows it.
            case.client.close_timeout = 1.0
            leaving = asyncio.create_task(case.client.close(4000, "bye"))
        else:
            reset(case.client)
        await site.until("closed")
        if how == "close":
            await asyncio.wait_for(leaving, PATIENCE)
        assert "cancelled" in await site.notes()
    [(level, logger, text)] = await site.records()  # one line, for however many messages
    assert (level, logger) == ("WARNING", "telex")
    assert f"/ends/{running}" in text
    assert "messages were not handled" in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in PINGING], ids=lambda kind: kind.name)
@pytest.mark.parametrize("running", ["nothing", "async", "stream", "raw"])
async def test_a_client_that_falls_silent_ends_it(kind: ServerKind, running: str) -> None:
    notes: list[str] = []
    closed = asyncio.Event()

    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        finally:
            notes.append("closed")
            closed.set()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            notes.append("cancelled")
            raise

    async def told(close_code: int) -> None:
        notes.append(f"told {close_code}")

    options: dict[str, Any] = {"dependencies": {"it": Provide(dependency)}}

    @websocket_listener("/nothing", on_disconnect=told, **options)
    async def nothing(data: str, it: None) -> None: ...

    @websocket_listener("/async", on_disconnect=told, **options)
    async def busy(data: str, it: None) -> None:
        await wait()

    @websocket_stream("/stream", **options)
    async def stream(it: None) -> AsyncGenerator[str, None]:
        await wait()
        yield "never"

    @websocket("/raw", **options)
    async def raw(socket: WebSocket, it: None) -> None:
        await socket.accept()
        await wait()

    app = Telex([nothing, busy, stream, raw])
    async with (
        serving(app, kind, ws_ping_interval=0.2, ws_ping_timeout=0.2) as server,
        await RawClient.open(server.port, timeout=PATIENCE) as client,
    ):
        assert (await client.handshake(f"/{running}")).status == 101
        if running in {"nothing", "async"}:
            await client.send(frame(TEXT, b"go"))
        await asyncio.wait_for(closed.wait(), PATIENCE)
    expected = [] if running == "nothing" else ["cancelled"]
    if running in {"nothing", "async"}:
        [code] = [note for note in notes if note.startswith("told")]
        assert code in {"told 1005", "told 1006", "told 1011"}  # as the server says
        expected.append(code)
    assert notes == [*expected, "closed"]
