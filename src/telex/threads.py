"""Runs sync functions in threads, and waits for a function to end even if its caller is cancelled.

A cancelled ``asyncio.to_thread`` returns immediately while its thread continues: dependencies would be closed while the
function uses them, and the next call would need another thread. Here the cancellation is raised after the function has
ended. A function that no thread has started yet is not run.
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
"""The thread pool of each event loop; it ends with the loop."""


async def run_in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a thread, in a copy of the current context.

    :raises asyncio.CancelledError: this task was cancelled, and the function has ended. If the function raised after
        the cancellation, its exception is raised instead, as from a coroutine that fails while it is cancelled.
    """
    loop = asyncio.get_running_loop()
    claim = threading.Lock()  # acquired by the thread to run the function, or by the caller to cancel it
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
        raise RuntimeError("a function in a thread raised StopIteration") from exc  # a future cannot raise it


async def _end_of(future: asyncio.Future[Any]) -> None:
    """Wait for ``future``, also through further cancellations. The task counts them, and the caller raises one."""
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
