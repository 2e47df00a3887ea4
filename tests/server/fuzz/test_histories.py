"""Connections that are cut, stalled, closed and cancelled at any step: what holds after each of them.

The client sends its bytes in any chunks; between them it stops to read, ends its stream or is lost, and the app closes,
raises, cancels, or is slow in its cleanup.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from telex import Provide, Telex, WebSocket, websocket, websocket_listener
from telex.server.connection import Connection
from tests.server.fuzz.harness import LoopWithoutWaiting, Pipe, connect, gone, logged_errors
from tests.server.test_pipelining import OPENING
from tests.support.raw import CLOSE, CONTINUATION, PING, TEXT, close_frame, frame

FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=2000)
LIMIT, QUEUED = 4000, 6000
BOUNDS: dict[str, Any] = {
    "max_message_size": LIMIT,
    "max_queued_bytes": QUEUED,
    "max_queue": 8,
    "close_timeout": 0.2,
    "handshake_timeout": 1.0,
}


@dataclass
class Case:
    """What the app did in one history."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    socket: WebSocket[Any, Any, Any] | None = None
    closers: list[asyncio.Task[None]] = field(default_factory=list)
    most_kept: int = 0

    def watch(self) -> None:
        """Note how many bytes wait for the app."""
        if self.socket is not None and isinstance(self.socket.transport, Connection):
            self.most_kept = max(self.most_kept, self.socket.transport._queued_bytes)

    def close_from_another_task(self) -> None:
        if self.socket is not None:
            self.closers.append(asyncio.get_running_loop().create_task(self.socket.close(4002)))


_case = Case()


async def resource(socket: WebSocket[Any, Any, Any]) -> AsyncIterator[str]:
    _case.socket = socket
    _case.counts["opened"] += 1
    try:
        yield "resource"
    finally:
        _case.counts["left"] += 1
        for _ in range(3):
            await asyncio.sleep(0.01)
        _case.counts["closed"] += 1


async def in_message() -> AsyncIterator[str]:
    _case.counts["message opened"] += 1
    try:
        yield "of the message"
    finally:
        _case.counts["message left"] += 1
        await asyncio.sleep(0.01)
        _case.counts["message closed"] += 1


async def accepted() -> None:
    _case.counts["accepted"] += 1
    await asyncio.sleep(0)


async def disconnected() -> None:
    _case.counts["disconnected"] += 1
    await asyncio.sleep(0.01)
    _case.counts["told"] += 1


async def act(data: str, socket: WebSocket[Any, Any, Any]) -> str:
    match data:
        case "raise":
            _case.errors += 1
            raise KeyError(data)
        case "cancel":
            _case.errors += 1
            raise asyncio.CancelledError
        case "close":
            await socket.close(4001)
        case "close elsewhere":
            _case.close_from_another_task()
            await asyncio.sleep(0.1)
        case "slow":
            await asyncio.sleep(1)
        case "burst":
            for _ in range(40):
                await socket.send_text("one of many")
    return data


HOOKS: dict[str, Any] = {
    "dependencies": {"resource": Provide(resource)},
    "on_accept": accepted,
    "on_disconnect": disconnected,
}


@websocket_listener("/sync", **HOOKS)
def sync_listener(data: str, resource: str) -> str:
    if data == "raise":
        _case.errors += 1
        raise KeyError(data)
    return data


@websocket_listener("/async", **HOOKS)
async def async_listener(data: str, resource: str, socket: WebSocket[Any, Any, Any]) -> str:
    return await act(data, socket)


@websocket_listener(
    "/many",
    max_concurrency=3,
    **{**HOOKS, "dependencies": {**HOOKS["dependencies"], "own": Provide(in_message, scope="message")}},
)
async def concurrent_listener(data: str, resource: str, own: str, socket: WebSocket[Any, Any, Any]) -> str:
    return await act(data, socket)


@websocket("/raw", dependencies=HOOKS["dependencies"])
async def raw_handler(socket: WebSocket[Any, Any, Any], resource: str) -> None:
    await socket.accept()
    async for data in socket.iter_text():
        reply = await act(data, socket)
        if not socket.is_open:
            return
        await socket.send_text(reply)


APP = Telex([sync_listener, async_listener, concurrent_listener, raw_handler])
PATHS = ("/sync", "/async", "/many", "/raw")
TEXTS = ("echo", "slow", "close", "close elsewhere", "raise", "cancel", "burst", "b" * 3000)

EVENTS = st.sampled_from(["stall", "read", "wait", "wait", "turn", "turn", "close", "abort", "half close", "cancel"])

Step = bytes | str


