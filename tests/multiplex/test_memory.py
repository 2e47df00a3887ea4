"""A hundred routes that stall take a bounded memory, in a server process that is killed above it."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.servers import ServerKind
from tests.multiplex.apps import LARGE
from tests.multiplex.conftest import Shared, joined

pytestmark = pytest.mark.slow

APP = "tests.multiplex.apps:app"
MEBIBYTES = 260
"""Of these about 60 are the server itself. Without bounds the tests would need more than 400."""


async def opened(shared: Shared, path: str, *, but: int = 0, credit: int = 16) -> None:
    while shared.highest < 99 - but:
        await shared.open(path, credit=credit)


@pytest.mark.parametrize("path", ["/stalled", "/raw"])
async def test_large_messages_to_a_hundred_stalled_routes(kind: ServerKind, path: str) -> None:
    async with kind.process(APP, mebibytes=MEBIBYTES) as running, joined(running) as shared:
        echo = await shared.open("/echo")
        await opened(shared, path)
        for number in range(4):
            for c in range(2, 100):
                more = {"id": number + 1} if path == "/stalled" else {}
                await shared.send({"type": "call" if more else "notify", "c": c, **more, "data": LARGE})
        for number in range(10):
            assert (await echo.call(str(number)))["data"] == str(number)
        kinds = {
            found.get("error", {}).get("code", found.get("code")) for c in range(2, 100) for found in shared.kept(c)
        }
        assert kinds == ({"too_many_calls"} if path == "/stalled" else {1008})


async def test_large_messages_of_a_hundred_routes_to_a_client_that_does_not_read(kind: ServerKind) -> None:
    async with kind.process(APP, mebibytes=MEBIBYTES + 120) as running, joined(running) as shared:
        await opened(shared, "/large", credit=0)
        for c in range(1, 100):
            await shared.send({"type": "credit", "c": c, "n": 16})
        seen: set[int] = set()
        async with asyncio.timeout(60):
            while len(seen) < 99:
                seen.add((await shared.receive())["c"])
