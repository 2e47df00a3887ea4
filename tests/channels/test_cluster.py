"""A cluster that loses a node or moves a slot: the channels there heal, the others do not notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from redis.crc import key_slot

from telex.channels import Channels, Event, Gap, Keep, backend_from_url, publisher
from telex.channels.backends.redis import RedisClusterBackend
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException
from tests.channels.brokers import Broker
from tests.channels.cluster import Cluster, name_of
from tests.channels.cluster_load import KEEP, Followed, channel_on, hub_on
from tests.channels.conftest import take, take_data, until, within
from tests.channels.load import read_until
from tests.support.ports import free_port

pytestmark = pytest.mark.broker


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")


@pytest.mark.parametrize("keep", [KEEP, None], ids=["history", "live"])
async def test_a_node_killed_under_load_takes_only_its_own_channels(
    running_cluster: Cluster, keep: Keep | None, name: str
) -> None:
    victim, healthy, _ = running_cluster.nodes
    async with hub_on(running_cluster, keep) as here, hub_on(running_cluster, keep) as there:
        struck = Followed(here, there, channel_on(running_cluster, victim, name))
        spared = Followed(here, there, channel_on(running_cluster, healthy, name))
        async with struck.running(), spared.running():
            await struck.load.has_taken(100)
            victim.kill()
            await until(lambda: not there.is_ready)
            await until(lambda: len(struck.load.refused) > 1)
            await spared.load.has_taken(100)
            waiting = asyncio.ensure_future(there.subscribe(channel_on(running_cluster, victim, f"{name}:waits")))
            async with there.subscribe(other := channel_on(running_cluster, healthy, f"{name}:new")) as new:
                await here.publish(other, "a healthy node serves who comes now")
                assert len(await take(new, 1)) == 1
            assert not waiting.done()
            await victim.restart()
            await there.unsubscribe(await within(waiting))
            await until(lambda: there.is_ready)
        struck.check()
        assert struck.gaps == there.statistics().gaps == 1
        spared.check()
        assert (spared.gaps, spared.load.refused) == (0, [])
        assert there.statistics().reconnects == 1
    await asyncio.to_thread(running_cluster.wait)


@pytest.mark.parametrize("keep", [KEEP, None], ids=["history", "live"])
async def test_a_slot_that_moves_under_load_is_followed(running_cluster: Cluster, keep: Keep | None, name: str) -> None:
    source, target, _ = running_cluster.nodes
    async with hub_on(running_cluster, keep) as here, hub_on(running_cluster, keep) as there:
        moved = Followed(here, there, channel_on(running_cluster, source, f"{name}:moved"))
        other = Followed(here, there, channel_on(running_cluster, source, f"{name}:other"))
        async with moved.running(), other.running():
            await moved.load.has_taken(100)
            await asyncio.to_thread(running_cluster.move, moved.load.channel, target)
            await until(lambda: there.statistics().reconnects > 0)
        moved.check()
        assert (moved.gaps, moved.load.refused) == (1, [])
        other.check()
        assert (other.gaps, other.load.refused) == (0, [])
        # A hub that comes now asks the same node as one that was there.
        async with hub_on(running_cluster, keep) as late, late.subscribe(moved.load.channel) as events:
            await here.publish(moved.load.channel, "late")
            assert await take_data(events, 1) == ["late"]


@pytest.mark.parametrize(("answer", "keys"), [("ASK", 10), ("TRYAGAIN", 1)])
async def test_a_publish_waits_for_a_slot_that_is_on_its_way(
    running_cluster: Cluster, answer: str, keys: int, name: str
) -> None:
    source, target, _ = running_cluster.nodes
    channel = channel_on(running_cluster, source, name)
    async with hub_on(running_cluster, KEEP) as hub, hub.subscribe(channel) as events:
        await hub.publish(channel, "1")
        running_cluster.begin_move(channel, target, keys)
        before = source.errors(answer)
        publishing = asyncio.create_task(hub.publish(channel, "2"))
        await until(lambda: source.errors(answer) > before)
        assert not publishing.done()
        running_cluster.end_move(channel, target)
        await within(publishing)
        await until(lambda: hub.statistics().reconnects == 1)
        await hub.publish(channel, "3")
        items = await read_until(events, "3")
        assert [type(item) for item in items if not isinstance(item, Event) or item.text != "2"] == [Event, Gap, Event]
        # What is kept moves along.
        async with hub.subscribe(channel, history=-1) as past:
            assert await take_data(past, 3) == ["1", "2", "3"]


async def test_a_slot_that_does_not_arrive_is_an_error_in_time(running_cluster: Cluster, name: str) -> None:
    source, target, _ = running_cluster.nodes
    channel = channel_on(running_cluster, source, name)
    backend = RedisClusterBackend(running_cluster.url, timeout=0.2)
    async with Channels(backend, arbitrary_channels_allowed=True, history=KEEP) as hub:
        running_cluster.begin_move(channel, target)
        with pytest.raises(BackendUnavailable, match=r"no node of the cluster for 0\.4 s: AskError: \d+ 127"):
            await within(hub.publish(channel, "1"))
        running_cluster.end_move(channel, target)
        await within(hub.publish(channel, "2"))
        assert (await hub.position(channel)).offset == 1


async def test_nodes_that_send_a_publisher_to_one_another_are_an_error_in_time(name: str) -> None:
    """The slot's owner says that another node has it, and that node says the opposite; other slots go on."""
    cluster = Cluster()
    try:
        await asyncio.to_thread(cluster.start)
        source, target, third = cluster.nodes
        channel, other = channel_on(cluster, source, name), channel_on(cluster, third, name)
        backend = RedisClusterBackend(cluster.url, timeout=0.5)
        async with (
            Channels(backend, arbitrary_channels_allowed=True, history=KEEP) as hub,
            hub.subscribe(other) as events,
        ):
            source.ask("CLUSTER", "SETSLOT", key_slot(name_of(channel)), "NODE", target.node_id)
            with pytest.raises(BackendUnavailable, match=r"no node of the cluster for 1 s: MovedError: \d+ 127"):
                await within(hub.publish(channel, "refused"))
            await hub.publish(other, "still heard")
            assert await take_data(events, 1) == ["still heard"]
            assert hub.statistics().gaps == 0
    finally:
        cluster.remove()


