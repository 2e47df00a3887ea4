"""What every backend promises: one body of tests over real brokers."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from telex.channels import Event, Gap, Page, Position, conflate
from telex.exceptions import ChannelsException, NotFoundException
from tests.channels.conftest import KEEP, Engine, MakeHub, take, take_data, within

ODD_NAMES = ["a b.c*d>e{f}", "é😀", "A", "a", "x:y:", "$SYS.>", "r\r\nn", "n" * 255, '"quoted"', "under_score", "=3A"]


async def test_another_node_hears_what_is_published_in_order(make_hub: MakeHub, name: str) -> None:
    here, there = await make_hub(), await make_hub()
    async with here.subscribe(name) as mine, there.subscribe(name) as theirs:
        for number in range(20):
            await here.publish(name, str(number))
        expected = [str(number) for number in range(20)]
        assert await take_data(mine, 20) == expected
        assert await take_data(theirs, 20) == expected


@pytest.mark.parametrize("data", [b"", b"\x00\xff\xfe", b"x" * 7_999, b"y" * 8_001, b"z" * 200_000, "é😀".encode()])
@pytest.mark.parametrize("kept", [True, False], ids=["history", "live"])
async def test_bytes_arrive_as_they_were(make_hub: MakeHub, name: str, data: bytes, kept: bool) -> None:
    hub = await make_hub(history=KEEP if kept else None)
    async with hub.subscribe(name) as events:
        await hub.publish(name, data)
        await hub.publish(name, b"after")
        first, second = await take(events, 2)
        assert isinstance(first, Event)
        assert isinstance(second, Event)
        assert (first.data, second.data, first.channel) == (data, b"after", name)
        assert (first.position is not None) is kept


async def test_values_travel_as_json(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub()
    async with hub.subscribe(name) as events:
        await hub.publish(name, {"x": [1, None]})
        await hub.publish(name, None)
        assert await take_data(events, 2) == ['{"x":[1,null]}', "null"]


VALUES = [("123", "text"), ({"n": 1}, "json"), (b"123", "bytes"), (b"\x00" + bytes(20_000), "bytes"), (None, "json")]


@pytest.mark.parametrize("kept", [True, False], ids=["history", "live"])
async def test_an_event_says_of_what_kind_its_value_was(make_hub: MakeHub, name: str, kept: bool) -> None:
    here, there = await make_hub(history=KEEP if kept else None), await make_hub(history=KEEP if kept else None)
    async with there.subscribe(name) as events:
        for value, _ in VALUES:
            await here.publish(name, value)
        await here.publish(name, b'{"n": 2}', kind="json")
        here.publish_nowait(name, "456")
        expected = [*(kind for _, kind in VALUES), "json", "text"]
        assert [item.kind for item in await take(events, len(expected)) if isinstance(item, Event)] == expected
    if kept:
        async with there.subscribe(name, history=-1) as events:
            assert [item.kind for item in await take(events, len(expected)) if isinstance(item, Event)] == expected


async def test_publish_returns_the_position_at_which_subscribers_get_the_event(make_hub: MakeHub, name: str) -> None:
    kept, live = f"{name}:kept", f"{name}:live"
    hub = await make_hub(history={kept: KEEP})
    assert await hub.publish(live, "x") == {}
    async with hub.subscribe(kept) as events:
        for number in range(3):
            positions = await hub.publish([live, kept], number)
            (event,) = await take(events, 1)
            assert positions == {kept: event.position}
    async with hub.subscribe(kept, since=positions[kept]) as events:
        await hub.publish(kept, "next")
        assert await take_data(events, 1) == ["next"]


async def test_the_history_is_read_in_pages_to_its_beginning(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    await hub.publish(f"{name}:other", "beside")
    for number in range(7):
        await hub.publish(name, number)
        await hub.publish(f"{name}:other", "beside")
    pages, before = [], None
    for _ in range(5):
        page = await within(hub.history(name, before=before, limit=3))
        pages.append([int(event.data) for event in page.events])
        if not page.more:
            break
        before = page.events[0].position
    assert pages == [[4, 5, 6], [1, 2, 3], [0]]
    first = page.events[0].position
    assert await hub.history(name, before=str(first)) == Page((), more=False)
    assert await hub.history(f"{name}:empty") == Page((), more=False)
    with pytest.raises(ChannelsException, match="a page has 1 event at least, not 0"):
        await hub.history(name, limit=0)
    with pytest.raises(NotFoundException, match="is not kept any more"):
        await hub.history(name, before="elsewhere:3")


async def test_odd_names_are_channels_of_their_own(make_hub: MakeHub) -> None:
    hub = await make_hub()
    for odd in ODD_NAMES:
        async with (
            hub.subscribe([other for other in ODD_NAMES if other != odd]) as others,
            hub.subscribe(odd) as events,
        ):
            await hub.publish(odd, odd)
            await hub.publish([other for other in ODD_NAMES if other != odd], "other")
            assert await take_data(events, 1) == [odd]
            heard = await take(others, len(ODD_NAMES) - 1)
            assert {item.channel for item in heard} == set(ODD_NAMES) - {odd}
            assert events.qsize == others.qsize == 0


async def test_two_equal_publishes_are_two_events(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub()
    async with hub.subscribe(name) as events:
        await hub.publish([name, name], "same")
        await hub.publish(name, "same")
        await hub.publish(name, "end")
        assert await take_data(events, 3) == ["same", "same", "end"]


async def test_one_subscriber_of_several_channels_hears_each(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub()
    async with hub.subscribe([f"{name}:a", f"{name}:b"]) as events:
        await hub.publish([f"{name}:a", f"{name}:b"], "both")
        items = await take(events, 2)
        assert {item.channel for item in items} == {f"{name}:a", f"{name}:b"}


async def test_a_subscription_is_ready_when_it_says_so(make_hub: MakeHub, name: str) -> None:
    here, there = await make_hub(), await make_hub()
    for number in range(20):
        async with there.subscribe(f"{name}:{number}") as events:
            await here.publish(f"{name}:{number}", "at once")
            assert await take_data(events, 1) == ["at once"]


async def test_after_unsubscribing_nothing_comes_and_subscribing_again_works(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub()
    for number in range(5):
        async with hub.subscribe(name) as events:
            await hub.publish(name, str(number))
            assert await take_data(events, 1) == [str(number)]
        assert hub.statistics().channels == 0
    await hub.publish(name, "to nobody")
    assert [item async for item in events] == []


async def test_a_cancelled_subscribe_leaves_nothing(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    for turns in range(12):
        opening = asyncio.ensure_future(hub.subscribe(name, history=5))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hub.unsubscribe(await opening)
        assert (hub.statistics().channels, hub.statistics().subscribers) == (0, 0)
    async with hub.subscribe(name) as events:
        await hub.publish(name, "still works")
        assert await take_data(events, 1) == ["still works"]


async def test_many_subscribe_at_once(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub()
    names = [f"{name}:{number}" for number in range(300)]
    subscribers = await within(asyncio.gather(*[hub.subscribe(each) for each in names]))
    await hub.publish(names, "all")
    for subscriber in subscribers:
        assert await take_data(subscriber, 1) == ["all"]
        await hub.unsubscribe(subscriber)
    assert hub.statistics().channels == 0


async def test_a_pattern_hears_all_that_begin_so(make_hub: MakeHub, engine: Engine, name: str) -> None:
    hub = await make_hub()
    if not engine.new_backend().supports_patterns:
        with pytest.raises(ChannelsException, match="has no patterns"):
            hub.subscribe(f"{name}:*", pattern=True)
        return
    async with hub.subscribe(f"{name}:*", pattern=True) as events:
        for channel in (f"{name}:a", f"{name}x", name, f"{name}:b.c:d", f"{name}:"):
            await hub.publish(channel, channel)
        await hub.publish(f"{name}:end", "end")
        assert await take_data(events, 4) == [f"{name}:a", f"{name}:b.c:d", f"{name}:", "end"]


# -- history


async def test_the_last_events_come_first(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    for number in range(5):
        await hub.publish(name, str(number))
    async with hub.subscribe(name, history=3) as events, hub.subscribe(name, history=99) as all_events:
        await hub.publish(name, "live")
        assert await take_data(events, 4) == ["2", "3", "4", "live"]
        assert await take_data(all_events, 6) == ["0", "1", "2", "3", "4", "live"]
        assert events.recovered is None
    async with hub.subscribe(name) as events:
        await hub.put_subscriber_history(events, name, 2)
        assert await take_data(events, 2) == ["4", "live"]


async def test_positions_follow_each_other(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    start = await hub.position(name)
    async with hub.subscribe(name) as events:
        assert events.positions[name] == start
        await hub.publish(name, "1")
        await hub.publish(f"{name}:other", "between")
        await hub.publish(name, "2")
        first, second = await take(events, 2)
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert first.position is not None
    assert second.position is not None
    assert first.position.epoch == second.position.epoch == start.epoch
    assert start.offset < first.position.offset < second.position.offset
    assert second.previous == first.position.offset
    assert Position.parse(str(second.position)) == second.position == await hub.position(name)


async def test_all_that_was_missed_is_replayed_and_then_the_stream_goes_on(make_hub: MakeHub, name: str) -> None:
    here, there = await make_hub(history=KEEP), await make_hub(history=KEEP)
    snapshot = await there.position(name)
    async with here.subscribe(name) as before:
        for number in range(4):
            await here.publish(name, str(number))
        last = (await take(before, 2))[-1]
        assert isinstance(last, Event)
    async with (
        there.subscribe(name, since=snapshot) as all_of_it,
        there.subscribe(name, since=str(last.position)) as rest,
    ):
        await here.publish(name, "live")
        assert await take_data(all_of_it, 5) == ["0", "1", "2", "3", "live"]
        assert await take_data(rest, 3) == ["2", "3", "live"]
        assert all_of_it.recovered is True
        assert rest.recovered is True


async def test_nothing_missed_is_recovered_too(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    for _ in range(2):
        async with hub.subscribe(name, since=await hub.position(name)) as events:
            await hub.publish(name, "live")
            assert await take_data(events, 1) == ["live"]
            assert events.recovered is True


async def test_a_replay_is_whole_or_a_gap(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    start = await hub.position(name)
    for number in range(KEEP.size + 10):
        await hub.publish(name, str(number))
    head = await hub.position(name)
    for since in (start, Position("another epoch", head.offset), Position(head.epoch, head.offset + 5)):
        async with hub.subscribe(name, since=since) as events:
            await hub.publish(name, "live")
            gap, live = await take(events, 2)
            assert isinstance(gap, Gap)
            assert isinstance(live, Event)
            assert (live.text, events.recovered, events.qsize) == ("live", False, 0)
            assert gap.position is not None
            assert live.position is not None
            assert (live.previous or 0) <= gap.position.offset < live.position.offset


async def test_subscribing_under_load_has_no_hole_and_no_double(make_hub: MakeHub, name: str) -> None:
    here, there = await make_hub(history=KEEP), await make_hub(history=KEEP)
    start = await here.position(name)
    total = 40

    async def load() -> None:
        for number in range(total):
            await here.publish(name, str(number))

    async def follow() -> list[str]:
        async with there.subscribe(name, since=start) as events:
            return await take_data(events, total)

    loading = asyncio.create_task(load())
    followers = await within(asyncio.gather(*[follow() for _ in range(10)]))
    await loading
    assert followers == [[str(number) for number in range(total)]] * 10


async def test_several_channels_recover_each_from_its_own_position(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    one, two = f"{name}:1", f"{name}:2"
    starts: dict[str, Position | str] = {one: await hub.position(one), two: str(await hub.position(two))}
    await hub.publish([one, two], "missed")
    async with hub.subscribe([one, two], since=starts) as events:
        items = await take(events, 2)
        assert {item.channel for item in items} == {one, two}
        assert events.recovered is True


async def test_a_publisher_who_keeps_nothing_is_heard_on_a_channel_with_history(make_hub: MakeHub, name: str) -> None:
    keeping, plain = await make_hub(history=KEEP), await make_hub()
    async with keeping.subscribe(name) as events, plain.subscribe(name) as plain_events:
        await plain.publish(name, "plain")
        await keeping.publish(name, "kept")
        assert await take_data(events, 2) == ["plain", "kept"]
        assert await take_data(plain_events, 2) == ["plain", "kept"]


@pytest.mark.parametrize("history", [None, 2], ids=["live", "history"])
async def test_where_a_stream_begins_is_known_before_its_first_event(
    make_hub: MakeHub, name: str, history: int | None
) -> None:
    hub = await make_hub(history=KEEP)
    async with hub.subscribe(name, history=history) as quiet:
        begin = quiet.positions[name]
    await hub.publish(name, "while it was away")
    async with hub.subscribe(name, since=begin) as events:
        assert events.recovered is True
        assert await take_data(events, 1) == ["while it was away"]
        assert events.positions[name] == begin
    for number in range(3):
        await hub.publish(name, str(number))
    async with hub.subscribe(name, history=2) as events:
        begin = events.positions[name]
        assert await take_data(events, 2) == ["1", "2"]
    # Whoever left before the first event of that replay gets it all again.
    async with hub.subscribe(name, since=begin) as events:
        assert events.recovered is True
        assert await take_data(events, 2) == ["1", "2"]


async def test_a_reader_that_conflates_may_come_back_to_any_event_that_it_saw(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(history=KEEP)
    values = ["a1", "b1", "c1", "a2", "b2", "a3"]
    slow = await hub.subscribe(name, backlog_strategy=conflate(lambda event: event.data[:1]))
    async with hub.subscribe(name) as prompt:
        for value in values:
            await hub.publish(name, value)
        await take(prompt, len(values))
    for seen in range(1, 4):
        items = await take(slow, 1)
        assert isinstance(items[0], Event)
        async with hub.subscribe(name, since=items[0].position) as back:
            rest = [item.text for item in await take(back, back.qsize) if isinstance(item, Event)]
            newest = {text[0]: text for text in [*(["c1", "b2", "a3"][:seen]), *rest]}
            assert (back.recovered, newest) == (True, {"a": "a3", "b": "b2", "c": "c1"})
    assert slow.qsize == 0
