"""Decorators as users and libraries write them, for tests of what Telex sees through."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def passing(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function that gives what ``fn`` gives: an awaitable or a generator stays one."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def made_async(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A coroutine function that returns what ``fn`` returns."""

    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper
