"""Limits of rates on every server: of messages, handshakes and open connections."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from tests.contract.site import Site, closing_of, said

KINDS = ["sync", "async", "raw"]
LOST = {"ended 1005", "ended 1006"}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_messages_wait_and_none_is_lost(site: Site, kind: str) -> None:
    loop = asyncio.get_running_loop()
    async with site.connect(f"/limits/slow/{kind}") as client:
        began = loop.time()
        for number in range(30):
            await client.send(str(number))
        async with asyncio.timeout(20):
            assert [await client.recv() for _ in range(30)] == [str(number) for number in range(30)]
        assert loop.time() - began >= 20 / 100 - 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_is_noticed_while_a_message_waits(site: Site, kind: str, how: str) -> None:
    async with site.connect(f"/limits/wait/{kind}") as client:
        for number in range(6):
            await client.send(str(number))
        await site.until("2")
        if how == "close":
            await client.close(4001)
        else:
            client.transport.abort()
    await site.settled()  # far within the hour that the fourth message would wait
    *taken, ended = await site.notes()
    assert taken == ["0", "1", "2"]
    # Servers differ on a reset, and hypercorn does not tell the code of a close.
    assert ended in ({"ended 4001"} if how == "close" and site.kind.name != "hypercorn" else LOST)
    await site.records()  # that messages were not handled


@pytest.mark.parametrize("kind", KINDS)
async def test_close_closes_with_4429(site: Site, kind: str) -> None:
    async with site.connect(f"/limits/close/{kind}") as client:
        for number in range(3):
            assert await said(client, str(number)) == str(number)
        await client.send("3")
        close = await closing_of(client)
    assert close.code == 4429
    assert 3590 < float(close.reason.removeprefix("retry-after=")) <= 3600.1
    await site.until("ended 4429")
    assert [note for note in await site.notes() if note.isdigit()] == ["0", "1", "2"]
    await site.settled()
    await site.records()


@pytest.mark.parametrize("kind", KINDS)
async def test_reply_answers_and_drops(site: Site, kind: str) -> None:
    async with site.connect(f"/limits/reply/{kind}") as client:
        for number in range(3):
            assert await said(client, str(number)) == str(number)
        for _ in range(2):
            error = json.loads(await said(client, "more"))["error"]
            assert error["code"] == "rate_limited"
            assert 3590 < error["retry_after"] <= 3600.1
    assert "more" not in await site.notes()


async def test_handshakes_are_refused(site: Site) -> None:
    key = ("X-Key", uuid.uuid4().hex)
    answers = [await site.handshake("/limits/handshakes", [key]) for _ in range(5)]
    # A server without denial responses answers 403 to any refusal.
    assert [answer.status for answer in answers[:3]] == [101] * 3
    for answer in answers[3:]:
        assert answer.status in {403, 429}
        if answer.status == 429:
            retry_after = answer.header("retry-after")
            assert retry_after is not None
            assert 3590 <= int(retry_after) <= 3600
    assert (await site.handshake("/limits/handshakes", [("X-Key", uuid.uuid4().hex)])).status == 101
    await site.records()  # that handshakes were refused


async def test_open_connections_are_counted_until_they_end(site: Site) -> None:
    key = {"X-Key": uuid.uuid4().hex}
    async with site.connect("/limits/open", headers=key) as client:
        assert await said(client, "hi") == "hi"
        assert (await site.handshake("/limits/open", key.items())).status in {403, 429}
    await site.settled()
    assert (await site.handshake("/limits/open", key.items())).status == 101
    await site.records()
