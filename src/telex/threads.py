"""Runs sync functions in threads, and waits for a thread to end even when its caller is cancelled.

A cancelled ``asyncio.to_thread`` returns at once while its thread runs on: dependencies would close under the function
that uses them, and the next call would start one more thread. Here the cancellation is delivered when the thread has
ended. A function that no thread has begun yet is not run at all.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from telex.defaults import MAX_THREADS

__all__ = ("run_in_thread",)

P = ParamSpec("P")
T = TypeVar("T")

_executors: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor]] = WeakKeyDictionary()
"""The threads of each event loop; they end with it."""


async def run_in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread, in a copy of the current context.

    :raises asyncio.CancelledError: this task was cancelled, and the thread has ended. If the function failed meanwhile,
        its exception is raised instead, as from a coroutine that fails while it is cancelled.
    """
    loop = asyncio.get_running_loop()
    claim = threading.Lock()  # of the thread, to run the function, or of its cancellation
    call = partial(copy_context().run, function, *args, **kwargs)
    future: asyncio.Future[Any] = loop.run_in_executor(_executor(loop), _claimed, claim, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError as cancelled:
        if claim.acquire(blocking=False):
            future.cancel()
            raise
        await _end_of(future)
        error = future.exception()
        if error is not None and error is not cancelled:
            raise error from cancelled
        raise


def _claimed(claim: threading.Lock, call: Callable[[], Any]) -> Any:
    if not claim.acquire(blocking=False):
        return None
    try:
        return call()
    except StopIteration as exc:
        raise RuntimeError("a function in a thread raised StopIteration") from exc  # no future takes it


async def _end_of(future: asyncio.Future[Any]) -> None:
    """Wait for ``future``. Further cancellations are counted by the task; the caller raises one."""
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            continue


def _executor(loop: asyncio.AbstractEventLoop) -> ThreadPoolExecutor:
    executor = _executors.get(loop)
    if executor is None:
        executor = _executors[loop] = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="telex")
    return executor
