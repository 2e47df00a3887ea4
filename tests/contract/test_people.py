"""``app.users`` on every server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.contract.site import Site, closing_of, said
from tests.support.raw import Close


@pytest.fixture
async def name(site: Site) -> AsyncIterator[str]:
    """A user of this test alone: the process serves them all."""
    yield uuid.uuid4().hex
    await site.records()  # that there are no channels, once in the process


async def desk(client: ClientConnection, *command: object) -> Any:
    """What the desk answers."""
    return json.loads(await said(client, json.dumps(command)))


async def test_a_user_is_told_on_each_socket(site: Site, name: str) -> None:
    async with (
        site.connect("/people/desk") as clerk,
        site.connect(f"/people/idle?user={name}") as plain,
        site.connect(f"/people/idle?user={name}", subprotocols=["telex.v1"]) as framed,
        site.connect("/people/idle?user=other") as other,
    ):
        assert await said(plain, "x") == await said(other, "x") == "x"
        async with asyncio.timeout(20):
            assert json.loads(await framed.recv())["type"] == "hello"
            assert await desk(clerk, "count", name) == 2
            for number in range(100):
                await desk(clerk, "notify", name, {"n": number})
            assert [json.loads(await plain.recv())["n"] for _ in range(100)] == list(range(100))
            assert [json.loads(await framed.recv())["data"]["n"] for _ in range(100)] == list(range(100))
        assert await said(other, "still") == "still"


@pytest.mark.parametrize("work", ["idle", "busy", "thread", "stream", "raw"])
async def test_close_ends_what_a_user_has_running(site: Site, name: str, work: str) -> None:
    async with site.connect("/people/desk") as clerk, site.connect(f"/people/{work}?user={name}") as client:
        if work == "idle":
            assert await said(client, "x") == "x"
        else:
            if work != "stream":
                await client.send("begin")
            await site.until("busy")
        assert await desk(clerk, "close", name, 4403, "revoked") >= 0
        assert await closing_of(client) == Close(4403, "revoked")
        if work == "thread":
            await desk(clerk, "let go", name)
        if work != "idle":
            await site.until("busy ended")
        if work in {"idle", "busy", "thread"}:
            await site.until("left 4403 revoked")
    await site.settled()


async def test_a_connection_that_opens_while_its_user_is_closed(site: Site, name: str) -> None:
    name = f"late{name}"
    async with site.connect("/people/desk") as clerk:

        async def connect() -> Close:
            async with site.connect(f"/people/idle?user={name}") as client:
                return await closing_of(client)

        opening = asyncio.create_task(connect())
        await site.until("asked")
        assert await desk(clerk, "close", name, 4403, "revoked") == 0
        assert await desk(clerk, "open", name) == 0
        assert await opening == Close(4403, "revoked")
        await site.until("left 4403 revoked")
        assert await desk(clerk, "count", name) == 0


async def test_a_client_that_does_not_read_is_closed_and_delays_nobody(site: Site, name: str) -> None:
    text = "x" * 100_000
    async with site.connect("/people/desk") as clerk, site.connect(f"/people/idle?user={name}") as reads:
        assert await said(reads, "x") == "x"
        async with site.raw(f"/people/idle?user={name}", receive_buffer=4096):
            async with asyncio.timeout(60):
                while "left 1013 too slow: 100 notices wait" not in await site.notes():
                    await desk(clerk, "notify", name, text)
                    assert await reads.recv() == text
        assert await said(reads, "still") == "still"
    await site.settled()
