"""Frames that cross: a cancel and the reply, an answer and the server's time limit, an answer and a new connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from telex import Multiplex, Telex, WebSocket, websocket_listener
from telex.exceptions import CallTimeout
from tests.contract.servers import ServerKind
from tests.protocol.conftest import Caller, calling
from tests.protocol.fuzz.peers import InProcess, OnARoute, OnASocket, OnUvicorn, Peer
from tests.support.live import connected, serving, soon

TURNS = 8


def make_app() -> Telex:
    """A handler that takes some turns of the event loop, and asks its client with little patience."""

    @websocket_listener("/turns")
    async def turns(data: int) -> int:
        for _ in range(data):
            await asyncio.sleep(0)
        return data

    @websocket_listener("/ask")
    async def ask(data: float, socket: WebSocket) -> str:
        try:
            return await socket.call("what?", str, timeout=data)
        except CallTimeout:
            return "nothing came"

    return Telex([turns, ask, Multiplex("/socket", routes=[turns, ask])])


async def race(peer: Peer, times: int) -> Counter[str]:
    """Cancel calls at different moments of their work; each must get one final frame."""
    outcomes: Counter[str] = Counter()
    await peer.start()
    try:
        await peer.connect("/turns")
        if not isinstance(peer, InProcess):  # its session has read it
            assert (await soon(peer.receive()) or {})["type"] in {"hello", "opened"}
        for number in range(1, times + 1):
            await peer.send({"type": "call", "id": number, "data": number % TURNS})
            for _ in range(number // TURNS % (2 * TURNS)):
                await asyncio.sleep(0)
            await peer.send({"type": "cancel", "id": number})
            final = await soon(peer.receive())
            assert final is not None
            assert final["id"] == number  # a second frame of the call before would be here
            outcomes[final["error"]["code"] if final["type"] == "error" else final["type"]] += 1
        await peer.send({"type": "ping"})
        assert await soon(peer.receive()) == {"type": "pong"}
    finally:
        await peer.close(abort=False)
        await peer.stop()
    return outcomes


@pytest.mark.parametrize("peer", [OnASocket, OnUvicorn, InProcess, OnARoute])
async def test_a_cancel_that_races_the_reply_leaves_one_final_frame(peer: type[Peer]) -> None:
    assert await race(peer(make_app()), 300) <= Counter(reply=300, cancelled=300)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("peer", [OnASocket, OnUvicorn, InProcess, OnARoute])
async def test_ten_thousand_cancels_that_race_the_reply(peer: type[Peer]) -> None:
    outcomes = await race(peer(make_app()), 10_000)
    assert outcomes["reply"] + outcomes["cancelled"] == 10_000
    assert outcomes["cancelled"]


async def test_an_answer_after_the_time_limit_reaches_no_other_call(kind: ServerKind) -> None:
    async with calling(make_app(), "/ask", kind) as caller:
        call_id = await caller.begin(0.01)
        first = await caller.receive()
        assert await caller.receive() == {"type": "cancel", "id": first["id"]}
        assert await caller.receive() == {"type": "reply", "id": call_id, "data": "nothing came"}
        await caller.send({"type": "reply", "id": first["id"], "data": "late"})
        call_id = await caller.begin(5)
        second = await caller.receive()
        assert second["id"] > first["id"]
        await caller.send({"type": "reply", "id": first["id"], "data": "later still"})
        await caller.quiet()
        await caller.send({"type": "reply", "id": second["id"], "data": "in time"})
        await caller.send({"type": "reply", "id": second["id"], "data": "twice"})
        assert await caller.receive() == {"type": "reply", "id": call_id, "data": "in time"}
        await caller.quiet()


async def test_an_answer_of_an_earlier_connection_reaches_no_other_call(kind: ServerKind) -> None:
    async with serving(make_app(), kind) as running:
        async with connected(running, "/ask", subprotocols=["telex.v1"]) as client:
            before = await _greeted(Caller(client))
            await before.begin(60)
            asked = await before.receive()
        async with connected(running, "/ask", subprotocols=["telex.v1"]) as client:
            after = await _greeted(Caller(client))
            await after.send({"type": "reply", "id": asked["id"], "data": "late"})
            refused = await after.receive()
            assert (refused["about"], refused["error"]["code"]) == ("connection", "bad_frame")
            call_id = await after.begin(5)
            again = await after.receive()
            assert again["id"] == asked["id"]  # each connection counts by itself
            await after.send({"type": "reply", "id": again["id"], "data": "fresh"})
            assert await after.receive() == {"type": "reply", "id": call_id, "data": "fresh"}


async def _greeted(caller: Caller) -> Caller:
    caller.hello = await caller.receive()
    return caller


async def test_answers_of_two_clients_do_not_cross(kind: ServerKind) -> None:
    async with serving(make_app(), kind) as running:
        exits: list[Any] = [connected(running, "/ask", subprotocols=["telex.v1"]) for _ in range(2)]
        async with exits[0] as one, exits[1] as other:
            callers = [await _greeted(Caller(one)), await _greeted(Caller(other))]
            for caller in callers:
                await caller.begin(5)
            asked = [await caller.receive() for caller in callers]
            assert [each["id"] for each in asked] == [1, 1]
            for number in (1, 0):
                await callers[number].send({"type": "reply", "id": 1, "data": f"from {number}"})
            assert [(await caller.receive())["data"] for caller in callers] == ["from 0", "from 1"]
