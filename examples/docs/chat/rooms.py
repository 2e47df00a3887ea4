import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from telex.exceptions import HTTPException

from .messages import Event, Joined, Left, Name, Present, Said, Statistics


class Member:
    """One member of one room, with its queue of events."""

    def __init__(self, name: str, room: "Room") -> None:
        self.name = name
        self.room = room
        self._waiting: asyncio.Queue[Event] = asyncio.Queue(maxsize=100)

    def tell(self, event: Event) -> None:
        if self._waiting.full():
            self._waiting.get_nowait()  # a member that does not read loses the oldest, and delays no one
        self._waiting.put_nowait(event)

    async def events(self) -> AsyncGenerator[Event, None]:
        while True:
            yield await self._waiting.get()


class Room:
    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.lines = 0

    def tell(self, event: Event) -> None:
        self.lines += isinstance(event, Said)
        for member in self.members.values():
            member.tell(event)

    def present(self) -> Present:
        return Present(sorted(self.members))


class Rooms:
    """Every room that has members."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}

    @contextmanager
    def entered(self, room_name: str, name: str) -> Iterator[Member]:
        room = self._rooms.setdefault(room_name, Room())
        if name in room.members:
            raise HTTPException(f"the name {name} is taken", status_code=409)
        member = room.members[name] = Member(name, room)
        room.tell(Joined(name))
        try:
            yield member
        finally:
            del room.members[name]
            room.tell(Left(name))
            if not room.members:
                del self._rooms[room_name]

    def statistics(self, room_name: str) -> Statistics:
        room = self._rooms.get(room_name)
        return Statistics(len(room.members), room.lines) if room else Statistics(0, 0)


async def join(room: str, name: Name, rooms: Rooms) -> AsyncGenerator[Member, None]:
    """The dependency that makes a connection a member for as long as it lasts."""
    with rooms.entered(room, name) as member:
        yield member
