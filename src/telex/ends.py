"""How a connection ends."""

from __future__ import annotations

import asyncio

from telex.exceptions import UnexpectedCancellation

__all__ = ("unasked",)


def unasked(cancelled: asyncio.CancelledError) -> UnexpectedCancellation:
    """What stands for a ``CancelledError`` that came up in this task although nobody cancelled it.

    :raises asyncio.CancelledError: this task was cancelled: whoever did that waits for its end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise cancelled
    error = UnexpectedCancellation("awaited something that was cancelled, without being cancelled itself")
    error.__cause__ = cancelled
    return error
