"""The one reader of a hub: what arrives all the time hides no frozen broker, and one shard's trouble is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from telex.channels import Channels, Event, Gap, Keep, MemoryBackend, Position
from telex.channels.backends.base import Listener, Sink
from telex.channels.events import Past
from telex.channels.names import TopicName
from telex.channels.recovery import reader
from telex.exceptions import BackendUnavailable
from tests.channels.conftest import WAIT, take, take_data, until, within


class Counting(MemoryBackend):
    """Counts connections and signs of life; the history of some channels is away."""

    is_sharded = True

    def __init__(self) -> None:
        super().__init__()
        self.connections = self.pings = self.refused = 0
        self.away: set[str] = set()
        self.sink: Sink | None = None

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        self.connections += 1
        self.sink = sink
        async with super().listen(sink) as listener:
            listener.ping = self._ping  # type: ignore[method-assign]
            yield listener

    async def _ping(self) -> None:
        self.pings += 1

    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        if channel in self.away:
            self.refused += 1
            raise BackendUnavailable(f"the node of {channel} is away")
        return await super().history(channel, keep, since=since, before=before, limit=limit)

    def drop(self, topics: Collection[str]) -> None:
        assert self.sink is not None
        self.sink.dropped([TopicName(name) for name in topics])


async def test_a_broker_is_asked_for_a_sign_of_life_also_while_many_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "HEARTBEAT_SECONDS", 0.02)
    backend = Counting()
    async with Channels(backend, arbitrary_channels_allowed=True) as hub, asyncio.timeout(WAIT):
        number = 0
        while backend.pings < 3:
            number += 1
            async with hub.subscribe(f"c{number}"):
                pass
        assert (backend.connections, hub.statistics().reconnects) == (1, 0)


async def test_a_past_that_one_node_cannot_tell_costs_the_others_nothing() -> None:
    backend = Counting()
    async with Channels(backend, arbitrary_channels_allowed=True, history={"kept:*": Keep(10)}) as hub:
        lost, live = await hub.subscribe("kept:1"), await hub.subscribe("live")
        await hub.publish("kept:1", "a")
        backend.away.add("kept:1")
        backend.drop(["kept:1"])
        await hub.publish("kept:1", "b")
        await until(lambda: backend.refused > 2)
        assert not hub.is_ready
        await hub.publish("live", "undisturbed")
        assert await take_data(live, 1) == ["undisturbed"]
        backend.away.clear()
        await until(lambda: hub.is_ready)
        await hub.publish("kept:1", "c")
        assert await take_data(lost, 3) == ["a", "b", "c"]
        assert (backend.connections, hub.statistics().gaps) == (1, 0)
        await hub.publish("live", "still")
        assert not isinstance(await within(anext(live)), Gap)


class Eager(MemoryBackend):
    """Delivers events before the subscription to their channel is confirmed."""

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        async with super().listen(sink) as listener:
            subscribe = listener.subscribe

            async def subscribe_and_publish(topics: Collection[TopicName]) -> None:
                await subscribe(topics)
                for number in range(3):
                    await self.publish([(topic.name, Keep(10)) for topic in topics], str(number).encode())

            listener.subscribe = subscribe_and_publish  # type: ignore[method-assign]
            yield listener


async def test_a_stream_begins_before_events_that_came_with_the_confirmation() -> None:
    async with Channels(Eager(), arbitrary_channels_allowed=True, history=Keep(10)) as hub:
        first, second = await asyncio.gather(hub.subscribe("c"), hub.subscribe("c"))
        for subscriber in (first, second):
            assert await take_data(subscriber, 3) == ["0", "1", "2"]
        async with hub.subscribe("c", since=first.positions["c"]) as again:
            assert again.recovered
            assert await take_data(again, 3) == ["0", "1", "2"]
        assert second.positions == first.positions
        async with hub.subscribe("c") as later:
            await hub.publish("c", "3")
            (event,) = await take(later, 1)
            assert isinstance(event, Event)
            assert later.positions["c"].offset == event.previous
