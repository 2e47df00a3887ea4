"""Many routes on one socket, on each server: they exchange frames, are refused, and end like connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.contract.site import PATIENCE, Site, closing_of
from tests.contract.test_refusals import CASES, LOGGED
from tests.multiplex.conftest import Shared


@contextlib.asynccontextmanager
async def sharing(site: Site, *, origin: str | None = None) -> AsyncIterator[Shared]:
    """A shared socket that has received ``hello``."""
    async with site.connect("/multiplex", subprotocols=["telex.v1"], origin=origin) as client:
        shared = Shared(client)
        shared.hello = await shared.receive()
        yield shared


async def test_routes_exchange_frames_and_close(site: Site) -> None:
    async with sharing(site) as shared:
        one, two = await shared.open("/control"), await shared.open("/messages/tagged")
        assert await one.call("hi") == {"type": "reply", "id": 1, "data": "hi"}
        move = {"type": "say", "text": "hi", "note": None}
        assert await two.call(move) == {"type": "reply", "id": 1, "data": move}
        assert (await two.call({"type": "none"}))["error"]["code"] == "invalid_message"
        assert await one.close(4001, "bye") == {"type": "closed", "code": 4001, "reason": "bye"}
        assert (await two.call(move))["data"] == move
        assert (await shared.refused("/multiplex"))["status"] == 404
        assert (await shared.refused("/probe"))["status"] == 404
    await site.notes()


async def test_binary_messages_travel_both_ways(site: Site) -> None:
    async with sharing(site) as shared:
        route = await shared.open("/messages/binary")
        await route.send({"type": "call", "id": 1}, b'{"a": 1}')
        assert (await route.receive())["error"]["code"] == "invalid_message"


@pytest.mark.parametrize("path", CASES)
async def test_a_page_reads_why_a_route_was_refused(site: Site, path: str) -> None:
    told = CASES[path]
    async with sharing(site, origin=f"http://127.0.0.1:{site.running.port}") as shared:
        denied = await shared.refused(path)
        assert (denied["status"], denied["code"], denied["error"]) == (told.status, told.code, told.frame["error"])
        assert (await (await shared.open("/control")).call("on"))["data"] == "on"
    assert await site.notes() == []
    await site.settled()
    assert {level for level, _, _ in await site.records()} == ({"ERROR"} if path in LOGGED else set())


async def test_a_foreign_page_is_refused_by_http(site: Site) -> None:
    headers = [("Sec-WebSocket-Protocol", "telex.v1"), ("Origin", "https://evil.com")]
    assert (await site.handshake("/multiplex", headers)).status == 403


@pytest.mark.parametrize("how", ["close", "cut", "route"])
@pytest.mark.parametrize("path", ["/lifetimes/busy/raw/loop", "/lifetimes/busy/stream/loop"])
async def test_routes_end_with_their_socket(site: Site, path: str, how: str) -> None:
    async with sharing(site) as shared:
        route = await shared.open(path)
        await shared.settle()
        if how == "route":
            await route.send({"type": "close"})
            while (await route.receive())["type"] != "closed":
                pass
            return
        if how == "cut":
            shared.client.transport.abort()
        else:
            await shared.client.close(4000)
        await asyncio.wait_for(closing_of(shared.client), PATIENCE)
    await site.settled()
    await site.notes()


async def test_a_route_that_is_not_read_costs_the_others_nothing(site: Site) -> None:
    async with sharing(site) as shared:
        stalled = [await shared.open("/lifetimes/busy/stream/loop", credit=0) for _ in range(3)]
        route = await shared.open("/control")
        for number in range(100):
            assert (await route.call(str(number)))["data"] == str(number)
        assert not any(shared.kept(each.c) for each in stalled)
    await site.notes()
