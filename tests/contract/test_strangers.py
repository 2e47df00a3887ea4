"""No message reaches a client whose handshake has not been decided."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.contract.site import Site, closing_of, said
from tests.support.raw import Close

UNDECIDED = ["guard", "stream", "dependency", "accept-handler", "raw"]
ACCEPTED = ["accepted-guard", "accepted-dependency"]
WAYS_TO_SEND = 5


@pytest.mark.parametrize("where", UNDECIDED)
async def test_nothing_reaches_a_client_that_is_not_accepted(site: Site, where: str) -> None:
    async with site.connect("/strangers/member") as member:
        stranger = asyncio.create_task(site.handshake(f"/strangers/{where}"))
        await site.until("undecided")
        await member.send("secret")
        assert await member.recv() == "to all: secret"
        assert await member.recv() == "1"
        response = await stranger
    assert response.status in {401, 403}
    assert b"secret" not in response.body
    assert (await site.notes()).count("refused") == WAYS_TO_SEND


@pytest.mark.parametrize("where", ACCEPTED)
async def test_nothing_reaches_a_client_that_a_guard_accepted_before_it_refused(site: Site, where: str) -> None:
    async with site.connect("/strangers/member") as member, site.connect(f"/strangers/{where}") as stranger:
        await stranger.send("my token")
        await site.until("undecided")
        await member.send("secret")
        assert await member.recv() == "to all: secret"
        assert await member.recv() == "1"
        received, closed = await all_of(stranger)
    assert closed.code == 4401
    assert "to all: secret" not in received


async def all_of(client: ClientConnection) -> tuple[list[object], Close]:
    """What a client receives until its connection ends, and how that is."""
    received: list[object] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            received.append(await client.recv())
    return received, await closing_of(client)


@pytest.mark.parametrize("by", ["stream", "task"])
async def test_what_the_handler_starts_accepts(site: Site, by: str) -> None:
    async with site.connect(f"/strangers/own-tasks?by={by}") as client:
        assert await client.recv() == "from it"
        assert (await closing_of(client)).code == 1000
    assert await site.notes() == ["accepted: True"]


async def test_members_are_there_from_their_accept_to_their_end(site: Site) -> None:
    async with site.connect("/strangers/member") as first:
        assert await said(first, "a") == "to all: a"
        assert await first.recv() == "1"
        async with site.connect("/strangers/member") as second:
            assert await said(second, "b") == "to all: b"
            assert await second.recv() == "2"
