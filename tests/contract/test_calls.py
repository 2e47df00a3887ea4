"""Calls in both directions, on every server, with a client of another library."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.contract.site import PATIENCE, Site, closing_of

ASKING = ["async", "concurrent", "thread", "scoped", "raw"]
SOON = 0.005
"""Seconds from the client's call to the server's question, and from the answer to the reply, at best of some."""


class FrameClient:
    """Writes and reads frames by hand."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self._ids = 0

    async def send(self, **frame: object) -> None:
        await self.client.send(json.dumps(frame))

    async def call(self, data: object, **more: object) -> int:
        self._ids += 1
        await self.send(type="call", id=self._ids, data=data, **more)
        return self._ids

    async def receive(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            raw = await self.client.recv()
        if isinstance(raw, str):
            return json.loads(raw)
        end = 4 + int.from_bytes(raw[:4], "big")
        return json.loads(raw[4:end]) | {"bytes": raw[end:]}

    async def answered(self, data: object, **more: object) -> Any:
        """The frame that answers a call."""
        call_id = await self.call(data, **more)
        found = await self.receive()
        assert found["id"] == call_id
        return found

    async def quiet(self) -> None:
        await self.send(type="ping")
        assert await self.receive() == {"type": "pong"}


@contextlib.asynccontextmanager
async def calling(site: Site, path: str) -> AsyncIterator[FrameClient]:
    async with site.connect(f"/calls/{path}", subprotocols=["telex.v1"]) as client:
        assert client.subprotocol == "telex.v1"
        caller = FrameClient(client)
        assert (await caller.receive())["type"] == "hello"
        yield caller


@pytest.mark.parametrize("kind", ASKING)
async def test_a_handler_asks_its_own_client_at_once_also_when_its_queue_is_full(site: Site, kind: str) -> None:
    times: list[float] = []
    async with calling(site, f"ask/{kind}") as caller:
        for _ in range(8):
            began = time.perf_counter()
            for _ in range(4):  # all that the window allows
                await caller.call("x")
            answered = 0
            while answered < 4:
                found = await caller.receive()
                if found["type"] == "call":
                    assert found["data"] == "why?"
                    await caller.send(type="reply", id=found["id"], data="because")
                else:
                    assert (found["type"], found["data"]) == ("reply", "x because")
                    answered += 1
            times.append((time.perf_counter() - began) / 4)
        refused = [await caller.call("x") for _ in range(5)][4]
        while (found := await caller.receive())["type"] != "error":
            pass
        assert (found["id"], found["error"]["code"]) == (refused, "too_many_calls")
    assert min(times) < SOON, times


@pytest.mark.parametrize("path", ["sync", "async"])
async def test_replies_and_declared_errors(site: Site, path: str) -> None:
    async with calling(site, path) as caller:
        assert await caller.answered("a") == {"type": "reply", "id": 1, "data": "A"}
        assert await caller.answered("error") == {
            "type": "error",
            "id": 2,
            "error": {"code": "no_such_room", "message": "no room 7", "data": {"room": "7"}},
        }
        assert (await caller.answered(5))["error"]["code"] == "invalid_message"
        assert (await caller.answered("b"))["data"] == "B"


async def test_an_empty_reply_says_that_the_handler_has_run(site: Site) -> None:
    async with calling(site, "void") as caller:
        assert await caller.answered("ran") == {"type": "reply", "id": 1}
        assert await site.notes() == ["ran"]


async def test_bytes_go_behind_a_header(site: Site) -> None:
    header = b'{"type":"call","id":1}'
    async with calling(site, "bytes") as caller:
        await caller.client.send(len(header).to_bytes(4, "big") + header + b"\x00\xff1")
        assert await caller.receive() == {"type": "reply", "id": 1, "bytes": b"1\xff\x00"}


async def test_a_call_is_cancelled_or_times_out(site: Site) -> None:
    async with calling(site, "async") as caller:
        running, waiting = await caller.call("wait"), await caller.call("a")
        await site.until("waits")
        await caller.send(type="cancel", id=running)
        assert (await caller.receive())["error"]["code"] == "cancelled"
        assert await caller.receive() == {"type": "reply", "id": waiting, "data": "A"}
        assert (await caller.answered("wait", timeout=0.02))["error"]["code"] == "timeout"
        await caller.quiet()
    assert await site.notes() == ["waits", "ended"] * 2


async def test_parts_have_credit_an_end_and_a_limit(site: Site) -> None:
    async with calling(site, "parts") as caller:
        call_id = await caller.call(1000)
        assert [(await caller.receive())["data"] for _ in range(16)] == list(range(16))
        await caller.quiet()
        await caller.send(type="more", id=call_id, n=1)
        assert (await caller.receive())["data"] == 16
        second = await caller.call(17)
        for _ in range(16):
            assert (await caller.receive())["id"] == second
        assert (await caller.answered(1))["error"]["code"] == "too_many_calls"
        await caller.send(type="cancel", id=call_id)
        assert (await caller.receive())["error"]["code"] == "cancelled"
        await caller.send(type="more", id=second, n=9)
        assert [(await caller.receive())["type"] for _ in range(2)] == ["item", "end"]
    await site.until("closed", 2)


async def test_a_stream_sends_notifies_and_refuses_calls(site: Site) -> None:
    async with calling(site, "stream") as caller:
        assert await caller.receive() == {"type": "notify", "data": 1}
        assert (await caller.answered("x"))["error"]["code"] == "not_found"
        await caller.send(type="notify", data="x")
        assert (await closing_of(caller.client)).code == 1003
    await site.until("closed")
    assert any("the client sent data" in text for _, _, text in await site.records())


@pytest.mark.parametrize("kind", [f"ask/{each}" for each in ASKING])
async def test_nothing_is_left_of_a_client_that_goes_while_it_is_asked(site: Site, kind: str) -> None:
    async with calling(site, kind) as caller:
        for _ in range(3):
            await caller.call("x", timeout=60)
        assert (await caller.receive())["type"] == "call"
        caller.client.transport.abort()
    await site.settled()
    notes = await site.notes()
    assert notes.count("opened") == notes.count("released") == (kind == "ask/scoped")


@pytest.mark.parametrize("path", ["async", "parts", "stream", "sync", "void"])
@pytest.mark.parametrize("when", ["at once", "in work"])
async def test_nothing_is_left_of_a_client_that_goes_in_the_middle(site: Site, path: str, when: str) -> None:
    async with calling(site, path) as caller:
        if path != "stream":
            for _ in range(3):
                await caller.call(100 if path == "parts" else "wait", timeout=60)
        if when == "in work" and path not in {"sync", "void"}:
            await site.until("waits" if path == "async" else "begins")
        caller.client.transport.abort()
    await site.settled()
    notes = await site.notes()
    assert notes.count("waits") == notes.count("ended")
    assert notes.count("begins") == notes.count("closed")
