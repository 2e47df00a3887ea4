"""A drain tells clients of telex.v1 first: on Telex's server, over real sockets and by a real signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final

import pytest

from telex import Multiplex, Telex, WebSocket, websocket, websocket_listener, websocket_stream
from telex.channels import Channels
from telex.handlers import channel_listener
from telex.server import Server
from telex.server.protocol import WebSocketProtocol
from telex.types import ASGIApp
from tests.contract.servers import Running, ServerKind
from tests.multiplex.conftest import Shared, joined
from tests.protocol.conftest import Caller
from tests.server.conftest import running
from tests.server.process import process
from tests.support.live import asked, connected, ending, serving, soon

PATIENCE: Final = 20.0
UVICORN: Final = [ServerKind(name) for name in ("uvicorn-websockets", "uvicorn-wsproto")]


class Work:
    """An app with a call that runs until the test ends it."""

    def __init__(self, **options: Any) -> None:
        self.finish = asyncio.Event()
        self.begun = asyncio.Semaphore(0)

        @websocket_listener("/room", **options)
        async def room(data: str) -> str:
            if data == "work":
                self.begun.release()
                await self.finish.wait()
            return data

        @websocket_listener("/sync", **options)
        def sync(data: str) -> str:
            return data

        self.app = Telex([room, sync, Multiplex("/socket", routes=[room])])

    async def until_begun(self, calls: int) -> None:
        for _ in range(calls):
            await soon(self.begun.acquire())


@contextlib.asynccontextmanager
async def calling(port: int, path: str) -> AsyncIterator[Caller]:
    async with connected(Running(port), path, subprotocols=["telex.v1"]) as client:
        caller = Caller(client)
        caller.hello = await caller.receive()
        yield caller


async def goaway_of(client: Caller | Shared) -> tuple[float, float]:
    found = await (client.receive() if isinstance(client, Caller) else client.next_of(None))
    assert found.pop("type") == "goaway"
    assert set(found) == {"within", "retry_after"}
    return found["within"], found["retry_after"]


def through(app: ASGIApp) -> ASGIApp:
    """A middleware: the server cannot see the app through the fast path."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return middleware


@pytest.mark.parametrize("options", [{}, {"middleware": [through]}], ids=["direct", "behind middleware"])
async def test_clients_are_told_and_their_calls_finish(options: dict[str, Any]) -> None:
    work = Work(**options)
    async with (
        running(work.app, drain_within=60.0, drain_timeout=60.0) as server,
        calling(server.port, "/room") as busy,
        calling(server.port, "/sync") as idle,
        connected(Running(server.port), "/room") as plain,
        connected(Running(server.port), "/room") as plain_busy,
    ):
        assert await asked(plain, "x") == "x"
        await busy.begin("work")
        await plain_busy.send("work")
        await work.until_begun(2)
        server.stop()
        for client in (busy, idle):
            within, retry_after = await goaway_of(client)
            assert 0 <= retry_after <= within / 4 <= 15
        # Plain clients are closed as ever; those that were told may go on until they leave.
        assert (await ending(plain))[0] == 1012
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        assert (await idle.call("still here"))["data"] == "still here"
        work.finish.set()
        assert (await busy.receive())["data"] == "work"
        assert await soon(plain_busy.recv()) == "work"
        assert (await ending(plain_busy))[0] == 1012
        for client in (busy, idle):
            await client.client.close()


async def test_a_shared_socket_opens_no_route_any_more_and_its_routes_finish() -> None:
    work = Work()
    async with (
        running(work.app, drain_within=60.0, drain_timeout=60.0) as server,
        joined(Running(server.port)) as shared,
    ):
        route = await shared.open("/room")
        await route.send({"type": "call", "id": 1, "data": "work"})
        await work.until_begun(1)
        server.stop()
        await goaway_of(shared)
        denied = await shared.refused("/room")
        assert (denied["status"], denied["code"]) == (503, "unavailable")
        work.finish.set()
        reply = await route.receive()
        assert (reply["type"], reply["data"]) == ("reply", "work")
        assert shared.kept(None) == []  # told once
        await shared.client.close()


async def test_who_does_not_leave_is_closed_when_its_time_is_over_but_a_call_still_finishes() -> None:
    work = Work()
    async with (
        running(work.app, drain_within=0.2, drain_interval=0.02, drain_timeout=60.0) as server,
        calling(server.port, "/room") as busy,
        calling(server.port, "/room") as idle,
    ):
        await busy.begin("work")
        await work.until_begun(1)
        server.stop()
        assert (await goaway_of(idle))[0] <= 0.2
        await goaway_of(busy)
        code, reason = await ending(idle.client)
        assert (code, reason.partition("=")[0]) == (1012, "retry-after")
        work.finish.set()
        assert (await busy.receive())["data"] == "work"
        assert (await ending(busy.client))[0] == 1012


async def test_the_time_is_never_longer_than_the_drain() -> None:
    work = Work()
    async with (
        running(work.app, drain_within=60.0, drain_timeout=0.5) as server,
        calling(server.port, "/room") as client,
    ):
        server.stop()
        assert (await goaway_of(client))[0] <= 0.5
        assert (await ending(client.client))[0] == 1012


