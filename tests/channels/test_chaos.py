"""Networks and brokers that fail in each way there is, judged by numbered events.

Nothing is lost without a notice, nothing comes twice, and ``is_ready`` tells whether publishing and hearing work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Connection

from telex.channels import Channels, Event, Gap, Keep, Subscriber
from telex.channels.backends.base import ChannelsBackend
from telex.channels.backends.nats import NatsBackend
from telex.channels.backends.postgres import PostgresBackend
from telex.channels.backends.redis import RedisBackend, RedisClusterBackend
from telex.exceptions import BackendUnavailable
from tests.channels.brokers import Broker, Nats, Postgres, Valkey
from tests.channels.cluster import Cluster
from tests.channels.conftest import WAIT, take, take_data, until, within
from tests.support.proxy import TcpProxy

pytestmark = [pytest.mark.broker, pytest.mark.slow]

KINDS = ["valkey", "nats", "postgres"]
BACKENDS: dict[str, Callable[..., ChannelsBackend]] = {
    "valkey": RedisBackend,
    "nats": NatsBackend,
    "postgres": PostgresBackend,
}
BROKERS: dict[str, type[Broker]] = {"valkey": Valkey, "nats": Nats, "postgres": Postgres}
KEEP = Keep(size=10_000, seconds=3600)
TIMEOUT = 2.0


WITH_CLUSTER = pytest.mark.parametrize("kind", [*KINDS, "valkey-cluster"], indirect=True)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


@pytest.fixture
async def proxy(
    request: pytest.FixtureRequest, kind: str, running_broker: Callable[[str], Broker]
) -> AsyncIterator[TcpProxy]:
    if kind != "valkey-cluster":
        async with TcpProxy(running_broker(kind).port) as between:
            yield between
        return
    cluster: Cluster = request.getfixturevalue("running_cluster")
    async with ClusterProxy([node.port for node in cluster.nodes]) as before_all:
        yield before_all


@pytest.fixture
def url(request: pytest.FixtureRequest, kind: str, running_broker: Callable[[str], Broker]) -> str:
    if kind == "valkey-cluster":
        return str(request.getfixturevalue("running_cluster").url)
    return running_broker(kind).url


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life are asked for more often, so that tests need not wait for them."""
    monkeypatch.setattr("telex.channels.recovery.reader.HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr("telex.channels.backends.base.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("telex.channels.backends.redis.cluster.MAP_SECONDS", 0.2)


@asynccontextmanager
async def hub_on(backend: ChannelsBackend | str, **options: object) -> AsyncIterator[Channels]:
    options.setdefault("history", {"kept:*": KEEP})
    async with Channels(backend, arbitrary_channels_allowed=True, **options) as hub:  # type: ignore[arg-type]
        yield hub


class ClusterProxy(TcpProxy):
    """A proxy before each node of a cluster: this one before the first, ``_others`` before the others."""

    def __init__(self, targets: list[int]) -> None:
        self._others = [TcpProxy(target) for target in targets[1:]]
        super().__init__(targets[0])

    async def __aenter__(self) -> ClusterProxy:
        await super().__aenter__()
        for other in self._others:
            await other.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        for other in self._others:
            await other.__aexit__(*raised)
        await super().__aexit__(*raised)

    def url(self, url: str) -> str:
        return f"redis+cluster://127.0.0.1:{self.port}"

    def address(self, address: tuple[str, int]) -> tuple[str, int]:
        """Where clients reach the node that the cluster has at ``address``."""
        ports = {each.target: each.port for each in (self, *self._others)}
        return address[0], ports.get(address[1], address[1])

    def black_hole(self, *directions: str) -> None:
        super().black_hole(*directions)
        for other in self._others:
            other.black_hole(*directions)

    def heal(self) -> None:
        super().heal()
        for other in self._others:
            other.heal()

    def cut(self) -> None:
        super().cut()
        for other in self._others:
            other.cut()

    def slow(self, delay: float, rate: float | None) -> None:
        super().slow(delay, rate)
        for other in self._others:
            other.slow(delay, rate)


def backend_at(kind: str, proxy: TcpProxy, url: str, timeout: float = TIMEOUT) -> ChannelsBackend:
    """A backend whose connections go through ``proxy``."""
    if not isinstance(proxy, ClusterProxy):
        return BACKENDS[kind](proxy.url(url), timeout=timeout)

    reachable = proxy.address

    class Behind(RedisClusterBackend):
        def connection_to(self, address: tuple[str, int]) -> Connection:
            return super().connection_to(reachable(address))

    return Behind(proxy.url(url), timeout=timeout)


class Judge:
    """Reads a stream of numbered events to the last one."""

    def __init__(self, subscriber: Subscriber, last: int) -> None:
        self.numbers: list[int] = []
        self.gaps = 0
        self._unmarked = 0
        self._subscriber = subscriber
        self._last = last

    async def read(self) -> None:
        marked = False
        async for item in self._subscriber:
            if isinstance(item, Gap):
                self.gaps, marked = self.gaps + 1, True
                continue
            number = int(item.text)
            if self.numbers and number != self.numbers[-1] + 1 and not marked:
                self._unmarked += 1
            marked = False
            self.numbers.append(number)
            if number == self._last:
                return

    def is_content(self) -> None:
        """Nothing is there twice or out of order, and each hole has a mark."""
        assert self.numbers == sorted(set(self.numbers))
        assert self._unmarked == 0


FAULTS: dict[str, Callable[[TcpProxy], object]] = {
    "cut": TcpProxy.cut,
    "black hole": TcpProxy.black_hole,
    "nothing arrives here": lambda proxy: proxy.black_hole("down"),
    "nothing leaves here": lambda proxy: proxy.black_hole("up"),
    "late": lambda proxy: proxy.slow(0.03, None),
    "slow": lambda proxy: proxy.slow(0.0, 200_000),
}


@WITH_CLUSTER
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_network_that_fails_loses_nothing_unannounced(
    kind: str, proxy: TcpProxy, url: str, name: str, fault: str
) -> None:
    kept, live, total = f"kept:{name}", name, 60
    async with (
        hub_on(url) as far,
        hub_on(backend_at(kind, proxy, url)) as near,
        near.subscribe(kept) as kept_events,
        near.subscribe(live) as live_events,
    ):
        judges = Judge(kept_events, total), Judge(live_events, total)
        reading = asyncio.gather(*(judge.read() for judge in judges))
        for number in range(total + 1):
            if number == 20:
                FAULTS[fault](proxy)
            if number == 40:
                if fault in {"black hole", "nothing arrives here", "nothing leaves here"}:
                    await until(lambda: not near.is_ready)
                proxy.heal()
                if fault not in {"late", "slow"}:
                    proxy.cut()
                    await until(lambda: near.is_ready and near.statistics().reconnects > 0)
            await far.publish([kept, live], str(number))
        await within(reading)
        judges[0].is_content()
        judges[1].is_content()
        assert judges[0].numbers == list(range(total + 1))
        assert judges[0].gaps == 0
        await until(lambda: near.is_ready)


@WITH_CLUSTER
async def test_publishers_behind_a_network_that_fails_know_what_did_not_arrive(
    kind: str, proxy: TcpProxy, url: str, name: str
) -> None:
    """What was confirmed has arrived, once and in order; what was not may have."""
    channel = f"kept:{name}"
    async with (
        hub_on(url) as far,
        far.subscribe(channel) as events,
        hub_on(backend_at(kind, proxy, url)) as near,
    ):
        confirmed: list[int] = []
        doubtful: list[int] = []
        for number in range(40):
            if number in {10, 20}:
                proxy.cut()
            try:
                await within(near.publish(channel, str(number)))
                confirmed.append(number)
            except BackendUnavailable:
                doubtful.append(number)
        await near.publish(channel, "40")
        judge = Judge(events, 40)
        await within(judge.read())
        assert judge.numbers == sorted(set(judge.numbers))
        assert set(confirmed) <= set(judge.numbers)
        assert set(judge.numbers) <= {*confirmed, *doubtful, 40}
        assert len(doubtful) <= 4


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_silent_connection_of_publishers_is_left_whatever_they_do(
    kind: str, proxy: TcpProxy, url: str, name: str, direction: str
) -> None:
    """The callers' time-outs are shorter than the backend's, and none of them may be needed at all."""
    async with hub_on(backend_at(kind, proxy, url)) as near, near.subscribe(name):
        await near.publish(name, "first")
        # The first connection publishes.
        proxy.hold(0)
        outcomes: list[str] = []
        async with asyncio.timeout(WAIT):
            while outcomes[-1:] != ["ok"]:
                try:
                    async with asyncio.timeout(TIMEOUT / 5):
                        await near.publish(name, "x")
                    outcomes.append("ok")
                except (TimeoutError, BackendUnavailable) as error:
                    outcomes.append(type(error).__name__)
        assert len(outcomes) > 1
        proxy.heal()
        proxy.hold(proxy.accepted - 1)
        await until(lambda: not near.is_ready)
        await until(lambda: near.is_ready)


async def test_a_frozen_broker_is_noticed_by_both_ends_and_costs_callers_their_own_time(kind: str) -> None:
    broker = BROKERS[kind]()
    try:
        await broker.restart()
        async with hub_on(BACKENDS[kind](broker.url, timeout=TIMEOUT)) as hub, hub.subscribe("kept:a") as events:
            await hub.publish("kept:a", "0")
            broker.freeze()
            begun = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(TIMEOUT / 5):
                    await hub.publish("kept:a", "x")
            assert time.monotonic() - begun < TIMEOUT
            await until(lambda: not hub.is_ready)
            broker.thaw()
            await until(lambda: hub.is_ready)
            await hub.publish("kept:a", "last")
            heard = await take_data(events, 2)
            heard += await take_data(events, 1) if heard[-1] == "x" else []
            assert heard in (["0", "last"], ["0", "x", "last"])
    finally:
        broker.thaw()
        broker.remove()


async def test_a_killed_broker_is_noticed_at_once_by_both_ends(kind: str) -> None:
    broker = BROKERS[kind]()
    try:
        await broker.restart()
        async with hub_on(BACKENDS[kind](broker.url, timeout=TIMEOUT)) as hub, hub.subscribe("a") as events:
            broker.kill()
            await until(lambda: not hub.is_ready)
            with pytest.raises(BackendUnavailable):
                await hub.publish("a", "lost")
            await broker.restart()
            await until(lambda: hub.is_ready)
            await hub.publish("a", "again")
            first, second = await take(events, 2)
            assert isinstance(first, Gap)
            assert isinstance(second, Event)
    finally:
        broker.remove()


@WITH_CLUSTER
async def test_a_past_that_takes_longer_than_the_time_out_is_caught_up_without_harm_to_others(
    kind: str, proxy: TcpProxy, url: str, name: str
) -> None:
    """The past of ten channels: each page of it waits for those of the other channels too."""
    channels, other = [f"kept:{name}:{number}" for number in range(10)], f"{name}:other"
    async with (
        hub_on(url) as far,
        hub_on(backend_at(kind, proxy, url, timeout=1.0)) as near,
        near.subscribe(channels, max_backlog=1000) as events,
        near.subscribe(other) as others,
    ):
        proxy.black_hole()
        proxy.cut()
        await until(lambda: not near.is_ready)
        for number in range(4):
            await far.publish(channels, f"{number:03}" + "x" * 50_000)
        proxy.heal()
        proxy.slow(0.0, 1_000_000)
        await until(lambda: near.is_ready)
        reconnects, gaps = near.statistics().reconnects, near.statistics().gaps
        heard: dict[str, list[int]] = {}
        for item in await take(events, 40):
            assert isinstance(item, Event)
            heard.setdefault(item.channel, []).append(int(item.data[:3]))
        assert heard == {channel: [*range(4)] for channel in channels}
        await near.publish(other, "still here")
        await until(lambda: others.qsize > 0)
        assert (near.statistics().reconnects, near.statistics().gaps) == (reconnects, gaps)
        assert (await take(others, 2))[1:] == [Event(other, b"still here", kind="text")]
