"""A primary whose place its replica takes: killed, in order, cut off, or ahead of the replica."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from telex.channels import Channels, Event, Gap, Item, Position, publisher
from telex.channels.backends.redis import cluster as redis_cluster
from tests.channels.cluster import Node, Pair, ReplicatedCluster, poll
from tests.channels.cluster_load import KEEP, Followed, channel_on, hub_on
from tests.channels.conftest import take, take_data, until, within
from tests.channels.load import read_until

pytestmark = pytest.mark.broker

SOME_KEPT = {"kept:*": KEEP}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")


@pytest.fixture(scope="module")
def replicated() -> Iterator[ReplicatedCluster]:
    cluster = ReplicatedCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def pair(replicated: ReplicatedCluster) -> Pair:
    replicated.mend()
    return replicated.pair


@pytest.fixture
def channel(replicated: ReplicatedCluster, name: str) -> str:
    """One that is on the pair."""
    return channel_on(replicated, replicated.nodes[0], name)


def channels_on(cluster: ReplicatedCluster, node: Node, name: str) -> list[str]:
    """One that is not kept and one that is, if some are."""
    return [channel_on(cluster, node, name), channel_on(cluster, node, f"kept:{name}")]


async def publish_all(hub: Channels, channel: str, values: Iterable[str]) -> None:
    for value in values:
        await hub.publish(channel, value)


def connections_to(port: int) -> list[str]:
    """The sockets that somebody holds and whose other end is, or was, a local port."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [fields[1] for fields in sockets if fields[2] == f"0100007F:{port:04X}" and fields[9] != "0"]


def positions(items: Iterable[Item]) -> list[Position]:
    """Those of events; each event has one."""
    found = [item.position for item in items if isinstance(item, Event)]
    assert None not in found
    return [position for position in found if position is not None]


async def assert_not_whole_since(hub: Channels, channel: str, position: Position) -> None:
    """A client that comes back with ``position`` learns that it missed something."""
    async with hub.subscribe(channel, since=position) as back:
        assert back.recovered is False
        assert isinstance((await take(back, 1))[0], Gap)


async def test_a_killed_primary_is_replaced_under_load(replicated: ReplicatedCluster, pair: Pair, name: str) -> None:
    primary, replica, healthy = pair.primary, pair.replica, replicated.nodes[1]
    async with hub_on(replicated, SOME_KEPT) as here, hub_on(replicated, SOME_KEPT) as there:
        live, kept = (Followed(here, there, channel) for channel in channels_on(replicated, replicated.nodes[0], name))
        spared = [Followed(here, there, channel) for channel in channels_on(replicated, healthy, name)]
        async with live.running(), kept.running(), spared[0].running(), spared[1].running():
            await live.load.has_taken(100)
            await kept.load.has_taken(100)
            primary.kill()
            await until(lambda: not there.is_ready)
            await until(lambda: there.is_ready)
            assert replica.is_primary
        for struck in (live, kept):
            struck.check()
            assert struck.gaps == 1
            assert struck.load.refused
        for each in spared:
            each.check()
            assert (each.gaps, each.load.refused) == (0, [])
        assert there.statistics().gaps == 2
        # All of the cluster was down meanwhile: who published elsewhere had to wait.
        assert healthy.errors("CLUSTERDOWN") > 0


async def test_a_replica_that_takes_over_in_order_costs_no_publish(
    replicated: ReplicatedCluster, pair: Pair, name: str
) -> None:
    async with hub_on(replicated, SOME_KEPT) as here, hub_on(replicated, SOME_KEPT) as there:
        live, kept = (Followed(here, there, channel) for channel in channels_on(replicated, replicated.nodes[0], name))
        spared = Followed(here, there, channels_on(replicated, replicated.nodes[1], name)[0])
        async with live.running(), kept.running(), spared.running():
            await live.load.has_taken(100)
            await kept.load.has_taken(100)
            await asyncio.to_thread(pair.swap)
            await until(lambda: there.statistics().reconnects > 0)
        for followed, gaps in ((live, 1), (kept, 1), (spared, 0)):
            followed.check()
            assert (followed.gaps, followed.load.refused) == (gaps, [])


async def test_a_replica_is_not_taken_for_a_primary_though_it_answers_like_one(
    replicated: ReplicatedCluster, pair: Pair, name: str
) -> None:
    old, new = pair.primary, pair.replica
    live = channel_on(replicated, replicated.nodes[0], name)
    async with publisher(replicated.url) as outside, hub_on(replicated, None) as hub:
        await outside.publish(live, "before")
        await asyncio.to_thread(pair.swap)
        # Both have the map of before, and nobody has told them.
        async with hub.subscribe(live) as events:
            # The old one confirmed first, and is told that it is left.
            await until(lambda: (old.hearers(live), new.hearers(live)) == (0, 1))
            published = new.calls("spublish")
            await outside.publish(live, "after")
            assert new.calls("spublish") == published + 1
            assert await take_data(events, 1) == ["after"]


