"""The runs of calls with keys: they belong to the app, not to a connection, and go on when their callers leave."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from telex.once.answers import AnswerStore, KeptAnswer, MemoryAnswers
from telex.once.keys import CallId
from telex.once.options import Once
from telex.once.redis_answers import RedisAnswers
from telex.protocol.failures import SettledError
from telex.protocol.jobs import Job

__all__ = ("MOST_ORPHANS", "OnceRuns", "Outcome", "OnceRun", "RunsHere")

logger: Final = logging.getLogger("telex")

MOST_ORPHANS: Final = 1_000
"""Runs of one process whose callers have left. One more is cancelled, as a call without a key is."""
DRAIN_WITHIN: Final = 10.0
"""Seconds that runs have at the end of the app; then they are cancelled."""
CLEAN_WITHIN: Final = 5.0
_LOG_EVERY: Final = 60.0

Outcome: TypeAlias = KeptAnswer | Exception
"""What a run ends with: an answer, or what is raised in all of its callers."""


_STOPPED: Final = SettledError("unavailable", "the server stops", retry_after=1.0)


class OnceRun:
    """One call with a key that runs, or that another process runs for this one."""

    __slots__ = ("call", "is_begun", "is_over", "message", "outcome", "store", "task", "waiters", "waiting")

    def __init__(self, call: CallId, message: str, store: AnswerStore) -> None:
        self.call: CallId = call
        self.message: str = message
        self.store: AnswerStore = store
        self.outcome: Outcome | None = None
        self.waiters: set[asyncio.Future[None]] = set()
        self.task: asyncio.Task[None] | None = None
        self.waiting: int = 0
        """Callers."""
        self.is_begun: bool = False
        """Whether the handler may have had an effect."""
        self.is_over: bool = False
        """Whether the handler has ended: it is too late to cancel it."""

    def cancel(self) -> None:
        """Stop the handler, or the attempts to store an answer that the callers have."""
        if self.task is not None and (self.outcome is not None or not self.is_over):
            self.task.cancel()

    def end(self, outcome: Outcome) -> None:
        """Answer the callers."""
        if self.outcome is None:
            self.outcome = outcome
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def until_end(self) -> Outcome:
        """Wait for the outcome."""
        if self.outcome is None:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.add(waiter)
            try:
                await waiter
            finally:
                self.waiters.discard(waiter)
        return self.outcome or _STOPPED


class RunsHere:
    """The runs and stores of one event loop."""

    def __init__(self) -> None:
        self.runs: dict[CallId, OnceRun] = {}
        self.orphans: set[OnceRun] = set()
        """Runs without a caller, and those whose answer the store has not taken yet."""
        self._stores: dict[Once, AnswerStore] = {}
        self._logs_at = -math.inf
        self.cancelled: int = 0
        """Runs that were cancelled because too many had no caller."""

    def store(self, once: Once, where: str) -> AnswerStore:
        """Where the calls of listeners with this option are kept."""
        if once not in self._stores:
            self._stores[once] = MemoryAnswers(once, where) if once.store is None else RedisAnswers(once, where)
        return self._stores[once]

    def start(self, run: OnceRun, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in a task of the app."""
        self.runs[run.call] = run
        run.task = asyncio.get_running_loop().create_task(work)
        run.task.add_done_callback(partial(self._ended, run))

    def _ended(self, run: OnceRun, task: asyncio.Task[None]) -> None:
        self.leave_table(run)
        run.end(_STOPPED)  # unless it has ended
        if not task.cancelled() and task.exception() is not None:
            logger.error("a call with a key failed", exc_info=task.exception())

    def leave_table(self, run: OnceRun) -> None:
        """The store knows all of ``run``: the next call with its key asks there."""
        if self.runs.get(run.call) is run:
            del self.runs[run.call]
        self.orphans.discard(run)

    async def wait(self, run: OnceRun, job: Job) -> Outcome:
        """Wait for the end of ``run``, which goes on if this caller leaves; a ``cancel`` of its only caller ends it."""
        run.waiting += 1
        self.orphans.discard(run)
        try:
            return await run.until_end()
        except asyncio.CancelledError:
            if job.reason == "cancelled" and run.waiting == 1 and run.outcome is None:
                run.cancel()
                await run.until_end()  # its cleanup included
            if job.reason is None or not isinstance(run.outcome, KeptAnswer):
                raise
            return run.outcome  # the answer was quicker
        finally:
            run.waiting -= 1
            if not run.waiting and run.outcome is None:
                self._leave(run)

    def _leave(self, run: OnceRun) -> None:
        """The last caller has left."""
        self.orphans.add(run)
        if len(self.orphans) <= MOST_ORPHANS:
            return
        run.cancel()
        self.cancelled += 1
        now = asyncio.get_running_loop().time()
        if now >= self._logs_at:
            self._logs_at = now + _LOG_EVERY
            logger.warning(
                "more than %d calls with keys run without a caller: cancelled %d", MOST_ORPHANS, self.cancelled
            )

    async def drain(self) -> None:
        """Wait for the runs, which have a limited time."""
        for limit in (DRAIN_WITHIN, CLEAN_WITHIN):
            tasks = [run.task for run in self.runs.values() if run.task is not None]
            if tasks:
                await asyncio.wait(tasks, timeout=limit)
            for run in tuple(self.runs.values()):
                run.cancel()
        if self.runs:
            logger.warning("%d calls with keys did not end in time", len(self.runs))

    async def aclose(self) -> None:
        """Close the stores."""
        for store in self._stores.values():
            await store.aclose()
        self._stores.clear()


class OnceRuns:
    """The calls with keys that run in this process."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, RunsHere] = WeakKeyDictionary()

    def here(self) -> RunsHere:
        """Those of the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            found = self._by_loop[loop] = RunsHere()
        return found

    async def drain(self) -> None:
        """The app stops, and what its handlers use is still there: let the runs end."""
        await self.here().drain()

    async def aclose(self) -> None:
        """The app has stopped: close the stores."""
        await self.here().aclose()
