"""The two servers of the fast lane, the brokers, and apps whose users are named by a header."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from telex import Telex
from telex.types import ASGIApp, Receive, Scope, Send
from tests.channels.conftest import engine, running_broker, running_cluster
from tests.contract.servers import KINDS, Running, ServerKind
from tests.support.live import UVICORN, serving

__all__ = ("engine", "running_broker", "running_cluster")


@pytest.fixture(params=[each for each in KINDS if each.name in {"uvicorn-websockets", "telex"}], ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server, where notices are written at once."""
    found: ServerKind = request.param
    return found


def as_user(name: str) -> dict[str, Any]:
    """The options of a client whose handshake names its user."""
    return {"headers": {"x-user": name}}


def by_header(app: ASGIApp) -> ASGIApp:
    """An authentication middleware that believes everyone."""

    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        named = dict(scope.get("headers") or ()).get(b"x-user")
        if named is not None:
            scope["user"] = named.decode()
        await app(scope, receive, send)

    return authenticated


@asynccontextmanager
async def site(app: Telex, kind: ServerKind = UVICORN, /) -> AsyncIterator[Running]:
    """A node that runs, its clients named by a header, outside of the app so that the fast path stays."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.lifespan())
        yield await stack.enter_async_context(serving(by_header(app), kind))
