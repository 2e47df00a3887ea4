"""A wire that drops, doubles and breaks by chance, and a past that is not always there: the invariants hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest

from telex.channels import Channels, Event, Gap, Item, Keep, MemoryBackend, Position, Subscriber
from telex.channels.backends.base import Listener, Sink
from telex.channels.delivery import topic as rooms
from telex.channels.delivery.topic import Room
from telex.channels.events import Past
from telex.channels.names import TopicName
from telex.channels.recovery import reader as feed
from telex.exceptions import BackendUnavailable, WebSocketException
from tests.channels.conftest import until, within


class LossySink:
    """Stands between the wire and the feed."""

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
        self, channel: str, keep: Keep, *, since: Position | None = None, limit: int | None = None
    ) -> Past:
        await self._dawdle()
        if not self.calm and self.chance.random() < 0.05:
            raise BackendUnavailable("by chance")
        past = await super().history(channel, keep, since=since, limit=limit)
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
    monkeypatch.setattr(feed, "BACKOFF_SECONDS", (0.001, 0.002))
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


# -- a room alone


class Taker:
    def __init__(self) -> None:
        self.items: list[Item] = []

    def put_nowait(self, event: Event) -> bool:
        self.items.append(event)
        return True

    def note_sent(self, count: int) -> None:
        raise AssertionError("it boards no lane")

    def fail(self, error: WebSocketException) -> None:
        raise error

    def put_gap(self, gap: Gap) -> None:
        self.items.append(gap)

    def preload(self, items: object) -> None:
        self.items += list(items)  # type: ignore[call-overload]

    @property
    def seen(self) -> list[object]:
        return [item.position.offset if isinstance(item, Event) and item.position else "gap" for item in self.items]


def event(offset: int, epoch: str = "e", previous: int | None = None) -> Event:
    return Event("c", b"", Position(epoch, offset), offset - 1 if previous is None else previous)


def past(*offsets: int, head: int, complete: bool = True) -> Past:
    return Past(tuple(event(offset) for offset in offsets), Position("e", head), complete)


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def room(taker: Taker) -> Room:
    room = Room(TopicName("c"))
    room.seat(taker)
    room.last = Position("e", 3)
    return room


def test_a_hole_is_filled_from_the_past(room: Room, taker: Taker) -> None:
    assert room.deliver(event(4))
    assert not room.deliver(event(7))
    assert room.deliver(event(8))
    assert room.deliver(event(8))
    assert room.resume(past(5, 6, 7, head=7))
    assert room.deliver(event(9))
    assert taker.seen == [4, 5, 6, 7, 8, 9]


def test_a_second_hole_in_what_was_held_is_filled_too(room: Room, taker: Taker) -> None:
    assert not room.deliver(event(5))
    assert room.deliver(event(8))
    assert room.deliver(event(9))
    assert not room.resume(past(4, 5, head=5))
    assert room.deliver(event(10))
    assert room.resume(past(6, 7, 8, 9, head=9))
    assert taker.seen == [4, 5, 6, 7, 8, 9, 10]


def test_what_the_past_has_not_is_a_gap(room: Room, taker: Taker) -> None:
    assert not room.deliver(event(7))
    assert room.deliver(event(8))
    assert room.resume(past(head=8, complete=False))
    assert room.deliver(event(9))
    assert taker.seen == ["gap", 7, 8, 9]


def test_another_epoch_is_a_gap(room: Room, taker: Taker) -> None:
    assert not room.deliver(event(1, epoch="f"))
    assert room.resume(Past((), Position("f", 1), complete=False))
    assert room.deliver(event(2, epoch="f"))
    assert taker.seen == ["gap", 1, 2]


def test_offsets_of_a_shared_stream_may_jump(room: Room, taker: Taker) -> None:
    assert room.deliver(event(40, previous=2))
    assert not room.deliver(event(50, previous=45))
    assert taker.seen == [40]


def test_more_than_can_be_held_is_declared_lost(room: Room, taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "HELD_LIMIT", 3)
    room.confirmed.set()
    room.suspend()
    for offset in range(4, 9):
        room.deliver(event(offset))
    assert room.resume(None)
    assert taker.seen == ["gap", 7, 8]
    assert isinstance(taker.items[0], Gap)
    assert taker.items[0].reason == rooms.OVERFLOW


@pytest.mark.parametrize(
    ("live", "head", "later", "expected"),
    [
        ([4, 5], 3, [6], [1, 2, 3, 4, 5, 6]),
        ([4, 5], 5, [6], [1, 2, 3, 4, 5, 6]),
        ([4], 5, [5, 6], [1, 2, 3, 4, 5, 6]),
        ([], 5, [4, 5, 6], [1, 2, 3, 4, 5, 6]),
        ([], 3, [4], [1, 2, 3, 4]),
    ],
)
def test_an_arrival_sees_the_past_and_the_present_once(
    room: Room, live: list[int], head: int, later: list[int], expected: list[int]
) -> None:
    late = Taker()
    arrival = room.arriving[late] = rooms.Arrival()
    for offset in live:
        room.deliver(event(offset))
    room.settle(late, arrival, past(*range(1, head + 1), head=head), marked=True)
    for offset in later:
        room.deliver(event(offset))
    assert late.seen == expected
    assert late in room.members
    assert not room.arriving


def test_an_arrival_sees_a_hole_between_the_past_and_what_was_held(room: Room) -> None:
    late = Taker()
    arrival = room.arriving[late] = rooms.Arrival()
    room.last = None
    room.deliver(event(9))
    room.settle(late, arrival, past(4, 5, head=5), marked=True)
    assert late.seen == [4, 5, "gap", 9]


def test_a_gap_reaches_who_has_arrived_but_waits_for_the_head(room: Room) -> None:
    late = Taker()
    arrival = room.arriving[late] = rooms.Arrival()
    room.settle(late, arrival, past(4, 5, head=5), marked=True)
    assert not room.deliver(event(8))
    assert room.resume(past(head=8, complete=False))
    assert late.seen == [4, 5, "gap", 8]
