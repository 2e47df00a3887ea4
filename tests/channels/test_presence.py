"""Presence across nodes, over real brokers: joining, leaving, crashing, losing messages, losing the broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from telex.channels import Channels, Heartbeat, Left
from telex.channels import presence as module
from telex.channels.presence import Presence, Watch
from telex.exceptions import BackendUnavailable, ChannelsException, ImproperlyConfiguredException
from telex.testing import TestClock
from tests.channels.brokers import Valkey
from tests.channels.conftest import MakeHub, until, within

QUICK = Heartbeat(seconds=0.1, lost_after=0.5)


async def next_change(watch: Watch) -> tuple[str, str, object]:
    change = await within(anext(watch))
    return type(change).__name__, change.member.key, change.member.meta


async def test_who_comes_and_goes_is_seen_on_every_node(make_hub: MakeHub, name: str) -> None:
    here, there = await make_hub(presence=QUICK), await make_hub(presence=QUICK)
    async with there.presence.watch(name) as theirs, here.presence.watch(name) as mine:
        assert theirs.members == mine.members == ()
        async with here.presence.track(name, "ann", {"device": "phone"}) as ann:
            assert await next_change(theirs) == ("Joined", "ann", {"device": "phone"})
            assert await next_change(mine) == ("Joined", "ann", {"device": "phone"})
            assert there.presence.members(name) == here.presence.members(name) == (ann,)
            async with there.presence.track(name, "ann"):
                assert await next_change(mine) == ("Joined", "ann", None)
                assert len(here.presence.members(name)) == 2
            assert await next_change(mine) == ("Left", "ann", None)
        assert await next_change(mine) == ("Left", "ann", {"device": "phone"})
        assert here.presence.members(name) == ()


async def test_a_new_node_learns_who_is_there(make_hub: MakeHub, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    here = await make_hub(presence=QUICK)
    async with AsyncExitStack() as stack:
        for number in range(20):
            await stack.enter_async_context(here.presence.track(name, str(number)))
        late = await make_hub(presence=QUICK)
        await until(lambda: len(late.presence.members(name)) == 20)
        assert {member.key for member in late.presence.members(name)} == {str(number) for number in range(20)}
    await until(lambda: late.presence.members(name) == ())


async def test_a_node_that_ends_takes_its_members_with_it_at_once(make_hub: MakeHub, name: str) -> None:
    slow = Heartbeat(seconds=60, lost_after=600)
    here = await make_hub(presence=slow)
    there = await make_hub(presence=slow)
    async with here.presence.watch(name) as changes:
        tracking = there.presence.track(name, "ann")
        await tracking.__aenter__()
        assert (await next_change(changes))[0] == "Joined"
        await there.__aexit__(None, None, None)
        assert (await next_change(changes))[0] == "Left"
        await tracking.__aexit__(None, None, None)
        await there.__aenter__()


class Wire:
    """Carries messages between the views of several nodes in memory, and may be cut."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self.views: dict[str, Presence] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.cut: set[str] = set()
        self.deaf: set[str] = set()
        self.sent: list[bytes] = []
        self.carried = 0

    def view(self, name: str) -> Presence:
        async def tell(data: bytes) -> None:
            await asyncio.sleep(0)
            if name in self.cut:
                raise BackendUnavailable("cut")
            self.sent.append(data)
            # As over a broker, a message arrives after its publish has returned, at the sender too.
            asyncio.get_running_loop().call_later(0.005, self._carry, data)

        self.views[name] = Presence(tell, self.heartbeat)
        return self.views[name]

    def _carry(self, data: bytes) -> None:
        self.carried += 1
        for name, view in self.views.items():
            if name not in self.cut | self.deaf:
                view.hear(data)

    async def beats(self, name: str, count: int) -> None:
        """Return when the node ``name`` has sent and received ``count`` more beats, and none is on its way."""
        own = b'{"type":"beat","node":"%s"' % self.views[name].node.encode()
        start = len(self.sent)
        await until(lambda: sum(data.startswith(own) for data in self.sent[start:]) >= count)
        await until(lambda: self.carried == len(self.sent))


@asynccontextmanager
async def two_nodes(heartbeat: Heartbeat) -> AsyncIterator[tuple[Wire, Presence, Presence]]:
    """Two nodes on one wire, whose tasks run."""
    wire = Wire(heartbeat)
    one, two = wire.view("one"), wire.view("two")
    wire.tasks = {name: asyncio.create_task(view.run()) for name, view in wire.views.items()}
    try:
        yield wire, one, two
    finally:
        for task in wire.tasks.values():
            task.cancel()
        await asyncio.wait(wire.tasks.values())


def keys(view: Presence) -> set[str]:
    return {member.key for member in view.members("room")}


