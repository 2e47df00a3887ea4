import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from telex import Provide, Telex, websocket_listener, websocket_stream


class Event(msgspec.Struct):
    id: int
    text: str


class Log:
    """The last thousand events, numbered from 1."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=1000)
        self.news = asyncio.Condition()
        self.last = 0

    async def add(self, text: str) -> None:
        async with self.news:
            self.last += 1
            self.events.append(Event(self.last, text))
            self.news.notify_all()

    async def after(self, last: int) -> AsyncGenerator[Event, None]:
        while True:
            for event in [event for event in self.events if event.id > last]:
                last = event.id
                yield event
            async with self.news:
                await self.news.wait_for(lambda: self.last > last)  # noqa: B023 - called before `last` changes


@websocket_stream("/events")
async def events(log: Log, after: int = 0) -> AsyncGenerator[Event, None]:
    async for event in log.after(after):
        yield event


@websocket_listener("/write")
async def write(data: str, log: Log) -> None:
    await log.add(data)


app = Telex([events, write], dependencies={"log": Provide(Log, use_cache=True)})
