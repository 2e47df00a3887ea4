"""Calls with keys on several nodes with one Redis server, which may be away, slow or flushed."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from telex import redis_server
from telex.once import Once
from tests.channels.brokers import Valkey
from tests.contract.servers import ServerKind
from tests.once.apps import OTHER, Work, a_key, caller, data_of, error_of, served
from tests.support.proxy import TcpProxy

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.broker, pytest.mark.usefixtures("patient")]

LEASE = 60.0
"""So long that no pause of a busy machine looks like the end of a process."""


async def test_nodes_share_answers_and_runs(shared: Valkey, kind: ServerKind) -> None:
    once = Once(store=shared.url, lease=LEASE, name=f"shared {kind.name}")
    one, two = Work(), Work()
    async with served(one, kind, once) as first, served(two, kind, once) as second:
        key = a_key()
        async with caller(first, user="ada") as here, caller(second, user="ada") as there:
            assert data_of(await here.call("a", key=key)) == "a 1"
            assert data_of(await there.call("a", key=key)) == "a 1"
            assert error_of(await there.call("b", key=key)) == OTHER
            assert error_of(await here.call("declared", key="d"))[0] == "refused"
            assert (await there.call("declared", key="d"))["error"]["data"] == {"why": "declared"}
            await here.begin("wait", key="w")
            await one.until(one.begun, "wait")
        async with caller(second, user="ada") as there:  # its client has come back elsewhere
            await there.begin("wait", key="w")
            await there.quiet()
            one.go.set()
            assert data_of(await there.receive()) == "wait 1"
        async with caller(second, user="ben") as other:
            assert data_of(await other.call("a", key=key)) == "a 1"
    assert (one.begun, two.begun) == (["a", "declared", "wait"], ["a"])
    assert one.keys[0] != two.keys[0]


async def test_apps_with_other_names_share_nothing(shared: Valkey, kind: ServerKind) -> None:
    works = [Work(), Work()]
    key = a_key()
    for name, work in zip(("shop", "bank"), works, strict=True):
        async with served(work, kind, Once(store=shared.url, lease=LEASE, name=name)) as node, caller(node) as one:
            assert data_of(await one.call("a", key=key)) == "a 1"
    assert [work.begun for work in works] == [["a"], ["a"]]


async def test_a_store_that_is_away_runs_nothing_and_answers_what_has_run(own: Valkey, kind: ServerKind) -> None:
    once, work, key = Once(store=own.url, lease=LEASE), Work(), a_key()
    async with served(work, kind, once) as node, caller(node) as one:
        await one.begin("wait", key=key)
        await work.until(work.begun, "wait")
        own.kill()
        work.go.set()
        assert data_of(await one.receive()) == "wait 1"  # it has run, so that its caller is told
        frame = await one.call("a", key=a_key())
        assert (frame["error"]["code"], frame["error"]["retry_after"]) == ("unavailable", 1.0)
        assert "has not run" in frame["error"]["message"]
        assert data_of(await one.call("wait", key=key)) == "wait 1"  # this process knows it still
        assert data_of(await one.call("a")) == "a 1"  # without a key nothing asks the store
        own.start()
        key_of_a = a_key()
        async with asyncio.timeout(30):
            while (frame := await one.call("b", key=key_of_a))["type"] == "error":
                assert frame["error"]["code"] == "unavailable"
        assert data_of(frame) == "b 1"
        async with asyncio.timeout(30), Redis.from_url(own.url) as redis:
            while len(await redis.keys("telex:once:*")) < 2:  # noqa: ASYNC110  # until it has the answer
                await asyncio.sleep(0.05)
    assert work.begun == ["wait", "a", "b"]


async def test_a_slow_store_delays_an_answer_by_a_bounded_time(
    shared: Valkey, kind: ServerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, key = Work(), a_key()
    async with TcpProxy(shared.port) as proxy:
        once = Once(store=proxy.url(shared.url), lease=LEASE, name=f"slow {kind.name}")
        async with served(work, kind, once) as node, caller(node) as one:
            assert data_of(await one.call("a", key=key)) == "a 1"
            proxy.black_hole()
            monkeypatch.setattr(redis_server, "ANSWER_WITHIN", 0.3)
            assert error_of(await one.call("b", key=a_key()))[0] == "unavailable"
            monkeypatch.setattr(redis_server, "ANSWER_WITHIN", 20.0)
            proxy.cut()
            proxy.heal()
            async with asyncio.timeout(30):
                while (frame := await one.call("a", key=key))["type"] == "error":
                    assert frame["error"]["code"] == "unavailable"
            assert data_of(frame) == "a 1"
    assert work.begun == ["a"]


async def test_a_store_that_was_flushed_has_forgotten(own: Valkey, kind: ServerKind) -> None:
    work, key = Work(), a_key()
    async with (
        served(work, kind, Once(store=own.url, lease=LEASE)) as node,
        caller(node) as one,
        Redis.from_url(own.url) as redis,
    ):
        assert data_of(await one.call("a", key=key)) == "a 1"
        await redis.flushall()
        assert data_of(await one.call("a", key=key)) == "a 2"


async def test_an_undeclared_error_is_forgotten_on_all_nodes(shared: Valkey, kind: ServerKind) -> None:
    once = Once(store=shared.url, lease=LEASE, name=f"fails {kind.name}")
    one, two, key = Work(), Work(), a_key()
    async with (
        served(one, kind, once) as first,
        served(two, kind, once) as second,
        caller(first) as here,
        caller(second) as there,
    ):
        assert error_of(await here.call("fail", key=key))[0] == "internal"
        assert error_of(await there.call("fail", key=key))[0] == "internal"
    assert (one.begun, two.begun) == (["fail"], ["fail"])
