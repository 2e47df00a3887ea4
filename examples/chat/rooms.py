"""Who is in which room, and what each member is still to be told.

A room tells its members by putting into their queues, which never waits: each member's own stream sends from there.
One who does not take what it is told is asked to leave, so that nobody's slowness is another's. Members may be
elsewhere too, at other nodes, which tell them themselves (see ``nodes.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from examples.chat.messages import News, Presence, Said
from telex import WebSocketException

BACKLOG = 100
"""News that may wait for a member."""

Spread: TypeAlias = Callable[[str, News], None]
"""Tells other nodes what a room, by its name, has told."""


class Member:
    """Somebody in a room."""

    def __init__(self, room: Room, name: str) -> None:
        self.room = room
        self.name = name
        self._news: asyncio.Queue[News | WebSocketException] = asyncio.Queue(BACKLOG)

    def tell(self, news: News) -> None:
        """Put ``news`` into the queue, or the wish to leave where it is full."""
        try:
            self._news.put_nowait(news)
        except asyncio.QueueFull:
            self.dismiss(WebSocketException(1013, "you are too slow for this room"))

    def dismiss(self, why: WebSocketException) -> None:
        """Put the wish to leave into the queue, if need be instead of news."""
        if self._news.full():
            self._news.get_nowait()
        self._news.put_nowait(why)

    async def news(self, after: int) -> AsyncGenerator[News, None]:
        """Whatever the room tells from now on, without messages up to the number ``after``.

        :raises WebSocketException: 1013, the member was too slow; 1012, what other nodes told was lost.
        """
        while True:
            news = await self._news.get()
            if isinstance(news, WebSocketException):
                raise news
            if not (isinstance(news, Said) and news.number <= after):
                yield news


class Room:
    """The members of one room: those here, and the names of those at other nodes."""

    def __init__(self, name: str, spread: Spread | None = None) -> None:
        self.name = name
        self.elsewhere: dict[str, str] = {}
        self._spread = spread
        self._members: list[Member] = []

    @property
    def names(self) -> list[str]:
        """Who is in the room, in the order of arrival; those at other nodes come last."""
        return [*(member.name for member in self._members), *self.elsewhere.values()]

    def tell(self, news: News, *, but: Member | None = None) -> None:
        """Tell all members, or all but one, and the other nodes."""
        self.tell_here(news, but=but)
        if self._spread is not None:
            self._spread(self.name, news)

    def tell_here(self, news: News, *, but: Member | None = None) -> None:
        """Tell all members that are here, or all but one."""
        for member in self._members:
            if member is not but:
                member.tell(news)

    def add(self, wanted: str) -> Member:
        """A new member, under the name that it wants, or with a number where somebody has that name."""
        member = Member(self, self._free(wanted))
        self._members.append(member)
        self.tell_here(Presence("came", member.name, self.names), but=member)
        return member

    def remove(self, member: Member) -> None:
        """The member has left."""
        self._members.remove(member)
        self.tell_here(Presence("left", member.name, self.names))

    def rename(self, member: Member, name: str) -> bool:
        """Give a member another name, unless somebody else has it; whether that was so."""
        if name in self.names:
            return name == member.name
        was, member.name = member.name, name
        self.tell_here(Presence("renamed", name, self.names, was))
        return True

    def dismiss(self, why: WebSocketException) -> None:
        """Ask all members that are here to leave."""
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
        """Be a member of a room, which exists as long as it has members."""
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
        """How many members each room has."""
        return {name: len(room.names) for name, room in self._rooms.items()}

    def note_change(self) -> None:
        """Somebody came, went or said something: wake those who wait for that."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    # -- what other nodes tell

    def heard(self, room: str, news: News) -> None:
        """Another node's room told something."""
        if isinstance(news, Said):
            self.note_change()
        if room in self._rooms:
            self._rooms[room].tell_here(news)

    def came(self, room: str, ref: str, name: str, instead_of: str | None) -> None:
        """Somebody is at another node; if ``instead_of`` somebody who was, it has taken another name."""
        place = self._room(room)
        was = place.elsewhere.pop(instead_of, None) if instead_of else None
        place.elsewhere[ref] = name
        place.tell_here(Presence("came" if was is None else "renamed", name, place.names, was))
        self.note_change()

    def went(self, room: str, ref: str) -> None:
        """Somebody is no longer at another node. Who has taken another name is known by that alone."""
        place = self._rooms.get(room)
        if place is not None and ref in place.elsewhere:
            name = place.elsewhere.pop(ref)
            place.tell_here(Presence("left", name, place.names))
            self._leave(place)

    def dismiss(self, reason: str) -> None:
        """Ask everybody to leave and come back: they have missed something."""
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
