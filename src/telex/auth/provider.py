"""Compiles the provider of ``authenticate``: into one function that returns an identity, or raises."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import NoneType
from typing import Any, Final, TypeAlias

from telex.auth.identity import Authenticate, Identity, wrong
from telex.connection import Socket
from telex.di import Graph, Provide
from telex.exceptions import NotAuthorizedException, ServiceUnavailableException
from telex.reserved import accepts, fits
from telex.signatures import Kind

__all__ = ("Identify", "compile_identify", "for_one_run")

logger: Final = logging.getLogger("telex")

Identify: TypeAlias = Callable[[Socket, str | None], Awaitable[Identity[Any]]]
"""Returns whose token this is. Raises what the provider raises, 401 for no or an expired token, 503 if it hangs."""


def for_one_run(providers: Mapping[str, Provide]) -> dict[str, Provide]:
    """``providers`` for the graph of a provider: each value lives as long as one run of it, whatever its scope."""
    return {
        name: given if given.use_cache else Provide(given.dependency, sync_to_thread=given.sync_to_thread)
        for name, given in providers.items()
    }


def compile_identify(option: Authenticate, graph: Graph) -> Identify:
    """Compile the provider of ``option`` against ``graph``, which is for it alone."""
    call = graph.call(option.provider, skip=("token",), in_thread=option.sync_to_thread)
    signature, where = call.signature, call.signature.where
    if "token" not in signature:
        raise wrong(
            option.provider, "the provider takes no 'token': write def provider(token: str | None, socket: WebSocket)"
        )
    takes = signature["token"].full_annotation
    if not accepts(takes, str):
        raise wrong(
            option.provider,
            f"'token' is text: annotate it 'str | None', or 'str' to refuse who has none, not {takes!r}",
        )
    if signature.kind in {Kind.GENERATOR, Kind.ASYNC_GENERATOR, Kind.MAYBE_GENERATOR}:
        raise wrong(
            option.provider, "the provider is a generator: return Identity(user); dependencies may be generators"
        )
    if not fits(signature.returns, (Identity,)):
        raise wrong(option.provider, f"the provider returns Identity(user, expires_in=...), not {signature.returns!r}")
    is_optional, resolve, size, within = (
        accepts(takes, NoneType),
        graph.connection_resolver(),
        graph.size,
        option.timeout,
    )

    async def identify(socket: Socket, token: str | None) -> Identity[Any]:
        if token is None and not is_optional:
            raise NotAuthorizedException("a token is required")
        limit = asyncio.timeout(within)
        try:
            async with limit, AsyncExitStack() as exits:
                slots: list[Any] = [None] * size
                await resolve(socket, exits, slots)
                found = await call(slots, token=token)
        except TimeoutError:
            if not limit.expired():
                raise
            logger.warning("%s has not said who a client is within %g s", where, within)
            raise ServiceUnavailableException("authentication takes too long") from None
        if not isinstance(found, Identity):
            raise TypeError(f"{where} returned {type(found).__name__}: return Identity(user, expires_in=...), or raise")
        if found.expires_in is not None and found.expires_in <= 0:
            raise NotAuthorizedException("the token has expired")
        return found

    return identify