def frames() -> st.SearchStrategy[bytes]:
    text = st.sampled_from(TEXTS).map(lambda text: frame(TEXT, text.encode()))
    odd = st.sampled_from(
        [
            frame(PING, b"p"),
            frame(TEXT, b"in ", fin=False) + frame(CONTINUATION, b"parts"),
            frame(TEXT, b"unfinished", fin=False),
            frame(TEXT, b"x" * (LIMIT + 1)),
            frame(TEXT, b"\xff"),
            frame(3, b"unknown opcode"),
            frame(CLOSE),
            close_frame(1000, b"bye"),
            frame(TEXT, b"echo") * 30,
        ]
    )
    return st.one_of(text, text, text, odd)


@st.composite
def histories(draw: st.DrawFn) -> tuple[str, list[Step]]:
    path = draw(st.sampled_from(PATHS))
    opening = OPENING.replace(b"GET / ", f"GET {path} ".encode())
    sent = b"".join(draw(st.lists(frames(), max_size=6)))
    first = [] if draw(st.booleans()) else [opening]
    rest = sent if first else opening + sent
    cuts = sorted(draw(st.lists(st.integers(0, len(rest)), max_size=8)))
    steps: list[Step] = []
    for chunk in [*first, *(rest[start:end] for start, end in zip([0, *cuts], [*cuts, len(rest)], strict=True))]:
        steps.append(chunk)
        steps += draw(st.lists(EVENTS, max_size=2))
    return path, steps


def check(history: tuple[str, list[Step]]) -> None:
    global _case
    path, steps = history
    _case = case = Case()
    with logged_errors() as errors, asyncio.Runner(loop_factory=LoopWithoutWaiting) as runner:
        pipe = runner.run(_live(case, steps))
    counts = case.counts
    assert counts["opened"] == counts["left"]
    assert counts["message opened"] == counts["message left"]
    if "cancel" not in steps:  # as a server does that gives up: it interrupts the cleanup, too
        assert counts["left"] == counts["closed"]
        assert counts["told"] == counts["disconnected"]
        assert counts["message left"] == counts["message closed"]
    if path != "/raw":
        answered = bytes(pipe.sent).startswith(b"HTTP/1.1 101 ")
        assert counts["disconnected"] <= 1
        assert counts["disconnected"] == 1 or not answered
        assert counts["accepted"] <= counts["disconnected"]
    assert len(errors) <= case.errors, errors
    assert case.most_kept <= QUEUED + LIMIT
    assert list(APP.connections) == []


async def _live(case: Case, steps: list[Step]) -> Pipe:
    before = asyncio.all_tasks()
    pipe, state = connect(APP, **BOUNDS)
    reactions: dict[str, Callable[[], object]] = {
        "stall": lambda: pipe.stall(True),
        "read": lambda: pipe.stall(False),
        "abort": pipe.abort,
        "half close": pipe.half_close,
        "close": case.close_from_another_task,
        "cancel": lambda: [task.cancel() for task in state.tasks],
        "turn": lambda: None,
        "wait": lambda: None,
    }
    for step in steps:
        if isinstance(step, bytes):
            pipe.feed(step)
        else:
            reactions[step]()
        case.watch()
        await asyncio.sleep(0.7 if step == "wait" else 0)
        case.watch()
    await asyncio.sleep(1)
    pipe.stall(False)
    await gone(pipe, state)
    if case.closers:
        await asyncio.wait(case.closers, timeout=5)
        assert [task for task in case.closers if not task.done()] == []
        assert [task.exception() for task in case.closers if task.exception() is not None] == []
    async with asyncio.timeout(30):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return pipe


def to_many(*texts: str) -> bytes:
    frames = b"".join(frame(TEXT, text.encode()) for text in texts)
    return OPENING.replace(b"GET / ", b"GET /many ") + frames


@pytest.mark.long
@FEW
@example(history=("/many", [to_many("slow", "raise", "echo", "echo")]))
@example(history=("/many", [to_many("echo", "cancel")]))
@example(history=("/many", [to_many("cancel", "echo")]))
@example(history=("/many", [to_many("cancel"), "close"]))
@example(history=("/many", [to_many("echo", "echo", "echo", "echo"), "stall"]))
@given(history=histories())
def test_whatever_happens_a_connection_ends_completely(
    caplog: pytest.LogCaptureFixture, history: tuple[str, list[Step]]
) -> None:
    caplog.clear()
    check(history)


@pytest.mark.slow
@pytest.mark.timeout(600)
@MANY
@given(history=histories())
def test_whatever_happens_a_connection_ends_completely_in_many_histories(
    caplog: pytest.LogCaptureFixture, history: tuple[str, list[Step]]
) -> None:
    caplog.clear()
    check(history)
