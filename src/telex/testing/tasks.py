"""Waits for an app with a timeout, and describes the line where the app hangs."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable, Iterator, Set
from contextlib import suppress
from types import FrameType
from typing import Any, Final, TypeVar

from telex.testing.clock import real_timeout, running_clock
from telex.types import ASGIApp

__all__ = (
    "GRACE",
    "bounded",
    "checked_timeout",
    "frame_text",
    "is_cancelled",
    "name_of",
    "settled",
    "stop",
    "unmasked",
    "wait",
    "whereabouts",
)

T = TypeVar("T")

GRACE: Final = 1.0
"""Seconds that a cancelled app has for its cleanup; after that the failure is reported and the app keeps running."""


def checked_timeout(timeout: float) -> float:
    """Check and return ``timeout``.

    :raises ValueError: it is not a positive, finite number of seconds.
    """
    if not 0 < timeout < math.inf:
        raise ValueError(f"a timeout must be a positive, finite number of seconds, not {timeout!r}")
    return timeout


async def wait(futures: Set[asyncio.Future[Any]], limit: float) -> set[asyncio.Future[Any]]:
    """Wait until one of ``futures`` is done, at most ``limit`` real seconds; returns those that are."""
    with suppress(TimeoutError):
        async with real_timeout(limit):
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    return {future for future in futures if future.done()}


async def bounded(task: asyncio.Task[T], limit: float, what: str) -> T:
    """The result of ``task``; cancel it if it takes longer than ``limit`` seconds.

    :raises TimeoutError: it took longer; the text begins with ``what`` and names the line where the task waited.
    """
    try:
        done = await wait({task}, limit)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    where = whereabouts(task)
    ending = "" if await stop(task) else "; it ignored its cancellation"
    raise TimeoutError(f"{what} within {limit:g} s; {where}{ending}")


async def stop(task: asyncio.Task[Any]) -> bool:
    """Cancel ``task`` and wait for its cleanup; false if the cleanup takes longer than :data:`GRACE` seconds."""
    task.cancel()
    done = await wait({task}, GRACE)
    return bool(done)


async def settled(wait: Awaitable[T]) -> tuple[T, None] | tuple[None, BaseException]:
    """The result of ``wait``, or the exception that it raised.

    A task that raises the app's ``SystemExit`` would end the event loop, so the exception is returned instead.
    """
    try:
        return await wait, None
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        return None, error


def is_cancelled() -> bool:
    """Whether the running task was cancelled; a ``CancelledError`` may also come from a task that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def unmasked(leave: Awaitable[None], failure: BaseException | None) -> None:
    """Await ``leave`` at the end of a test; ``failure`` is the exception of the test, if any.

    An exception of ``leave`` does not replace the test's failure: it is added to that failure as a note.
    """
    try:
        await leave
    except (Exception, asyncio.CancelledError) as found:
        if failure is None or (isinstance(found, asyncio.CancelledError) and is_cancelled()):
            raise
        if found.__context__ is failure:
            found.__context__ = None  # the traceback prints it above the note
        failure.add_note("The app failed too:\n" + "".join(traceback.format_exception(found)))


def name_of(app: ASGIApp) -> str:
    """The name of an app in error texts."""
    named = app if hasattr(app, "__qualname__") else type(app)
    return f"{named.__module__}.{named.__qualname__}"


def whereabouts(task: asyncio.Task[Any]) -> str:
    """The place where ``task`` waits: the innermost function outside of ``telex.testing`` and asyncio."""
    frames = [frame for frame in _suspended_frames(task.get_coro()) if not _is_machinery(frame)]
    text = f"it waits in {frame_text(frames[-1])}" if frames else "it waits outside of coroutines"
    clock = running_clock()
    stands_still = clock is not None and clock.stands_still
    return f"{text}; the client's clock stands still until client.advance()" if stands_still else text


def frame_text(frame: FrameType) -> str:
    """The text ``function (file:line)`` for a frame."""
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"


def _suspended_frames(awaited: object) -> Iterator[FrameType]:
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None)


def _is_machinery(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.startswith(("telex.testing", "asyncio"))
