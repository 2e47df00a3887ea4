"""The hub in memory: names, policies, readers, statistics, ends, and the app's configuration."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from telex.channels import (
    Channels,
    Event,
    Keep,
    MemoryBackend,
    Policy,
    Position,
    Statistics,
    backend_from_url,
    conflate,
)
from telex.channels.events import Gap, Past
from telex.exceptions import (
    BackendUnavailable,
    ChannelsException,
    ConcurrencyError,
    ImproperlyConfiguredException,
    MissingDependencyException,
    WebSocketException,
)
from tests.channels.conftest import take, take_data, until, within


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


# -- names


def test_a_hub_without_channels_is_an_error_of_the_description() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="arbitrary_channels_allowed"):
        Channels("memory://")


def test_a_wrong_policy_is_found_at_once() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="unknown policy"):
        Channels("memory://", channels=["a"], subscriber_backlog_strategy="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["kafka://host", "memory", ""])
def test_an_unknown_broker_is_named(url: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match="no backend of channels"):
        backend_from_url(url)


@pytest.mark.parametrize(
    ("url", "library"), [("redis://x", "redis"), ("nats://x", "nats"), ("postgresql://x", "psycopg")]
)
def test_a_missing_client_library_says_what_to_install(url: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("telex.channels.backends.") or name == library]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyException, match=r"pip install 'telex\[(redis|nats|postgres)\]'"):
        backend_from_url(url)


async def test_undeclared_channels_and_swapped_arguments_are_named() -> None:
    async with Channels("memory://", channels=["room"]) as hub:
        with pytest.raises(ChannelsException, match="unknown channel 'lobby'"):
            hub.subscribe("lobby")
        with pytest.raises(ChannelsException, match="takes the channel first"):
            await hub.publish("hello", "room")
        with pytest.raises(ChannelsException, match="takes the channel first"):
            await hub.publish({"text": "hello"}, "room")
        for wrong in ("", "a\0b", "\x1fpresence", "x" * 256, "\ud800", 3):
            with pytest.raises(ChannelsException, match="channel"):
                await hub.publish([wrong], "data")  # type: ignore[list-item]
        with pytest.raises(ChannelsException, match="no channel is given"):
            hub.subscribe([])


async def test_several_channels_are_followed_and_left(channels: Channels) -> None:
    async with channels.subscribe(["one", "two"]) as subscriber:
        await channels.publish(["one", "two"], {"a": 1})
        stream = aiter(subscriber.iter_events())
        assert [await within(anext(stream)) for _ in range(2)] == [b'{"a":1}'] * 2
        assert subscriber.qsize == 0
    subscriber = await channels.subscribe("one")
    with pytest.raises(ChannelsException, match="does not follow 'two'"):
        await channels.unsubscribe(subscriber, "two")
    await channels.unsubscribe(subscriber, "one")
    assert [item async for item in subscriber] == []


async def test_type_encoders_write_what_json_has_not() -> None:
    async with Channels("memory://", channels=["c"], type_encoders={complex: str}) as hub, hub.subscribe("c") as events:
        await hub.publish("c", {"z": 1 + 2j})
        assert await take_data(events, 1) == ['{"z":"(1+2j)"}']


# -- readers


async def test_unsubscribing_from_one_of_two_keeps_the_other(channels: Channels) -> None:
    async with channels.subscribe(["one", "two"]) as events:
        await channels.unsubscribe(events, "one")
        await channels.publish(["one", "two"], "x")
        items = await take(events, 1)
        assert items[0].channel == "two"
        assert events.qsize == 0


@pytest.mark.parametrize(
    ("policy", "expected", "dropped", "conflated"),
    [
        ("drop_oldest", ["3", "4"], 3, 0),
        ("drop_newest", ["0", "1"], 3, 0),
        (conflate(lambda e: e.channel), ["4"], 0, 4),
    ],
)
async def test_slow_readers_lose_by_their_policy_and_it_is_counted(
    channels: Channels, policy: Policy, expected: list[str], dropped: int, conflated: int
) -> None:
    async with channels.subscribe("slow", max_backlog=2, backlog_strategy=policy) as events:
        for number in range(5):
            await channels.publish("slow", str(number))
        assert await take_data(events, len(expected)) == expected
    figures = channels.statistics()
    assert (figures.dropped, figures.conflated, figures.delivered) == (dropped, conflated, len(expected))
    assert figures.received == figures.delivered + figures.dropped + figures.conflated


async def test_a_slow_reader_is_closed_with_1013_by_default() -> None:
    async with Channels("memory://", channels=["c"], subscriber_max_backlog=2) as hub, hub.subscribe("c") as events:
        for number in range(3):
            await hub.publish("c", str(number))
        with pytest.raises(WebSocketException, match="too slow") as raised:
            await within(anext(events))
        assert raised.value.code == 1013


async def test_a_publisher_in_a_loop_lets_readers_read() -> None:
    async with Channels("memory://", channels=["c"], subscriber_max_backlog=50) as hub, hub.subscribe("c") as events:

        async def read() -> int:
            return len(await take(events, 5000))

        reading = asyncio.create_task(read())
        for number in range(5000):
            await hub.publish("c", str(number))
        assert await within(reading) == 5000


async def test_the_background_worker_handles_what_waits_at_the_end(channels: Channels) -> None:
    handled: list[bytes] = []

    async def handle(data: bytes) -> None:
        await asyncio.sleep(0)
        handled.append(data)

    async with channels.subscribe("c") as events:
        async with events.run_in_background(handle):
            running = events.is_running
            with pytest.raises(ConcurrencyError, match="runs in the background already"):
                await events.run_in_background(handle).__aenter__()
            for number in range(5):
                await channels.publish("c", str(number))
        assert handled == [b"0", b"1", b"2", b"3", b"4"]
        assert (running, events.is_running) == (True, False)
        async with events.run_in_background(handle):
            await channels.publish("c", "again")
        assert handled[-1] == b"again"


async def test_the_background_worker_stops_at_once_without_join(channels: Channels) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def never(_data: bytes) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with channels.subscribe("c") as events:
        async with events.run_in_background(never, join=False):
            await channels.publish("c", "x")
            await within(started.wait())
        assert ended.is_set()


async def test_a_failing_callback_ends_the_body_with_its_own_error(channels: Channels) -> None:
    async def fail(_data: bytes) -> None:
        raise ZeroDivisionError

    async with channels.subscribe("c") as events:

        async def body() -> None:
            async with events.run_in_background(fail):
                await channels.publish("c", "x")
                await asyncio.Event().wait()

        with pytest.raises(ZeroDivisionError):
            await within(body())
        assert not events.is_running


async def test_an_error_of_the_body_stops_the_worker(channels: Channels) -> None:
    async def handle(_data: bytes) -> None:
        await asyncio.Event().wait()

    async with channels.subscribe("c") as events:

        async def body() -> None:
            async with events.run_in_background(handle):
                await channels.publish("c", "x")
                raise KeyError

        with pytest.raises(KeyError):
            await within(body())
        assert not events.is_running


# -- publishing


async def test_publish_nowait_keeps_the_order_and_works_from_threads(channels: Channels) -> None:
    async with channels.subscribe("c") as events:
        for number in range(10):
            channels.publish_nowait("c", str(number))
        assert await take_data(events, 10) == [str(number) for number in range(10)]
        thread = threading.Thread(target=channels.publish_nowait, args=("c", "from a thread"))
        thread.start()
        assert await take_data(events, 1) == ["from a thread"]
        thread.join()


async def test_the_end_of_the_hub_publishes_what_waits_and_ends_its_readers() -> None:
    backend = MemoryBackend()
    tasks = asyncio.all_tasks()
    async with Channels(backend, channels=["c"]) as listening, AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Channels(backend, channels=["c"]))
        own = await hub.subscribe("c")
        async with listening.subscribe("c") as events:
            hub.publish_nowait("c", "last words")
            await stack.aclose()
            assert await take_data(events, 1) == ["last words"]
        assert [item.text async for item in own if isinstance(item, Event)] == ["last words"]
        with pytest.raises(ChannelsException, match="do not run"):
            await hub.publish("c", "too late")
        with pytest.raises(ChannelsException, match="do not run"):
            hub.publish_nowait("c", "too late")
    assert asyncio.all_tasks() <= tasks


async def test_the_publish_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telex.channels.publish_queue.LIMIT", 3)
    async with Channels("memory://", channels=["c"]) as hub:
        for _ in range(3):
            hub.publish_nowait("c", "x")
        with pytest.raises(BackendUnavailable, match="3 values wait"):
            hub.publish_nowait("c", "x")


async def test_a_subscription_that_waits_ends_with_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True, history=Keep(5), subscribe_timeout=60)
    reached = asyncio.Event()

    async def never(*_: object, **__: object) -> Past:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError("it waits")

    async with hub:
        monkeypatch.setattr(hub.backend, "history", never)
        waiting = asyncio.ensure_future(hub.subscribe("c", history=1))
        await within(reached.wait())
    with pytest.raises(ChannelsException, match="ended before the subscription was confirmed"):
        await within(waiting)


async def test_a_hub_is_used_on_its_own_event_loop(channels: Channels) -> None:
    async def publish() -> None:
        await channels.publish("c", "from elsewhere")

    async def subscribe() -> None:
        await channels.subscribe("c")

    for use in (publish, subscribe):
        with pytest.raises(ChannelsException, match=r"another event loop: call publish_nowait\(\)"):
            await asyncio.to_thread(asyncio.run, use())
    async with channels.subscribe("c") as events:
        await asyncio.to_thread(channels.publish_nowait, "c", "from a thread")
        assert await take_data(events, 1) == ["from a thread"]


async def test_a_channel_that_is_followed_keeps_its_place_however_quiet_it_is() -> None:
    now = 0.0
    backend = MemoryBackend(clock=lambda: now)
    async with Channels(backend, arbitrary_channels_allowed=True, history=Keep(seconds=1)) as hub:
        async with hub.subscribe("quiet") as events:
            await hub.publish("quiet", "one")
            before = await hub.position("quiet")
            for _ in range(5):
                now += 30
                await hub.publish("other", "x")
            await hub.publish("quiet", "two")
            assert await take_data(events, 2) == ["one", "two"]
            after = await hub.position("quiet")
        assert (after.epoch, after.offset, hub.statistics().gaps) == (before.epoch, before.offset + 1, 0)
        now += 5
        async with hub.subscribe("quiet", since=after) as events:
            assert events.recovered is True
        # Once another subscription is confirmed, the broker knows that this channel is left.
        async with hub.subscribe("other"):
            pass
        for _ in range(2):
            now += 30
            await hub.publish("other", "x")
        assert (await hub.subscribe("quiet", since=after)).recovered is False


async def test_one_hub_serves_one_app(channels: Channels) -> None:
    with pytest.raises(ChannelsException, match="runs already"):
        await channels.__aenter__()


async def test_transactions_need_a_database(channels: Channels) -> None:
    with pytest.raises(ChannelsException, match="MemoryBackend has no transactions"):
        await channels.publish("c", "x", transaction=object())


# -- history


@pytest.mark.parametrize("text", ["", "17", ":17", "e:", "e:-1", "e:x", "e:1" + "0" * 30, "e:٣"])
def test_what_is_no_position_is_named(text: str) -> None:
    with pytest.raises(ChannelsException, match="is not a position"):
        Position.parse(text)


def test_a_position_is_its_text() -> None:
    assert Position.parse(str(Position("a:b", 17))) == Position("a:b", 17)


async def test_asking_for_a_past_that_is_not_kept_is_an_error(channels: Channels) -> None:
    with pytest.raises(ChannelsException, match="nothing is kept of 'c'"):
        await channels.subscribe("c", history=3)
    with pytest.raises(ChannelsException, match="nothing is kept of 'c'"):
        await channels.position("c")
    with pytest.raises(ChannelsException, match="as a mapping"):
        channels.subscribe(["a", "b"], since=Position("e", 1))
    with pytest.raises(ChannelsException, match="a pattern has no history"):
        channels.subscribe("a*", pattern=True, history=3)
    with pytest.raises(ChannelsException, match="is no pattern"):
        channels.subscribe("a*b", pattern=True)
    assert channels.statistics().channels == 0


async def test_history_is_kept_by_name_or_by_beginning() -> None:
    keep = {"room:1": Keep(1), "room:*": Keep(2)}
    async with Channels("memory://", arbitrary_channels_allowed=True, history=keep) as hub:
        for channel in ("room:1", "room:2"):
            for number in range(3):
                await hub.publish(channel, str(number))
        async with hub.subscribe(["room:1", "room:2"], history=9) as events:
            assert await take_data(events, 3) == ["2", "1", "2"]
        with pytest.raises(ChannelsException, match="nothing is kept"):
            await hub.position("lobby")


async def test_history_ages() -> None:
    clock = Clock()
    history = Keep(size=10, seconds=60)
    async with Channels(MemoryBackend(clock=clock), channels=["c", "d"], history=history) as hub:
        start = await hub.position("c")
        await hub.publish("c", "old")
        clock.now = 40
        await hub.publish("c", "young")
        clock.now = 61
        async with hub.subscribe("c", history=9) as events:
            assert await take_data(events, 1) == ["young"]
        async with hub.subscribe("c", since=start) as events:
            assert isinstance((await take(events, 1))[0], Gap)
        async with hub.subscribe("d"):
            clock.now = 200
        await hub.publish("c", "new")
        assert (await hub.position("c")).epoch != start.epoch


@pytest.mark.parametrize("history", [50, True, {"c": 50}, {"c": Keep(5), "d*": None}])
def test_a_history_that_is_no_keep_says_what_to_write(history: Any) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"history=.* does not say what to keep: write.*Keep\(50"):
        Channels("memory://", arbitrary_channels_allowed=True, history=history)


def test_a_presence_that_is_no_heartbeat_says_what_to_write() -> None:
    wrong: Any = True
    with pytest.raises(ImproperlyConfiguredException, match=r"presence=True: write presence=Heartbeat\(\)"):
        Channels("memory://", channels=["c"], presence=wrong)


def test_to_keep_nothing_is_an_error() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="keeps nothing"):
        Keep(size=0)
    with pytest.raises(ImproperlyConfiguredException, match="keeps nothing"):
        Keep(seconds=0)


# -- the app


async def test_the_hub_plugs_into_an_app() -> None:
    dependencies: dict[str, object] = {}
    lifespan: list[Callable[[object], AbstractAsyncContextManager[None]]] = []
    hub = Channels("memory://", channels=["c"])
    hub.on_app_init(SimpleNamespace(dependencies=dependencies, lifespan=lifespan, route_handlers=[]))
    assert set(dependencies) == {"channels"}
    ready = [hub.is_ready]
    async with lifespan[0](object()):
        ready.append(hub.is_ready)
        assert hub.statistics() == Statistics(True, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    ready.append(hub.is_ready)
    assert ready == [False, True, False]
    assert msgspec.json.encode(hub.statistics())


# -- leaks


@pytest.mark.slow
async def test_ten_thousand_cycles_leave_no_key_task_or_memory() -> None:
    backend = MemoryBackend()
    async with Channels(backend, arbitrary_channels_allowed=True) as hub:

        async def cycles(count: int) -> None:
            for number in range(count):
                async with hub.subscribe(f"room:{number}") as events:
                    await hub.publish(f"room:{number}", "x")
                    await take(events, 1)

        await cycles(5000)
        tasks = asyncio.all_tasks()
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await cycles(10_000)
            await until(lambda: not backend._listeners[0].channels)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        figures = hub.statistics()
        assert (figures.channels, figures.subscribers, figures.backlog) == (0, 0, 0)
        assert figures.delivered == figures.received == 15_000
        assert asyncio.all_tasks() <= tasks
        assert grown < 1_000_000


# -- readiness


class Muted(MemoryBackend):
    """A broker that hears, and cannot be published to for a while."""

    works = True

    @property
    def can_publish(self) -> bool:
        return self.works


async def test_a_hub_is_ready_while_it_hears_and_can_publish() -> None:
    backend = Muted()
    async with Channels(backend, arbitrary_channels_allowed=True) as hub:
        for backend.works in (True, False, True):
            assert hub.is_ready is hub.statistics().connected is backend.works
    assert not hub.is_ready
