"""Brokers that die: under load, for long, or only seemingly. What is missing must have been declared lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from telex.channels import Channels, ChannelsBackend, Event, Gap, Heartbeat, Keep
from telex.channels.backends import backend_from_url
from telex.channels.backends.nats import NatsBackend
from telex.channels.backends.postgres import PostgresBackend
from telex.channels.backends.redis import RedisBackend
from telex.channels.recovery import reader
from telex.exceptions import BackendUnavailable, WebSocketException
from tests.channels.brokers import Broker, Nats, Postgres, Valkey
from tests.channels.conftest import take, take_data, until, within
from tests.channels.load import Load, read_until, undeclared

figures = logging.getLogger("tests.channels.figures")
"""Shown by ``pytest --log-cli-level INFO``."""

ALL: dict[str, type[Broker]] = {"valkey": Valkey, "nats": Nats, "postgres": Postgres}
DURABLE = {"nats", "postgres"}
KEEP = Keep(size=100_000, seconds=600)
BACKENDS: dict[str, Callable[..., ChannelsBackend]] = {
    "valkey": RedisBackend,
    "nats": NatsBackend,
    "postgres": PostgresBackend,
}


@pytest.fixture(params=ALL)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def broker(kind: str) -> Iterator[Broker]:
    """A broker of this test's own, to be killed."""
    server = ALL[kind]()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")


@asynccontextmanager
async def hub_on(broker: Broker, **options: object) -> AsyncIterator[Channels]:
    options.setdefault("subscriber_max_backlog", 100_000)
    async with Channels(broker.url, arbitrary_channels_allowed=True, **options) as hub:  # type: ignore[arg-type]
        yield hub


@pytest.mark.parametrize("kept", [True, False], ids=["history", "live"])
async def test_a_broker_killed_under_load_loses_nothing_in_silence(broker: Broker, kind: str, kept: bool) -> None:
    keep = KEEP if kept else None
    async with hub_on(broker, history=keep) as here, hub_on(broker, history=keep) as there:
        async with there.subscribe("load") as events:
            load = Load(here, "load")
            loading = asyncio.create_task(load.run())
            for _ in range(2):
                await load.has_taken(100)
                broker.kill()
                await until(lambda: not there.is_ready)
                await until(lambda seen=len(load.refused): len(load.refused) > seen)  # type: ignore[misc]
                await broker.restart()
                await until(lambda: there.is_ready)
            await load.has_taken(100)
            await load.stop()
            await loading
            await here.publish("load", "999999")
            items = await read_until(events, "999999")
        delivered = [int(item.text) for item in items if isinstance(item, Event)]
        gaps = sum(isinstance(item, Gap) for item in items)
        lost = set(load.taken) - set(delivered)
        figures.info("%d taken, %d delivered, %d gaps, %d lost", len(load.taken), len(delivered), gaps, len(lost))
        assert delivered == sorted(set(delivered))
        assert undeclared(items[:-1], load.taken) == []
        assert there.statistics().reconnects == 2
        assert len(load.refused) >= 2
        if kept and kind in DURABLE:
            assert (gaps, lost) == (0, set())
        else:
            assert gaps == 2
            assert there.statistics().gaps == 2


async def test_a_subscriber_comes_back_to_all_that_it_missed(broker: Broker, kind: str) -> None:
    async with hub_on(broker, history=KEEP) as hub:
        async with hub.subscribe("news") as events:
            await hub.publish("news", "1")
            first = (await take(events, 1))[0]
            assert isinstance(first, Event)
        await hub.publish("news", "2")
        broker.kill()
        await until(lambda: not hub.is_ready)
        await broker.restart()
        await until(lambda: hub.is_ready)
        async with hub.subscribe("news", since=first.position) as events:
            await hub.publish("news", "3")
            items = await take(events, 2)
            assert events.recovered is (kind in DURABLE)
            if kind in DURABLE:
                assert [item.text for item in items if isinstance(item, Event)] == ["2", "3"]
            else:
                assert isinstance(items[0], Gap)
                assert isinstance(items[1], Event)
                assert items[1].position is not None
                assert items[1].position.epoch != first.position.epoch  # type: ignore[union-attr]


async def test_subscribing_while_the_broker_is_away_waits_for_it(broker: Broker) -> None:
    async with hub_on(broker) as hub:
        broker.kill()
        await until(lambda: not hub.is_ready)
        subscribing = asyncio.ensure_future(hub.subscribe("later"))
        await broker.restart()
        events = await within(subscribing)
        await hub.publish("later", "here")
        assert await take_data(events, 1) == ["here"]
        await hub.unsubscribe(events)


