"""The chat: a class listener with several kinds of message, presence by a dependency, and a stream of statistics.

``/rooms/{room}?name=Ada`` is a room, ``/statistics`` the stream, ``/`` the page. The history is in the file that the
environment variable ``CHAT_HISTORY`` names, ``chat.sqlite3`` in the working directory without. One process serves all
rooms, unless ``CHAT_CHANNELS`` names a broker, such as ``redis://localhost``: then all processes that use it are one
chat.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated

from examples.chat.messages import (
    Name,
    Recall,
    Recalled,
    Refused,
    Rename,
    RoomStatistics,
    Say,
    Statistics,
    Type,
    Typing,
    Welcome,
)
from examples.chat.nodes import Nodes
from examples.chat.page import page
from examples.chat.rooms import Member, Rooms
from examples.chat.store import History
from telex import Parameter, Provide, Telex, WebSocket, WebsocketListener, receives, websocket_stream

RECENT = 50
"""Messages that a new member, or a request for older ones, gets at once."""
QUIET = 10.0
"""Seconds after which statistics are sent again without a change."""
BREATH = 0.25
"""Least seconds between two statistics."""
LISTED = 20
"""Rooms that statistics list."""

RoomName = Annotated[str, Parameter(min_length=1, max_length=40, pattern=r"^[\w-]+$")]
MemberName = Annotated[Name, Parameter(query="name")]


async def join(room: RoomName, name: MemberName, rooms: Rooms, nodes: Nodes) -> AsyncIterator[Member]:
    """Presence: a connection is a member from its handshake to its end, for whatever reason it ends."""
    with rooms.joined(room, name) as member:
        async with nodes.showing(member):
            yield member


class Chat(WebsocketListener):
    """The messages of a room. The data of one connection is ``member``."""

    path = "/rooms/{room:str}"
    name = "room"
    dependencies = {"member": Provide(join)}

    async def on_accept(self, socket: WebSocket, member: Member, history: History) -> None:
        """Send members and messages; then stream the member's events."""
        recent = await history.last(member.room.name, RECENT)
        await socket.send_json(Welcome(member.name, member.room.name, member.room.names, recent))
        socket.start_stream(member.news(after=recent[-1].number if recent else 0))

    @receives
    async def say(self, data: Say, member: Member, history: History, rooms: Rooms) -> None:
        """Store the message and send it to all members, its author too, who so gets its number."""
        member.room.tell(await history.add(member.room.name, member.name, data.text.strip()))
        rooms.note_change()

    @receives
    def type(self, data: Type, member: Member) -> None:
        """Send it to the other members."""
        member.room.tell(Typing(member.name), but=member)

    @receives
    async def rename(self, data: Rename, member: Member, nodes: Nodes) -> Refused | None:
        """Send the new name to all members, unless it is taken."""
        if member.room.rename(member, data.name):
            await nodes.show(member)
            return None
        return Refused(f"{data.name} is taken")

    @receives
    async def recall(self, data: Recall, member: Member, history: History) -> Recalled:
        """Reply with older messages."""
        older = await history.last(member.room.name, RECENT, data.before)
        return Recalled(older, complete=len(older) < RECENT)


@websocket_stream("/statistics", name="statistics")
async def statistics(rooms: Rooms, history: History) -> AsyncGenerator[Statistics, None]:
    """The state of all rooms, whenever it changes."""
    while True:
        seen = rooms.version
        yield summary(rooms.counts, await history.totals())
        await asyncio.sleep(BREATH)
        await rooms.changed(seen, within=QUIET)


def summary(members: dict[str, int], messages: dict[str, int]) -> Statistics:
    """All rooms that have members or messages, those with the most members first."""
    names = sorted(members.keys() | messages, key=lambda name: (-members.get(name, 0), -messages.get(name, 0), name))
    return Statistics(
        sum(members.values()),
        sum(messages.values()),
        [RoomStatistics(name, members.get(name, 0), messages.get(name, 0)) for name in names[:LISTED]],
    )


def create_app(path: Path, channels: str | None = None) -> Telex:
    """The chat with its history in the file at ``path``, and its nodes connected by the broker at ``channels``."""
    history, rooms = History(path), Rooms()
    nodes = Nodes(rooms, channels)

    def opened(_: Telex) -> AbstractAsyncContextManager[None]:
        return history.open()

    def linked(_: Telex) -> AbstractAsyncContextManager[None]:
        return nodes.open()

    return Telex(
        [Chat, statistics],
        http=page,
        lifespan=[opened, linked],
        dependencies={
            "history": Provide(lambda: history),
            "rooms": Provide(lambda: rooms),
            "nodes": Provide(lambda: nodes),
        },
        max_message_size=16 * 1024,
    )


app = create_app(Path(os.environ.get("CHAT_HISTORY", "chat.sqlite3")), os.environ.get("CHAT_CHANNELS"))