async def test_a_node_that_is_deaf_calls_nobody_gone() -> None:
    """Its listener is half open: it publishes, and hears nobody, not even itself."""
    async with (
        TestClock() as clock,
        two_nodes(Heartbeat()) as (wire, one, two),
        one.track("room", "ann"),
        two.track("room", "bob"),
    ):
        await clock.advance(1)
        assert keys(one) == keys(two) == {"ann", "bob"}
        wire.deaf = {"one"}
        await clock.advance(30)
        wire.deaf, wire.cut = set(), {"two"}  # it receives its own beats before those of the other node
        await clock.advance(11)  # two beats
        assert keys(one) == {"ann", "bob"}
        wire.cut = set()
        await clock.advance(10)
        assert keys(one) == {"ann", "bob"}
        wire.tasks["two"].cancel()
        await clock.advance(21)
        assert keys(one) == {"ann"}


@pytest.mark.long
async def test_a_node_whose_event_loop_stood_still_calls_nobody_gone() -> None:
    async with two_nodes(QUICK) as (wire, one, two), one.track("room", "ann"), two.track("room", "bob"):
        await until(lambda: keys(one) == keys(two) == {"ann", "bob"})
        async with one.watch("room") as changes:
            await wire.beats("one", 1)
            # No message is on its way: the first thing that happens after the stall is the node's own beat.
            time.sleep(2 * QUICK.lost_after)  # noqa: ASYNC251 - the event loop itself stands still
            with pytest.raises(TimeoutError):
                await within(anext(changes), 0.8 * QUICK.lost_after)
            wire.tasks["two"].cancel()
            assert isinstance(await within(anext(changes)), Left)


async def test_a_crashed_node_expires_and_lost_changes_are_asked_for() -> None:
    async with (
        TestClock() as clock,
        two_nodes(Heartbeat()) as (wire, one, two),
        one.track("room", "ann"),
        two.watch("room") as changes,
    ):
        await clock.advance(1)
        assert keys(two) == {"ann"}
        wire.cut = {"one"}
        async with one.track("room", "bob"):
            await clock.advance(0)  # the change is lost
            wire.cut = set()
            await clock.advance(6)  # the next beat shows that
            assert keys(two) == {"ann", "bob"}
        await clock.advance(1)
        assert keys(two) == {"ann"}
        wire.tasks["one"].cancel()
        await clock.advance(14)
        assert keys(two) == {"ann"}
        await clock.advance(7)
        assert keys(two) == set()
        seen = [await anext(changes) for _ in range(4)]
    assert [(type(change).__name__, change.member.key) for change in seen] == [
        ("Joined", "ann"),
        ("Joined", "bob"),
        ("Left", "bob"),
        ("Left", "ann"),
    ]


async def test_a_node_that_hears_nothing_calls_nobody_silent() -> None:
    async with TestClock() as clock, two_nodes(Heartbeat()) as (wire, one, two), one.track("room", "ann"):
        await clock.advance(1)
        wire.cut = {"two"}
        await clock.advance(60)
        assert keys(two) == {"ann"}


async def test_garbage_on_the_wire_is_dropped() -> None:
    view = Wire(QUICK).view("one")
    for data in (b"", b"\xff", b"{}", b'{"type":"bye"}', b'{"type":"beat","node":3,"version":"x"}', b"[" * 100_000):
        view.hear(data)
    assert view.members("room") == ()


@pytest.mark.broker
async def test_presence_comes_back_with_the_broker() -> None:
    broker = Valkey()
    try:
        broker.start()
        options = {"arbitrary_channels_allowed": True, "presence": QUICK}
        async with Channels(broker.url, **options) as here, Channels(broker.url, **options) as there:  # type: ignore[arg-type]
            async with here.presence.track("room", "ann"):
                await until(lambda: len(there.presence.members("room")) == 1)
                broker.kill()
                await until(lambda: not there.is_ready)
                async with here.presence.track("room", "bob"):
                    await broker.restart()
                    await until(lambda: {each.key for each in there.presence.members("room")} == {"ann", "bob"})
                await until(lambda: {each.key for each in there.presence.members("room")} == {"ann"})
            await until(lambda: there.presence.members("room") == ())
    finally:
        broker.remove()


async def test_presence_must_be_switched_on(channels: Channels) -> None:
    with pytest.raises(ChannelsException, match="presence is off"):
        _ = channels.presence
    with pytest.raises(ImproperlyConfiguredException, match="lost_after must be longer"):
        Heartbeat(seconds=5, lost_after=5)


async def test_the_presence_room_is_not_counted(make_hub: MakeHub, name: str) -> None:
    hub = await make_hub(presence=QUICK)
    async with hub.subscribe(name):
        assert hub.statistics().channels == 1
