"""The shared timers: never early, late by a sixteenth at most, and gone when cancelled."""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import partial

from telex.server.timer_wheel import TimerWheel


async def test_timers_ring_once_never_early_and_hardly_late() -> None:
    loop = asyncio.get_running_loop()
    began, rang = loop.time(), dict[float, float]()
    done = asyncio.Event()
    delays = [0.01, 0.02, 0.05, 0.16, 0.32]

    def note(delay: float) -> None:
        assert delay not in rang
        rang[delay] = loop.time() - began
        if len(rang) == len(delays):
            done.set()

    for delay in delays:
        TimerWheel.of(loop).call_later(delay, partial(note, delay))
    await asyncio.wait_for(done.wait(), 9)
    assert all(delay <= late for delay, late in rang.items())
    assert list(rang) == delays


async def test_timers_that_are_due_together_share_one_of_the_loops() -> None:
    loop = asyncio.get_running_loop()
    clock = TimerWheel.of(loop)
    timers = [clock.call_later(20.0 + number / 1000, lambda: None) for number in range(1000)]
    assert clock.shared < 5
    for timer in timers:
        timer.cancel()


async def test_a_cancelled_timer_lets_go_of_its_owner() -> None:
    class Owner:
        def ring(self) -> None:
            raise AssertionError("cancelled")

    owner = Owner()
    gone = weakref.ref(owner)
    timer = TimerWheel.of(asyncio.get_running_loop()).call_later(0.01, owner.ring)
    timer.cancel()
    timer.cancel()
    del owner
    gc.collect()
    assert gone() is None
    later = asyncio.Event()
    TimerWheel.of(asyncio.get_running_loop()).call_later(0.05, later.set)
    await asyncio.wait_for(later.wait(), 9)


def test_a_loop_and_its_clock_go_together() -> None:
    async def use() -> weakref.ref[TimerWheel]:
        clock = TimerWheel.of(asyncio.get_running_loop())
        clock.call_later(1000.0, lambda: None)
        return weakref.ref(clock)

    gone = asyncio.run(use())
    gc.collect()
    assert gone() is None
