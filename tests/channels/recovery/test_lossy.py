"""A wire that drops, doubles and breaks by chance, and a past that is not always there: the invariants hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from telex.channels import Channels, Event, Gap, Item, Keep, MemoryBackend, Position, Subscriber
from telex.channels.backends.base import BrokerRefusal, Listener, Sink
from telex.channels.events import Past
from telex.channels.names import TopicName
from telex.channels.recovery import reader, replay
from telex.exceptions import BackendUnavailable
from tests.channels.conftest import until, within


class LossySink:
    """Stands between the wire and the reader."""

    def __init__(self, sink: Sink, backend: LossyBackend) -> None:
        self._sink, self._backend, self._chance = sink, backend, backend.chance

    def deliver(self, event: Event, pattern: str | None = None) -> None:
        if self._backend.calm:
            self._sink.deliver(event, pattern)
            return
        draw = self._chance.random()
        if draw > 0.1:
            self._sink.deliver(event, pattern)
        if draw > 0.95:
            self._sink.deliver(event, pattern)
        if draw < 0.01:
            self.lost(BackendUnavailable("by chance"))

    def keep_for(self, channel: str) -> Keep | None:
        return self._sink.keep_for(channel)

    def lost(self, error: BackendUnavailable) -> None:
        self._sink.lost(error)

    def dropped(self, topics: Collection[TopicName]) -> None:
        self._sink.dropped(topics)

    def refused(self, topic: TopicName, error: BrokerRefusal) -> None:
        raise AssertionError


class LossyBackend(MemoryBackend):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.calm = False

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        async with super().listen(LossySink(sink, self)) as listener:
            yield listener

    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        await self._dawdle()
        if not self.calm and self.chance.random() < 0.05:
            raise BackendUnavailable("by chance")
        past = await super().history(channel, keep, since=since, before=before, limit=limit)
        await self._dawdle()
        return past

    async def _dawdle(self) -> None:
        for _ in range(0 if self.calm else self.chance.randrange(4)):
            await asyncio.sleep(0)


def check(items: list[Item]) -> int:
    """The number of gaps, after the invariants: in order, nothing twice, nothing missing without a gap in its place."""
    before: int | None = None
    gap, gaps = False, 0
    for item in items:
        if isinstance(item, Gap):
            gap, gaps = True, gaps + 1
            continue
        number = int(item.text)
        assert before is None or number > before, (before, number)
        assert gap or before is None or number == before + 1, (before, number)
        before, gap = number, False
    return gaps


async def follow(subscriber: Subscriber, last: int) -> list[Item]:
    items: list[Item] = []
    async for item in subscriber:
        items.append(item)
        if isinstance(item, Event) and int(item.text) == last:
            break
    return items


@pytest.mark.parametrize("size", [5, 1000], ids=["short", "long"])
@pytest.mark.parametrize("seed", range(8))
async def test_no_loss_is_silent_on_a_lossy_wire(seed: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BACKOFF_SECONDS", (0.001, 0.002))
    monkeypatch.setattr(replay, "RETRY_SECONDS", 0.001)
    backend, total = LossyBackend(seed), 400
    options = {"history": Keep(size), "subscriber_max_backlog": 10_000}
    async with Channels(backend, channels=["c"], **options) as hub:  # type: ignore[arg-type]
        start = await hub.position("c")
        early = await hub.subscribe("c")
        following = [asyncio.create_task(follow(early, total))]
        lates: list[Subscriber] = []
        for number in range(total):
            if number == total - 20:
                backend.calm = True
                # A loss that the reader has not seen yet would take the end with it, and declare it lost.
                for _ in range(5):
                    await asyncio.sleep(0)
                await until(lambda: hub.is_ready)
            await hub.publish("c", str(number))
            await asyncio.sleep(0)
            if number % 100 == 50:
                lates.append(await within(hub.subscribe("c", since=start)))
                following.append(asyncio.create_task(follow(lates[-1], total)))
        await hub.publish("c", str(total))
        first, *others = await within(asyncio.gather(*following))
        gaps = check(first)
        delivered = [int(item.text) for item in first if isinstance(item, Event)]
        assert delivered[0] == 0
        for late, items in zip(lates, others, strict=True):
            check(items)
            assert late.recovered is isinstance(items[0], Event)
            if late.recovered:
                assert isinstance(items[0], Event)
                assert items[0].text == "0"
        if size > total:
            assert gaps == 0
            assert delivered == list(range(total + 1))
            assert all(late.recovered for late in lates)
        assert hub.statistics().dropped == 0
