"""The members of each room, and the queue of events of each member.

A room puts its events into its members' queues, which never waits: each member's own stream sends from there. A member
whose queue is full is closed, so that a slow member does not delay others. Members may be at other nodes too, which
send to them (see ``nodes.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from examples.chat.messages import News, Presence, Said
from telex import WebSocketException

BACKLOG = 100
"""Events that may wait for a member."""

Spread: TypeAlias = Callable[[str, News], None]
"""Publishes an event of a room, by its name, to other nodes."""


class Member:
    """A member of a room."""

    def __init__(self, room: Room, name: str) -> None:
        self.room = room
        self.name = name
        self._news: asyncio.Queue[News | WebSocketException] = asyncio.Queue(BACKLOG)

    def tell(self, news: News) -> None:
        """Put ``news`` into the queue, or the request to leave if it is full."""
        try:
            self._news.put_nowait(news)
        except asyncio.QueueFull:
            self.dismiss(WebSocketException(1013, "you are too slow for this room"))

    def dismiss(self, why: WebSocketException) -> None:
        """Put the request to leave into the queue, in place of an event if it is full."""
        if self._news.full():
            self._news.get_nowait()
        self._news.put_nowait(why)

    async def news(self, after: int) -> AsyncGenerator[News, None]:
        """The events of the room from now on, without messages up to the number ``after``.

        :raises WebSocketException: 1013, the member was too slow; 1012, events of other nodes were lost.
        """
        while True:
            news = await self._news.get()
            if isinstance(news, WebSocketException):
                raise news
            if not (isinstance(news, Said) and news.number <= after):
                yield news


class Room:
    """The members of one room: those at this node, and the names of those at other nodes."""

    def __init__(self, name: str, spread: Spread | None = None) -> None:
        self.name = name
        self.elsewhere: dict[str, str] = {}
        self._spread = spread
        self._members: list[Member] = []

    @property
    def names(self) -> list[str]:
        """The names of the members, in the order of arrival; those at other nodes last."""
        return [*(member.name for member in self._members), *self.elsewhere.values()]

    def tell(self, news: News, *, but: Member | None = None) -> None:
        """Send to all members, or all but one, and to the other nodes."""
        self.tell_here(news, but=but)
        if self._spread is not None:
            self._spread(self.name, news)

    def tell_here(self, news: News, *, but: Member | None = None) -> None:
        """Send to all members at this node, or all but one."""
        for member in self._members:
            if member is not but:
                member.tell(news)

    def add(self, wanted: str) -> Member:
        """A new member with this name, or with a number added where the name is taken."""
        member = Member(self, self._free(wanted))
        self._members.append(member)
        self.tell_here(Presence("came", member.name, self.names), but=member)
        return member

    def remove(self, member: Member) -> None:
        """The member has left."""
        self._members.remove(member)
        self.tell_here(Presence("left", member.name, self.names))

    def rename(self, member: Member, name: str) -> bool:
        """Give a member another name, unless it is taken; returns whether it was."""
        if name in self.names:
            return name == member.name
        was, member.name = member.name, name
        self.tell_here(Presence("renamed", name, self.names, was))
        return True

    def dismiss(self, why: WebSocketException) -> None:
        """Close all members at this node."""
        for member in self._members:
            member.dismiss(why)

    def _free(self, wanted: str) -> str:
        taken, name, number = set(self.names), wanted, 2
        while name in taken:
            name, number = f"{wanted} {number}", number + 1
        return name


class Rooms:
    """All rooms that have members."""

    def __init__(self) -> None:
        self.version = 0
        """Grows whenever something has changed."""
        self.spread: Spread | None = None
        self._rooms: dict[str, Room] = {}
        self._changed = asyncio.Event()

    @contextmanager
    def joined(self, room: str, name: str) -> Iterator[Member]:
        """Make a member of a room, which exists while it has members."""
        place = self._room(room)
        member = place.add(name)
        self.note_change()
        try:
            yield member
        finally:
            place.remove(member)
            self._leave(place)

    @property
    def counts(self) -> dict[str, int]:
        """The number of members of each room."""
        return {name: len(room.names) for name, room in self._rooms.items()}

    def note_change(self) -> None:
        """Record a change and wake the tasks that wait for one."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    # -- events of other nodes

    def heard(self, room: str, news: News) -> None:
        """A room at another node sent an event."""
        if isinstance(news, Said):
            self.note_change()
        if room in self._rooms:
            self._rooms[room].tell_here(news)

    def came(self, room: str, ref: str, name: str, instead_of: str | None) -> None:
        """A member joined at another node, or changed its name if ``instead_of`` was a member."""
        place = self._room(room)
        was = place.elsewhere.pop(instead_of, None) if instead_of else None
        place.elsewhere[ref] = name
        place.tell_here(Presence("came" if was is None else "renamed", name, place.names, was))
        self.note_change()

    def went(self, room: str, ref: str) -> None:
        """A member left another node; a change of name has removed the old one already."""
        place = self._rooms.get(room)
        if place is not None and ref in place.elsewhere:
            name = place.elsewhere.pop(ref)
            place.tell_here(Presence("left", name, place.names))
            self._leave(place)

    def dismiss(self, reason: str) -> None:
        """Close all members so that they reconnect: events were lost."""
        for room in self._rooms.values():
            room.dismiss(WebSocketException(1012, reason))

    def _room(self, name: str) -> Room:
        return self._rooms.setdefault(name, Room(name, self.spread))

    def _leave(self, place: Room) -> None:
        if not place.names:
            del self._rooms[place.name]
        self.note_change()

    async def changed(self, since: int, within: float) -> None:
        """Wait, for ``within`` seconds at most, until something has changed since that version."""
        if self.version == since:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._changed.wait()
