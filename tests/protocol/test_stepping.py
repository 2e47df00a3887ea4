"""A coroutine that is stepped to where it first waits behaves as one that is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from telex.protocol.stepping import watching
from tests.support.live import soon

waits: list[None] = []


def note() -> None:
    waits.append(None)


@pytest.fixture(autouse=True)
def no_waits() -> None:
    waits.clear()


async def at_once() -> str:
    return "done"


async def later() -> str:
    for _ in range(3):
        await asyncio.sleep(0)
    return "done"


async def in_a_task() -> str:
    return await asyncio.create_task(later())


def a_future() -> Awaitable[str]:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "done")
    return future


@pytest.mark.parametrize(("work", "times"), [(at_once, 0), (later, 1), (in_a_task, 1), (a_future, 1)])
async def test_the_result_is_returned_and_the_first_wait_is_told(work: Callable[[], Any], times: int) -> None:
    assert await soon(watching(work(), note)) == "done"
    assert len(waits) == times


@pytest.mark.parametrize("turns", [0, 1])
async def test_an_exception_is_raised(turns: int) -> None:
    async def fail() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await soon(watching(fail(), note))


@pytest.mark.parametrize("absorbed", [0, 1, 2])
async def test_a_cancellation_reaches_it_and_may_be_absorbed(absorbed: int) -> None:
    seen = 0

    async def stubborn() -> str:
        nonlocal seen
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen += 1
                if seen > absorbed:
                    return "ended"

    task = asyncio.create_task(watching(stubborn(), note))
    for number in range(absorbed + 1):
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert seen == number + 1
    assert await soon(task) == "ended"


async def test_its_limit_and_its_task_are_those_of_the_caller() -> None:
    async def limited() -> asyncio.Task[Any] | None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        return asyncio.current_task()

    assert await soon(asyncio.ensure_future(watching(limited(), note))) is not None
    assert len(waits) == 1


async def test_closing_it_closes_the_coroutine() -> None:
    closed = []

    async def guarded() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    work = watching(guarded(), note)
    work.send(None)
    work.close()
    assert closed == [True]
