"""Calls users' functions with injected values, and fills the slots of providers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from inspect import GEN_SUSPENDED, getgeneratorstate
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from telex.signatures import AnyCallable, Kind, Signature
from telex.threads import run_in_thread

__all__ = ("Cache", "Call", "Slots", "Step", "provider_step")

Slots: TypeAlias = list[Any]
"""The values of one connection or message; each :class:`Call` has the indexes of its arguments."""
Step: TypeAlias = Callable[[Slots, AsyncExitStack], Awaitable[None]]
"""Fills one slot and registers its cleanup."""


class Cache:
    """The values of one app's ``use_cache`` providers, created once per event loop, to which they may be bound."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Cached] = WeakKeyDictionary()

    async def get(self, provider: Hashable, make: Callable[[], Awaitable[object]]) -> object:
        """The cached value of ``provider``; ``make`` runs at most once, for any number of waiting connections."""
        loop = asyncio.get_running_loop()
        cached = self._by_loop.get(loop)
        if cached is None:
            cached = self._by_loop[loop] = _Cached({}, asyncio.Lock())
        if provider in cached.values:
            return cached.values[provider]
        async with cached.lock:
            if provider in cached.values:  # created while this task waited for the lock
                return cached.values[provider]
            return cached.values.setdefault(provider, await make())

    def forget(self) -> None:
        """Drop the values of the running event loop. Called when the app's lifespan starts."""
        self._by_loop.pop(asyncio.get_running_loop(), None)


class _Cached(NamedTuple):
    values: dict[Hashable, object]
    lock: asyncio.Lock


@dataclass(frozen=True, slots=True)
class Call:
    """A function and the slots that its parameters are read from."""

    fn: AnyCallable
    signature: Signature
    arguments: tuple[tuple[str, int], ...]
    in_thread: bool = False

    def bind(self, slots: Slots) -> AnyCallable:
        """The function with all arguments injected except ``data``."""
        if not self.arguments:
            return self.fn
        return partial(self.fn, **{name: slots[index] for name, index in self.arguments})

    async def __call__(self, slots: Slots, **given: object) -> Any:
        """Call the function, in a thread if ``in_thread``, and await its result if it is awaitable."""
        bound = self.bind(slots)
        result = await run_in_thread(bound, **given) if self.in_thread else bound(**given)
        return await result if hasattr(result, "__await__") else result


def provider_step(call: Call, index: int, cached_by: Hashable | None, cache: Cache) -> Step:
    """The function that fills slot ``index``, chosen by the kind of the provider."""
    if call.signature.kind is Kind.GENERATOR:
        enter = _enter_in_thread if call.in_thread else _enter_inline
        return _generator_step(call, index, enter)
    if call.signature.kind is Kind.ASYNC_GENERATOR:
        return _generator_step(call, index, _enter_async)

    async def fill(slots: Slots, _: AsyncExitStack) -> None:
        slots[index] = await call(slots)

    async def fill_by_result(slots: Slots, exits: AsyncExitStack) -> None:
        value = await call(slots)
        if isinstance(value, (Generator, AsyncGenerator)):
            enter = _enter_inline if isinstance(value, Generator) else _enter_async
            slots[index] = await _set_up(value, enter, call.signature.where, exits)
        else:
            slots[index] = value

    async def fill_cached(slots: Slots, _: AsyncExitStack) -> None:
        slots[index] = await cache.get(cached_by, partial(call, slots))

    if cached_by is not None:
        return fill_cached
    return fill_by_result if call.signature.kind is Kind.MAYBE_GENERATOR else fill


# -- generators: run to the yield for the value, resumed once for the cleanup

_Resume: TypeAlias = Callable[[BaseException | None], Awaitable[None]]
_Enter: TypeAlias = Callable[[Any], Awaitable[tuple[object, _Resume]]]


def _generator_step(call: Call, index: int, enter: _Enter) -> Step:
    async def fill(slots: Slots, exits: AsyncExitStack) -> None:
        slots[index] = await _set_up(call.bind(slots)(), enter, call.signature.where, exits)

    return fill


async def _set_up(generator: Any, enter: _Enter, where: str, exits: AsyncExitStack) -> object:
    """Return the value that ``generator`` yields; resume the generator when ``exits`` closes."""
    try:
        value, resume = await enter(generator)
    except (StopIteration, StopAsyncIteration) as exc:
        raise RuntimeError(f"the dependency {where} ended without a yield") from exc

    async def exit_generator(_: object, exc: BaseException | None, __: object) -> bool:
        try:
            await resume(exc)
        except (StopIteration, StopAsyncIteration):
            return False
        raise RuntimeError(f"the dependency {where} yields more than once")

    exits.push_async_exit(exit_generator)
    return value


async def _enter_async(generator: AsyncGenerator[object, None]) -> tuple[object, _Resume]:
    async def resume(exc: BaseException | None) -> None:
        await (anext(generator) if exc is None else generator.athrow(exc))

    return await anext(generator), resume


async def _enter_inline(generator: Generator[object, None, None]) -> tuple[object, _Resume]:
    async def resume(exc: BaseException | None) -> None:
        _resume_sync(generator, exc)

    return _first(generator), resume


async def _enter_in_thread(generator: Generator[object, None, None]) -> tuple[object, _Resume]:
    async def resume(exc: BaseException | None) -> None:
        await run_in_thread(_resume_sync, generator, exc)

    try:
        return await run_in_thread(_first, generator), resume
    except asyncio.CancelledError as exc:
        if getgeneratorstate(generator) == GEN_SUSPENDED:
            with suppress(_Exhausted):
                await resume(exc)  # the thread reached the yield after the cancellation: run the cleanup
        raise


class _Exhausted(StopAsyncIteration):
    """A sync generator has ended. Replaces ``StopIteration``, which coroutines and futures cannot raise."""


def _first(generator: Generator[object, None, None]) -> object:
    try:
        return next(generator)
    except StopIteration:
        raise _Exhausted from None


def _resume_sync(generator: Generator[object, None, None], exc: BaseException | None) -> None:
    try:
        if exc is None:
            next(generator)
        else:
            generator.throw(exc)
    except StopIteration:
        raise _Exhausted from None
