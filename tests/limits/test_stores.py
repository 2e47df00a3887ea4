"""Where limits count: in memory, within a bound, and in Redis, which may be away, slow, flushed or on another clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from redis.asyncio import Redis

from telex import Telex, redis_server, websocket_listener
from telex.limits import Limit, client_ip
from telex.limits.stores import MOST_KEYS, TAKE, MemoryStore, RedisStore
from telex.testing import TestClock
from tests.channels.brokers import Valkey
from tests.contract.servers import Running, ServerKind
from tests.limits.test_handshakes import ONE, OTHER, echo, enters, from_address
from tests.limits.test_rates import FakeClock
from tests.support.live import denied, serving
from tests.support.proxy import TcpProxy


def test_a_key_is_forgotten_once_it_has_paid_off() -> None:
    clock = FakeClock()
    store = MemoryStore(Limit(1, per=1, burst=10, key=client_ip), clock)
    for key in range(1_000):
        assert store.take(key) == 0
    clock.now += 5
    for key in range(2_000, 2_600):
        store.take(key)
    assert len(store) == 600
    assert not store.forgotten


def test_keys_that_pay_off_at_once_leave_nothing() -> None:
    store = MemoryStore(Limit(1e9, per=1e-9, key=client_ip), FakeClock())
    assert not any(store.take(key) for key in range(100))
    assert not len(store)


def test_what_is_kept_is_bounded_and_the_quietest_goes_first() -> None:
    clock = FakeClock()
    store = MemoryStore(Limit(1, per=3600, burst=1, key=client_ip), clock)
    for key in range(MOST_KEYS):
        assert store.take(key) == 0
    assert store.take(0) > 0  # known, and heard of again
    assert store.take("one more") == 0
    assert len(store) == MOST_KEYS
    assert store.forgotten == 1
    assert store.take(0) > 0
    assert store.take(1) == 0  # it was quiet for the longest time


@pytest.fixture(scope="module")
def shared() -> Iterator[Valkey]:
    """A Redis server for all tests that do it no harm."""
    yield from started()


@pytest.fixture
def own() -> Iterator[Valkey]:
    """One for a test that does."""
    yield from started()


def started() -> Iterator[Valkey]:
    valkey = Valkey()
    try:
        valkey.start()
        yield valkey
    finally:
        valkey.remove()


def limit_in(url: str, **options: Any) -> Limit:
    given: Any = {"per": 3600, "burst": 2, "key": client_ip, "store": url, "on_store_failure": "closed"}
    return Limit(1, **given | options)


@asynccontextmanager
async def nodes(limit: Limit, kind: ServerKind, count: int = 1) -> AsyncIterator[list[Running]]:
    """So many servers of one app each, which share nothing but the store."""
    apps = [Telex([websocket_listener("/", connect_limit=limit)(echo)]) for _ in range(count)]
    if not apps[1:]:
        async with apps[0].lifespan(), serving(apps[0], kind) as running:
            yield [running]
    else:
        async with nodes(limit, kind, count - 1) as others, nodes(limit, kind) as one:
            yield [*others, *one]


pytestmark = pytest.mark.filterwarnings("error")


@asynccontextmanager
async def ruined(how: str) -> AsyncIterator[str]:
    """The URL of a store that is not there, that never answers, or that is no Redis."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while await reader.read(4096) and how == "no redis":
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await silent.wait()

    silent = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    if how == "away":
        server.close()
    try:
        yield url
    finally:
        silent.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("policy", ["open", "closed"])
@pytest.mark.parametrize("how", ["away", "silent", "no redis"])
async def test_a_store_that_never_served_does_what_the_limit_says(
    how: str, policy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_server, "ANSWER_WITHIN", 0.05)
    async with ruined(how) as url, nodes(limit_in(url, on_store_failure=policy), ServerKind("telex")) as (node,):
        for _ in range(3):
            if policy == "open":
                assert await enters(node)
            else:
                refused = await denied(node, headers=from_address(ONE))
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "the store of a limit does not answer" in caplog.text


@pytest.mark.broker
async def test_the_clocks_of_the_processes_do_not_count(shared: Valkey) -> None:
    limit = limit_in(shared.url, name="clocks")
    ours, theirs = RedisStore(limit, "here"), RedisStore(limit, "there")
    async with TestClock() as clock:
        assert [await ours.take("key"), await ours.take("key")] == [0, 0]
        assert 3590 <= await ours.take("key") <= 3600
        await clock.advance(24 * 3600)  # the process runs a day ahead of Redis
        assert 3590 <= await theirs.take("key") <= 3600
        await ours.aclose()
        await theirs.aclose()


@pytest.mark.broker
async def test_nodes_count_together(shared: Valkey, kind: ServerKind) -> None:
    async with nodes(limit_in(shared.url, name=f"together-{kind.name}"), kind, 2) as (one, two):
        assert [await enters(one), await enters(two)] == [True, True]
        refused = await denied(two, headers=from_address(ONE))
        assert refused.status == 429
        assert 3590 <= int(refused.headers["retry-after"]) <= 3600
        assert not await enters(one)
        assert await enters(one, address=OTHER)


