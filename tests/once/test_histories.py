"""Histories of keys, messages, disconnects, joins and cancels, against a model of what each call gets."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from telex import CallError, Multiplex, Telex, websocket_listener
from telex.once import Once
from telex.testing import AsyncTestClient
from tests.once.apps import Refused

pytestmark = pytest.mark.filterwarnings("error")

Policy = Literal["refuse", "run"]
KEYS: Final = ("first-key-_-_-_-_-_-_-", "other-key-_-_-_-_-_-_-")
MESSAGES: Final = ("wait", "wait too", "ok", "declared", "fail")
CONNECTIONS: Final = 3

CALL: Final = st.tuples(
    st.just("call"),
    st.integers(0, CONNECTIONS - 1),
    st.sampled_from(KEYS),
    st.sampled_from((*MESSAGES, "wait", "wait")),
)
STEPS: Final = st.one_of(
    CALL,
    CALL,
    st.tuples(st.just("leave"), st.integers(0, CONNECTIONS - 1)),
    st.tuples(st.just("release"), st.sampled_from(KEYS)),
    st.tuples(st.just("cancel"), st.sampled_from(KEYS), st.integers(0, 1)),
)
KEY: Final = KEYS[0]
JOIN: Final = [("call", 0, KEY, "wait"), ("leave", 0), ("call", 1, KEY, "wait"), ("release", KEY)]
SHARE: Final = [("call", 0, KEY, "wait"), ("call", 1, KEY, "wait"), ("cancel", KEY, 0), ("release", KEY), JOIN[2]]
CANCEL: Final = [("call", 0, KEY, "wait"), ("cancel", KEY, 0), ("call", 1, KEY, "wait")]


@dataclass
class Key:
    """What the model knows of a key."""

    message: str | None = None
    result: str | None = None
    """What a call with :attr:`message` gets; ``None`` while it runs."""
    waiting: list[tuple[int, Any]] = field(default_factory=list)
    """The calls that wait for the run: their connection, and the call."""


class History:
    """The app, its connections, and the model."""

    def __init__(self, policy: Policy, *, on_shared_socket: bool) -> None:
        self.policy = policy
        self.path = "/socket" if on_shared_socket else "/"
        self.runs: Counter[str] = Counter()
        self.expected_runs: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.keys = {key: Key() for key in KEYS}
        self.sessions: dict[int, tuple[Any, AsyncExitStack]] = {}

        @websocket_listener(
            "/", idempotent=Once(if_interrupted=policy), errors=[Refused], max_concurrency=100, max_calls=100
        )
        async def handle(data: list[str]) -> str:
            message, key = data
            self.runs[key] += 1
            if message.startswith("wait"):
                await self.gates.setdefault(key, asyncio.Event()).wait()
            if message == "declared":
                raise Refused(str(self.runs[key]))
            if message == "fail":
                raise ValueError(message)
            return f"{message} {self.runs[key]}"

        self.app = Telex([handle, Multiplex("/socket", routes=[handle])])

    async def play(self, steps: list[Any]) -> None:
        async with AsyncTestClient(self.app, raise_server_exceptions=False) as client:
            self.client = client
            for name, *arguments in steps:
                await getattr(self, name)(*arguments)
                assert self.runs == self.expected_runs
            for key in KEYS:
                await self.release(key)
            for number in tuple(self.sessions):
                await self.leave(number)

    async def session(self, number: int) -> Any:
        if number not in self.sessions:
            stack = AsyncExitStack()
            if self.path == "/":
                opening: Any = self.client.websocket_connect("/", subprotocols=["telex.v1"])
            else:
                shared: Any = await stack.enter_async_context(self.client.multiplex("/socket"))
                opening = shared.route("/")
            self.sessions[number] = (await stack.enter_async_context(opening), stack)
        return self.sessions[number][0]

    async def call(self, number: int, key: str, message: str) -> None:
        """A call: it gets at once what the model says, or waits for the run."""
        known = self.keys[key]
        pending = await (await self.session(number)).begin([message, key], key=key)
        if known.message is None:
            self.expected_runs[key] += 1
            ran = self.expected_runs[key]
            outcome = {"ok": f"ok {ran}", "declared": f"refused {ran}", "fail": "internal"}.get(message)
            known.message, known.result = (None, None) if message == "fail" else (message, outcome)
        elif known.message != message:
            outcome = "other_message"
        else:
            outcome = known.result
        if outcome is not None:
            assert await result_of(pending) == outcome
            return
        known.waiting.append((number, pending))
        await self._until_begun(key)

    async def _until_begun(self, key: str) -> None:
        async with asyncio.timeout(30):
            while self.runs[key] < self.expected_runs[key]:  # noqa: ASYNC110  # the handler tells nobody
                await asyncio.sleep(0)
        for session, _ in self.sessions.values():  # the frames of all have been read
            await session.call(["ok", "none"])
        self.expected_runs["none"] = self.runs["none"]

    async def leave(self, number: int) -> None:
        """A disconnect: its calls go on without it."""
        if number in self.sessions:
            for known in self.keys.values():
                known.waiting = [each for each in known.waiting if each[0] != number]
            await self.sessions.pop(number)[1].aclose()

    async def release(self, key: str) -> None:
        """The run ends: all who wait get its answer, and those who call later."""
        known = self.keys[key]
        if known.message is None or known.result is not None:
            return
        known.result = f"{known.message} {self.expected_runs[key]}"
        self.gates.pop(key).set()
        for _, pending in known.waiting:
            assert await result_of(pending) == known.result
        known.waiting.clear()

    async def cancel(self, key: str, which: int) -> None:
        """A cancel ends one call, and the run if nobody else waits for it."""
        known = self.keys[key]
        if which >= len(known.waiting):
            return
        _, pending = known.waiting.pop(which)
        await pending.cancel()
        assert await result_of(pending) == "cancelled"
        if not known.waiting:
            self.gates.pop(key, None)
            self.keys[key] = Key(known.message, "outcome_unknown") if self.policy == "refuse" else Key()


async def result_of(pending: Any) -> str:
    try:
        return str(await pending.result(str))
    except CallError as error:
        if isinstance(error.data, dict) and "reason" in error.data:
            return str(error.data["reason"])
        return f"{error.code} {error.data['why']}" if isinstance(error.data, dict) else error.code


@pytest.mark.parametrize("policy", ["refuse", "run"])
@settings(max_examples=25)
@given(steps=st.lists(STEPS, min_size=8, max_size=20), on_shared_socket=st.booleans())
@example(steps=JOIN, on_shared_socket=False)
@example(steps=SHARE, on_shared_socket=True)
@example(steps=CANCEL, on_shared_socket=False)
def test_each_call_gets_what_the_model_says(policy: Policy, steps: list[Any], on_shared_socket: bool) -> None:
    asyncio.run(History(policy, on_shared_socket=on_shared_socket).play(steps))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", ["refuse", "run"])
@settings(max_examples=1_000)
@given(steps=st.lists(STEPS, min_size=20, max_size=60), on_shared_socket=st.booleans())
def test_long_histories(policy: Policy, steps: list[Any], on_shared_socket: bool) -> None:
    asyncio.run(History(policy, on_shared_socket=on_shared_socket).play(steps))
