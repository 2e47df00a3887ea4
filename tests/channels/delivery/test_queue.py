"""The queue alone: order, policies, counts, marks, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telex.channels.delivery.queue import DeliveryQueue, Policy, conflate
from telex.exceptions import ConcurrencyError, ImproperlyConfiguredException, WebSocketException


def drained(queue: DeliveryQueue[int]) -> list[int]:
    return [queue.get_nowait() for _ in range(len(queue))]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("drop_oldest", [3, 4]), ("dropleft", [3, 4]), ("drop_newest", [0, 1]), ("backoff", [0, 1])],
)
def test_a_full_queue_drops_by_its_policy_and_counts(policy: Policy, kept: list[int]) -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2, policy)
    assert [queue.put(number) for number in range(5)] == [True, True, False, False, False]
    assert queue.dropped == 3
    assert drained(queue) == kept
    assert queue.delivered == 2


async def test_the_policy_close_ends_the_reader_with_1013() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2, "close")
    for number in range(3):
        queue.put(number)
    with pytest.raises(WebSocketException, match="too slow: 2 events wait") as raised:
        await queue.get()
    assert raised.value.code == 1013
    assert (queue.delivered, queue.dropped, len(queue)) == (0, 3, 0)


def test_conflation_keeps_the_newest_of_each_key_in_the_order_in_which_they_came() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2, conflate(lambda number: number % 10))
    assert [queue.put(number) for number in (1, 2, 11, 21)] == [True, True, False, False]
    assert queue.conflated == 2
    assert queue.put(3) is False
    assert queue.dropped == 1
    assert drained(queue) == [21, 3]


async def test_a_key_that_fails_ends_its_own_reader_alone() -> None:
    keys: list[Callable[..., Any]] = [lambda number: 1 / number, lambda number: [number]]
    for key in keys:
        queue: DeliveryQueue[int] = DeliveryQueue(2, conflate(key))
        assert queue.put(0) is False
        with pytest.raises(WebSocketException, match=r"conflate\(key\) failed") as raised:
            await queue.get()
        assert raised.value.code == 1011


def test_an_unknown_policy_and_an_empty_queue_are_errors_of_the_description() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"unknown policy 'drop'.*drop_oldest"):
        DeliveryQueue(1, "drop")  # type: ignore[arg-type]
    with pytest.raises(ImproperlyConfiguredException, match="an integer of at least 1"):
        DeliveryQueue(0)


async def test_the_reader_waits_for_an_item_and_a_cancelled_reader_loses_none() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2)
    reader = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert queue.is_awaited
    queue.put(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert await queue.get() == 1


async def test_two_readers_are_refused() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2)
    first = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    with pytest.raises(ConcurrencyError, match="two tasks read one subscriber"):
        await queue.get()
    queue.put(1)
    assert await first == 1


async def test_a_closed_queue_gives_what_waits_and_then_its_end() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2)
    queue.put(1)
    queue.close()
    assert queue.put(2) is False
    assert await queue.get() == 1
    with pytest.raises(StopAsyncIteration):
        await queue.get()


async def test_closing_wakes_the_reader() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2)

    async def read() -> str:
        try:
            await queue.get()
        except StopAsyncIteration:
            return "end"
        return "item"

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    queue.close()
    assert await reader == "end"


def test_marks_stay_in_their_place_and_no_policy_drops_them() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2, "drop_oldest")
    queue.put_mark(-1)
    queue.put(1)
    queue.put_mark(-2)
    queue.put(2)
    queue.put(3)
    assert drained(queue) == [-1, -2, 2, 3]
    assert (queue.dropped, queue.delivered) == (1, 2)


def test_conflated_items_go_before_a_later_mark() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2, conflate(lambda number: number))
    queue.put(1)
    queue.put_mark(-1)
    queue.put(2)
    assert drained(queue) == [1, -1, 2]


async def test_even_marks_are_bounded() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2, "drop_oldest")
    for _ in range(3):
        queue.put_mark(-1)
    with pytest.raises(WebSocketException, match="too slow"):
        await queue.get()


def test_a_replay_comes_first_whole_and_beside_the_limit() -> None:
    queue: DeliveryQueue[int] = DeliveryQueue(2, "drop_oldest")
    queue.put(10)
    queue.preload(range(5))
    for number in (11, 12):
        queue.put(number)
    assert drained(queue) == [0, 1, 2, 3, 4, 11, 12]


@given(
    policy=st.sampled_from(["drop_oldest", "drop_newest", "close", "conflate"]),
    steps=st.lists(st.sampled_from(["put", "get", "mark", "preload"]), max_size=80),
)
def test_nothing_is_lost_uncounted(policy: str, steps: list[str]) -> None:
    chosen = conflate(lambda number: number % 3) if policy == "conflate" else policy
    queue: DeliveryQueue[int] = DeliveryQueue(3, chosen)  # type: ignore[arg-type]
    offered = 0
    for number, step in enumerate(steps):
        if step == "put":
            offered += not queue.is_closed
            queue.put(number)
        elif step == "mark":
            queue.put_mark(-1)
        elif step == "preload":
            offered += not queue.is_closed
            queue.preload([number])
        elif len(queue):
            queue.get_nowait()
    waiting = len([item for item in drained(queue) if item >= 0])
    assert waiting <= queue.delivered
    assert queue.delivered + queue.dropped + queue.conflated == offered
