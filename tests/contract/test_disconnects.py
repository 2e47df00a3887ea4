"""Clients that vanish: the handler is cancelled at any point, and nothing of it is left."""

from __future__ import annotations

import asyncio

import pytest

from tests.contract.site import ON_BOTH_PATHS, Site
from tests.contract.subjects.lifetimes import BUSY
from tests.support.raw import TEXT, RawClient, close_frame, frame

KINDS = ["raw", "listener", "concurrent", "stream", "started"]


async def leave(client: RawClient, how: str) -> None:
    if how == "reset":
        client.reset()
    elif how == "half-close":
        client.close_sending()
    else:
        await client.send(close_frame(1001))


def is_ended_by_a_disconnect(note: str, case: str) -> bool:
    """A handler is cancelled; the generator of a stream may be closed instead, where it waits at its yield."""
    return note in {f"out by CancelledError as {case}", f"out by GeneratorExit as {case}"}


@ON_BOTH_PATHS
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("case", BUSY)
async def test_a_busy_handler_is_cancelled_and_knows_its_context(site: Site, case: str, how: str) -> None:
    async with site.raw(f"/lifetimes/busy/listener/{case}") as client:
        await client.send(frame(TEXT, b"go"))
        await site.until("in")
        await leave(client, how)
        await site.until(f"out by CancelledError as {case}")
    assert await site.notes() == ["in", f"out by CancelledError as {case}"]


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_handler_is_cancelled(site: Site, kind: str, how: str) -> None:
    async with site.raw(f"/lifetimes/busy/{kind}/sleep") as client:
        if kind in {"listener", "concurrent"}:
            await client.send(frame(TEXT, b"go"))
        await site.until("in")
        await leave(client, how)
        await site.settled()
    notes = await site.notes()
    assert len(notes) == 2
    assert is_ended_by_a_disconnect(notes[1], "sleep")


async def test_all_that_run_at_once_are_cancelled(site: Site) -> None:
    async with site.raw("/lifetimes/busy/concurrent/gather") as client:
        await client.send(frame(TEXT, b"go") * 3)
        await site.until("in", 3)
        client.reset()
        await site.until("out by CancelledError as gather", 3)


async def test_a_client_that_vanishes_while_it_is_idle_leaves_nothing(site: Site) -> None:
    for path in ("/control", "/errors/counted", "/lifetimes/cleanup/join"):
        async with site.raw(path) as client:
            client.reset()
        async with site.raw(path) as client:
            await client.send(frame(TEXT, b"half a message", fin=False))
            client.reset()
        async with site.raw(path) as client:
            await client.send(frame(TEXT, b"half a frame")[:-3])
            client.reset()
    await site.settled()
    notes = await site.notes()
    assert len([note for note in notes if note.startswith("left 100")]) == 3
    assert notes.count("enter outer") == len([note for note in notes if note.startswith("exit outer")]) == 3


JOINS = 200


async def test_two_hundred_that_vanish_while_they_join_leave_nothing(site: Site) -> None:
    gate = asyncio.Semaphore(25)

    async def join_and_vanish(number: int) -> None:
        async with gate, site.raw() as client:
            handshake = asyncio.create_task(client.handshake("/lifetimes/cleanup/join"))
            # Clients vanish at different moments: before the request, in the provider, after the accept.
            await asyncio.wait([handshake], timeout=(number % 20) / 1000)
            handshake.cancel()
            await asyncio.wait([handshake])
            client.reset()

    async with asyncio.TaskGroup() as group:
        for number in range(JOINS):
            group.create_task(join_and_vanish(number))
    await site.settled()
    notes = await site.notes()
    assert notes.count("enter outer") == len([note for note in notes if note.startswith("exit outer")])
    assert notes.count("enter slow") == notes.count("exit slow")
    assert notes.count("enter outer") > 0
