"""Any messages on a connection that speaks telex.v1: each call has one final frame, what is wrong is answered by an
error, nobody else waits, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from websockets.exceptions import ConnectionClosed

from telex import Telex, WebSocketDisconnect, websocket_listener
from telex.exceptions import CallError
from telex.protocol.frames import MAX_ID
from telex.testing import AsyncTestClient
from tests.contract.servers import ServerKind
from tests.protocol.fuzz.messages import JUNK, Sent, conversations, text
from tests.server.fuzz.harness import logged_errors
from tests.support.leaks import no_leaks
from tests.support.live import connected, serving

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=300)
LAST_ID = MAX_ID - 1
LAST = text(type="call", id=LAST_ID, data="echo")
CODES = {1007, 1008}
SERVERS = [ServerKind("uvicorn-websockets"), ServerKind("telex")]


class Declared(Exception):
    """An error that callers may see."""


async def act(data: str) -> str:
    match data:
        case "raise":
            raise CallError("a listener calls nobody", data)
        case "declared":
            raise Declared(data)
        case "slow":
            await asyncio.sleep(0.01)
    return data


def make_app(**options: Any) -> Telex:
    """Listeners of both kinds, an answer in parts, and one for the neighbour."""

    @websocket_listener("/async", errors=[Declared, CallError], **options)
    async def asynchronous(data: str) -> str:
        return await act(data)

    @websocket_listener("/many", errors=[Declared, CallError], max_concurrency=3, max_calls=64, **options)
    async def concurrent(data: str) -> str:
        return await act(data)

    @websocket_listener("/sync", errors=[Declared, CallError], **options)
    def synchronous(data: str) -> str:
        if data == "raise":
            raise Declared(data)
        return data

    @websocket_listener("/parts", errors=[Declared, CallError], **options)
    async def parts(data: str) -> AsyncIterator[str]:
        for _ in range(3):
            yield await act(data)

    @websocket_listener("/neighbour")
    async def neighbour(data: str) -> str:
        return data

    return Telex([asynchronous, concurrent, synchronous, parts, neighbour])


PATHS = ("/async", "/many", "/sync", "/parts")


class Answers:
    """The frames of the server, and what they may be."""

    def __init__(self, steps: list[Sent]) -> None:
        self.steps = steps
        self.finals: Counter[int] = Counter()
        self.errors = 0
        self.is_complete = False

    def add(self, raw: str | bytes) -> None:
        frame = json.loads(raw)
        kind, call_id = frame["type"], frame.get("id")
        match kind:
            case "reply" | "end":
                self.finals[call_id] += 1
            case "error":
                self.errors += 1
                assert frame["error"]["code"]
                assert ("about" in frame) == (call_id is None)
                if call_id is not None:
                    self.finals[call_id] += 1
                elif f"the id {LAST_ID} " in frame["error"]["message"]:
                    self.is_complete = True
            case "item":
                assert not self.finals[call_id]
            case _:
                assert kind in {"pong", "credit", "hello"}
        self.is_complete = self.is_complete or (call_id == LAST_ID and kind in {"reply", "end", "error"})

    @property
    def unanswered(self) -> list[int]:
        """The calls without a final frame, but for those below an id that junk has used up."""
        used_up = max(self.finals.keys() - {LAST_ID} - {each.call for each in self.steps}, default=0)
        return [each.call for each in self.steps if each.call > used_up and not self.finals[each.call]]

    def check(self, closed: int | None) -> None:
        assert max(self.finals.values(), default=0) <= 1, self.finals
        if closed is not None:
            assert closed in CODES
            return
        assert self.errors >= sum(each.is_junk for each in self.steps)


async def exchange(
    steps: list[Sent], send: Callable[[str | bytes], Awaitable[None]], receive: Callable[[], Awaitable[str | bytes]]
) -> None:
    """Sends the messages and reads until the last call is answered or the connection has ended."""
    answers, closed = Answers(steps), None

    async def read() -> None:
        while not answers.is_complete or answers.unanswered:
            answers.add(await receive())

    async with asyncio.timeout(40):
        reading = asyncio.create_task(read())
        try:
            for step in (*steps, Sent(LAST)):
                await send(step.raw)
            await reading
        except (ConnectionClosed, WebSocketDisconnect):
            try:
                await reading
            except ConnectionClosed as end:
                closed = end.rcvd.code if end.rcvd else 1006
            except WebSocketDisconnect as end:
                closed = end.code
        finally:
            reading.cancel()
    answers.check(closed)


async def on_a_socket(kind: ServerKind, path: str, steps: list[Sent], **options: Any) -> None:
    app = make_app(**options)
    async with no_leaks(), serving(app, kind) as running:
        async with (
            connected(running, "/neighbour", subprotocols=["telex.v1"]) as neighbour,
            connected(running, path, subprotocols=["telex.v1"], ping_interval=None) as client,
        ):
            await neighbour.recv()
            sending = asyncio.create_task(exchange(steps, client.send, client.recv))
            for number in (1, 2, 3):
                await neighbour.send(text(type="call", id=number, data="x"))
                async with asyncio.timeout(30):
                    assert json.loads(await neighbour.recv()) == {"type": "reply", "id": number, "data": "x"}
            await sending
        async with asyncio.timeout(30):
            while tuple(app.connections):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def in_process(path: str, steps: list[Sent], **options: Any) -> None:
    app = make_app(**options)
    client = AsyncTestClient(app, max_queued=1000, timeout=20)
    async with no_leaks(), client, client.websocket_connect(path, ["telex.v1"]) as session:

        async def receive() -> str | bytes:
            return cast("str | bytes", (await session.receive())["text"])

        await exchange(steps, session.send, receive)
    assert not tuple(app.connections)


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await case()

    with logged_errors() as errors:
        asyncio.run(main())
    assert errors == []


def check(path: str, steps: list[Sent], **options: Any) -> None:
    for kind in SERVERS:
        run(lambda kind=kind: on_a_socket(kind, path, steps, **options))  # type: ignore[misc]
    run(lambda: in_process(path, steps, **options))


@pytest.mark.long
@pytest.mark.parametrize("path", PATHS)
@FEW
@given(steps=conversations())
@example(steps=[Sent(raw, is_junk=True) for raw in JUNK])
def test_any_messages_are_answered(path: str, steps: list[Sent]) -> None:
    check(path, steps, max_invalid_messages=10_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", PATHS)
@MANY
@given(steps=conversations())
def test_any_messages_are_answered_many_times(path: str, steps: list[Sent]) -> None:
    check(path, steps, max_invalid_messages=10_000)


@pytest.mark.long
@FEW
@given(steps=conversations())
@example(steps=[Sent(raw, is_junk=True) for raw in JUNK])
def test_with_the_default_limits_the_connection_may_also_close(steps: list[Sent]) -> None:
    check("/async", steps)
