"""A coroutine that is begun by one task and belongs to another sees the one that it belongs to, all the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from telex.channels.delivery.begun import Begun, begin
from tests.channels.conftest import within

who: ContextVar[str] = ContextVar("who", default="nobody")


class Owner:
    """A task that does what it is handed."""

    def __init__(self) -> None:
        self.handed: asyncio.Queue[Begun] = asyncio.Queue()
        who.set("owner")
        self.context = copy_context()
        self.task = asyncio.create_task(self.run(), context=self.context)
        who.set("publisher")

    async def run(self) -> None:
        await (await self.handed.get())

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> Begun | None:
        # The context cannot be entered twice, but what it says can be had twice.
        return begin(coroutine, self.task, self.context.copy())


@asynccontextmanager
async def an_owner() -> AsyncIterator[Owner]:
    owner = Owner()
    await asyncio.sleep(0)
    yield owner
    owner.task.cancel()
    await asyncio.wait([owner.task])


async def test_what_does_not_wait_is_over_after_one_step() -> None:
    seen: list[object] = []

    async def work() -> None:
        await asyncio.Event().wait() if seen else None
        seen.append((asyncio.current_task(), who.get()))

    async with an_owner() as owner:
        publisher = asyncio.current_task()
        assert owner.begin(work()) is None
        assert seen == [(owner.task, "owner")]
        assert (asyncio.current_task(), who.get()) == (publisher, "publisher")


async def test_it_may_be_begun_where_no_task_runs() -> None:
    done = asyncio.Event()

    async def work() -> None:
        assert asyncio.current_task() is owner.task
        done.set()

    async with an_owner() as owner:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: owner.begin(work()))
        await within(done.wait())


async def test_what_waits_goes_on_in_its_task() -> None:
    gate, steps = asyncio.Event(), list[object]()

    async def work() -> None:
        for _ in range(3):
            steps.append(asyncio.current_task())
            await asyncio.sleep(0)
        await gate.wait()
        steps.append("end")

    async with an_owner() as owner:
        begun = owner.begin(work())
        assert begun is not None
        owner.handed.put_nowait(begun)
        gate.set()
        await within(owner.task)
        assert steps == [owner.task] * 3 + ["end"]


async def test_what_it_sets_in_the_context_it_can_take_back() -> None:
    seen: list[str] = []

    async def work() -> None:
        token = who.set("work")
        await asyncio.sleep(0)
        seen.append(who.get())
        who.reset(token)
        seen.append(who.get())

    async with an_owner() as owner:
        begun = owner.begin(work())
        assert begun is not None
        owner.handed.put_nowait(begun)
        await within(owner.task)
        assert seen == ["work", "owner"]


async def test_a_time_out_inside_hits_its_task_and_nobody_else() -> None:
    async def work() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    async with an_owner() as owner:
        begun = owner.begin(work())
        assert begun is not None
        owner.handed.put_nowait(begun)
        with pytest.raises(TimeoutError):
            await within(owner.task)


async def test_a_cancelled_owner_cancels_it() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async with an_owner() as owner:
        begun = owner.begin(work())
        assert begun is not None
        owner.handed.put_nowait(begun)
        await asyncio.sleep(0)
        owner.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner.task
    assert ends == ["cancelled"]


async def test_an_error_of_the_first_step_is_for_its_owner() -> None:
    async def work() -> None:
        raise LookupError("gone")

    async with an_owner() as owner:
        begun = owner.begin(work())
        assert begun is not None
        owner.handed.put_nowait(begun)
        with pytest.raises(LookupError, match="gone"):
            await within(owner.task)


async def test_one_that_is_given_up_runs_to_its_end() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("closed")

    async with an_owner() as owner:
        begun = owner.begin(work())
        assert begun is not None
        begun.close()
    assert ends == ["closed"]