async def test_subscribing_gives_up_in_time_and_leaves_nothing(broker: Broker) -> None:
    async with hub_on(broker, subscribe_timeout=0.3) as hub:
        broker.kill()
        with pytest.raises(BackendUnavailable, match="confirmed no subscription"):
            await within(hub.subscribe("never"), 2)
        assert (hub.statistics().channels, hub.statistics().subscribers) == (0, 0)


async def test_a_hub_does_not_start_on_a_dead_broker(broker: Broker) -> None:
    broker.kill()
    tasks = asyncio.all_tasks()
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await within(Channels(broker.url, arbitrary_channels_allowed=True).__aenter__())
    assert asyncio.all_tasks() <= tasks


async def test_readers_of_data_alone_end_at_a_gap_with_1012(broker: Broker) -> None:
    async with hub_on(broker) as hub, hub.subscribe("data") as events:
        broker.kill()
        await until(lambda: not hub.is_ready)
        await broker.restart()
        with pytest.raises(WebSocketException, match="events of 'data' were lost") as raised:
            await within(anext(aiter(events.iter_events())))
        assert raised.value.code == 1012


async def test_publish_nowait_counts_what_the_broker_did_not_take(broker: Broker) -> None:
    async with hub_on(broker) as hub, hub.subscribe("soon") as events:
        broker.kill()
        await until(lambda: not hub.is_ready)
        hub.publish_nowait("soon", "lost")
        await until(lambda: hub.statistics().failed == 1)
        await broker.restart()
        await until(lambda: hub.is_ready)
        assert isinstance((await take(events, 1))[0], Gap)
        hub.publish_nowait("soon", "1")
        hub.publish_nowait("soon", "2")
        assert await take_data(events, 2) == ["1", "2"]


async def test_a_frozen_broker_is_noticed_by_publisher_and_reader(
    broker: Broker, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "telex.channels")
    monkeypatch.setattr(reader, "HEARTBEAT_SECONDS", 0.1)
    backend = BACKENDS[kind](broker.url, timeout=0.5)
    async with Channels(backend, arbitrary_channels_allowed=True) as hub, hub.subscribe("ice") as events:
        broker.freeze()
        try:
            with pytest.raises(BackendUnavailable):
                await within(hub.publish("ice", "cold"))
            await until(lambda: "channels lost" in caplog.text)
        finally:
            broker.thaw()
        await until(lambda: hub.is_ready)
        assert isinstance((await take(events, 1))[0], Gap)
        await hub.publish("ice", "warm")
        items = await take(events, 1)
        assert isinstance(items[0], Event)


async def test_several_channels_are_each_marked_once(broker: Broker) -> None:
    async with hub_on(broker) as hub, hub.subscribe(["a", "b"]) as events, hub.subscribe("a") as other:
        broker.kill()
        await until(lambda: not hub.is_ready)
        await broker.restart()
        items = await take(events, 2)
        assert {item.channel for item in items if isinstance(item, Gap)} == {"a", "b"}
        assert isinstance((await take(other, 1))[0], Gap)
        assert backend_from_url(broker.url).is_shared


async def test_nobody_counts_as_gone_while_the_broker_stands_still(broker: Broker) -> None:
    beat = Heartbeat(0.2, 0.6)
    async with hub_on(broker, presence=beat) as one, hub_on(broker, presence=beat) as two:  # noqa: SIM117 - too long
        async with one.presence.track("room", "ann"), two.presence.track("room", "bob"):
            for hub in (one, two):
                await until(lambda hub=hub: len(hub.presence.members("room")) == 2)  # type: ignore[misc]
            async with one.presence.watch("room") as ones, two.presence.watch("room") as twos:
                for _ in range(2):
                    broker.freeze()
                    # Longer than a node may be silent, and shorter than what makes a connection count as lost.
                    await asyncio.sleep(1.5)
                    broker.thaw()
                    async with one.subscribe("proof") as proof:
                        await until(lambda: one.is_ready and two.is_ready)
                        await two.publish("proof", "thawed")
                        await take(proof, 1)
                    await asyncio.sleep(0.7)
                for hub, changes in ((one, ones), (two, twos)):
                    assert {member.key for member in hub.presence.members("room")} == {"ann", "bob"}
                    with pytest.raises(TimeoutError):
                        await within(anext(changes), 0.01)
