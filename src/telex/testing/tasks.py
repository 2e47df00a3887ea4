"""Bounded waits for an app, and the description of the line where it hangs."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable, Iterator
from types import FrameType
from typing import Any, Final, TypeVar

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
    "whereabouts",
)

T = TypeVar("T")

GRACE: Final = 1.0
"""Seconds that a cancelled app has for its cleanup; after that it is left running and reported."""


def checked_timeout(timeout: float) -> float:
    """``timeout`` itself, when it is a bound.

    :raises ValueError: it is not a positive, finite number of seconds.
    """
    if not 0 < timeout < math.inf:
        raise ValueError(f"a timeout is a positive, finite number of seconds, not {timeout!r}: every wait has an end")
    return timeout


async def bounded(task: asyncio.Task[T], limit: float, what: str) -> T:
    """The result of ``task``, which is cancelled when it takes longer than ``limit`` seconds.

    :raises TimeoutError: it took longer; the text begins with ``what`` and says where the task hung.
    """
    try:
        done, _ = await asyncio.wait({task}, timeout=limit)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if done:
        return task.result()
    where = whereabouts(task)
    ending = "" if await stop(task) else "; it ignored its cancellation"
    raise TimeoutError(f"{what} within {limit:g} s; {where}{ending}")


async def stop(task: asyncio.Task[Any]) -> bool:
    """Cancel ``task`` and wait for its clean-up; false when that takes longer than :data:`GRACE`."""
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=GRACE)
    return bool(done)


async def settled(wait: Awaitable[T]) -> tuple[T, None] | tuple[None, BaseException]:
    """The result of ``wait``, or the exception that it raised.

    A ``SystemExit`` of the app that a task raised would end the event loop; returned, it reaches the test.
    """
    try:
        return await wait, None
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        return None, error


def is_cancelled() -> bool:
    """Whether somebody cancelled the running task; a ``CancelledError`` may also come from a task that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def unmasked(leave: Awaitable[None], failure: BaseException | None) -> None:
    """Await ``leave`` at the end of a test that has raised ``failure``, if any.

    The test's own failure is the one that is raised; a later failure is added to it as a note.
    """
    try:
        await leave
    except (Exception, asyncio.CancelledError) as found:
        if failure is None or (isinstance(found, asyncio.CancelledError) and is_cancelled()):
            raise
        if found.__context__ is failure:
            found.__context__ = None  # it is printed above the note already
        failure.add_note("The app failed too:\n" + "".join(traceback.format_exception(found)))


def name_of(app: ASGIApp) -> str:
    """The name of an app in error texts."""
    named = app if hasattr(app, "__qualname__") else type(app)
    return f"{named.__module__}.{named.__qualname__}"


def whereabouts(task: asyncio.Task[Any]) -> str:
    """Where ``task`` is suspended: the innermost function outside of ``telex.testing`` and asyncio."""
    frames = [frame for frame in _suspended_frames(task.get_coro()) if not _is_machinery(frame)]
    return f"it waits in {frame_text(frames[-1])}" if frames else "it waits outside of coroutines"


def frame_text(frame: FrameType) -> str:
    """A frame as ``function (file:line)``."""
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
