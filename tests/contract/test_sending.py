"""Sending and receiving under pressure: whole, in order, and never without bound."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from tests.contract.servers import KINDS, ServerKind
from tests.contract.site import ON_BOTH_PATHS, SUBJECTS, Site, said, visited
from tests.contract.subjects.sending import CHUNK, FILLING, GATHERED
from tests.support.limits import rss_of_tree
from tests.support.raw import BINARY, TEXT, RawClient, frame

ORDERS_NOTHING = {"granian"}
"""granian keeps the order of sends of one task, not of several."""


async def test_sends_from_many_tasks_are_whole_and_in_order(site: Site) -> None:
    async with site.raw("/sending/gathered", receive_buffer=32768) as client:
        await client.send(frame(TEXT, b"go"))
        got = [await client.read_frame() for _ in range(GATHERED)]
        assert {(each.opcode, each.fin) for each in got} == {(TEXT, True)}
        payloads = [each.payload.decode() for each in got]
        if site.kind.name in ORDERS_NOTHING:
            payloads.sort()
        assert payloads == [f"{number:04} {FILLING}" for number in range(GATHERED)]
        assert (await client.read_close()).code == 1000


async def test_only_one_task_may_wait_for_messages(site: Site) -> None:
    async with site.connect("/sending/received-twice") as client:
        await site.until("second refused")
        await client.send("hello")
        await site.until("first got hello")
    assert await site.notes() == ["second refused", "first got hello"]


async def test_a_handler_may_close_what_is_read_ahead_on(site: Site) -> None:
    async with site.connect("/sending/closes-after-work") as client:
        await client.send("enough")
        await asyncio.wait_for(client.wait_closed(), 9)
        assert (client.close_code, client.close_reason) == (4001, "enough")


async def test_messages_are_handled_one_after_another(site: Site) -> None:
    async with site.connect("/sending/one-after-another") as client:
        for number in range(100):
            await client.send(str(number))
        for number in range(100):
            assert json.loads(await client.recv()) == [number, 1]


async def test_no_more_than_allowed_are_handled_at_once(site: Site) -> None:
    async with site.connect("/sending/four-at-once") as client:
        for number in range(100):
            await client.send(str(number))
        replies = [json.loads(await client.recv()) for _ in range(100)]
    assert sorted(replies) == list(range(100))
    async with site.connect("/sending/most") as client:
        assert 1 < int(await said(client, "")) <= 4


@ON_BOTH_PATHS
async def test_a_loop_of_sends_does_not_delay_other_connections(site: Site) -> None:
    async with site.connect("/sending/for-ever") as greedy, site.connect("/control") as other:
        reading = asyncio.create_task(read_on(greedy))
        for _ in range(20):
            async with asyncio.timeout(10):
                assert await said(other, "hello") == "hello"
        reading.cancel()
        await asyncio.wait([reading])
        await greedy.close()
    await site.until("ends")


async def read_on(client: object) -> None:
    async for _ in client:  # type: ignore[attr-defined]
        pass


async def stalled(site: Site, path: str) -> int:
    """The value of a counter of the server once it no longer grows."""
    async with site.connect(path) as client:
        last, same = -1, 0
        while same < 4:
            now = int(await said(client, ""))
            last, same = now, same + 1 if now == last else 0
            await asyncio.sleep(0.05)  # measures that nothing changes; there is no event to wait for
    return last


MOST_UNREAD = 16 << 20
"""Bytes that may be on their way to a client that does not read: the kernel's buffers and the server's."""


@pytest.mark.program
@pytest.mark.memory
async def test_a_client_that_never_reads_stops_its_sender(server: ServerKind) -> None:
    async with server.process(SUBJECTS, mebibytes=800) as running, visited(server, running) as site:
        assert running.pid is not None
        before = rss_of_tree(running.pid)
        async with site.raw("/sending/for-ever", receive_buffer=4096) as client:
            await site.until("begins")
            sent = await stalled(site, "/sending/sent")
            assert len(CHUNK) <= sent < MOST_UNREAD
            assert rss_of_tree(running.pid) - before < 2 * MOST_UNREAD
            async with site.connect("/control") as other:
                assert await said(other, "hello") == "hello"
            client.reset()
            await site.until("ends")


MESSAGE = frame(BINARY, bytes(65536))
MOST_UNHANDLED = 32 << 20
"""Bytes that a server may take for a handler that is busy: its queue, ours, and the kernel's buffers."""


async def send_until_it_stalls(client: RawClient, most: int) -> int:
    """How many bytes a server takes before it takes no more for a second."""
    client.timeout, sent = 1, 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            await client.send(MESSAGE)
            sent += len(MESSAGE)
    return sent


BUSY = [(kind, "/sending/busy") for kind in KINDS] + [
    # hypercorn's own task waits for ever to hand on what an app that has returned did not take.
    (kind, "/sending/never-receives")
    for kind in KINDS
    if kind.name in {"uvicorn-websockets", "telex"}
]


@pytest.mark.program
@pytest.mark.memory
@pytest.mark.parametrize(("server", "path"), BUSY, ids=lambda each: getattr(each, "name", each))
async def test_a_busy_handler_stops_its_client_from_sending(server: ServerKind, path: str) -> None:
    """A connection that is not read shows no disconnect: the handler sees it when it reads again."""
    async with server.process(SUBJECTS, mebibytes=800) as running, visited(server, running) as site:
        assert running.pid is not None
        before = rss_of_tree(running.pid)
        async with site.raw(path) as client:
            await client.send(frame(TEXT, b"go"))
            await site.until("busy")
            assert await send_until_it_stalls(client, 2 * MOST_UNHANDLED) < MOST_UNHANDLED
            assert rss_of_tree(running.pid) - before < 2 * MOST_UNHANDLED
            client.reset()
        async with site.connect("/sending/release") as other:
            assert await said(other, "go on") == "go on"
        await site.settled()
        await site.records()  # of the listener, which is sent the other kind of message
