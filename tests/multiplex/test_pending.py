"""A route that is closed before it is answered: what it runs is cancelled, and its place is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from telex import Multiplex, Provide, Telex, WebSocket, websocket_listener
from telex.multiplex import opening
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import joined, sharing
from tests.protocol.apps import Journal
from tests.support.leaks import no_leaks
from tests.support.live import serving


def app_of(journal: Journal) -> Telex:
    async def wait() -> None:
        journal.note("began")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            journal.note("ended")

    async def guard(socket: WebSocket, _: object) -> None:
        await wait()

    async def stubborn(socket: WebSocket, _: object) -> None:
        try:
            await wait()
        except asyncio.CancelledError:
            journal.note("refused to end")

    async def resource() -> AsyncGenerator[str, None]:
        try:
            await wait()
            yield "x"
        finally:
            journal.note("cleaned up")

    @websocket_listener("/guard", guards=[guard])
    async def guarded(data: str) -> str:
        return data

    @websocket_listener("/stubborn", guards=[stubborn])
    async def unwilling(data: str) -> str:
        return data

    @websocket_listener("/dependency", dependencies={"thing": Provide(resource)})
    async def dependent(data: str, thing: str) -> str:
        return data + thing

    @websocket_listener("/echo")
    async def echo(data: str) -> str:
        return data

    return Telex([guarded, unwilling, dependent, echo, Multiplex("/socket", routes=Multiplex.ALL)])


@pytest.mark.parametrize("path", ["/guard", "/stubborn", "/dependency"])
async def test_a_route_that_the_client_closes_before_it_is_answered_is_closed_at_once(
    kind: ServerKind, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal()
    async with sharing(app_of(journal), kind) as shared, asyncio.timeout(5):
        route = await shared.ask_open(path)
        await journal.until("began")
        assert await route.close(4000, "enough") == {"type": "closed", "code": 4000, "reason": "enough"}
        assert "ended" in journal.entries
        assert path != "/dependency" or "cleaned up" in journal.entries
        await route.send({"type": "close"})
        await shared.settle()
        assert not shared.kept(route.c)
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


async def test_a_route_that_is_closed_before_its_task_begins_runs_nothing(kind: ServerKind) -> None:
    journal = Journal()
    async with sharing(app_of(journal), kind) as shared, asyncio.timeout(5):
        routes = [await shared.ask_open("/guard") for _ in range(2)]
        for route in routes:
            await route.send({"type": "close", "code": 4001})
        assert [(await route.receive())["code"] for route in routes] == [4001, 4001]
        await shared.settle()
        assert journal.entries.count("began") == journal.entries.count("ended")


async def test_a_closed_route_leaves_its_place_to_the_next(kind: ServerKind) -> None:
    journal = Journal()
    async with sharing(app_of(journal), kind) as shared, asyncio.timeout(5):
        for _ in range(3):
            routes = [await shared.ask_open("/guard") for _ in range(opening.MAX_PENDING)]
            waits = await shared.ask_open("/echo")
            await shared.settle()
            assert not shared.kept(waits.c)
            await routes[0].close()
            assert (await waits.receive())["type"] == "opened"
            for route in routes[1:]:
                assert (await route.close())["type"] == "closed"


async def test_a_client_that_leaves_ends_the_routes_that_are_not_answered(kind: ServerKind) -> None:
    journal = Journal()
    app: Any = app_of(journal)
    async with serving(app, kind) as running, no_leaks(), asyncio.timeout(5):
        async with joined(running) as shared:
            for path in ("/guard", "/dependency"):
                await shared.ask_open(path)
            await journal.until("began", 2)
        await journal.until("ended", 2)


async def test_a_route_that_gets_more_than_it_takes_before_it_is_answered_is_closed(kind: ServerKind) -> None:
    journal = Journal()
    async with sharing(app_of(journal), kind) as shared, asyncio.timeout(5):
        route = await shared.ask_open("/guard")
        for _ in range(300):
            await route.notify("x")
        assert (await route.receive())["code"] == 1008
        assert journal.entries == ["began", "ended"]
