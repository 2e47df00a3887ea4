"""One clock for all of the code: the time of the running event loop, which ``telex.testing.TestClock`` replaces."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from telex.clock import loop_time
from telex.testing import TestClock

SOURCE = Path(__file__).parent.parent / "src" / "telex"

OF_THE_MACHINE = {
    "channels/delivery/yield_budget.py": "how long a loop has used the processor",
    "slow_callbacks.py": "how long a function has used the processor",
    "server/workers.py": "a supervisor of processes, without an event loop",
    "telemetry/counts.py": "how long handlers took",
    "telemetry/families.py": "read by threads, without an event loop",
    "telemetry/opentelemetry.py": "read by threads, without an event loop",
    "testing/clock.py": "the limits of the test's own waits",
    "testing/session.py": "the limits of the test's own waits",
}
"""The modules that measure real time, and what for."""
READS = re.compile(r"(?<![.\w])time\.(time|monotonic|perf_counter)(_ns)?\b|^from time import", re.MULTILINE)


def test_what_waits_for_time_reads_the_clock_of_the_loop() -> None:
    readers = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if READS.search(path.read_text("utf-8"))}
    assert readers == OF_THE_MACHINE.keys()


async def test_it_is_the_time_of_the_loop() -> None:
    assert loop_time() <= asyncio.get_running_loop().time()
    async with TestClock() as clock:
        before = loop_time()
        await clock.advance(30)
        assert loop_time() == clock.time() == before + 30
