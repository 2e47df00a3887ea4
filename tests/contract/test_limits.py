"""Messages at and beyond the limit, each set through the public API."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.contract.site import ON_BOTH_PATHS, Site, closing_of, said
from tests.contract.subjects.messages import LIMIT

TEXTS = ["/messages/text-limited", "/messages/text-limited-concurrent"]
MEBIBYTE = 1 << 20

# characters of one, two, three and four bytes
CHARACTERS = {"ascii": "a", "two": "é", "three": "→", "four": "🙂"}


@pytest.mark.parametrize("path", TEXTS)
@pytest.mark.parametrize("row", CHARACTERS)
async def test_text_is_limited_by_its_bytes(site: Site, row: str, path: str) -> None:
    character = CHARACTERS[row]
    width = len(character.encode())
    fits = character * (LIMIT // width) + "a" * (LIMIT % width)
    assert len(fits.encode()) == LIMIT
    async with site.connect(path) as client:
        for text in ("", fits[:-1], fits):
            assert await said(client, text) == str(len(text))
        await client.send(fits + "a")
        close = await closing_of(client)
    assert (close.code, close.reason) == (1009, f"message over {LIMIT} bytes")
    assert await site.notes() == ["entered 'a message'"] * 3


async def test_bytes_are_limited(site: Site) -> None:
    async with site.connect("/messages/bytes-limited") as client:
        for size in (0, LIMIT - 1, LIMIT):
            assert await said(client, bytes(size)) == str(size)
        await client.send(bytes(LIMIT + 1))
        assert (await closing_of(client)).code == 1009
    assert await site.notes() == ["entered 'a message'"] * 3


async def test_a_message_in_many_frames_is_limited_as_a_whole(site: Site) -> None:
    async with site.connect("/messages/text-limited") as client:
        await client.send(["a" * 100] * 10)
        assert await client.recv() == "1000"
        await client.send(["a" * 100] * 10 + ["a"])
        assert (await closing_of(client)).code == 1009
    assert await site.notes() == ["entered 'a message'"]


async def test_without_a_limit_set_it_is_a_mebibyte(site: Site) -> None:
    async with site.connect("/messages/text") as client:
        assert await said(client, "a" * MEBIBYTE) == "a" * MEBIBYTE
        await client.send("a" * (MEBIBYTE + 1))
        assert (await closing_of(client)).code == 1009
    await site.settled()
    assert len(await site.notes()) == 1
    await site.records()  # of servers whose own limit is the same


def wide(size: int) -> str:
    """An object of as many keys as make up about ``size`` bytes."""
    return json.dumps(dict.fromkeys(map(str, range(size // 12)), 1), separators=(",", ":"))


@pytest.mark.slow
@ON_BOTH_PATHS
async def test_a_million_keys_are_over_the_limit(site: Site) -> None:
    message = wide(12 << 20)
    assert message.count(":") > 1_000_000
    async with site.connect("/messages/any") as client, site.connect("/control") as other:
        await client.send(message)
        async with asyncio.timeout(10):
            assert await said(other, "hello") == "hello"
        assert (await closing_of(client)).code == 1009
    await site.settled()
    assert await site.notes() == []
    await site.records()  # of servers whose own limit is the same


@ON_BOTH_PATHS
async def test_the_largest_message_does_not_delay_other_connections(site: Site) -> None:
    message = wide(1_000_000)
    async with site.connect("/messages/order") as client, site.connect("/control") as other:
        for _ in range(5):
            await client.send(message)
            async with asyncio.timeout(10):
                assert await said(other, "hello") == "hello"
            assert "error" in json.loads(await client.recv())
