"""What is Redis' own: foreign publishers, a broker that takes no more data, and callers that give up in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from telex.channels import Channels, Event, Keep
from telex.channels.backends.redis import RedisBackend
from telex.exceptions import BackendUnavailable
from tests.channels.brokers import Valkey
from tests.channels.conftest import WAIT, take, take_data, until, within

MUCH = b"x" * (32 << 20)


@pytest.fixture
def broker() -> Iterator[Valkey]:
    """A broker of this test's own."""
    valkey = Valkey()
    try:
        valkey.start()
        yield valkey
    finally:
        valkey.remove()


@asynccontextmanager
async def hub_on(broker: Valkey, **options: float) -> AsyncIterator[Channels]:
    backend = RedisBackend(broker.url, **options)  # type: ignore[arg-type]
    async with Channels(backend, arbitrary_channels_allowed=True, history={"kept:*": Keep(5, seconds=1)}) as hub:
        yield hub


async def test_what_others_publish_by_hand_is_an_event(broker: Valkey) -> None:
    async with (
        hub_on(broker) as hub,
        hub.subscribe("c") as events,
        hub.subscribe("*", pattern=True) as all_events,
        Redis.from_url(broker.url) as redis,
    ):
        foreign = [b"hello", b"hello world", b"\xff\xfe not text", b'{"a": 1}', b"", b" ", b" World", b"all text"]
        for message in foreign:
            await redis.publish("telex:c", message)
        await redis.publish(b"telex:\xff", "no name of ours")
        await hub.publish("c", "ours")
        got = await take(events, len(foreign) + 1)
        assert [item.data for item in got if isinstance(item, Event)] == [*foreign, b"ours"]
        assert [item.data for item in await take(all_events, len(foreign) + 2) if isinstance(item, Event)][
            -1
        ] == b"ours"
        kinds = [item.kind for item in got if isinstance(item, Event)]
        assert kinds == ["json"] * len(foreign) + ["text"]
        assert hub.statistics().gaps == 0


async def test_a_caller_that_gives_up_a_large_publish_takes_nobody_with_it(broker: Valkey) -> None:
    async with hub_on(broker) as hub, hub.subscribe("c") as events:
        large = asyncio.create_task(hub.publish("large", MUCH))
        await asyncio.sleep(0)
        others = [asyncio.create_task(hub.publish("c", str(number))) for number in range(20)]
        await asyncio.sleep(0)
        large.cancel()
        others[3].cancel()
        outcomes = await within(asyncio.gather(large, *others, return_exceptions=True))
        assert [type(each) for each in outcomes if isinstance(each, BaseException)] == [asyncio.CancelledError] * 2
        await hub.publish("c", "after")
        expected = [str(number) for number in range(20) if number != 3] + ["after"]
        # Whoever gives up does not know whether it was published.
        heard = await take_data(events, len(expected))
        assert heard == expected or [each for each in heard if each != "3"] == expected[:-1]
        assert hub.statistics().gaps == 0


async def test_a_broker_that_takes_no_more_data_is_away_within_the_time_out(broker: Valkey) -> None:
    async with hub_on(broker, timeout=0.3) as hub:
        await hub.publish("c", "before")
        broker.freeze()
        try:
            for value in (MUCH, b"small"):
                # Whether it arrives later is not known: not where we look.
                with pytest.raises(BackendUnavailable):
                    await within(hub.publish("elsewhere", value))
        finally:
            broker.thaw()
        await until(lambda: hub.is_ready)
        async with hub.subscribe("c") as events:
            await hub.publish("c", "after")
            assert (await take_data(events, 1))[-1] == "after"


async def test_thousands_of_positions_are_asked_for_at_once(broker: Valkey) -> None:
    async with hub_on(broker) as hub:
        names = [f"kept:{number}" for number in range(3_000)]
        async with hub.subscribe(names) as events:
            assert len(events.positions) == len(names)
            await hub.publish(names[-1], "x")
            assert await take_data(events, 1) == ["x"]


async def test_the_past_ages_on_the_broker(broker: Valkey) -> None:
    async with hub_on(broker) as hub:
        start = await hub.position("kept:1")
        await hub.publish("kept:1", "old")
        async with hub.subscribe("kept:1", since=start) as events:
            assert events.recovered is True
            assert await take_data(events, 1) == ["old"]

        async def has_aged() -> bool:
            async with hub.subscribe("kept:1", since=start) as again:
                return again.recovered is False

        async with asyncio.timeout(WAIT):
            while not await has_aged():  # noqa: ASYNC110 - the broker tells by no event
                await asyncio.sleep(0.1)
