"""The only reader of a connection: nothing is lost, nothing is unbounded, and a client that leaves is noticed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from telex import event_reader as module
from telex.event_reader import EventReader, as_disconnect, supervised
from telex.exceptions import ConcurrencyError, WebSocketDisconnect
from tests.support.live import soon
from tests.support.peer import Peer

LONG = 0.06
"""Seconds after which a handler counts as busy, and the reader has begun to read ahead (three looks of the watch)."""


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until ``condition`` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 as it is about turns of the loop
            await asyncio.sleep(0)


async def texts(reader: EventReader, count: int) -> list[Any]:
    return [(await soon(reader.get()))["text"] for _ in range(count)]


async def test_events_come_in_order_straight_from_the_server() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    peer.tell("a", "b")
    assert await texts(reader, 2) == ["a", "b"]


async def test_two_readers_are_refused() -> None:
    reader = EventReader(Peer(connect=False).receive)
    first = asyncio.create_task(reader.get())
    await asyncio.sleep(0)
    with pytest.raises(ConcurrencyError, match="another task waits in receive"):
        await reader.get()
    first.cancel()
    reader.read_ahead()
    second = asyncio.create_task(reader.get())
    await asyncio.sleep(0)
    with pytest.raises(ConcurrencyError):
        await reader.get()
    second.cancel()
    await asyncio.wait((first, second))
    await reader.aclose()


async def test_it_reads_ahead_up_to_its_bounds_and_loses_nothing() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive, max_messages=3)
    reader.read_ahead()
    peer.tell(*"abcdef")
    await until(lambda: peer.received == 3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert peer.received == 3
    reader.read_ahead()  # the queue is full: it does not start
    assert await texts(reader, 6) == list("abcdef")


async def test_bytes_are_bounded_too() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive, max_bytes=10)
    reader.read_ahead()
    peer.tell(b"x" * 8, b"y" * 8, b"z")
    await until(lambda: peer.received == 2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert peer.received == 2
    assert [(await reader.get())["bytes"][:1] for _ in range(3)] == [b"x", b"y", b"z"]


async def test_a_waiter_gets_the_message_that_the_pump_reads() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    reader.read_ahead()
    waiting = asyncio.create_task(reader.get())
    await asyncio.sleep(0)
    peer.tell("a")
    assert (await soon(waiting))["text"] == "a"


async def test_a_cancelled_waiter_loses_nothing() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    reader.read_ahead()
    waiting = asyncio.create_task(reader.get())
    await asyncio.sleep(0)
    peer.tell("a", "b")
    await until(lambda: peer.received == 1)
    waiting.cancel()  # it had been given the message in the same turn of the loop
    await asyncio.wait((waiting,))
    assert waiting.cancelled()
    assert await texts(reader, 2) == ["a", "b"]


async def test_a_waiter_cancelled_before_loses_nothing_either() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    reader.read_ahead()
    waiting = asyncio.create_task(reader.get())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    peer.tell("a")
    assert await texts(reader, 1) == ["a"]
    await reader.aclose()


async def test_an_error_of_the_server_reaches_the_waiter() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    reader.read_ahead()
    waiting = asyncio.create_task(reader.get())
    await asyncio.sleep(0)
    peer.fail(KeyError("server"))
    with pytest.raises(KeyError):
        await soon(waiting)


# -- supervision


async def handle(reader: EventReader, *steps: Awaitable[Any]) -> str:
    for step in steps:
        await step
    return "done"


async def test_work_that_never_suspends_costs_nothing() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    peer.tell("unread")

    async def work() -> int:
        return 5

    assert await supervised(work(), reader) == 5
    await asyncio.sleep(LONG)
    assert peer.received == 0


async def test_the_result_and_the_exception_of_work_that_suspends() -> None:
    reader = EventReader(Peer(connect=False).receive)

    async def work(fail: bool) -> int:
        await asyncio.sleep(0)
        if fail:
            raise KeyError
        return 5

    assert await supervised(work(False), reader) == 5
    with pytest.raises(KeyError):
        await supervised(work(True), reader)
    await reader.aclose()


async def test_a_client_that_leaves_interrupts_the_work() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    peer.leave(4000, "gone")
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    with pytest.raises(WebSocketDisconnect) as caught:
        await soon(supervised(work(), reader))
    assert (caught.value.code, caught.value.reason) == (4000, "gone")
    assert cleaned == ["up"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_that_ends_well_in_spite_of_the_interrupt_counts() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    peer.leave()

    async def work(fail: bool) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if fail:
                raise KeyError from None
        return "finished"

    assert await soon(supervised(work(False), reader)) == "finished"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    other = EventReader(peer.receive)
    peer.leave()
    with pytest.raises(KeyError):
        await soon(supervised(work(True), other))
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_stays_one() -> None:
    reader = EventReader(Peer(connect=False).receive)
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervised(work(), reader))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await reader.aclose()


async def test_both_cancellations_at_once_count_as_the_one_from_outside() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervised(work(), reader))
    await started.wait()
    reader.fail(WebSocketDisconnect(1001))
    reader.fail(WebSocketDisconnect(1002))  # only the first counts
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await reader.aclose()


async def test_nothing_is_interrupted_when_nothing_runs() -> None:
    reader = EventReader(Peer(connect=False).receive)
    reader.fail(WebSocketDisconnect(1001))
    assert await supervised(handle(reader, asyncio.sleep(0)), reader) == "done"


async def test_an_error_of_the_server_interrupts_the_work() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    peer.fail(KeyError("server"))
    with pytest.raises(KeyError):
        await soon(supervised(handle(reader, asyncio.Event().wait()), reader))


async def test_messages_that_came_meanwhile_are_kept_in_order() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    proceed = asyncio.Event()
    peer.tell("a", "b")
    task = asyncio.create_task(supervised(handle(reader, proceed.wait()), reader))
    await until(lambda: peer.received == 2)
    proceed.set()
    assert await soon(task) == "done"
    assert await texts(reader, 2) == ["a", "b"]
    await reader.aclose()


async def test_work_that_reads_is_watched_again_afterwards() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    peer.tell("a", "b")

    async def work() -> None:
        await asyncio.sleep(0)
        assert (await reader.get())["text"] == "a"
        await asyncio.sleep(LONG)  # the reader has read ahead
        assert (await reader.get())["text"] == "b"
        peer.leave(4003)
        await asyncio.Event().wait()

    with pytest.raises(WebSocketDisconnect) as caught:
        await soon(supervised(work(), reader))
    assert caught.value.code == 4003


async def test_a_timer_that_fires_between_two_handlers_does_nothing() -> None:
    reader = EventReader(Peer(connect=False).receive)
    await supervised(handle(reader, asyncio.sleep(0)), reader)
    await asyncio.sleep(LONG)
    assert await supervised(handle(reader, asyncio.sleep(0)), reader) == "done"
    await reader.aclose()


async def test_a_child_task_that_receives_the_disconnect_leaves_the_handler_time_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.05)
    for stubborn in (False, True):
        peer = Peer(connect=False)
        reader = EventReader(peer.receive)
        peer.leave()

        async def work(reader: EventReader = reader, stubborn: bool = stubborn) -> str:
            event = await asyncio.create_task(reader.get())
            if stubborn:
                await asyncio.Event().wait()
            return str(event["type"])

        if stubborn:
            with pytest.raises(WebSocketDisconnect):
                await soon(supervised(work(), reader))
        else:
            assert await soon(supervised(work(), reader)) == "websocket.disconnect"


async def test_on_unread_decides_about_data_without_a_reader() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive, max_messages=1)
    seen: list[bool] = []
    verdicts: list[Exception | bool] = [True, False, KeyError()]

    def decide(full: bool) -> Exception | bool:
        seen.append(full)
        return verdicts[len(seen) - 1]

    reader.on_unread = decide
    peer.tell("kept", "dropped", "fatal")
    with pytest.raises(KeyError):
        await soon(supervised(handle(reader, asyncio.Event().wait()), reader))
    assert seen == [False, True, True]
    assert await texts(reader, 1) == ["kept"]


async def test_aclose_stops_the_reading() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    reader.read_ahead()
    await asyncio.sleep(0)
    await reader.aclose()
    await reader.aclose()
    peer.tell("nobody's")
    await asyncio.sleep(LONG)
    assert peer.received == 0


def test_a_disconnect_without_a_code_is_1005() -> None:
    assert as_disconnect({"type": "websocket.disconnect"}).code == 1005
    assert as_disconnect({"type": "websocket.disconnect", "code": 1001, "reason": None}).reason == ""


async def test_it_says_whether_it_reads_ahead_and_whether_work_runs() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    states: list[tuple[bool, bool]] = [(reader.reads_ahead, reader.busy)]

    async def work() -> None:
        states.append((reader.reads_ahead, reader.busy))
        reader.read_ahead()
        states.append((reader.reads_ahead, reader.busy))
        peer.tell("a")
        await reader.get()

    await soon(supervised(work(), reader))
    states.append((reader.reads_ahead, reader.busy))
    assert states == [(False, False), (False, True), (True, True), (False, False)]
    await reader.aclose()


# -- the end behind a full queue


async def test_a_full_queue_is_read_on_slowly_until_the_client_is_seen_to_leave() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive, max_messages=2)
    peer.tell(*"abcd")
    peer.leave(4000, "gone")
    with pytest.raises(WebSocketDisconnect) as caught:
        await soon(supervised(handle(reader, asyncio.Event().wait()), reader))
    assert caught.value.code == 4000
    assert reader.unread == 4
    await reader.aclose()


async def test_work_after_an_event_that_was_awaited_ahead_is_interrupted_too() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)

    async def work() -> None:
        await until(lambda: reader.reads_ahead)  # the busy monitor's list has lost it now
        getting = asyncio.create_task(reader.get())
        await asyncio.sleep(0)
        peer.tell("a")
        assert (await getting)["text"] == "a"
        peer.leave(4000, "gone")
        await asyncio.Event().wait()

    with pytest.raises(WebSocketDisconnect):
        await soon(supervised(work(), reader))
    await reader.aclose()


async def test_it_stops_where_what_is_queued_takes_too_much() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive, max_messages=1, max_bytes=1500)
    peer.tell(*["x" * 100_000] * 6)
    task = asyncio.create_task(supervised(handle(reader, asyncio.Event().wait()), reader))
    await until(lambda: peer.received == 3)
    await asyncio.sleep(3 * module.PROBE)
    assert peer.received == 3
    task.cancel()
    await asyncio.wait((task,))
    await reader.aclose()


async def test_a_server_that_tells_the_end_is_believed() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive, max_messages=1)
    reader.server_reports_end = True
    peer.tell(*"abc")
    task = asyncio.create_task(supervised(handle(reader, asyncio.Event().wait()), reader))
    await until(lambda: peer.received == 1)
    await asyncio.sleep(3 * module.PROBE)
    assert peer.received == 1
    reader.on_end(4000, "gone")
    with pytest.raises(WebSocketDisconnect):
        await soon(task)
    await reader.aclose()


# -- held work


async def test_all_that_wait_until_nothing_is_held_go_on() -> None:
    reader = EventReader(Peer(connect=False).receive)
    reader.hold()
    waiting = [asyncio.create_task(reader.until_let_go()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[2].cancel()
    await asyncio.sleep(0)
    reader.let_go()
    await soon(asyncio.wait(waiting))
    assert [task.cancelled() for task in waiting] == [False, False, True]


async def test_an_interrupt_that_the_work_ignored_does_not_come_again_after_held_work() -> None:
    peer = Peer(connect=False)
    reader = EventReader(peer.receive)
    peer.leave(4000)

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        reader.hold()
        reader.let_go()
        await asyncio.sleep(0)

    await soon(supervised(stubborn(), reader))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
