"""Threads of sync functions: the task that starts one always waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from telex import Provide, Telex, WebSocket, websocket_listener
from telex import threads as module
from telex.threads import run_in_thread
from tests.contract.servers import KINDS, ServerKind
from tests.support.live import connected, serving, soon

BOTH = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name in {"uvicorn-websockets", "telex"}], ids=lambda kind: kind.name
)


class Gate:
    """A function with an event for its start, which returns or raises when it is released."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.entered = asyncio.Event()
        self.opened = threading.Event()
        self.log: list[str] = []

    def __call__(self, failure: Exception | None = None) -> str:
        self.log.append("in")
        self.loop.call_soon_threadsafe(self.entered.set)
        assert self.opened.wait(5)
        self.log.append("out")
        if failure is not None:
            raise failure
        return "done"


async def test_a_cancellation_is_delivered_when_the_thread_has_ended() -> None:
    gate = Gate()
    task = asyncio.create_task(run_in_thread(gate))
    await soon(gate.entered.wait())
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    gate.opened.set()
    await soon(asyncio.wait((task,)))
    assert task.cancelled()
    assert gate.log == ["in", "out"]


async def test_a_thread_that_fails_after_its_cancellation_is_logged() -> None:
    gate = Gate()
    task = asyncio.create_task(run_in_thread(gate, KeyError("broken")))
    await soon(gate.entered.wait())
    task.cancel()
    await asyncio.sleep(0)
    gate.opened.set()
    with pytest.raises(KeyError, match="broken"):
        await soon(task)


async def test_what_no_thread_has_begun_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_THREADS", 1)
    gate, second = Gate(), Gate()
    running = asyncio.create_task(run_in_thread(gate))
    await soon(gate.entered.wait())
    waiting = asyncio.create_task(run_in_thread(second))
    await asyncio.sleep(0)
    waiting.cancel()
    await soon(asyncio.wait((waiting,)))
    assert waiting.cancelled()
    gate.opened.set()
    second.opened.set()
    assert await soon(running) == "done"
    assert await soon(run_in_thread(len, "abc")) == 3
    assert second.log == []


async def test_a_cancelled_function_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_THREADS", 2)
    gates = [Gate() for _ in range(4)]
    tasks = [asyncio.create_task(run_in_thread(gate)) for gate in gates]
    for gate in gates[:2]:
        await soon(gate.entered.wait())
    for task in tasks[:2]:
        task.cancel()
    await asyncio.sleep(0.02)
    assert [gate.log for gate in gates] == [["in"], ["in"], [], []]
    for gate in gates:
        gate.opened.set()
    await soon(asyncio.wait(tasks))
    assert [gate.log for gate in gates] == [["in", "out"]] * 4


async def test_stop_iteration_leaves_a_thread() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await soon(run_in_thread(next, iter(())))


# -- in handlers


@BOTH
@pytest.mark.parametrize("scope", ["connection", "message"])
async def test_dependencies_close_after_the_thread_that_uses_them(kind: ServerKind, scope: str) -> None:
    gate, closed = Gate(), asyncio.Event()

    def database() -> Iterator[int]:
        try:
            yield 1
        finally:
            gate.log.append("closed")
            closed.set()

    def listen(data: str, db: int) -> None:
        gate()

    provide = Provide(database, scope=scope)  # type: ignore[arg-type]
    app = Telex([websocket_listener("/", dependencies={"db": provide}, sync_to_thread=True)(listen)])
    async with serving(app, kind) as running:
        async with connected(running) as client:
            await client.send("x")
            await soon(gate.entered.wait())
            client.transport.abort()
        await asyncio.sleep(0.1)  # for what must not happen
        assert gate.log == ["in"]
        gate.opened.set()
        await soon(closed.wait())
    assert gate.log == ["in", "out", "closed"]


@BOTH
@pytest.mark.parametrize("scope", ["connection", "message"])
async def test_what_a_thread_acquires_after_the_client_left_is_released(kind: ServerKind, scope: str) -> None:
    gate, released = Gate(), asyncio.Event()

    def acquired() -> Iterator[int]:
        gate()
        try:
            yield 1
        finally:
            gate.log.append("released")
            gate.loop.call_soon_threadsafe(released.set)

    provide = Provide(acquired, scope=scope, sync_to_thread=True)  # type: ignore[arg-type]

    @websocket_listener("/", dependencies={"it": provide})
    async def listen(data: str, it: int) -> None:
        raise AssertionError("the client had left")

    async with serving(Telex([listen]), kind) as running:
        if scope == "connection":
            _, writer = await asyncio.open_connection(running.host, running.port)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await soon(gate.entered.wait())
            writer.transport.abort()
        else:
            async with connected(running) as client:
                await client.send("x")
                await soon(gate.entered.wait())
                client.transport.abort()
        gate.opened.set()
        await soon(released.wait())
    assert gate.log == ["in", "out", "released"]


@BOTH
async def test_on_disconnect_waits_for_on_accept(kind: ServerKind) -> None:
    gate, told = Gate(), asyncio.Event()

    def on_disconnect() -> None:
        gate.log.append("told")
        gate.loop.call_soon_threadsafe(told.set)

    @websocket_listener("/", on_accept=lambda: gate() and None, on_disconnect=on_disconnect, sync_to_thread=True)
    def listen(data: str, socket: WebSocket) -> None:
        raise AssertionError("the client had left")

    async with serving(Telex([listen]), kind) as running:
        async with connected(running) as client:
            await soon(gate.entered.wait())
            client.transport.abort()
        await asyncio.sleep(0.1)  # for what must not happen
        gate.opened.set()
        await soon(told.wait())
    assert gate.log == ["in", "out", "told"]
