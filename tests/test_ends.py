"""The end of a connection whose task is cancelled, as servers do it that stop."""

from __future__ import annotations

import asyncio

import pytest

from telex import Telex, websocket_listener
from telex.types import Message
from tests.support.live import PATIENCE, soon
from tests.support.peer import Peer, scope


@pytest.mark.parametrize("again", ["at once", "with every task", "in the close", "in the hook"])
async def test_a_second_cancellation_skips_neither_the_close_nor_the_hook(again: str) -> None:
    told: list[tuple[int | None, str]] = []
    accepted, closing, hooked = asyncio.Event(), asyncio.Event(), asyncio.Event()
    peer = Peer()

    async def note(close_code: int | None, close_reason: str) -> None:
        hooked.set()
        for _ in range(5):
            await asyncio.sleep(0)
        told.append((close_code, close_reason))

    @websocket_listener("/", on_accept=accepted.set, on_disconnect=note)
    async def handler(data: str) -> None: ...

    async def send(event: Message) -> None:
        await peer.send(event)
        if event["type"] == "websocket.close":
            closing.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    task = asyncio.create_task(Telex([handler])(scope("/"), peer.receive, send))
    await soon(accepted.wait())
    await asyncio.sleep(0)  # the handler waits for a message
    task.cancel()
    if again == "at once":
        task.cancel()
        await asyncio.sleep(0)
    elif again == "with every task":  # as asyncio.run() does at its end: also the one that is to close
        for _ in range(10):
            if len(asyncio.all_tasks()) == 3:
                break
            await asyncio.sleep(0)
        for each in asyncio.all_tasks():
            if each is not asyncio.current_task():
                each.cancel()
    else:
        await soon((closing if again == "in the close" else hooked).wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert told == [(1012, "service restart")]
    assert [event["code"] for event in peer.sent if event["type"] == "websocket.close"] == [1012]


@pytest.mark.long
async def test_a_hook_that_does_not_end_does_not_keep_a_server_that_cancels_again() -> None:
    accepted, hooked, outcome = asyncio.Event(), asyncio.Event(), list[str]()
    peer = Peer()

    async def endless() -> None:
        hooked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    @websocket_listener("/", on_accept=accepted.set, on_disconnect=endless)
    async def handler(data: str) -> None: ...

    task = asyncio.create_task(Telex([handler])(scope("/"), peer.receive, peer.send))
    await soon(accepted.wait())
    await asyncio.sleep(0)  # the handler waits for a message
    task.cancel()
    await soon(hooked.wait())
    task.cancel()
    _, pending = await asyncio.wait([task], timeout=PATIENCE)
    assert not pending
    assert outcome == ["cancelled"]
