"""Who is in which room, and what each member is still to be told.

A room tells its members by putting into their queues, which never waits: each member's own stream sends from there.
One who does not take what it is told is asked to leave, so that nobody's slowness is another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

from examples.chat.messages import News, Presence, Said
from telex import WebSocketException

BACKLOG = 100
"""News that may wait for a member."""


class Member:
    """Somebody in a room."""

    def __init__(self, room: Room, name: str) -> None:
        self.room = room
        self.name = name
        self._news: asyncio.Queue[News | None] = asyncio.Queue(BACKLOG)

    def tell(self, news: News) -> None:
        """Put ``news`` into the queue, or the wish to leave where it is full."""
        try:
            self._news.put_nowait(news)
        except asyncio.QueueFull:
            self._news.get_nowait()
            self._news.put_nowait(None)

    async def news(self, after: int) -> AsyncGenerator[News, None]:
        """Whatever the room tells from now on, without messages up to the number ``after``.

        :raises WebSocketException: 1013, the member was too slow.
        """
        while (news := await self._news.get()) is not None:
            if not (isinstance(news, Said) and news.number <= after):
                yield news
        raise WebSocketException(1013, "you are too slow for this room")


class Room:
    """The members of one room."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._members: list[Member] = []

    @property
    def names(self) -> list[str]:
        """Who is here, in the order of arrival."""
        return [member.name for member in self._members]

    def tell(self, news: News, *, but: Member | None = None) -> None:
        """Tell all members, or all but one."""
        for member in self._members:
            if member is not but:
                member.tell(news)

    def add(self, wanted: str) -> Member:
        """A new member, under the name that it wants, or with a number where somebody has that name."""
        member = Member(self, self._free(wanted))
        self._members.append(member)
        self.tell(Presence("came", member.name, self.names), but=member)
        return member

    def remove(self, member: Member) -> None:
        """The member has left."""
        self._members.remove(member)
        self.tell(Presence("left", member.name, self.names))

    def rename(self, member: Member, name: str) -> bool:
        """Give a member another name, unless somebody else has it; whether that was so."""
        if name in self.names:
            return name == member.name
        was, member.name = member.name, name
        self.tell(Presence("renamed", name, self.names, was))
        return True

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
        self._rooms: dict[str, Room] = {}
        self._changed = asyncio.Event()

    @contextmanager
    def joined(self, room: str, name: str) -> Iterator[Member]:
        """Be a member of a room, which exists as long as it has members."""
        place = self._rooms.setdefault(room, Room(room))
        member = place.add(name)
        self.note_change()
        try:
            yield member
        finally:
            place.remove(member)
            if not place.names:
                del self._rooms[room]
            self.note_change()

    @property
    def counts(self) -> dict[str, int]:
        """How many members each room has."""
        return {name: len(room.names) for name, room in self._rooms.items()}

    def note_change(self) -> None:
        """Somebody came, went or said something: wake those who wait for that."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, since: int, within: float) -> None:
        """Wait, for ``within`` seconds at most, until something has changed since that version."""
        if self.version == since:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._changed.wait()
