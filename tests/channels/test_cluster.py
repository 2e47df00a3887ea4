"""A cluster that loses a node or moves a slot: the channels there heal, the others do not notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from telex.channels import Channels, Event, Gap, Item, Keep, backend_from_url, publisher
from telex.channels.backends.redis_cluster import RedisClusterBackend
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException
from tests.channels.brokers import Broker, free_port
from tests.channels.cluster import Cluster, Node
from tests.channels.conftest import take, take_data, until, within
from tests.channels.load import Load, read_until, undeclared

KEEP = Keep(size=100_000, seconds=600)
LAST = 999_999


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")


@asynccontextmanager
async def hub_on(cluster: Cluster, keep: Keep | None) -> AsyncIterator[Channels]:
    options = {"history": keep, "subscriber_max_backlog": 100_000}
    async with Channels(cluster.url, arbitrary_channels_allowed=True, **options) as hub:  # type: ignore[arg-type]
        yield hub


def channel_on(cluster: Cluster, node: Node, name: str) -> str:
    """A channel of its own whose slot ``node`` has."""
    return next(each for each in (f"{name}:{number}" for number in range(1000)) if cluster.owner(each) is node)


class Followed:
    """A channel under load, and what its subscriber on another hub got."""

    def __init__(self, here: Channels, there: Channels, channel: str) -> None:
        self._here, self._there, self._channel = here, there, channel
        self.load = Load(here, channel)
        self.items: list[Item] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._there.subscribe(self._channel) as events:
            async with asyncio.TaskGroup() as group:
                loading = group.create_task(self.load.run())
                try:
                    yield
                    await self.load.has_taken(100)
                    await self.load.stop()
                except BaseException:
                    loading.cancel()
                    raise
            await self._here.publish(self._channel, str(LAST))
            self.items = await read_until(events, str(LAST))

    @property
    def gaps(self) -> int:
        return sum(isinstance(item, Gap) for item in self.items)

    def check(self) -> None:
        """In order, nothing twice, nothing missing without a gap in its place."""
        delivered = [int(item.text) for item in self.items if isinstance(item, Event)]
        assert delivered == sorted(set(delivered))
        assert undeclared(self.items[:-1], self.load.taken) == []


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
            async with there.subscribe(channel_on(running_cluster, healthy, f"{name}:new")) as new:
                await here.publish(list(new.rooms), "a healthy node serves who comes now")
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


async def test_a_frozen_node_is_noticed_by_publisher_and_reader(
    running_cluster: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telex.channels.feed.HEARTBEAT_SECONDS", 0.1)
    node = running_cluster.nodes[2]
    channel = channel_on(running_cluster, node, name)
    backend = RedisClusterBackend(running_cluster.url, timeout=0.5)
    async with Channels(backend, arbitrary_channels_allowed=True) as hub, hub.subscribe(channel) as events:
        node.freeze()
        try:
            with pytest.raises(BackendUnavailable):
                await within(hub.publish(channel, "cold"))
            await until(lambda: not hub.is_ready)
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
