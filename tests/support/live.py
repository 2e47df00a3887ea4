"""Apps over a real socket, with the ``websockets`` library as the client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from telex.types import ASGIApp
from tests.contract.launch import UVICORN as UVICORN_PROTOCOLS
from tests.contract.servers import HOST, Running, ServerKind

T = TypeVar("T")

PATIENCE = 9.0
"""Seconds that any single wait may take."""

UVICORN = ServerKind("uvicorn-websockets")


@dataclass(frozen=True)
class Denial:
    """An HTTP answer to the opening handshake."""

    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, kind: ServerKind = UVICORN, **settings: Any) -> AsyncIterator[Running]:
    """Serve ``app`` on a free port in this loop, by uvicorn's protocols without its supervisor and its ticks.

    There is no lifespan; ``ServerKind.loop`` has one. At the end every connection has ended, or this fails.
    """
    config = uvicorn.Config(app, ws=UVICORN_PROTOCOLS[kind.name], log_config=None, lifespan="off", **settings)
    config.load()
    state = ServerState()
    protocol = cast("Callable[..., asyncio.Protocol]", config.http_protocol_class)
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), HOST, 0
    )
    try:
        yield Running(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in tuple(state.connections):
            cast("Any", connection).shutdown()
        await _all_ended(state)


async def _all_ended(state: ServerState) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while state.connections or state.tasks:
        if asyncio.get_running_loop().time() > deadline:
            left = tuple(state.tasks)
            for task in left:
                task.cancel()
            raise AssertionError(f"{len(state.connections)} connections and {left} have not ended in {PATIENCE} s")
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def connected(
    running: Running,
    path: str = "/",
    *,
    headers: dict[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[ClientConnection]:
    """A client of a server that runs."""
    offered = [Subprotocol(each) for each in subprotocols] or None
    connecting = connect(
        running.url(path),
        additional_headers=headers,
        subprotocols=offered,
        proxy=None,
        open_timeout=PATIENCE,
        **options,
    )
    async with connecting as client:
        yield client


@contextlib.asynccontextmanager
async def talking(
    app: ASGIApp, path: str = "/", kind: ServerKind = UVICORN, **options: Any
) -> AsyncIterator[ClientConnection]:
    """A client of ``app``, which is served as long as that."""
    async with serving(app, kind) as running, connected(running, path, **options) as client:
        yield client


async def denied(running: Running, path: str = "/", **options: Any) -> Denial:
    """How a handshake is refused; one that succeeds fails the test."""
    try:
        async with connected(running, path, **options):
            pass
    except InvalidStatus as refused:
        response = refused.response
        return Denial(response.status_code, bytes(response.body), {k.lower(): v for k, v in response.headers.items()})
    raise AssertionError(f"the handshake at {path} was accepted")


async def soon(wait: Awaitable[T]) -> T:
    """Await with a limit."""
    async with asyncio.timeout(PATIENCE):
        return await wait


async def heard(client: ClientConnection) -> str | bytes:
    """The next message."""
    return await soon(client.recv())


async def heard_json(client: ClientConnection) -> Any:
    """The next message, decoded."""
    return json.loads(await heard(client))


async def asked(client: ClientConnection, message: str | bytes) -> str | bytes:
    """The answer to a message."""
    await client.send(message)
    return await heard(client)


async def asked_json(client: ClientConnection, value: object) -> Any:
    """The answer to a value as JSON."""
    return json.loads(await asked(client, json.dumps(value)))


async def ending(client: ClientConnection) -> tuple[int, str]:
    """The close code and reason that the server sent; a message that comes before them fails the test."""
    try:
        message = await heard(client)
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            return 1006, ""
        return closed.rcvd.code, closed.rcvd.reason
    raise AssertionError(f"expected the end, got {message!r}")
