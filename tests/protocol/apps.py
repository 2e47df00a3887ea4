"""The handlers that the tests of telex.v1 talk to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec

from telex import Multiplex, NotFoundException, PermissionDeniedException, Provide, Telex, WebSocket, WebsocketListener
from telex import websocket_listener as listener
from telex.handlers import ListenerHandler


class Say(msgspec.Struct, tag="say"):
    """A message."""

    text: str


class Move(msgspec.Struct, tag="move"):
    """Another."""

    to: int


class Said(msgspec.Struct):
    """An answer."""

    text: str
    number: int = 0


class NoSuchRoom(Exception):
    """An error that callers may see."""

    def __init__(self, room: str) -> None:
        super().__init__(f"no room {room}")
        self.room = room
        self._secret = "hidden"


class Journal:
    """What the handlers of one app did."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self._changed = asyncio.Event()

    def note(self, entry: str) -> None:
        """Add an entry."""
        self.entries.append(entry)
        self._changed.set()

    async def until(self, entry: str, count: int = 1) -> None:
        """Wait until ``entry`` was noted ``count`` times."""
        async with asyncio.timeout(30):
            while self.entries.count(entry) < count:
                self._changed.clear()
                await self._changed.wait()


@listener("/sync")
def sync(data: int) -> int:
    return data + 1


@listener("/typed")
async def typed(data: Say) -> Said:
    return Said(data.text.upper(), len(data.text))


@listener("/maybe")
def maybe(data: bool) -> str | None:
    return "yes" if data else None


@listener("/bytes")
async def binary(data: bytes) -> bytes:
    return data[::-1]


@listener("/either")
async def either(data: str | bytes) -> str | bytes:
    return data


@listener("/fails", errors=[NoSuchRoom])
async def fails(data: str) -> str:
    if data == "declared":
        raise NoSuchRoom("7")
    if data == "secret":
        raise ValueError("a secret of the server")
    if data == "missing":
        raise NotFoundException("there is none")
    if data == "forbidden":
        raise PermissionDeniedException("not you")
    return data


@listener("/limited", call_timeout=0.05)
async def limited(data: float) -> str:
    await asyncio.sleep(data)
    return "done"


@listener("/tell")
async def tell(data: str, socket: WebSocket) -> str:
    await socket.notify(Said(data))
    await socket.send_text("123")
    await socket.send_json({"n": 123})
    await socket.send_bytes(b"\x00\x01")
    return data


class Game(WebsocketListener):
    path = "/game"

    async def on_say(self, data: Say) -> Said:
        return Said(data.text)

    def on_move(self, data: Move) -> int:
        return data.to


def make_app(journal: Journal, *, max_concurrency: int = 1, max_calls: int = 8, is_shared: bool = False) -> Telex:
    """The app; ``journal`` hears of what runs, and of each cleanup."""

    @listener("/void")
    async def void(data: str) -> None:
        journal.note(data)

    @listener("/slow", max_concurrency=max_concurrency, max_calls=max_calls)
    async def slow(data: str) -> str:
        journal.note(f"begin {data}")
        try:
            if data.startswith("wait"):
                await asyncio.Event().wait()
            return data
        finally:
            journal.note(f"end {data}")

    @listener("/ask", max_concurrency=max_concurrency, max_calls=4)
    async def ask(data: str, socket: WebSocket) -> Said:
        answer = await socket.call(Say(f"what of {data}?"), Said, timeout=5)
        return Said(answer.text, answer.number + 1)

    rest: list[Any] = [sync, typed, maybe, binary, either, fails, limited, tell, Game, *_with_cleanups(journal)]
    shared = [Multiplex("/socket", routes=Multiplex.ALL)] if is_shared else []
    return Telex([void, slow, ask, *rest, *shared], allowed_origins=["*"])


def _with_cleanups(journal: Journal) -> list[ListenerHandler]:
    @listener("/parts")
    async def parts(data: int) -> AsyncIterator[Said]:
        try:
            for number in range(data):
                yield Said("part", number)
        finally:
            journal.note("closed")

    async def resource() -> AsyncGenerator[str, None]:
        journal.note("opened")
        try:
            yield "resource"
        finally:
            journal.note("released")

    @listener("/scoped", dependencies={"thing": Provide(resource, scope="message")})
    async def scoped(data: str, thing: str) -> str:
        return f"{data} {thing}"

    return [parts, scoped]
