"""Runs a coroutine in the caller's task, and tells the caller when it first waits: without a task of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import CoroutineType, coroutine
from typing import Any

__all__ = ("watching",)


async def watching(work: Any, on_wait: Callable[[], None]) -> Any:
    """Await ``work``; call ``on_wait`` as soon as it waits for something."""
    if work.__class__ is not CoroutineType:
        on_wait()
        return await work
    try:
        waits_for = work.send(None)
    except StopIteration as end:
        return end.value
    on_wait()
    return await _go_on(work, waits_for)


@coroutine
def _go_on(work: Any, waits_for: Any) -> Generator[Any, Any, Any]:
    """Await a coroutine that waits for ``waits_for`` already: ``await`` refuses one that has begun (PEP 380)."""
    while True:
        try:
            yield waits_for
        except GeneratorExit:
            work.close()
            raise
        except BaseException as exc:
            try:
                waits_for = work.throw(exc)
            except StopIteration as end:
                return end.value
        else:
            return (yield from work)
