"""Any messages on a socket of many routes: each open has one end, other routes are answered, and nothing is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from telex import Multiplex, Telex, WebSocket, websocket, websocket_listener
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import Shared, joined
from tests.protocol.fuzz.messages import JUNK, ODD_IDS, VALUES, anything, binary, text
from tests.server.fuzz.harness import logged_errors
from tests.support.leaks import no_leaks
from tests.support.live import serving

FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=400)
PATHS = (
    "/echo",
    "/plain",
    "/refused",
    "/nowhere",
    "/socket",
    "/",
    "",
    "echo",
    "/echo?x=1",
    "/é",
    "//echo",
    "/%00",
    "/..",
)
JUNK_OF_ROUTES: tuple[str | bytes, ...] = (
    '{"type":"open"}', '{"type":"open","c":0,"path":"/echo"}', '{"type":"open","c":-1,"path":"/echo"}',
    '{"type":"open","c":9007199254740992,"path":"/echo"}', '{"type":"open","c":1,"path":"/echo"}',
    '{"type":"open","c":90,"path":5}', '{"type":"open","c":90,"path":"/echo","credit":-1}',
    '{"type":"open","c":90,"path":"/echo","credit":9007199254740992}', '{"type":"close","c":8000}',
    '{"type":"close","c":1.5}', '{"type":"close"}', '{"type":"credit","c":1,"n":-1}', '{"type":"credit","c":1,"n":0}',
    '{"type":"credit","c":8000,"n":1}', '{"type":"credit","n":1}', '{"type":"call","c":8000,"id":1,"data":"x"}',
    '{"type":"call","id":1,"data":"x"}', '{"type":"ping","c":1}', '{"type":"opened","c":8000}',
    '{"type":"close","type":"open","c":1}', binary('{"type":"notify","c":8000}', b"x"),
    binary('{"type":"open","c":91,"path":"/echo"}'), binary('{"type":"notify","c":1}', b"x", 4000),
    '{"type":"close","c":1,"code":1006}', '{"type":"close","c":1,"code":5}', '{"type":"open","c":92,"path":"%s"}'
    % ("/" + "x" * 9000),
)  # fmt: skip
"""Messages that are answered with an error about the socket, once route 1 is open."""


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


@websocket("/plain")
async def plain(socket: WebSocket) -> None:
    await socket.accept()
    async for data in socket.iter_text():
        await socket.send_text(data)


app = Telex([echo, plain, Multiplex("/socket", routes=Multiplex.ALL)])


@st.composite
def conversations(draw: st.DrawFn) -> list[str | bytes]:
    """Messages that open, use and close routes from 2 on, and any others."""
    highest = 1
    steps: list[str | bytes] = []
    kinds = st.sampled_from(["open", "open", "use", "use", "close", "credit", "odd", "junk", "any"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=25)):
        c = draw(st.integers(2, highest + 1))
        more: dict[str, Any] = {}
        match kind:
            case "open":
                highest += draw(st.integers(1, 3))
                if draw(st.booleans()):
                    more["credit"] = draw(st.sampled_from([0, 1, 16]))
                steps.append(text(type="open", c=highest, path=draw(st.sampled_from(PATHS)), **more))
            case "use":
                inner = draw(st.sampled_from(["call", "notify", "cancel", "more", "reply"]))
                steps.append(text(type=inner, c=c, id=draw(st.integers(1, 9)), n=1, data=draw(VALUES)))
            case "close":
                steps.append(text(type="close", c=c, code=draw(st.sampled_from([1000, 3000, 4999, 1006, 0]))))
            case "credit":
                steps.append(text(type="credit", c=c, n=draw(st.sampled_from([1, 65_536, 65_537, -1]))))
            case "odd":
                inner = draw(st.sampled_from(["open", "close", "credit", "call", "hello", "opened"]))
                steps.append(text(type=inner, c=draw(st.sampled_from(ODD_IDS)), path="/echo", n=1))
            case "junk":
                steps.append(draw(st.sampled_from(JUNK_OF_ROUTES)))
            case _:
                steps.append(draw(anything()))
    return steps


async def exchange(kind: ServerKind, steps: list[str | bytes], errors: int) -> None:
    async with no_leaks(), serving(app, kind) as running:
        async with joined(running) as shared, asyncio.timeout(20):
            neighbour = await shared.open("/echo")
            opened: Counter[int] = Counter()
            for step in steps:
                # A ping after each: ten wrong messages in a row would close the socket.
                await shared.client.send(step)
                await shared.send({"type": "ping"})
            await neighbour.send({"type": "call", "id": 1, "data": "still"})
            found: list[Any] = []
            while True:
                frame = await _next(shared)
                if frame is None:
                    break  # a limit has closed the socket: asserted below
                if frame.get("c") == neighbour.c:
                    if frame.get("data") == "still" or frame["type"] == "closed":
                        break
                    continue
                found.append(frame)
            for frame in found:
                if frame["type"] in {"denied", "closed"}:
                    opened[frame["c"]] += 1
            assert max(opened.values(), default=0) <= 1
            assert sum(frame["type"] == "error" and "c" not in frame for frame in found) >= errors
        async with asyncio.timeout(5):
            while tuple(app.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def _next(shared: Shared) -> Any:
    try:
        return await shared.receive()
    except ConnectionClosed as end:
        code = end.rcvd.code if end.rcvd else 1006
    assert code in {1007, 1008}
    return None


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await case()

    with logged_errors() as errors:
        asyncio.run(main())
    assert errors == []


@FEW
@given(steps=conversations())
@example(steps=list(JUNK))
def test_any_messages_leave_the_other_routes_alone(kind: ServerKind, steps: list[str | bytes]) -> None:
    run(lambda: exchange(kind, steps, 0))


@pytest.mark.slow
@pytest.mark.timeout(280)
@MANY
@given(steps=conversations())
def test_any_messages_leave_the_other_routes_alone_many_times(kind: ServerKind, steps: list[str | bytes]) -> None:
    run(lambda: exchange(kind, steps, 0))


def test_each_wrong_frame_about_routes_is_answered_with_an_error(kind: ServerKind) -> None:
    run(lambda: exchange(kind, list(JUNK_OF_ROUTES), len(JUNK_OF_ROUTES)))
