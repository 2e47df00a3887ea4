"""Calls with keys, over a real socket: the second gets the answer of the first, whatever ended between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from telex import CallError, ImproperlyConfiguredException, Provide, Telex, WebSocket, websocket_listener
from telex.once import IdempotencyKey, Once, runs
from telex.testing import AsyncTestClient
from tests.contract.servers import ServerKind
from tests.once.apps import OTHER, UNKNOWN, Work, a_key, caller, data_of, error_of, make_app, served
from tests.support.leaks import no_leaks
from tests.support.live import soon

pytestmark = pytest.mark.filterwarnings("error")


async def test_a_second_call_gets_the_recorded_answer(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running:
        async with caller(running) as one:
            assert "idempotent" in one.hello["features"]
            assert data_of(await one.call("a", key=key)) == "a 1"
            assert data_of(await one.call("a", key=key)) == "a 1"
            assert data_of(await one.call("a", key=a_key())) == "a 2"
            assert data_of(await one.call("a")) == "a 3"
        async with caller(running) as other:  # after a reconnect
            assert data_of(await other.call("a", key=key)) == "a 1"
    assert work.begun == ["a"] * 3
    assert work.keys[-1] is None
    assert all(key is not None and len(key) == 64 for key in work.keys[:2])
    assert work.keys[0] != work.keys[1]


async def test_each_kind_of_answer_is_recorded(kind: ServerKind) -> None:
    work = Work()
    async with served(work, kind) as running:
        for path, answer in (("/sync", "a 1"), ("/void", None)):
            key = a_key()
            async with caller(running, path) as one:
                assert [(await one.call("a", key=key)).get("data") for _ in range(2)] == [answer] * 2
            work.begun.clear()
        async with caller(running, "/bytes") as one:
            key = a_key()
            for call_id in (1, 2):
                head = json.dumps({"type": "call", "id": call_id, "key": key}).encode()
                await one.client.send(len(head).to_bytes(4, "big") + head + b"raw")
                assert await one.receive() == {"type": "reply", "id": call_id, "bytes": b"raw 1"}
    assert work.begun == ["raw"]


async def test_declared_errors_are_recorded_and_others_are_not(kind: ServerKind) -> None:
    work = Work()
    async with served(work, kind) as running, caller(running) as one:
        key = a_key()
        first, second = [await one.call("declared", key=key) for _ in range(2)]
        assert first["error"] == second["error"]
        assert first["error"] == {"code": "refused", "message": "declared", "data": {"why": "declared"}}
        assert work.begun == ["declared"]
        key = a_key()
        assert [error_of(await one.call("fail", key=key))[0] for _ in range(2)] == ["internal"] * 2
        assert work.begun == ["declared", "fail", "fail"]


async def test_another_message_under_a_used_key_is_a_conflict(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running, caller(running) as one, caller(running) as other:
        pending = await one.begin("wait", key=key)
        await work.until(work.begun, "wait")
        assert error_of(await other.call("b", key=key)) == OTHER  # while it runs
        work.go.set()
        assert (await one.receive())["id"] == pending
        assert error_of(await one.call("b", key=key)) == OTHER
        assert data_of(await one.call("wait", key=key)) == "wait 1"
    assert work.begun == ["wait"]


async def test_a_disconnect_does_not_cancel_it_and_the_next_call_joins(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with no_leaks(), served(work, kind) as running:
        async with caller(running) as one:
            await one.begin("wait", key=key)
            await work.until(work.begun, "wait")
        async with caller(running) as one, caller(running) as two:
            await one.begin("wait", key=key)
            await two.begin("wait", key=key)
            await one.quiet()
            await two.quiet()
            work.go.set()
            assert data_of(await one.receive()) == data_of(await two.receive()) == "wait 1"
    assert work.begun == work.ended == ["wait"]


async def test_a_call_without_a_caller_is_recorded(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running:
        async with caller(running) as one:
            await one.begin("wait", key=key)
            await work.until(work.begun, "wait")
        work.go.set()
        await work.until(work.ended, "wait")
        async with caller(running) as one:
            assert data_of(await one.call("wait", key=key)) == "wait 1"


async def test_the_scope_is_route_and_user(kind: ServerKind) -> None:
    work, short = Work(), "1"
    async with served(work, kind) as running:
        for path, user, expected in (
            ("/work/one", "ada", "a 1"),
            ("/work/one", "ben", "a 2"),
            ("/work/two", "ada", "a 3"),
            ("/sync", "ada", "a 4"),
            ("/work/one", "ada", "a 1"),
        ):
            async with caller(running, path, user) as one:
                assert data_of(await one.call("a", key=short)) == expected


@pytest.mark.parametrize(
    ("key", "is_good"),
    [
        ("1", False),
        ("order-1", False),
        ("0123456789abcdef0123456789abcde", False),  # 31 hexadecimal digits
        ("0123456789abcdef0123456789abcdef", True),
        ("01234567-89ab-cdef-0123-456789abcdef", True),
        ("1" * 38, False),  # decimal digits carry 3.3 bits
        ("1" * 39, True),
        ("_" * 21, False),
        ("_" * 22, True),
    ],
)
async def test_without_a_user_a_key_has_128_bits(key: str, is_good: bool) -> None:
    async with (
        AsyncTestClient(make_app(Work())) as client,
        client.websocket_connect("/work/one", subprotocols=["telex.v1"]) as session,
    ):
        if is_good:
            assert await session.call("a", str, key=key) == "a 1"
        else:
            with pytest.raises(CallError, match="bad_frame: without a user a key has 128 random bits"):
                await session.call("a", key=key)


async def test_keys_that_are_no_keys(kind: ServerKind) -> None:
    work = Work()
    async with served(work, kind) as running, caller(running, user="ada") as one:
        wrongs: list[object] = ["", "x" * 65, 7, []]
        for wrong in wrongs:
            assert error_of(await one.call("a", key=wrong))[0] == "bad_frame"
        assert data_of(await one.call("a", key="x" * 64)) == "a 1"
        assert data_of(await one.call("a", key=None)) == "a 2"
    async with served(work, kind) as running, caller(running, "/plain", "ada") as one:
        refused = await one.call("a", key="k")
        assert refused["error"]["message"] == "this handler takes no 'key'"
        assert one.hello["features"] == []


async def test_a_cancel_of_the_only_caller_interrupts_it(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running, caller(running) as one, caller(running) as two:
        call = await one.begin("wait", key=key)
        await work.until(work.begun, "wait")
        await two.begin("wait", key=key)
        await two.quiet()
        await one.send({"type": "cancel", "id": call})
        assert error_of(await one.receive())[0] == "cancelled"
        assert not work.ended  # another waits for it
        await two.send({"type": "cancel", "id": 1})
        assert error_of(await two.receive())[0] == "cancelled"
        assert work.ended == ["wait"]
        assert error_of(await two.call("wait", key=key)) == UNKNOWN
    assert work.begun == ["wait"]


async def test_an_interrupted_call_runs_again_where_that_is_said(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind, Once(if_interrupted="run")) as running, caller(running) as one:
        call = await one.begin("wait", key=key)
        await work.until(work.begun, "wait")
        await one.send({"type": "cancel", "id": call})
        assert error_of(await one.receive())[0] == "cancelled"
        work.go.set()
        assert data_of(await one.call("wait", key=key)) == "wait 2"


async def test_the_callers_timeout_ends_its_wait_and_that_of_the_handler_the_run(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running, caller(running) as one:
        assert error_of(await one.call("wait", key=key, timeout=0.05))[0] == "timeout"
        assert not work.ended
        work.go.set()
        assert data_of(await one.call("wait", key=key)) == "wait 1"
    work, key = Work(), a_key()
    async with served(work, kind, call_timeout=0.2) as running, caller(running) as one:
        assert error_of(await one.call("wait", key=key))[0] == "timeout"
        await work.until(work.ended, "wait")
        assert error_of(await one.call("wait", key=key)) == UNKNOWN


async def test_a_reply_is_sent_after_the_commit_and_a_failed_commit_is_not_recorded(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running, caller(running, "/commits") as one:
        work.go.set()
        assert error_of(await one.call("a", key=key))[0] == "internal"
        work.go.clear()
        assert data_of(await one.call("a", key=key)) == "a 2 0"
        assert work.committed == 1
        assert data_of(await one.call("a", key=key)) == "a 2 0"
    assert work.begun == ["a", "a"]


async def test_a_handler_that_sends_to_a_client_that_has_left_was_interrupted(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running:
        async with caller(running, "/sends") as one:
            await one.begin("wait", key=key)
            await work.until(work.begun, "wait")
        async with caller(running, "/sends") as one:
            await one.begin("wait", key=key)
            await one.quiet()
            work.go.set()
            frame = await one.receive()
            assert frame["error"]["code"] in {"cancelled", "conflict"}
            assert error_of(await one.call("wait", key=key)) == UNKNOWN
    assert work.begun == ["wait"]
    assert "after its client had left" in caplog.text


async def test_routes_of_a_shared_socket_share_it_with_direct_ones(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind) as running:
        async with caller(running, "/socket") as one:
            await one.send({"type": "open", "c": 1, "path": "/work/one"})
            assert (await one.receive())["features"] == ["idempotent"]
            await one.send({"type": "call", "c": 1, "id": 1, "data": "wait", "key": key})
            await work.until(work.begun, "wait")
            await one.send({"type": "close", "c": 1})
            assert (await one.receive())["type"] == "closed"
            await one.send({"type": "open", "c": 2, "path": "/work/one"})
            assert (await one.receive())["type"] == "opened"
            await one.send({"type": "call", "c": 2, "id": 1, "data": "wait", "key": key})
            await one.quiet()
            work.go.set()
            assert data_of(await one.receive()) == "wait 1"
        async with caller(running) as one:
            assert data_of(await one.call("wait", key=key)) == "wait 1"


async def test_calls_that_wait_their_turn_go_when_the_client_leaves(kind: ServerKind) -> None:
    work = Work()
    async with served(work, kind) as running:
        async with caller(running) as one:
            await one.begin("wait", key=a_key())
            await one.begin("second", key=a_key())
            await work.until(work.begun, "wait")
            await one.quiet()
        work.go.set()
        await work.until(work.ended, "wait")
    assert work.begun == ["wait"]  # the second had not begun


async def test_several_at_once_join(kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with served(work, kind, max_concurrency=4) as running, caller(running) as one:
        for _ in range(4):
            await one.begin("wait", key=key)
        await work.until(work.begun, "wait")
        await one.quiet()
        work.go.set()
        assert {data_of(await one.receive()) for _ in range(4)} == {"wait 1"}
    assert work.begun == ["wait"]


async def test_runs_without_callers_are_bounded(
    kind: ServerKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runs, "MOST_ORPHANS", 2)
    work = Work()
    async with served(work, kind, max_concurrency=8) as running:
        async with caller(running) as one:
            for number in range(5):
                await one.begin(f"wait {number}", key=a_key())
            for number in range(5):
                await work.until(work.begun, f"wait {number}")
        await work.until_ended(3)
        work.go.set()
    assert len(work.ended) == 5
    assert "run without a caller: cancelled" in caplog.text


@pytest.mark.parametrize("limit", [30.0, 0.05])
async def test_the_end_of_the_app_waits_for_runs_and_then_cancels_them(
    kind: ServerKind, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr(runs, "DRAIN_WITHIN", limit)
    work = Work()
    async with no_leaks():
        async with served(work, kind) as running:
            async with caller(running) as one:
                await one.begin("wait", key=a_key())
                await work.until(work.begun, "wait")
            if limit > 1:
                asyncio.get_running_loop().call_later(0.1, work.go.set)
            assert not work.ended
        assert work.ended == ["wait"]
        assert work.go.is_set() == (limit > 1)


def test_what_cannot_be_honoured_is_an_error_when_the_app_is_built() -> None:
    @websocket_listener("/parts", idempotent=True)
    async def parts(data: str) -> AsyncIterator[str]:
        yield data

    with pytest.raises(ImproperlyConfiguredException, match=r"parts.*answers in parts.*without idempotent="):
        Telex([parts])

    async def session() -> AsyncIterator[str]:
        yield "open"

    def user_of(db: str) -> str:
        return db

    @websocket_listener("/db", idempotent=True, dependencies={"db": Provide(session), "user": Provide(user_of)})
    async def with_session(data: str, user: str) -> str:
        return user

    with pytest.raises(ImproperlyConfiguredException, match=r"session.*is closed then: give it Provide\(.*message"):
        Telex([with_session])

    with pytest.raises(ImproperlyConfiguredException, match=r"idempotent is True or Once\(.*not 'yes'"):
        websocket_listener("/", idempotent="yes")(with_session.fn)  # type: ignore[arg-type]

    class Own(WebSocket):
        async def receive_data(self, mode: str) -> str | bytes:
            return await super().receive_data(mode)  # type: ignore[arg-type]

    @websocket_listener("/own", idempotent=True, websocket_class=Own)
    async def own(data: str) -> str:
        return data

    with pytest.raises(ImproperlyConfiguredException, match=r"idempotent= needs calls of telex.v1, which Own"):
        Telex([own])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"within": 0}, "within is seconds above 0"),
        ({"within": True}, "within is seconds above 0"),
        ({"within": float("inf")}, "within is seconds above 0"),
        ({"results": 0}, "results is a whole number from 1"),
        ({"store": "memcached://"}, "store is the URL of a Redis server"),
        ({"if_interrupted": "maybe"}, "if_interrupted is 'refuse' or 'run'"),
        ({"lease": 1}, "no effect without store="),
        ({"name": "shop"}, "no effect without store="),
        ({"store": "redis://localhost", "lease": -1}, "lease is seconds above 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=problem):
        Once(**options)


def test_memory_says_that_it_covers_one_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "telex")
    make_app(Work())
    assert "in this process alone" in caplog.text


async def test_a_provider_may_take_the_key() -> None:
    def table(key: IdempotencyKey) -> str:
        return "none" if key is None else f"row {key[:4]}"

    @websocket_listener("/", idempotent=True, dependencies={"row": Provide(table, scope="message")})
    async def handle(data: str, row: str, key: IdempotencyKey) -> bool:
        return row == ("none" if key is None else f"row {key[:4]}")

    async with (
        AsyncTestClient(Telex([handle])) as client,
        client.websocket_connect("/", subprotocols=["telex.v1"]) as session,
    ):
        assert await soon(session.call("a", bool, key=a_key()))
        assert await soon(session.call("a", bool))
