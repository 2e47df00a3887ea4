"""What a hub survives: another event loop, a part of it that fails, threads at its end, calls that make no sense."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from telex import Telex, WebSocket, channel_listener, websocket
from telex.channels import Channels, DataKind, Event, Heartbeat, Keep, MemoryBackend, Position, publisher
from telex.channels import hub as hub_module
from telex.channels.presence import Presence
from telex.exceptions import BackendUnavailable, ChannelsException, ConcurrencyError, ImproperlyConfiguredException
from telex.testing import TestClient
from tests.channels.brokers import Broker
from tests.channels.conftest import Engine, take_data, until, within
from tests.support.live import denied, serving


def test_a_hub_serves_one_event_loop_after_another(engine: Engine, name: str) -> None:
    hub = Channels(engine.new_backend(), arbitrary_channels_allowed=True, presence=Heartbeat())

    async def use() -> None:
        async with hub, hub.subscribe(name) as events:
            await asyncio.gather(*(hub.publish(name, "a") for _ in range(20)))
            hub.publish_nowait(name, "b")
            assert await take_data(events, 21) == ["a"] * 20 + ["b"]

    for _ in range(2):
        asyncio.run(use())


def test_an_app_with_channels_may_be_tested_twice() -> None:
    app = Telex(
        [channel_listener("/{room:str}", channel="{room}", publish=str)],
        plugins=[Channels("memory://", arbitrary_channels_allowed=True)],
    )
    for _ in range(2):
        with TestClient(app) as client, client.websocket_connect("/news") as session:
            session.send_text("hello")
            session.expect("hello")


async def test_a_part_that_fails_is_logged_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_module, "RESTART_SECONDS", 0.01)
    fails = [ValueError("heartbeat"), ValueError("heartbeat again")]
    run = Presence.run

    async def run_at_last(self: Presence) -> None:
        if fails:
            raise fails.pop()
        await run(self)

    monkeypatch.setattr(Presence, "run", run_at_last)
    async with Channels("memory://", arbitrary_channels_allowed=True, presence=Heartbeat()) as hub:
        await until(lambda: not fails)
        async with hub.subscribe("c") as events, hub.presence.track("c", "me"):
            await hub.publish("c", "hello")
            assert await take_data(events, 1) == ["hello"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize(
    ("key", "meta", "says"),
    [
        (7, None, r"the key of a presence must be a str, not 7: write track\(channel, str\(key\)\)"),
        ("\ud800", None, "cannot be sent as JSON"),
        ("me", {("a", "b"): 1}, "cannot be sent as JSON"),
        ("me", object(), "cannot be sent as JSON"),
        ("me", "x" * 10_000, "at most 8192 may be sent"),
    ],
)
async def test_a_presence_that_cannot_be_told_fails_where_it_is_given(key: Any, meta: object, says: str) -> None:
    async with Channels("memory://", arbitrary_channels_allowed=True, presence=Heartbeat()) as hub:
        with pytest.raises(ChannelsException, match=says):
            async with hub.presence.track("c", key, meta):
                pass
        async with hub.presence.track("c", "other"):
            assert [member.key for member in hub.presence.members("c")] == ["other"]


async def test_who_watches_presence_ends_with_the_hub() -> None:
    async with Channels("memory://", arbitrary_channels_allowed=True, presence=Heartbeat()) as hub:
        watching = hub.presence.watch("c")
        watch = await watching.__aenter__()
    assert [change async for change in watch] == []
    await watching.__aexit__(None, None, None)


# -- the end


class Slow(MemoryBackend):
    """Takes its time, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.took: list[bytes] = []

    async def publish(self, targets: Any, data: bytes, kind: DataKind = "bytes") -> dict[str, Position]:
        await asyncio.sleep(0)
        self.took.append(data)
        return {}


async def test_what_threads_publish_at_the_very_end_is_taken_or_refused() -> None:
    backend, accepted, refused = Slow(), 0, threading.Event()
    hub = Channels(backend, arbitrary_channels_allowed=True)
    begun = threading.Event()

    def publish_until_refused() -> None:
        nonlocal accepted
        while not refused.is_set():
            try:
                hub.publish_nowait("c", "x")
            except ChannelsException:
                refused.set()
            else:
                accepted += 1
                begun.set()

    async with hub:
        thread = threading.Thread(target=publish_until_refused)
        thread.start()
        await asyncio.to_thread(begun.wait, 5)
    await asyncio.to_thread(thread.join, 5)
    assert refused.is_set()
    assert accepted == len(backend.took)
    assert hub.statistics().failed == 0


async def test_one_value_of_a_thread_before_the_end_is_published() -> None:
    backend = Slow()
    async with Channels(backend, arbitrary_channels_allowed=True) as hub:
        thread = threading.Thread(target=hub.publish_nowait, args=("c", "last"))
        thread.start()
        thread.join()
    assert backend.took == [b"last"]


def test_a_publisher_says_that_it_was_left_behind_by_a_fork(running_broker: Callable[[str], Broker]) -> None:
    with publisher(running_broker("valkey").url) as news:
        news.publish("c", "parent")
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                news.publish("c", "child")
            except BaseException as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert b"opened before the process forked" in os.read(reading, 1000)
        os.close(reading)
        os.close(writing)
        news.publish("c", "parent again")
    with pytest.raises(ChannelsException, match="this publisher is closed"):
        news.publish("c", "too late")
    news.close()


