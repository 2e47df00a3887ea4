"""A coroutine whose first step is taken by somebody else than the task that it belongs to.

Most sends do not wait for anything: they are over after one step, and waking the task that owns them would cost more
than they do. So whoever has the message takes that step in the name of the task, and only what has to wait goes there.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeAlias

__all__ = ("Begun", "begin")

Step: TypeAlias = Callable[..., Any]
"""Calls a function with its arguments: ``Context.run``, or plainly."""


def _plainly(function: Callable[[Any], Any], argument: object) -> Any:
    return function(argument)


class Begun:
    """The rest of a coroutine: awaiting it goes on where the first step stopped, be that a wait or an error."""

    __slots__ = ("_coroutine", "_error", "_step", "_waits_for")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        waits_for: object,
        error: BaseException | None = None,
        step: Step = _plainly,
    ) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._error = error
        self._step = step

    def __await__(self) -> Generator[Any, Any, None]:
        if self._error is not None:
            raise self._error
        waits_for = self._waits_for
        while True:
            go_on, argument = yield from self._waited(waits_for)
            try:
                waits_for = self._step(go_on, argument)
            except StopIteration:
                return

    def _waited(self, waits_for: object) -> Generator[Any, Any, tuple[Callable[[Any], Any], object]]:
        try:
            return self._coroutine.send, (yield waits_for)
        except GeneratorExit:
            self.close()
            raise
        except BaseException as error:
            return self._coroutine.throw, error

    def close(self) -> None:
        """Give it up."""
        self._step(lambda _: self._coroutine.close(), None)


def begin(coroutine: Coroutine[Any, Any, None], task: asyncio.Task[Any], context: Context) -> Begun | None:
    """Take the first step of ``coroutine`` as ``task``, which does not run now; ``None`` when that was all of it.

    What the coroutine sees is as if ``task`` ran it: the current task, which time-outs cancel; and all of it runs in
    ``context``, so that what it sets there it can take back.
    """
    loop = task.get_loop()
    caller = asyncio.current_task(loop)
    if caller is not None:
        _leave_task(loop, caller)
    _enter_task(loop, task)
    try:
        waits_for = context.run(coroutine.send, None)
    except StopIteration:
        return None
    except (Exception, asyncio.CancelledError) as error:
        return Begun(coroutine, None, error)
    finally:
        _leave_task(loop, task)
        if caller is not None:
            _enter_task(loop, caller)
    return Begun(coroutine, waits_for, step=context.run)
