"""``ping`` where the server sends nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from telex import Telex, websocket_stream
from telex.protocol.output import FrameOutput
from tests.contract.servers import ServerKind
from tests.protocol.conftest import calling
from tests.support.leaks import no_leaks
from tests.support.live import connected, heard_json, serving

PING = {"type": "ping"}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth of a second instead of the 20 seconds that ``hello`` says."""
    ping_every = FrameOutput.ping_every
    monkeypatch.setattr(FrameOutput, "ping_every", lambda self, _: ping_every(self, 0.1))


@websocket_stream("/silent")
async def silent() -> AsyncGenerator[int, None]:
    yield 1
    await asyncio.Event().wait()


@websocket_stream("/busy")
async def busy() -> AsyncGenerator[int, None]:
    for number in range(30):
        yield number
        await asyncio.sleep(0.01)


async def test_silence_is_broken_by_pings(kind: ServerKind) -> None:
    async with calling(Telex([silent]), "/silent", kind) as caller:
        assert caller.hello["ping"] == 20
        assert (await caller.receive())["data"] == 1
        assert [await caller.receive() for _ in range(2)] == [PING, PING]
        await caller.send({"type": "pong"})
        assert await caller.receive() == PING


async def test_messages_are_signs_of_life_themselves(kind: ServerKind) -> None:
    async with calling(Telex([busy]), "/busy", kind) as caller:
        frames = [await caller.receive() for _ in range(30)]
    assert frames.count(PING) <= 3  # a busy machine may make a pause


async def test_nothing_pings_after_the_end(kind: ServerKind) -> None:
    app = Telex([silent])
    async with serving(app, kind) as running:
        async with connected(running, "/silent", subprotocols=["telex.v1"]):
            pass
        async with no_leaks(), connected(running, "/silent", subprotocols=["telex.v1"]) as client:
            while await heard_json(client) != PING:
                pass
