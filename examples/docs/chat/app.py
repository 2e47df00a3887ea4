import asyncio
from collections.abc import AsyncGenerator
from typing import ClassVar

from telex import Provide, Telex, WebSocket, WebsocketListener, websocket_stream

from .messages import Present, Said, Say, Statistics, Who
from .rooms import Member, Rooms, join


class Chat(WebsocketListener):
    path = "/rooms/{room:str}"
    dependencies: ClassVar = {"member": Provide(join)}

    async def on_accept(self, socket: WebSocket, member: Member) -> None:
        socket.start_stream(member.events())

    async def on_say(self, data: Say, member: Member) -> None:
        member.room.tell(Said(member.name, data.text))

    async def on_who(self, data: Who, member: Member) -> Present:
        return member.room.present()


@websocket_stream("/rooms/{room:str}/statistics")
async def statistics(room: str, rooms: Rooms) -> AsyncGenerator[Statistics, None]:
    while True:
        yield rooms.statistics(room)
        await asyncio.sleep(1)


app = Telex([Chat, statistics], dependencies={"rooms": Provide(Rooms, use_cache=True)})
