"""A clock for tests: time stands still until the test advances it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from types import TracebackType
from typing import Any, Final, Self

from telex.exceptions import ConnectionStateError, ImproperlyConfiguredException

__all__ = ("TestClock", "real_timeout", "running_clock", "time_runs")

ROUNDS: Final = 100_000
"""Rounds of the event loop after which an app that is not idle yet never will be."""
TICK: Final = 0.05
"""Seconds between two looks at the limits of the test's own waits."""


class TestClock:
    """The time of an event loop, which passes only when a test says so.

    Give it to a client, ``AsyncTestClient(app, clock=TestClock())``, or enter it, for what runs without a client::

        async with TestClock() as clock:
            await clock.advance(30)

    It replaces the loop's ``time``. All timers of the loop follow it: ``call_later``, ``asyncio.sleep``,
    ``asyncio.timeout``, and all limits, expiries, heartbeats and time-outs of Telex. ``time.time``, ``time.monotonic``
    and ``datetime.now`` are left alone.

    Time runs at its usual pace while a client starts the app, closes a session or is left, and after the clock is left:
    from where the clock stood, as the time of a loop never goes back.
    """

    __test__ = False  # pytest must not collect this class

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reached = 0.0
        self._runs_since: float | None = None
        self._running = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._pruned_at = 64
        self._calls = 0
        self._advancing = asyncio.Lock()
        self._limits: dict[asyncio.Timeout, float] = {}
        self._left = threading.Event()
        self._ticker: threading.Thread

    async def __aenter__(self) -> Self:
        """Stop the time of the running loop.

        :raises ImproperlyConfiguredException: the loop is not one of asyncio's own, or has a clock already.
        """
        loop = asyncio.get_running_loop()
        if not isinstance(loop, asyncio.BaseEventLoop):
            raise ImproperlyConfiguredException(
                f"TestClock: the timers of {type(loop).__module__}.{type(loop).__qualname__} follow no other clock:"
                " run the test on a loop of asyncio, as asyncio.SelectorEventLoop()"
            )
        if running_clock() is not None or self._loop is not None:
            raise ImproperlyConfiguredException(
                "TestClock: a loop has one clock at a time, and a clock serves one loop: make one for each client"
            )
        self._loop = loop
        self._reached, self._runs_since, self._running = loop.time(), None, 0
        self._timers.clear()
        self._left.clear()
        call_soon, call_at = loop.call_soon, loop.call_at

        def counted(callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
            self._calls += 1
            return call_soon(callback, *args, context=context)

        def noted(
            when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
        ) -> asyncio.TimerHandle:
            timer = call_at(when, callback, *args, context=context)
            self._note(timer)
            return timer

        replaced: Any = loop
        replaced.time, replaced.call_soon, replaced.call_at = self.time, counted, noted
        self._ticker = threading.Thread(target=self._tick, args=(loop,), name="telex-testing-clock", daemon=True)
        self._ticker.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Let the time of the loop run again, from where it stands."""
        replaced: Any = self._loop
        self._loop = None
        self._left.set()
        self._ticker.join()
        self._run()
        del replaced.call_soon, replaced.call_at
        if self.time() <= time.monotonic():
            del replaced.time

    def time(self) -> float:
        """The time of the loop, in seconds."""
        return self._reached if self._runs_since is None else self._reached + time.monotonic() - self._runs_since

    @property
    def stands_still(self) -> bool:
        """Whether time passes only by :meth:`advance`."""
        return self._loop is not None and not self._running

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: each timer that is due fires at its time, in order, and the tasks that it wakes run.

        It returns once the app is idle: each task has run until it waits for time, for the test or for something
        outside of the event loop. It does not wait for threads and sockets: wait for what comes of them.
        ``advance(0)`` waits until the app is idle.

        :raises TimeoutError: the app is never idle, because a task continues without end.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"advance: time passes by a finite number of seconds, not by {seconds!r}")
        if asyncio.get_running_loop() is not self._loop:
            raise ConnectionStateError(
                "the clock is not entered on this event loop:"
                " enter its client ('with client'), or write 'async with clock'"
            )
        async with self._advancing:
            end = self.time() + seconds
            await self._idle()
            while self._timers and self._timers[0][0] <= end:
                due, _, timer = heapq.heappop(self._timers)
                if timer.cancelled():
                    continue
                self._move(due)
                await asyncio.sleep(0)  # the loop adds the timer that is due
                await self._idle()
            self._move(end)

    def _move(self, when: float) -> None:
        self._reached += max(0.0, when - self.time())

    def _note(self, timer: asyncio.TimerHandle) -> None:
        heapq.heappush(self._timers, (timer.when(), next(self._numbers), timer))
        if len(self._timers) > self._pruned_at:
            self._timers = [each for each in self._timers if not each[2].cancelled()]
            heapq.heapify(self._timers)
            self._pruned_at = 64 + 2 * len(self._timers)

    async def _idle(self) -> None:
        """Wait until a whole round of the loop has made no new call."""
        for _ in range(ROUNDS):
            before = self._calls
            await asyncio.sleep(0)  # one call, which continues this task after all that are ready
            if self._calls == before + 1:
                return
        names = sorted(task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task())
        raise TimeoutError(f"the app is never idle: one of its tasks continues without end: {', '.join(names)}")

    # -- time that runs

    def _run(self) -> None:
        self._running += 1
        if self._runs_since is None:
            self._runs_since = time.monotonic()

    def _stop(self) -> None:
        self._running -= 1
        if not self._running:
            self._reached, self._runs_since = self.time(), None

    @contextmanager
    def _at_its_pace(self) -> Iterator[None]:
        """Let time run at its usual pace."""
        self._run()
        try:
            yield
        finally:
            self._stop()

    # -- the limits of the test's own waits, in real seconds

    @contextmanager
    def _limiting(self, scope: asyncio.Timeout, limit: float) -> Iterator[None]:
        """End ``scope`` after ``limit`` real seconds."""
        self._limits[scope] = time.monotonic() + limit
        try:
            yield
        finally:
            del self._limits[scope]

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._left.wait(TICK):
            try:
                loop.call_soon_threadsafe(self._end_late_waits)
            except RuntimeError:  # the loop was closed before the clock was left
                return

    def _end_late_waits(self) -> None:
        now = time.monotonic()
        for scope, until in self._limits.items():
            if until <= now and not scope.expired():
                scope.reschedule(self.time())


def running_clock() -> TestClock | None:
    """The clock of the running loop, while it is entered."""
    clock = getattr(asyncio.get_running_loop().time, "__self__", None)
    return clock if isinstance(clock, TestClock) and clock._loop is not None else None


@contextmanager
def time_runs() -> Iterator[None]:
    """Let the time of the running loop pass at its usual pace, if a clock has stopped it."""
    clock = running_clock()
    if clock is None:
        yield
    else:
        with clock._at_its_pace():
            yield


@asynccontextmanager
async def real_timeout(limit: float) -> AsyncIterator[None]:
    """``asyncio.timeout`` in real seconds, also where a clock has stopped time.

    :raises TimeoutError: the body took longer.
    """
    clock = running_clock()
    if clock is None or limit <= 0:
        async with asyncio.timeout(limit):
            yield
    else:
        async with asyncio.timeout(None) as scope:
            with clock._limiting(scope, limit):
                yield
