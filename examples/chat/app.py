"""The chat: a channel for each room, presence, messages in a database, and a stream of statistics.

``/rooms/{room}?name=Ada`` is a room, ``/rooms/{room}/messages`` its stored messages, ``/statistics`` the stream, ``/``
the page. The messages are in the file that the environment variable ``CHAT_HISTORY`` names, ``chat.sqlite3`` in the
working directory without. One process serves all rooms, unless ``CHAT_CHANNELS`` names a broker, such as
``redis://localhost``: then all processes that use it are one chat.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from examples.chat.messages import Name, RoomStatistics, Said, Say, Statistics, Type, Typing
from examples.chat.page import create_page
from examples.chat.store import History
from telex import Parameter, Provide, Telex, channel_listener, websocket_stream
from telex.channels import Channels, Heartbeat, Keep

EVERYONE = "everyone"
"""The channel in which each member of any room is present; its metadata is the room."""
PERIOD = 0.3
"""Seconds between two looks for a change of the statistics."""
LISTED = 20
"""Rooms that statistics list."""

RoomName = Annotated[str, Parameter(min_length=1, max_length=40, pattern=r"^[\w-]+$")]
MemberName = Annotated[Name, Parameter(query="name")]


@dataclass
class Member:
    """One connection to a room. ``tab`` is the page's own mark, by which it recognises itself among the members."""

    room: str
    name: str
    tab: str
    was: str


async def join(
    room: RoomName, name: MemberName, channels: Channels, tab: str = "", was: str = ""
) -> AsyncIterator[Member]:
    """A member with this name, or with a number added where the name is taken. ``was`` is its name before."""
    taken = {each.key for each in channels.presence.members(EVERYONE) if each.meta == room}
    free, number = name, 2
    while free in taken:
        free, number = f"{name} {number}", number + 1
    async with channels.presence.track(EVERYONE, free, room):
        yield Member(room, free, tab, was)


def show(member: Member) -> tuple[str, object]:
    """What the members of a room see of each other."""
    return member.name, {"tab": member.tab, "was": member.was}


async def publish(data: Say | Type, member: Member, history: History) -> Said | Typing:
    """What the members of a room get for a message of one of them."""
    if isinstance(data, Type):
        return Typing(member.name)
    return await history.add(member.room, member.name, data.text.strip())


room = channel_listener(
    "/rooms/{room:str}",
    channel="room:{room}",
    publish=Say | Type,
    on_publish=publish,
    presence=show,
    dependencies={"member": Provide(join)},
)


@websocket_stream("/statistics", name="statistics")
async def statistics(channels: Channels, history: History) -> AsyncGenerator[Statistics, None]:
    """The state of all rooms, whenever it has changed."""
    seen = None
    while True:
        members = Counter(str(member.meta) for member in channels.presence.members(EVERYONE))
        if (now := summary(members, await history.totals())) != seen:
            yield now
            seen = now
        await asyncio.sleep(PERIOD)


def summary(members: Counter[str], messages: dict[str, int]) -> Statistics:
    """All rooms that have members or messages, those with the most members first."""
    names = sorted(members.keys() | messages, key=lambda name: (-members[name], -messages.get(name, 0), name))
    return Statistics(
        members.total(),
        sum(messages.values()),
        [RoomStatistics(name, members[name], messages.get(name, 0)) for name in names[:LISTED]],
    )


def create_app(path: Path, broker: str = "memory://") -> Telex:
    """The chat with its messages in the file at ``path``; all processes with the same broker are one chat."""
    history = History(path)
    channels = Channels(
        broker,
        arbitrary_channels_allowed=True,
        history={"room:*": Keep(size=500, seconds=3600)},
        presence=Heartbeat(seconds=1, lost_after=5),
    )

    def opened(_: Telex) -> AbstractAsyncContextManager[None]:
        return history.open()

    return Telex(
        [room, statistics],
        http=create_page(history),
        lifespan=[opened],
        plugins=[channels],
        dependencies={"history": Provide(lambda: history)},
        max_message_size=16 * 1024,
    )


app = create_app(Path(os.environ.get("CHAT_HISTORY", "chat.sqlite3")), os.environ.get("CHAT_CHANNELS") or "memory://")