async def test_what_the_old_primary_forwards_late_is_not_delivered_again(
    replicated: ReplicatedCluster, pair: Pair, name: str
) -> None:
    old, new = pair.primary, pair.replica
    both = channels_on(replicated, replicated.nodes[0], name)
    async with (
        hub_on(replicated, SOME_KEPT) as hub,
        hub.subscribe(both[0]) as of_live,
        hub.subscribe(both[1]) as of_kept,
    ):
        with old.overheard(both) as overheard:
            await hub.publish(both, "1")
            forwarded = await asyncio.to_thread(lambda: [next(overheard) for _ in both])
        await asyncio.to_thread(pair.swap)
        await until(lambda: hub.statistics().reconnects > 0 and hub.is_ready)
        await hub.publish(both, "2")
        with new.overheard(both) as overheard:
            for message in forwarded:
                old.ask("SPUBLISH", *message)
                assert await asyncio.to_thread(next, overheard) == message
        await hub.publish(both, "3")
        for events in (of_live, of_kept):
            items = await read_until(events, "3")
            assert [item.text if isinstance(item, Event) else "gap" for item in items] == ["1", "gap", "2", "3"]
        assert hub.statistics().gaps == 2


async def test_a_replica_that_was_behind_gives_no_position_again(
    replicated: ReplicatedCluster, pair: Pair, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_cluster, "MAP_SECONDS", 0.1)
    of_another = f"redis+cluster://127.0.0.1:{replicated.nodes[1].port}"
    async with (
        publisher(of_another, history=KEEP) as idle,
        hub_on(replicated, KEEP) as hub,
        hub.subscribe(channel) as events,
    ):
        await idle.publish(channel, "1")
        await publish_all(hub, channel, "23")
        await asyncio.to_thread(poll, pair.agrees)
        pair.part()
        await publish_all(hub, channel, "456")
        before = await take(events, 6)
        primary, replica = pair.primary, pair.replica
        primary.kill()
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        await until(lambda: hub.statistics().reconnects == 1)
        await hub.publish(channel, "7")
        gap, seventh = await take(events, 2)
        assert isinstance(gap, Gap)
        assert isinstance(seventh, Event)
        # The fourth number again, but of another epoch.
        assert [position.offset for position in positions([seventh])] == [4]
        assert len({*positions(before), *positions([seventh])}) == 7
        # What the replica had is kept, and what was lost is not passed over in silence.
        async with hub.subscribe(channel, history=-1) as past:
            assert await take_data(past, 4) == ["1", "2", "3", "7"]
        for position in positions(before):
            await assert_not_whole_since(hub, channel, position)
        async with hub.subscribe(channel, since=positions([seventh])[0]) as whole:
            assert whole.recovered
        # The dead one leaves nothing behind in this process, nor where nobody ever asks for it again.
        await until(lambda: not connections_to(primary.port))


async def test_a_primary_that_takes_its_place_back_gives_no_position_again(
    replicated: ReplicatedCluster, pair: Pair, channel: str
) -> None:
    """It is the same process with an older state, and nobody used the channel while another one had its place."""
    async with hub_on(replicated, KEEP) as hub:
        async with hub.subscribe(channel) as events:
            await publish_all(hub, channel, "123")
            await asyncio.to_thread(poll, pair.agrees)
            pair.part()
            await publish_all(hub, channel, "456")
            before = await take(events, 6)
        primary = pair.primary
        await asyncio.to_thread(pair.swap, "TAKEOVER")
        await asyncio.to_thread(pair.mend)
        await asyncio.to_thread(pair.swap)
        assert primary.is_primary
        async with hub.subscribe(channel) as events:
            await publish_all(hub, channel, "ABC")
            after = await take(events, 3)
        assert len({*positions(before), *positions(after)}) == 9
        for position in positions(before):
            await assert_not_whole_since(hub, channel, position)


async def test_who_is_at_a_primary_that_is_cut_off_goes_over_to_the_new_one(
    replicated: ReplicatedCluster, pair: Pair, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_cluster, "MAP_SECONDS", 0.1)
    primary, replica = pair.primary, pair.replica
    live, kept = both = channels_on(replicated, replicated.nodes[0], name)
    async with (
        publisher(replicated.url, history=SOME_KEPT) as outside,
        hub_on(replicated, SOME_KEPT) as hub,
        hub.subscribe(live) as of_live,
        hub.subscribe(kept) as of_kept,
    ):
        await outside.publish(both, "before")
        assert await take_data(of_live, 1) == await take_data(of_kept, 1) == ["before"]
        primary.isolate()
        try:
            await until(lambda: "cluster_state:fail" in primary.ask("CLUSTER", "INFO"))
            # As the server says it of a script with keys, and as the script without any says it.
            refused = [primary.errors(answer) for answer in ("CLUSTERDOWN", "TRYAGAIN")]
            publishing = asyncio.create_task(outside.publish(both, "meanwhile"))
            await until(lambda: replica.is_primary)
            assert primary.is_primary
            await within(publishing)
            assert all(
                primary.errors(each) > seen for each, seen in zip(("CLUSTERDOWN", "TRYAGAIN"), refused, strict=True)
            )
            await until(lambda: hub.statistics().reconnects > 0 and hub.is_ready)
            await outside.publish(both, "after")
            for events in (of_live, of_kept):
                items = await read_until(events, "after")
                assert isinstance(items[0], Gap)
                assert sum(isinstance(item, Gap) for item in items) == 1
        finally:
            replicated.rejoin()
        # It ends the subscriptions that it still has, which are nobody's any more.
        await until(lambda: not primary.is_primary)
        await outside.publish(both, "at rest")
        assert await take_data(of_live, 1) == await take_data(of_kept, 1) == ["at rest"]
