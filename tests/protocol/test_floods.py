"""Clients that send all they can and read nothing: the server's memory stays bounded, and others are answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from tests.contract.servers import Running, ServerKind
from tests.protocol.conftest import Caller
from tests.support.limits import rss
from tests.support.live import connected, soon
from tests.support.raw import TEXT, RawClient, frame

pytestmark = pytest.mark.slow

APP = "tests.protocol.flood_apps:app"
MOST_SENT = 24 << 20
"""Bytes that a client sends, unless the server reads no more of them."""
GROWTH = 16 << 20
"""Bytes that the server may hold more than before: its windows have 8 MiB, its buffers some more."""
LARGE = "x" * 3000


def _calls(data: object) -> Iterator[str]:
    head = '{"type":"call","id":'
    text = json.dumps(data)
    return (f'{head}{number},"data":{text}}}' for number in itertools.count(1))


def _answered_stream() -> Iterator[str]:
    yield f'{{"type":"call","id":1,"data":"{LARGE}"}}'
    while True:
        yield '{"type":"more","id":1,"n":65536}'


def _invalid_between_pings() -> Iterator[str]:
    for number in itertools.count(1):
        yield f'{{"type":"call","id":{number},"data":"no number"}}'
        yield '{"type":"ping"}'


FLOODS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "pings": ("/echo", lambda: itertools.repeat('{"type":"ping"}')),
    "calls": ("/echo", lambda: _calls(LARGE)),
    "calls of a sync function": ("/sync", lambda: _calls(LARGE)),
    "calls beyond the credit": ("/stuck", lambda: _calls("x")),
    "large calls beyond the credit": ("/stuck", lambda: _calls("x" * 900_000)),
    "notifies": ("/stuck", lambda: itertools.repeat(f'{{"type":"notify","data":"{LARGE}"}}')),
    "cancels": ("/stuck", lambda: itertools.chain(itertools.islice(_calls("x"), 1), _cancels())),
    "credit for parts": ("/parts", _answered_stream),
    "parts": ("/parts", lambda: _calls(LARGE)),
    "calls that ask": ("/ask", lambda: _calls(LARGE)),
    "invalid calls between pings": ("/explained", _invalid_between_pings),
}


def _cancels() -> Iterator[str]:
    yield '{"type":"cancel","id":1}'
    for number in itertools.count(2):
        yield f'{{"type":"call","id":{number},"data":"x"}}'
        yield f'{{"type":"cancel","id":{number}}}'


async def _flood(client: RawClient, messages: Iterator[str]) -> None:
    """Send until the server does not read, or has closed."""
    sent = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        while sent < MOST_SENT:
            chunk = bytearray()
            while len(chunk) < 1 << 16:
                chunk += frame(TEXT, next(messages).encode())
            await client.send(bytes(chunk))
            sent += len(chunk)
            await asyncio.sleep(0)


async def _is_answered(running: Running, done: asyncio.Event) -> None:
    async with connected(running, "/echo", subprotocols=["telex.v1"]) as client:
        caller = Caller(client)
        caller.hello = await caller.receive()
        while not done.is_set():
            assert (await caller.call("x"))["data"] == "x"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 0.1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_a_client_that_reads_nothing_is_bounded(kind: ServerKind, name: str) -> None:
    path, messages = FLOODS[name]
    async with kind.process(APP, mebibytes=400) as running:
        assert running.pid is not None
        async with connected(running, "/echo", subprotocols=["telex.v1"]) as client:
            await soon(client.recv())
        before, done = rss(running.pid), asyncio.Event()
        neighbour = asyncio.create_task(_is_answered(running, done))
        async with await RawClient.open(running.port, timeout=2, receive_buffer=1 << 16) as client:
            assert (await client.handshake(path, [("Sec-WebSocket-Protocol", "telex.v1")])).status == 101
            await _flood(client, messages())
            grown = rss(running.pid) - before
            client.reset()
        done.set()
        await soon(neighbour)
        assert grown < GROWTH, f"{grown >> 20} MiB"
    assert "Traceback" not in running.log()
