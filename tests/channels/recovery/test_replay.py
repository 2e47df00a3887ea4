"""Reading the past for many: few reads, shared by those that wait, so that a crowd costs publishers nothing."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from telex.channels import Channels, Keep, MemoryBackend, Position, Subscriber
from telex.channels.events import Past
from telex.channels.recovery import replay
from telex.exceptions import BackendUnavailable
from tests.channels.conftest import MakeHub, take_data, until, within

CROWD = 5_000


class Library(MemoryBackend):
    """A past that takes its time, and counts its readers."""

    def __init__(self) -> None:
        super().__init__()
        self.open_door = asyncio.Event()
        self.reads = self.reading = self.most = 0
        self.error: BackendUnavailable | None = None

    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        self.reads += 1
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            await self.open_door.wait()
            if self.error is not None:
                raise self.error
            return await super().history(channel, keep, since=since, before=before, limit=limit)
        finally:
            self.reading -= 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr(replay, "READS", 2)
    return Library()


def comers(hub: Channels, channel: str, positions: list[Position]) -> list[asyncio.Task[Subscriber]]:
    async def come(position: Position) -> Subscriber:
        return await hub.subscribe(channel, since=position)

    return [asyncio.create_task(come(position)) for position in positions]


async def positions_of(hub: Channels, channel: str, count: int) -> list[Position]:
    positions = [await hub.position(channel)]
    for number in range(count):
        await hub.publish(channel, str(number))
        positions.append(await hub.position(channel))
    return positions


async def test_those_who_wait_share_one_read_and_each_gets_its_own_part(library: Library) -> None:
    async with Channels(library, arbitrary_channels_allowed=True, history=Keep(100)) as hub:
        positions = await positions_of(hub, "c", 20)
        busy = [task for other in ("a", "b") for task in comers(hub, other, [await hub.position(other)])]
        await until(lambda: library.reading == 2)
        back = comers(hub, "c", positions[::-1])
        await until(lambda: hub.statistics().channels == 3)
        library.open_door.set()
        await within(asyncio.gather(*busy))
        for number, task in enumerate(reversed(back)):
            subscriber = await within(task)
            assert subscriber.recovered is True
            assert subscriber.positions["c"] == positions[number]
            assert await take_data(subscriber, subscriber.qsize) == [str(each) for each in range(number, 20)]
        assert (library.reads, library.most) == (3, 2)


async def test_a_position_that_is_too_old_spoils_no_other(library: Library) -> None:
    async with Channels(library, arbitrary_channels_allowed=True, history=Keep(5)) as hub:
        positions = await positions_of(hub, "c", 8)
        busy = [task for other in ("a", "b") for task in comers(hub, other, [await hub.position(other)])]
        await until(lambda: library.reading == 2)
        back = comers(hub, "c", [positions[6], positions[0], positions[7]])
        await until(lambda: hub.statistics().channels == 3)
        library.open_door.set()
        late, old, latest = await within(asyncio.gather(*back))
        assert [late.recovered, old.recovered, latest.recovered] == [True, False, True]
        assert await take_data(late, 2) == ["6", "7"]
        await within(asyncio.gather(*busy))


async def test_the_one_that_leads_a_read_may_leave(library: Library) -> None:
    async with Channels(library, arbitrary_channels_allowed=True, history=Keep(100)) as hub:
        positions = await positions_of(hub, "c", 2)
        busy = [task for other in ("a", "b") for task in comers(hub, other, [await hub.position(other)])]
        await until(lambda: library.reading == 2)
        leader, follower = comers(hub, "c", [positions[0], positions[1]])
        await until(lambda: hub.statistics().channels == 3)
        leader.cancel()
        library.open_door.set()
        assert await take_data(await within(follower), 1) == ["1"]
        await within(asyncio.gather(*busy))


async def test_all_that_wait_for_a_past_that_fails_are_told(library: Library) -> None:
    hub = Channels(library, arbitrary_channels_allowed=True, history=Keep(100), subscribe_timeout=0.1)
    library.error = BackendUnavailable("the past is away")
    library.open_door.set()
    async with hub:
        [position] = await positions_of(hub, "c", 0)
        back = comers(hub, "c", [position] * 3)
        for task in back:
            with pytest.raises(BackendUnavailable, match="the past is away"):
                await within(task)
        assert (library.reading, hub.statistics().channels, hub.statistics().subscribers) == (0, 0, 0)


async def test_clients_that_return_in_one_turn_are_spread_over_several() -> None:
    crowd = 10 * replay.PER_TURN
    since = Position("never", 0)
    async with Channels("memory://", arbitrary_channels_allowed=True, history=Keep(10)) as hub:
        back = [task for number in range(crowd) for task in comers(hub, f"c{number}", [since])]
        begun = [0]
        while begun[-1] < crowd:
            await asyncio.sleep(0)
            begun.append(hub.statistics().channels)
        assert max(after - before for before, after in pairwise(begun)) <= replay.PER_TURN
        await within(asyncio.gather(*back))


async def test_clients_that_share_a_read_get_their_past_in_several_turns(library: Library) -> None:
    crowd = 10 * replay.PER_TURN
    async with Channels(library, arbitrary_channels_allowed=True, history=Keep(100)) as hub:
        [_, position] = await positions_of(hub, "c", 1)
        busy = [task for other in ("a", "b") for task in comers(hub, other, [await hub.position(other)])]
        await until(lambda: library.reading == 2)
        back = comers(hub, "c", [position] * crowd)
        for _ in range(crowd):
            # More turns than they need until all wait for the read.
            await asyncio.sleep(0)
        library.open_door.set()
        served = [0]
        while served[-1] < crowd:
            await asyncio.sleep(0)
            served.append(sum(task.done() for task in back))
        # One more: the task that runs the read.
        assert max(after - before for before, after in pairwise(served)) <= replay.PER_TURN + 1
        assert library.reads == 3
        await within(asyncio.gather(*busy))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("rooms", [10, 2_500])
async def test_a_crowd_that_comes_back_is_served_and_publishers_do_not_wait(
    make_hub: MakeHub, name: str, rooms: int
) -> None:
    """All begin in one turn of the event loop, with different positions.

    The limits are processor time of this process, because the machine may be busy with other tests.
    """
    hub = await make_hub(history={"test:*": Keep(100, 600)}, subscriber_max_backlog=1000, subscribe_timeout=150)
    channels = [f"{name}:{number}" for number in range(rooms)]
    events = 50 if rooms == 10 else 2
    positions: dict[str, list[Position]] = {}
    for start in range(0, rooms, 50):
        some = channels[start : start + 50]
        positions |= zip(
            some, await asyncio.gather(*(positions_of(hub, channel, events) for channel in some)), strict=True
        )
    waits: list[float] = []
    served = asyncio.Event()

    async def publish(channel: str) -> None:
        while not served.is_set():
            began = time.process_time()
            await within(hub.publish(channel, "x"))
            waits.append(time.process_time() - began)

    publishing = asyncio.gather(publish("live"), publish("test:kept"))
    began, coming = time.process_time(), list[asyncio.Task[Subscriber]]()
    for number in range(CROWD):
        channel = channels[number % rooms]
        coming += comers(hub, channel, [positions[channel][number // rooms % (events + 1)]])
    back = await within(asyncio.gather(*coming), 150)
    took = time.process_time() - began
    served.set()
    await within(publishing)
    assert all(subscriber.recovered for subscriber in back)
    assert [subscriber.qsize for subscriber in back] == [
        events - number // rooms % (events + 1) for number in range(CROWD)
    ]
    assert took < 15
    assert max(waits) < 1


async def test_pages_take_their_turn_among_the_reads_for_recipients(library: Library) -> None:
    async with Channels(library, arbitrary_channels_allowed=True, history=Keep(10)) as hub:
        await hub.publish("c", "x")
        turning = [asyncio.create_task(hub.history("c", limit=1)) for _ in range(6)]
        coming = asyncio.ensure_future(hub.subscribe("c", history=1))
        await until(lambda: library.reading == 2)
        library.open_door.set()
        pages = await within(asyncio.gather(*turning))
        assert [event.text for page in pages for event in page.events] == ["x"] * 6
        assert await take_data(await within(coming), 1) == ["x"]
        assert (library.most, library.reads) == (2, 7)
