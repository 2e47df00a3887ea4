"""The other processes that serve the same chat, on this machine or elsewhere, by channels over a broker.

A room's events are published, and events of other nodes are passed to the members here. Presence shows the members of
all nodes: when a node crashes, its members leave. The messages themselves are in the history's file, which all nodes of
a machine share; several machines would share a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_hex

import msgspec

from examples.chat.messages import News
from examples.chat.rooms import Member, Rooms
from telex.channels import Channels, Gap, Heartbeat, Joined, Keep, Left, Subscriber
from telex.channels.presence import Watch

CHANNEL = "chat"
BACKLOG = 10_000
"""Events of other nodes that may wait to be passed on."""


class Told(msgspec.Struct, frozen=True):
    """An event of a room at one node."""

    node: str
    room: str
    news: News


class Seat(msgspec.Struct, frozen=True):
    """The room of a member; with ``instead_of`` the member had another name before, as that presence."""

    node: str
    room: str
    instead_of: str | None = None


class Nodes:
    """The connection of this process to the others. Without a URL there are no others, and it does nothing."""

    def __init__(self, rooms: Rooms, url: str | None) -> None:
        self._rooms = rooms
        self._node = token_hex(8)
        self._shown: dict[Member, tuple[str, AsyncExitStack]] = {}
        self._hub: Channels | None = None
        if url is not None:
            # The history is short: it covers only the time in which the broker was unavailable.
            past, beat = Keep(size=1000, seconds=60), Heartbeat(seconds=1, lost_after=5)
            self._hub = Channels(url, channels=[CHANNEL], history=past, presence=beat)
            rooms.spread = self._tell

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Receive events and members of other nodes while the body runs."""
        if self._hub is None:
            yield
            return
        news = self._hub.subscribe(CHANNEL, max_backlog=BACKLOG, backlog_strategy="drop_oldest")
        async with self._hub, news as told, self._hub.presence.watch(CHANNEL) as watch, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._hear(told)), group.create_task(self._see(watch))]
            yield
            for task in tasks:
                task.cancel()

    @asynccontextmanager
    async def showing(self, member: Member) -> AsyncIterator[None]:
        """Publish the presence of ``member`` while the body runs."""
        await self.show(member)
        try:
            yield
        finally:
            if member in self._shown:
                _, tracked = self._shown.pop(member)
                await tracked.aclose()

    async def show(self, member: Member) -> None:
        """Publish the presence of ``member`` under its present name."""
        if self._hub is None:
            return
        ref, before = self._shown.get(member, (None, AsyncExitStack()))
        tracked = AsyncExitStack()
        seat = Seat(self._node, member.room.name, ref)
        shown = await tracked.enter_async_context(self._hub.presence.track(CHANNEL, member.name, seat))
        self._shown[member] = shown.ref, tracked
        await before.aclose()

    def _tell(self, room: str, news: News) -> None:
        if self._hub is not None:
            self._hub.publish_nowait(CHANNEL, Told(self._node, room, news))

    async def _hear(self, told: Subscriber) -> None:
        dropped = 0
        async for item in told:
            if isinstance(item, Gap) or told.dropped > dropped:
                dropped = told.dropped
                self._rooms.dismiss("events of other nodes were lost: reconnect to load them")
            if not isinstance(item, Gap):
                event = msgspec.json.decode(item.data, type=Told)
                if event.node != self._node:
                    self._rooms.heard(event.room, event.news)

    async def _see(self, watch: Watch) -> None:
        for member in watch.members:
            self._note(Joined(member))
        async for change in watch:
            self._note(change)

    def _note(self, change: Joined | Left) -> None:
        seat = msgspec.convert(change.member.meta, Seat)
        if seat.node == self._node:
            return
        if isinstance(change, Joined):
            self._rooms.came(seat.room, change.member.ref, change.member.key, seat.instead_of)
        else:
            self._rooms.went(seat.room, change.member.ref)
