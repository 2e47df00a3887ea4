"""Hubs on a cluster, and channels under load while something happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from telex.channels import Channels, Gap, Item, Keep
from tests.channels.cluster import Cluster, Node
from tests.channels.load import Load, disordered, read_until, undeclared

KEEP = Keep(size=100_000, seconds=600)
LAST = 999_999


@asynccontextmanager
async def hub_on(cluster: Cluster, keep: Keep | Mapping[str, Keep] | None) -> AsyncIterator[Channels]:
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
        assert disordered(self.items) == []
        assert undeclared(self.items[:-1], self.load.taken) == []