async def test_clients_are_told_in_batches_after_accepting_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    original: Callable[..., bool] = WebSocketProtocol.go_away
    accepting: list[bool] = []

    def note(self: WebSocketProtocol, within: float, retry_after: float) -> bool:
        told.append(time.monotonic())
        accepting.append(any(each.is_serving() for each in server.servers))
        return original(self, within, retry_after)

    monkeypatch.setattr(WebSocketProtocol, "go_away", note)
    work = Work()
    server: Server
    async with contextlib.AsyncExitStack() as stack:
        settings = {"drain_batch": 2, "drain_interval": 0.1, "drain_within": 60.0, "drain_timeout": 60.0}
        server = await stack.enter_async_context(running(work.app, **settings))
        clients = [await stack.enter_async_context(calling(server.port, "/room")) for _ in range(6)]
        server.stop()
        for client in clients:
            await goaway_of(client)
            await client.client.close()
    assert len(told) == 6
    for first in (0, 2):
        assert told[first + 2] - told[first + 1] >= 0.09
    assert accepting == [False] * 6


ANY_SERVER: Final = pytest.mark.parametrize(
    "kind", [ServerKind("telex"), *UVICORN, ServerKind("hypercorn")], ids=lambda kind: kind.name
)


@contextlib.asynccontextmanager
async def served(app: ASGIApp, kind: ServerKind) -> AsyncIterator[Running]:
    async with kind.loop(app) if kind.name == "hypercorn" else serving(app, kind) as server:
        yield server


@ANY_SERVER
async def test_the_drain_of_an_app_tells_clients_and_ends_as_soon_as_all_have_left(kind: ServerKind) -> None:
    work = Work()
    async with (
        served(work.app, kind) as server,
        calling(server.port, "/room") as client,
        joined(server) as shared,
        connected(server, "/room") as plain,
    ):
        assert await asked(plain, "x") == "x"
        draining = asyncio.create_task(work.app.connections.drain(interval=0.02, within=60))
        assert (await ending(plain))[0] == 1012
        for each in (client, shared):
            assert (await goaway_of(each))[0] == 60
        assert (await client.call("x"))["data"] == "x"
        assert (await shared.refused("/room"))["status"] == 503
        for each in (client, shared):
            await each.client.close()
        assert await soon(draining) == 3


@ANY_SERVER
async def test_the_drain_of_an_app_closes_who_does_not_leave(kind: ServerKind) -> None:
    work = Work()
    async with served(work.app, kind) as server, calling(server.port, "/room") as client:
        await client.begin("work")
        await work.until_begun(1)
        draining = asyncio.create_task(work.app.connections.drain(interval=0.02, within=0.2))
        assert (await goaway_of(client))[0] == 0.2
        assert await ending(client.client) == (1012, "service restart")
        assert await soon(draining) == 1


async def test_every_kind_of_handler_tells_its_client() -> None:
    hub = Channels("memory://", channels=["news"])

    @websocket_stream("/stream")
    async def stream() -> AsyncGenerator[str, None]:
        yield "first"
        await asyncio.Event().wait()

    @websocket("/raw", protocol="telex.v1")
    async def raw(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        async for each in socket.incoming(str):
            await each.reply(each.data)

    news = channel_listener("/news", channel="news")
    async with (
        running(Telex([stream, raw, news], plugins=[hub]), drain_within=60.0, drain_timeout=60.0) as server,
        calling(server.port, "/stream") as of_stream,
        calling(server.port, "/raw") as of_raw,
        calling(server.port, "/news") as of_news,
    ):
        for client in (of_stream, of_news):
            assert (await client.receive())["type"] in {"notify", "subscribed"}
        server.stop()
        for client in (of_stream, of_raw, of_news):
            await goaway_of(client)
            await client.client.close()


# -- by a signal


async def handed_over(port: int, pid: int, path: str) -> None:
    """A client works on after SIGTERM, and leaves; the process then ends at once."""
    async with calling(port, path) as client:
        assert (await client.call("before"))["data"] == "before"
        os.kill(pid, signal.SIGTERM)
        await goaway_of(client)
        assert (await client.call("after"))["data"] == "after"
        await client.client.close()


@pytest.mark.program
async def test_sigterm_tells_clients_of_telexs_server() -> None:
    async with process("examples.docs.echo:app", drain_within=60.0, drain_timeout=60.0) as server:
        await handed_over(server.port, server.process.pid, "/echo")
        await asyncio.wait_for(server.process.wait(), PATIENCE)


@pytest.mark.program
@pytest.mark.parametrize("kind", UVICORN, ids=lambda kind: kind.name)
async def test_sigterm_tells_clients_of_uvicorn_if_the_app_drains_first(kind: ServerKind) -> None:
    async with kind.process("examples.docs.goaway:app") as server:
        assert server.pid is not None
        await handed_over(server.port, server.pid, "/rooms/7")
