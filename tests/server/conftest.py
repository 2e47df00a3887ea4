"""Telex's own server in the test's loop, and what must hold after every attack on it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from telex.server import Server, Settings
from telex.server.settings import App
from tests.server.apps import ECHOES
from tests.support.leaks import Holdings, settled
from tests.support.raw import PING, TEXT, RawClient, frame

PATIENCE = 20.0

Serving = Callable[..., contextlib.AbstractAsyncContextManager[Server]]


@contextlib.asynccontextmanager
async def running(app: App, **settings: object) -> AsyncIterator[Server]:
    """A started server on a free port; its drain is quick unless ``settings`` say otherwise."""
    quick = {"port": 0, "log_format": "none", "drain_interval": 0.01, "drain_timeout": 1.0, "lifespan": None}
    del quick["lifespan"]
    server = Server(app, Settings.read({**quick, **settings}, {}))
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(PATIENCE):
            started = asyncio.create_task(server.listening.wait())
            await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
            assert started.done(), f"the server did not start: {task}"
        yield server
    finally:
        server.stop()
        async with asyncio.timeout(PATIENCE):
            await task


async def echoes(client: RawClient, text: bytes = b"still here") -> None:
    """Fails unless the connection echoes. Pings of the server may come between."""
    await client.send(frame(TEXT, text))
    while (got := await client.read_frame()).opcode == PING:
        pass
    assert got.payload == text


@contextlib.asynccontextmanager
async def connected(port: int, path: str = "/", **options: object) -> AsyncIterator[RawClient]:
    """A raw client past its handshake."""
    async with await RawClient.open(port, **options) as client:  # type: ignore[arg-type]
        assert (await client.handshake(path)).status == 101
        yield client


@contextlib.asynccontextmanager
async def attacked(app: App, **settings: object) -> AsyncIterator[Server]:
    """A server for hostile clients, to whose other clients nothing may happen.

    A control connection opened before still echoes afterwards, a fresh client does, and tasks, descriptors and
    connections are back where they were. ``app`` must echo on ``/``.
    """
    async with running(app, **settings) as server, connected(server.port) as control:
        await echoes(control)
        baseline, connections = Holdings.now(), server.status.connections
        yield server
        await settled(baseline)
        await echoes(control)
        assert server.status.connections == connections
        async with connected(server.port) as fresh:
            await echoes(fresh)


@pytest.fixture(autouse=True)
def clean_log(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """No error may be logged, except in a test that takes ``caplog`` to look at it."""
    caplog.set_level(logging.INFO)
    yield
    if "caplog" not in inspect.signature(request.function).parameters:
        errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
        assert [record.getMessage() for record in errors] == []


@pytest.fixture(params=sorted(ECHOES))
def echo_app(request: pytest.FixtureRequest) -> App:
    """An echo, by each way that the server offers."""
    return ECHOES[request.param]
