"""Publishing without an app, in foreign transactions, and brokers whose data somebody touched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import nats
import psycopg
import pytest
import redis.asyncio

from telex.channels import Channels, Event, Gap, publisher
from telex.exceptions import BackendUnavailable, ChannelsException, ImproperlyConfiguredException
from tests.channels.brokers import Broker
from tests.channels.conftest import KEEP, Engine, MakeHub, take, take_data, within
from tests.support.ports import free_port


@pytest.fixture
async def postgres(running_broker: Callable[[str], Broker]) -> AsyncIterator[tuple[Channels, str]]:
    url = running_broker("postgres").url
    async with Channels(url, arbitrary_channels_allowed=True, history={"kept:*": KEEP}) as hub:
        yield hub, url


async def test_code_without_an_app_publishes(make_hub: MakeHub, engine: Engine, name: str) -> None:
    hub = await make_hub(history=KEEP)
    backend = engine.new_backend()
    if not backend.is_shared:
        with pytest.raises(ImproperlyConfiguredException, match="lives inside one hub"):
            publisher(backend)
        return

    def work() -> None:
        with publisher(engine.new_backend(), history=KEEP) as news:
            threads = [threading.Thread(target=news.publish, args=(name, "sync")) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            news.publish([name], {"n": 1})

    async with hub.subscribe(name) as events:
        async with publisher(backend, history=KEEP) as news:
            await news.publish(name, "async")
        await asyncio.to_thread(work)
        assert await take_data(events, 5) == ["async", "sync", "sync", "sync", '{"n":1}']
    assert "telex-publisher" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("scheme", ["redis", "nats", "postgresql"])
def test_a_publisher_says_that_nobody_answers(scheme: str) -> None:
    with pytest.raises(BackendUnavailable, match="does not answer"), publisher(f"{scheme}://127.0.0.1:{free_port()}/x"):
        raise AssertionError
    assert "telex-publisher" not in {thread.name for thread in threading.enumerate()}


# -- PostgreSQL


@pytest.mark.parametrize("name", ["live", "kept:1"])
async def test_an_event_leaves_with_the_users_transaction(postgres: tuple[Channels, str], name: str) -> None:
    hub, url = postgres
    async with await psycopg.AsyncConnection.connect(url) as connection, hub.subscribe(name) as events:
        await hub.publish(name, "undone", transaction=connection)
        await connection.rollback()
        await hub.publish(name, "one", transaction=connection)
        await hub.publish([name, name], "two", transaction=connection)
        assert events.qsize == 0
        await connection.commit()
        assert await take_data(events, 2) == ["one", "two"]
        assert events.qsize == 0


async def test_a_synchronous_transaction_of_another_program(postgres: tuple[Channels, str]) -> None:
    hub, url = postgres

    def work() -> None:
        with psycopg.connect(url) as connection, publisher(url, history={"kept:*": KEEP}) as news:
            news.publish("kept:2", "python", transaction=connection)
            connection.execute("SELECT telex_publish('kept:2', 'any language', 50, 60)")
            connection.execute("SELECT telex_publish('kept:2', %s::jsonb, 50, 60)", ('{"n": 1}',))
            connection.execute("SELECT telex_publish('kept:2', %s, 50, 60)", (b"bytes",))
            news.publish("kept:2", b"[1]", transaction=connection, kind="json")

    async with hub.subscribe("kept:2") as events:
        await asyncio.to_thread(work)
        found = await take(events, 5)
        assert [each.kind for each in found if isinstance(each, Event)] == ["text", "text", "json", "bytes", "json"]
        first, second = found[:2]
        assert isinstance(first, Event)
        assert isinstance(second, Event)
        assert (first.text, second.text) == ("python", "any language")
        assert first.position is not None
        assert second.previous == first.position.offset
    with pytest.raises(ChannelsException, match="takes a psycopg connection, not str"):
        await hub.publish("kept:2", "x", transaction="BEGIN")


async def test_publishers_to_the_same_channels_do_not_deadlock(postgres: tuple[Channels, str]) -> None:
    hub, url = postgres
    names = ["kept:a", "kept:b", "kept:c"]
    async with Channels(url, arbitrary_channels_allowed=True, history=KEEP) as other:

        async def many(each: Channels, order: list[str]) -> None:
            for _ in range(30):
                await each.publish(order, "x")

        await within(asyncio.gather(many(hub, names), many(other, names[::-1])))


# -- data that somebody touched


async def test_a_flushed_redis_starts_a_new_epoch(running_broker: Callable[[str], Broker], name: str) -> None:
    url = running_broker("valkey").url
    client = redis.asyncio.from_url(url)
    async with Channels(url, arbitrary_channels_allowed=True, history=KEEP) as hub, client:
        async with hub.subscribe(name) as events:
            await hub.publish(name, "before")
            before = (await take(events, 1))[0]
            await client.script_flush()
            await hub.publish([name, f"{name}:other"], "scripts gone")
            assert await take_data(events, 1) == ["scripts gone"]
            await client.flushall()
            await hub.publish(name, "data gone")
            assert [type(item) for item in await take(events, 2)] == [Gap, Event]
        assert isinstance(before, Event)
        async with hub.subscribe(name, since=before.position) as events:
            assert events.recovered is False


async def test_a_deleted_stream_starts_a_new_epoch(running_broker: Callable[[str], Broker], name: str) -> None:
    url = running_broker("nats").url
    async with Channels(url, arbitrary_channels_allowed=True, history=KEEP) as hub:
        async with hub.subscribe(name) as events:
            await hub.publish(name, "before")
            before = (await take(events, 1))[0]
            client = await nats.connect(url)
            stream = await client.jetstream().find_stream_name_by_subject("telex.c.>")
            await client.jetstream().delete_stream(stream)
            await client.close()
            await hub.publish(name, "after")
            assert [type(item) for item in await take(events, 2)] == [Gap, Event]
        assert isinstance(before, Event)
        async with hub.subscribe(name, since=before.position) as events:
            assert events.recovered is False


async def test_a_stream_widens_for_who_keeps_more(running_broker: Callable[[str], Broker], name: str) -> None:
    url = running_broker("nats").url
    async with Channels(url, arbitrary_channels_allowed=True, history={name: type(KEEP)(size=70, seconds=90)}) as hub:
        start = await hub.position(name)
        for number in range(60):
            await hub.publish(name, str(number))
        async with hub.subscribe(name, since=start) as events:
            assert events.recovered is True
            assert len(await take_data(events, 60)) == 60


async def test_a_value_that_is_too_large_for_nats_is_the_callers_error(running_broker: Callable[[str], Broker]) -> None:
    async with Channels(running_broker("nats").url, channels=["c"]) as hub:
        with pytest.raises(ChannelsException, match="max_payload"):
            await hub.publish("c", b"x" * 2_000_000)
        async with hub.subscribe("c") as events:
            await hub.publish("c", "still works")
            assert await take_data(events, 1) == ["still works"]


@pytest.mark.slow
async def test_ten_thousand_cycles_leave_nothing_on_the_broker(running_broker: Callable[[str], Broker]) -> None:
    url = running_broker("valkey").url
    client = redis.asyncio.from_url(url)
    async with Channels(url, arbitrary_channels_allowed=True) as hub, client:
        tasks = asyncio.all_tasks()

        async def cycle(number: int) -> None:
            async with hub.subscribe(f"cycle:{number}"):
                pass

        for start in range(0, 10_000, 500):
            await within(asyncio.gather(*[cycle(number) for number in range(start, start + 500)]))
        # The broker hears of the last ones after this: the next subscription is confirmed behind them.
        async with hub.subscribe("cycle:end"):
            assert await client.pubsub_channels("telex:cycle:*") == [b"telex:cycle:end"]
        assert hub.statistics().channels == 0
        assert asyncio.all_tasks() <= tasks
