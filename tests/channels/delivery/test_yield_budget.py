"""A flood of events leaves the event loop its turns, on every backend."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from telex.channels import conflate
from telex.channels.delivery import yield_budget
from telex.channels.delivery.yield_budget import YieldBudget
from tests.channels.conftest import Engine, MakeHub, until, within

FLOOD = 300


async def test_it_is_due_after_a_stretch_of_work_and_lets_others_run() -> None:
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "other")
    budget, limit = YieldBudget(pieces=10**9), time.monotonic() + 5
    while not budget.is_spent():
        assert time.monotonic() < limit
    assert turns == []
    await budget.renew()
    assert turns == ["other"]


def test_it_is_due_after_so_many_pieces() -> None:
    budget = YieldBudget(pieces=3)
    assert [budget.is_spent() for _ in range(3)] == [False, False, True]


async def test_a_flood_has_turns_between_its_events(
    engine: Engine, make_hub: MakeHub, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, reader = await make_hub(), await make_hub()
    turn, done = 0, False
    heard: Counter[int] = Counter()

    def note(_: object) -> str:
        heard[turn] += 1
        return ""

    async def count_turns() -> None:
        nonlocal turn
        while not done:
            turn += 1
            await asyncio.sleep(0)

    # The key function runs when the event is delivered.
    await reader.subscribe(name, backlog_strategy=conflate(note))
    # Each event now takes as long as a fan-out to thousands.
    monkeypatch.setattr(yield_budget, "SECONDS", -1)
    counting = asyncio.create_task(count_turns())
    if engine.kind == "memory":
        for number in range(FLOOD):
            await publisher.publish(name, number)
    else:
        await within(asyncio.gather(*(publisher.publish(name, number) for number in range(FLOOD))))
    await until(lambda: heard.total() == FLOOD)
    done = True
    await within(counting)
    assert max(heard.values()) <= 2
