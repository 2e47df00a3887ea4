"""Random histories of calls, answers, cancels, credit and ends: what must hold after each of them.

Each call has exactly one final frame, or the connection has ended; an answer is that of its call; with one call at a
time the replies keep their order; and nothing is left behind.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from telex import Multiplex, Telex, WebSocket, WebsocketListener
from telex.exceptions import CallError, CallTimeout
from tests.protocol.fuzz.peers import InProcess, OnARoute, OnASocket, OnUvicorn, Peer
from tests.server.fuzz.harness import logged_errors
from tests.support.leaks import Holdings
from tests.support.leaks import settled as all_gone

FEW = settings(max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=150, stateful_step_count=40)
ALWAYS = {"cancelled", "timeout", "too_many_calls"}
PEERS: list[type[Peer]] = [OnASocket, OnUvicorn, InProcess, OnARoute]


class Refused(Exception):
    """A declared error."""


class Do(msgspec.Struct, tag="do"):
    """Do something, and answer with the token."""

    how: Literal["quick", "wait", "refuse", "ask", "ask briefly", "close"]
    token: str


class Count(msgspec.Struct, tag="count"):
    """Answer in parts."""

    up_to: int


class Note(msgspec.Struct, tag="note"):
    """Answer with nothing."""

    token: str


class Gate:
    """Opened by the test, for those who wait at that moment."""

    def __init__(self) -> None:
        self.waiting: set[asyncio.Future[None]] = set()

    async def wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiting.add(future)
        try:
            await future
        finally:
            self.waiting.discard(future)

    def open(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)


class Acts(WebsocketListener):
    """What the machine calls."""

    errors = [Refused]  # noqa: RUF012
    max_calls = 8
    max_streams = 2
    gate: Gate

    async def on_do(self, data: Do, socket: WebSocket) -> str:
        match data.how:
            case "wait":
                await self.gate.wait()
            case "refuse":
                raise Refused(data.token)
            case "ask" | "ask briefly":
                within = 30 if data.how == "ask" else 0.005
                try:
                    return await socket.call(data.token, str, timeout=within)
                except CallTimeout:
                    return "nothing came"
                except CallError as error:
                    return f"{error.code}: {data.token}"
            case "close":
                await socket.close(4000)
        return data.token

    async def on_count(self, data: Count) -> AsyncIterator[int]:
        for number in range(data.up_to):
            yield number

    def on_note(self, data: Note) -> None:
        """Nothing."""


def make_app(gate: Gate) -> Telex:
    """One call at a time, and four."""

    class One(Acts):
        path = "/one"

    class Four(Acts):
        path = "/four"
        max_concurrency = 4

    Acts.gate = gate
    return Telex([One, Four, Multiplex("/socket", routes=[One, Four])])


class Histories(RuleBasedStateMachine):
    """One client, one connection after another."""

    peer_class: type[Peer]
    path: str

    def __init__(self) -> None:
        super().__init__()
        self.errors_context = logged_errors()
        self.errors = self.errors_context.__enter__()
        self.loop = asyncio.new_event_loop()
        self.gate = Gate()
        self.app = make_app(self.gate)
        self.peer = self.peer_class(self.app)
        self.run(self.start())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(20):
                await work

        self.loop.run_until_complete(limited())

    async def start(self) -> None:
        self.holdings = Holdings.now()
        await self.peer.start()
        await self.connect()

    async def connect(self) -> None:
        self.calls: dict[int, Do | Count | Note] = {}
        self.answers: dict[str, str] = {}
        self.cancelled: set[int] = set()
        self.finals: Counter[int] = Counter()
        self.items: Counter[int] = Counter()
        self.credit: Counter[int] = Counter()
        self.replied: list[int] = []
        self.asked: dict[int, str] = {}
        self.all_asked: list[int] = []
        self.pongs = self.pings = 0
        self.ended = False
        self.wrong: list[object] = []
        await self.peer.connect(self.path)
        self.reading = self.loop.create_task(self.read())

    # -- the client

    async def read(self) -> None:
        while (frame := await self.peer.receive()) is not None:
            try:
                self.take(frame)
            except AssertionError as error:
                self.wrong.append((frame, error))
        self.ended = True

    def take(self, frame: dict[str, Any]) -> None:
        call_id = frame.get("id", 0)
        match frame["type"]:
            case "reply":
                self.end(call_id)
                self.replied.append(call_id)
                self.check_reply(self.calls[call_id], frame)
            case "end":
                self.end(call_id)
                call = self.calls[call_id]
                assert isinstance(call, Count)
                assert self.items[call_id] == call.up_to
            case "error" if call_id:
                self.end(call_id)
                code = frame["error"]["code"]
                assert code in ALWAYS | {"refused"}
                assert code != "cancelled" or call_id in self.cancelled
            case "item":
                assert not self.finals[call_id]
                assert frame["data"] == self.items[call_id]
                self.items[call_id] += 1
                assert self.items[call_id] <= self.credit[call_id]
            case "call":
                assert not self.all_asked or call_id > self.all_asked[-1]
                self.asked[call_id] = frame["data"]
                self.all_asked.append(call_id)
            case "cancel":
                self.asked.pop(call_id, None)
            case "pong":
                self.pongs += 1
            case kind:
                assert kind in {"hello", "opened", "credit"}

    def end(self, call_id: int) -> None:
        assert call_id in self.calls
        self.finals[call_id] += 1
        assert self.finals[call_id] == 1

    def check_reply(self, call: Do | Count | Note, frame: dict[str, Any]) -> None:
        if isinstance(call, Note):
            assert "data" not in frame
            return
        assert isinstance(call, Do)
        assert call.how != "refuse"
        allowed = {call.token}
        if call.how.startswith("ask"):
            allowed = {self.answers.get(call.token, ""), "nothing came"}
        assert frame["data"] in allowed

    async def call(self, data: Do | Count | Note, **more: Any) -> None:
        call_id = len(self.calls) + 1
        self.calls[call_id] = data
        self.credit[call_id] = 16
        await self.peer.send({"type": "call", "id": call_id, "data": msgspec.to_builtins(data), **more})

    async def settle(self) -> None:
        """All that was sent has been read, and answered where nothing waits."""
        self.pings += 1
        await self.peer.send({"type": "ping"})
        while self.pongs < self.pings and not self.ended:  # noqa: ASYNC110
            await asyncio.sleep(0)

    # -- rules

    @rule(
        how=st.sampled_from(["quick", "quick", "wait", "refuse", "ask", "ask briefly"]),
        timeout=st.sampled_from([None, None, None, 0.001, 5]),
        count=st.integers(1, 4),
    )
    def call_it(self, how: Any, timeout: float | None, count: int) -> None:
        async def calls() -> None:
            for _ in range(count):
                token = f"{how} {len(self.calls)} of {id(self.calls)}"
                await self.call(Do(how, token), **({} if timeout is None else {"timeout": timeout}))

        self.run(calls())

    @rule(up_to=st.sampled_from([0, 1, 16, 17, 40]))
    def call_for_parts(self, up_to: int) -> None:
        self.run(self.call(Count(up_to)))

    @rule()
    def call_for_nothing(self) -> None:
        self.run(self.call(Note("x")))

    @rule()
    def notify(self) -> None:
        self.run(self.peer.send({"type": "notify", "data": {"type": "note", "token": "x"}}))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call_id = data.draw(st.integers(1, len(self.calls)))
        self.cancelled.add(call_id)
        self.run(self.peer.send({"type": "cancel", "id": call_id}))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), n=st.integers(1, 30))
    def more(self, data: st.DataObject, n: int) -> None:
        call_id = data.draw(st.integers(1, len(self.calls)))
        self.credit[call_id] += n
        self.run(self.peer.send({"type": "more", "id": call_id, "n": n}))

    @rule(nth=st.integers(0, 40), how=st.sampled_from(["reply", "reply", "error", "wrong", "late"]))
    def answer(self, nth: int, how: str) -> None:
        """What has arrived depends on time, so it decides neither what is drawn nor which rule comes next."""
        if not self.all_asked:
            return
        late = [each for each in self.all_asked if each not in self.asked]
        among = (late if how == "late" else list(self.asked)) or self.all_asked
        asked = among[nth % len(among)]
        token = self.asked.pop(asked, None)
        frame: dict[str, Any] = {"type": "reply", "id": asked, "data": f"answer to {token}"}
        if how == "error":
            frame = {"type": "error", "id": asked, "error": {"code": "no"}}
        elif how == "wrong":
            frame["data"] = [5]
        if token is not None:
            codes = {"error": f"no: {token}", "wrong": f"invalid_message: {token}"}
            self.answers[token] = codes.get(how, f"answer to {token}")
        self.run(self.peer.send(frame))

    @rule()
    def open_the_gate(self) -> None:
        self.gate.open()
        self.run(asyncio.sleep(0))

    @rule()
    def let_it_run(self) -> None:
        self.run(self.settle())

    @rule(how=st.sampled_from(["close", "abort", "by the server"]))
    def end_the_connection(self, how: str) -> None:
        self.run(self.leave(how))

    async def leave(self, how: str) -> None:
        if how == "by the server":
            self.gate.open()
            await self.call(Do("close", "closed"))
            await self.peer.send({"type": "cancel", "id": 0})  # no frame; whatever it does, the connection goes
        await self.peer.close(abort=how == "abort")
        await self.reading
        assert self.ended
        await self.nothing_is_left()
        await self.connect()

    async def nothing_is_left(self) -> None:
        while tuple(self.app.connections) and not isinstance(self.peer, OnARoute):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        while self.gate.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    # -- what holds

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.wrong == []
        assert self.errors == []
        if self.path == "/one":
            ordered = [each for each in self.replied if not isinstance(self.calls[each], Note)]
            assert ordered == sorted(ordered)

    def teardown(self) -> None:
        try:
            self.run(self.finish())
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.errors_context.__exit__(None, None, None)

    async def finish(self) -> None:
        """Let all calls end: each has been answered once, or the connection has ended."""
        while not self.ended and len(self.finals) < len(self.calls):
            self.gate.open()
            for asked in tuple(self.asked):
                token = self.asked.pop(asked)
                self.answers[token] = f"answer to {token}"
                await self.peer.send({"type": "reply", "id": asked, "data": f"answer to {token}"})
            for call_id, call in self.calls.items():
                if isinstance(call, Count) and not self.finals[call_id] and self.items[call_id] >= self.credit[call_id]:
                    self.credit[call_id] += 16
                    await self.peer.send({"type": "more", "id": call_id, "n": 16})
            await self.settle()
            await asyncio.sleep(0)
        self.nothing_is_wrong()
        if not self.ended:
            assert set(self.finals) == set(self.calls)
        await self.peer.close(abort=False)
        await self.reading
        await self.nothing_is_left()
        await self.peer.stop()
        assert not tuple(self.app.connections)
        this = asyncio.current_task()
        await all_gone(replace(self.holdings, tasks=self.holdings.tasks | {this} if this else self.holdings.tasks))


def play(peer: type[Peer], path: str, how: settings) -> None:
    class Machine(Histories):
        peer_class = peer

    Machine.path = path
    run_state_machine_as_test(Machine, settings=how)


@pytest.mark.long
@pytest.mark.parametrize("path", ["/one", "/four"])
@pytest.mark.parametrize("peer", PEERS)
def test_random_histories(peer: type[Peer], path: str) -> None:
    play(peer, path, FEW)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", ["/one", "/four"])
@pytest.mark.parametrize("peer", PEERS)
def test_many_random_histories(peer: type[Peer], path: str) -> None:
    play(peer, path, MANY)
