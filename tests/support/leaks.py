"""Whether something was left behind: tasks, file descriptors, threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holdings:
    """What this process has open at one moment."""

    tasks: frozenset[asyncio.Task[object]]
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> Holdings:
        """Counts; must be called on the running loop."""
        return cls(
            frozenset(task for task in asyncio.all_tasks() if not task.done()),
            frozenset(_descriptors()),
            frozenset(thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")),
        )

    def more_than(self, baseline: Holdings) -> list[str]:
        """A line for each thing that the baseline has not."""
        return [
            *(f"task {task!r}" for task in self.tasks - baseline.tasks),
            *(f"descriptor {number} {target}" for number, target in self.descriptors - baseline.descriptors),
            *(f"thread {thread!r}" for thread in self.threads - baseline.threads),
        ]


@contextlib.asynccontextmanager
async def no_leaks(*, within: float = 9) -> AsyncIterator[Holdings]:
    """Fails unless all that was opened inside is gone at the end, or at most ``within`` seconds later.

    Warm up what is opened once and kept (a resolver's thread, a server) before. Threads of asyncio's pool do not count.
    """
    baseline = Holdings.now()
    yield baseline
    await settled(baseline, within=within)


async def settled(baseline: Holdings, *, within: float = 9) -> None:
    """Waits until this process holds no more than at the baseline; fails with the list of what is left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while left := Holdings.now().more_than(baseline):
        if loop.time() > deadline:
            kinds = dict(Counter(line.split()[0] for line in left))
            raise AssertionError(f"left behind after {within} s: {kinds}\n" + "\n".join(sorted(left)[:50]))
        await asyncio.sleep(0.01)


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        # The listing's own descriptor is closed by the time that it is looked at.
        with contextlib.suppress(FileNotFoundError):
            found.append((int(entry.name), str(entry.readlink())))
    return found