@pytest.mark.broker
async def test_it_counts_as_in_memory(shared: Valkey) -> None:
    limit = Limit(2, per=1, burst=5, key=client_ip, store=shared.url, on_store_failure="open", name="model")
    store, loop = RedisStore(limit, "here"), asyncio.get_running_loop()
    try:
        began = loop.time()
        waits = [await store.take("key") for _ in range(8)]
        paid_off = 2 * (loop.time() - began)
        assert waits[:5] == [0] * 5
        assert sum(not wait for wait in waits) <= 5 + paid_off
        assert all(wait <= 1 / 2 for wait in waits)
        await asyncio.sleep(waits[-1])  # what the server has said
        assert await store.take("key") == 0
        async with Redis.from_url(shared.url) as redis:
            (key,) = await redis.keys("telex:limit:model:*")
            assert 0 < await redis.pttl(key) <= 1000 * 6 / 2  # nothing is kept of who has paid off
    finally:
        await store.aclose()


@pytest.mark.broker
async def test_the_script_is_made_once_for_all_takes(shared: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    register = Redis.register_script

    def counted(self: Any, script: Any) -> Any:
        made.append(script)
        return register(self, script)

    monkeypatch.setattr(Redis, "register_script", counted)
    store = RedisStore(limit_in(shared.url, name="once"), "here")
    try:
        assert [await store.take("key") for _ in range(2)] == [0, 0]
    finally:
        await store.aclose()
    assert made == [TAKE]


@pytest.mark.broker
async def test_a_flush_forgets_and_counting_goes_on(own: Valkey, kind: ServerKind) -> None:
    async with nodes(limit_in(own.url), kind) as (node,), Redis.from_url(own.url) as redis:
        assert [await enters(node) for _ in range(3)] == [True, True, False]
        await redis.flushall()
        await redis.script_flush()
        assert [await enters(node) for _ in range(3)] == [True, True, False]


@pytest.mark.broker
async def test_a_clock_that_was_set_back_locks_nobody_out(own: Valkey, kind: ServerKind) -> None:
    async with nodes(limit_in(own.url), kind) as (node,), Redis.from_url(own.url) as redis:
        assert await enters(node)
        (key,) = await redis.keys("telex:limit:*")
        await redis.set(key, "99999999999.0")
        refused = await denied(node, headers=from_address(ONE))
        assert int(refused.headers["retry-after"]) <= 3600


@pytest.mark.broker
@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_a_store_that_goes_away_does_what_the_limit_says(own: Valkey, kind: ServerKind, policy: str) -> None:
    async with nodes(limit_in(own.url, on_store_failure=policy), kind) as (node,):
        assert await enters(node)
        own.kill()
        for _ in range(3):
            if policy == "open":
                assert await enters(node)
            else:
                refused = await denied(node, headers=from_address(ONE))
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        own.start()
        async with asyncio.timeout(10):
            while True:
                if policy == "open":
                    await asyncio.sleep(0.05)
                    if not await enters(node):
                        break
                elif (await denied_or_none(node)) != 503:
                    break


async def denied_or_none(node: Running) -> int | None:
    try:
        return (await denied(node, headers=from_address(ONE))).status
    except AssertionError:
        return None


@pytest.mark.broker
async def test_a_slow_store_delays_a_handshake_by_a_bounded_time_and_then_is_not_asked(
    shared: Valkey, kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    async with TcpProxy(shared.port) as proxy:
        limit = limit_in(proxy.url(shared.url), on_store_failure="open", name=f"slow-{kind.name}")
        async with nodes(limit, kind) as (node,):
            assert await enters(node)
            proxy.black_hole()
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await enters(node)
            assert loop.time() - began >= redis_server.ANSWER_WITHIN - 0.05
            began = loop.time()
            for _ in range(5):
                assert await enters(node)
            assert loop.time() - began < 5 * redis_server.ANSWER_WITHIN
            proxy.cut()
            proxy.heal()
    assert "the store of a limit does not answer" in caplog.text
    assert "test_stores.py" in caplog.text or "test_handshakes.py" in caplog.text


@pytest.mark.broker
async def test_many_handshakes_at_once_share_a_few_connections(shared: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "ANSWER_WITHIN", 10.0)  # however busy the machine is
    limit = limit_in(shared.url, burst=1_000, name="many")
    store = RedisStore(limit, "here")
    try:
        async with asyncio.timeout(10):
            assert not any(await asyncio.gather(*(store.take(key) for key in range(300))))
        async with Redis.from_url(shared.url) as redis:
            clients = await redis.client_list()
        assert len(clients) <= redis_server.MOST_CONNECTIONS + 20
    finally:
        await store.aclose()