# -- what an app may do


async def test_the_apps_own_lifespans_may_use_the_channels() -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True)
    heard: list[str] = []

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with hub.subscribe("c") as events:
            await hub.publish("c", "first")
            yield
            await hub.publish("c", "last")
            heard.extend(await take_data(events, 2))

    async with Telex([], plugins=[hub], lifespan=[lifespan]).lifespan():
        assert heard == []
    assert heard == ["first", "last"]


async def test_clients_are_not_told_what_is_wrong_with_a_broker(caplog: pytest.LogCaptureFixture) -> None:
    class Gone(MemoryBackend):
        async def publish(self, targets: object, data: bytes, kind: DataKind = "bytes") -> dict[str, Position]:
            raise BackendUnavailable("redis at 10.0.0.7 refuses user 'app'")

    @websocket("/")
    async def publish(socket: WebSocket, channels: Channels) -> None:
        await channels.publish("c", "x")

    app = Telex([publish], plugins=[Channels(Gone(), channels=["c"])], allowed_origins=["*"])
    async with app.lifespan(), serving(app) as running:
        denial = await denied(running)
    assert (denial.status, denial.json()["detail"]) == (503, "Service Unavailable")
    (said,) = [record for record in caplog.records if record.name == "telex"]
    assert (said.levelname, said.exc_info) == ("WARNING", None)
    assert "10.0.0.7" in said.getMessage()


# -- calls that make no sense


async def test_patterns_do_not_hear_what_hubs_tell_each_other(engine: Engine, name: str) -> None:
    if engine.kind in {"postgres", "valkey-cluster"}:
        return
    async with (
        Channels(engine.new_backend(), arbitrary_channels_allowed=True, presence=Heartbeat()) as hub,
        hub.subscribe("*", pattern=True) as events,
        hub.presence.track(name, "me"),
    ):
        await hub.publish(name, "mine")
        async for item in events:
            assert isinstance(item, Event)
            assert not item.channel.startswith("\x1f")
            if item.channel == name:
                break


async def test_a_subscription_is_entered_once(channels: Channels) -> None:
    subscription = channels.subscribe("c")
    async with subscription:
        pass
    with pytest.raises(ChannelsException, match="used before"):
        async with subscription:
            pass
    with pytest.raises(ChannelsException, match="used before"):
        await subscription


async def test_since_names_channels_that_are_subscribed_to() -> None:
    async with Channels("memory://", arbitrary_channels_allowed=True, history=Keep(5)) as hub:
        position = await hub.position("c")
        with pytest.raises(ChannelsException, match="since= has 'typo', which is not subscribed to"):
            hub.subscribe("c", since={"typo": position})
        with pytest.raises(ChannelsException, match="since=5 is no position"):
            hub.subscribe("c", since=5)  # type: ignore[arg-type]
        with pytest.raises(ChannelsException, match="is not a position"):
            hub.subscribe("c", since="x:99999999999999999999")


async def test_a_callback_cannot_wait_for_its_own_end(channels: Channels) -> None:
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with channels.subscribe("c") as events:

        async def on_event(data: bytes) -> None:
            try:
                await events.stop(join=True)
            except ConcurrencyError as error:
                refused.set_result(str(error))
            await events.stop()

        async with events.run_in_background(on_event, join=False):
            await channels.publish("c", "x")
            assert "stop(join=False)" in await within(refused)


@pytest.mark.parametrize("data", [b"raw", bytearray(b"raw"), memoryview(b"raw")])
async def test_bytes_of_any_kind_go_as_they_are(channels: Channels, data: object) -> None:
    async with channels.subscribe("c") as events:
        await channels.publish("c", data)
        assert await take_data(events, 1) == ["raw"]


async def test_what_is_no_channel_is_said_so(channels: Channels) -> None:
    for wrong in ([["a"]], [None], [b"a"]):
        with pytest.raises(ChannelsException, match="is no channel"):
            await channels.publish(wrong, "x")  # type: ignore[arg-type]
    with pytest.raises(ChannelsException, match="is no pattern"):
        channels.subscribe([["a"]], pattern=True)  # type: ignore[list-item]


async def test_patterns_may_be_left_where_channels_are_declared() -> None:
    async with Channels("memory://", channels=["node:1"]) as hub:
        events = await hub.subscribe("node:*", pattern=True)
        await hub.unsubscribe(events, "node:*")
        assert [item async for item in events] == []


def test_nothing_is_kept_for_ever() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="seconds must be at most"):
        Keep(seconds=float("inf"))


async def test_memory_forgets_channels_that_were_only_asked_about() -> None:
    now = 0.0
    backend = MemoryBackend(clock=lambda: now)
    async with Channels(backend, arbitrary_channels_allowed=True, history=Keep(5, seconds=10)) as hub:
        for number in range(2_000):
            now += 1
            await hub.position(f"visitor:{number}")
        assert len(backend._logs) < 50
