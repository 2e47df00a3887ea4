"""Brokers for a whole session, and hubs on them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Protocol, TypeVar

import pytest

from telex.channels import Channels, ChannelsBackend, Event, Item, Keep, MemoryBackend, Subscriber, backend_from_url
from tests.channels.brokers import Broker, Nats, Postgres, Redis6, Valkey
from tests.channels.cluster import Cluster

WAIT = 30.0
"""The limit of a wait that must succeed; long, because the machine may be busy."""
KEEP = Keep(size=50, seconds=60)

_names = itertools.count()


@pytest.fixture(scope="session")
def running_broker() -> Iterator[Callable[[str], Broker]]:
    """A broker by its kind, started at the first use."""
    kinds: dict[str, type[Broker]] = {"valkey": Valkey, "redis6": Redis6, "nats": Nats, "postgres": Postgres}
    running: dict[str, Broker] = {}

    def of(kind: str) -> Broker:
        if kind not in running:
            running[kind] = kinds[kind]()
            running[kind].start()
        return running[kind]

    yield of
    for broker in running.values():
        broker.remove()


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """A cluster for the tests that only use it."""
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


class MakeHub(Protocol):
    """Starts a hub: each is as a node of its own, on the test's broker."""

    def __call__(self, **options: object) -> Awaitable[Channels]: ...


class Engine:
    """What one contract test runs on."""

    def __init__(self, kind: str, new_backend: Callable[[], ChannelsBackend]) -> None:
        self.kind = kind
        self.new_backend = new_backend


ENGINES = ["memory", "valkey", "redis6", "valkey-cluster", "nats", "postgres"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, running_broker: Callable[[str], Broker]) -> Engine:
    """The brokers, one after another."""
    kind: str = request.param
    if kind == "memory":
        shared = MemoryBackend()
        return Engine(kind, lambda: shared)
    url = request.getfixturevalue("running_cluster").url if kind == "valkey-cluster" else running_broker(kind).url
    return Engine(kind, lambda: backend_from_url(url))


@pytest.fixture
async def make_hub(engine: Engine) -> AsyncIterator[MakeHub]:
    async with AsyncExitStack() as stack:

        async def make(**options: object) -> Channels:
            options.setdefault("arbitrary_channels_allowed", True)
            return await stack.enter_async_context(Channels(engine.new_backend(), **options))  # type: ignore[arg-type]

        yield make


@pytest.fixture
async def channels() -> AsyncIterator[Channels]:
    """A hub in memory."""
    async with Channels("memory://", arbitrary_channels_allowed=True) as hub:
        yield hub


@pytest.fixture
def name() -> str:
    """A channel that no other test uses."""
    return f"test:{next(_names)}"


T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float = WAIT) -> T:
    """The result, or a failure when it takes too long."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def take(subscriber: Subscriber, count: int) -> list[Item]:
    """The next items."""
    return [await within(anext(subscriber)) for _ in range(count)]


async def take_data(subscriber: Subscriber, count: int) -> list[str]:
    """The text of the next items, all of which are events."""
    items = await take(subscriber, count)
    assert all(isinstance(item, Event) for item in items), items
    return [item.text for item in items if isinstance(item, Event)]


async def until(condition: Callable[[], bool], seconds: float = WAIT) -> None:
    """Come back when ``condition`` holds; for what no event tells, such as a broker's own figures."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the broker tells by no event
            await asyncio.sleep(0.005)