async def test_a_cluster_that_is_down_tells_the_publisher_so(name: str) -> None:
    """With full coverage one lost node stops all slots, when the others have noticed it."""
    cluster = Cluster("--cluster-require-full-coverage yes")
    try:
        await asyncio.to_thread(cluster.start)
        victim, spared, _ = cluster.nodes
        backend = RedisClusterBackend(cluster.url, timeout=0.5)
        async with Channels(backend, arbitrary_channels_allowed=True, history=KEEP) as hub:
            channel = channel_on(cluster, spared, name)
            await hub.publish(channel, "1")
            victim.kill()
            await until(lambda: "cluster_state:fail" in spared.ask("CLUSTER", "INFO"))
            with pytest.raises(BackendUnavailable, match="The cluster is down"):
                await within(hub.publish(channel, "2"))
            await victim.restart()
            await asyncio.to_thread(cluster.wait)
            await within(hub.publish(channel, "3"))
    finally:
        cluster.remove()


@pytest.mark.parametrize("keep", [KEEP, None], ids=["history", "live"])
async def test_a_publisher_with_an_old_map_finds_the_new_node(
    running_cluster: Cluster, keep: Keep | None, name: str
) -> None:
    source, target, _ = running_cluster.nodes
    channel = channel_on(running_cluster, source, name)
    async with publisher(running_cluster.url, history=keep) as old:
        await old.publish(channel, "there")
        running_cluster.move(channel, target)
        # What publishes live is a script without a key: it is told by the command inside, and says so in its own words.
        before = source.errors("MOVED") + source.errors("TRYAGAIN")
        async with hub_on(running_cluster, keep) as hub, hub.subscribe(channel) as events:
            await old.publish(channel, "here")
            assert await take_data(events, 1) == ["here"]
        assert source.errors("MOVED") + source.errors("TRYAGAIN") > before


async def test_a_frozen_node_is_noticed_by_publisher_and_reader(
    running_cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telex.channels.recovery.reader.HEARTBEAT_SECONDS", 0.1)
    node = running_cluster.nodes[2]
    channel = channel_on(running_cluster, node, name)
    backend = RedisClusterBackend(running_cluster.url, timeout=0.5)
    async with Channels(backend, arbitrary_channels_allowed=True) as hub, hub.subscribe(channel) as events:
        node.freeze()
        try:
            with pytest.raises(BackendUnavailable):
                await within(hub.publish(channel, "cold"))
            await until(lambda: not hub.is_ready)
            reader = hub._reader
            await until(lambda: reader is not None and not reader.connected.is_set())
        finally:
            node.thaw()
        await until(lambda: hub.is_ready)
        assert isinstance((await take(events, 1))[0], Gap)
        await hub.publish(channel, "warm")
        assert isinstance((await take(events, 1))[0], Event)
    await asyncio.to_thread(running_cluster.wait)


async def test_the_first_node_that_answers_tells_of_the_others(running_cluster: Cluster, name: str) -> None:
    alive = running_cluster.nodes[1].port
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{alive}"
    names = [channel_on(running_cluster, node, name) for node in running_cluster.nodes]
    async with Channels(url, arbitrary_channels_allowed=True) as hub, hub.subscribe(names) as events:
        async with publisher(url) as elsewhere:
            await elsewhere.publish(names, "to each")
        assert {item.channel for item in await take(events, 3)} == set(names)


async def test_a_cluster_that_does_not_answer_is_no_start() -> None:
    with pytest.raises(BackendUnavailable, match="no node of the cluster answers"):
        await within(Channels(f"redis+cluster://127.0.0.1:{free_port()}", channels=["a"]).__aenter__())


async def test_a_server_that_is_no_cluster_is_no_start(running_broker: Callable[[str], Broker]) -> None:
    url = f"redis+cluster://127.0.0.1:{running_broker('valkey').port}"
    with pytest.raises(BackendUnavailable, match="cluster support disabled"):
        await within(Channels(url, channels=["a"]).__aenter__())


def test_a_url_without_a_node_is_an_error_of_the_description() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="names no node"):
        backend_from_url("redis+cluster://")
