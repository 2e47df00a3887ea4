"""An app whose runs the tests count, hold up and fail."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from telex import DefineMiddleware, Multiplex, Provide, Telex, WebSocket, websocket_listener
from telex.once import IdempotencyKey, Once
from tests.contract.servers import Running, ServerKind
from tests.protocol.conftest import Caller
from tests.support.live import connected, serving

FRAMES = ("telex.v1",)


def a_key() -> str:
    """One with 128 random bits."""
    return secrets.token_urlsafe(16)


class Refused(Exception):
    """A declared error."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class ByHeader(AuthenticationBackend):
    """The header ``user`` names the user."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("user")
        return None if name is None else (AuthCredentials(), SimpleUser(name))


class Work:
    """What the handlers of one app did, and what holds them up."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.keys: list[str | None] = []
        self.committed = 0
        self.go = asyncio.Event()
        self._changed = asyncio.Event()

    def note(self, entries: list[str], entry: str) -> None:
        """Add an entry to one of the lists."""
        entries.append(entry)
        self._changed.set()

    async def until(self, entries: list[str], entry: str, count: int = 1) -> None:
        """Wait until ``entry`` is there so many times."""
        async with asyncio.timeout(30):
            while entries.count(entry) < count:
                self._changed.clear()
                await self._changed.wait()

    async def until_ended(self, count: int) -> None:
        """Wait until so many runs have ended."""
        async with asyncio.timeout(30):
            while len(self.ended) < count:
                self._changed.clear()
                await self._changed.wait()

    async def handle(self, data: str) -> str:
        """Do what the message says."""
        self.note(self.begun, data)
        try:
            if data.startswith("wait"):
                await self.go.wait()
            if data.startswith("declared"):
                raise Refused(data)
            if data.startswith("fail"):
                raise ValueError(data)
            return f"{data} {self.begun.count(data)}"
        finally:
            self.note(self.ended, data)


def make_app(work: Work, once: Once | bool = True, **options: Any) -> Telex:
    """The app; every handler does what :meth:`Work.handle` says."""

    @websocket_listener("/work/{room:str}", idempotent=once, errors=[Refused], **options)
    async def handle(data: str, room: str, key: IdempotencyKey) -> str:
        work.keys.append(key)
        return await work.handle(data)

    @websocket_listener("/plain")
    async def plain(data: str) -> str:
        return await work.handle(data)

    @websocket_listener("/sync", idempotent=once)
    def sync(data: str) -> str:
        work.note(work.begun, data)
        return f"{data} {work.begun.count(data)}"

    @websocket_listener("/bytes", idempotent=once)
    async def binary(data: bytes) -> bytes:
        work.note(work.begun, data.decode())
        return data + b" %d" % work.begun.count(data.decode())

    @websocket_listener("/void", idempotent=once)
    async def void(data: str) -> None:
        await work.handle(data)

    @websocket_listener("/sends", idempotent=once)
    async def sends(data: str, socket: WebSocket) -> str:
        answer = await work.handle(data)
        await socket.notify("done")
        return answer

    async def transaction() -> AsyncGenerator[str, None]:
        yield "open"
        if work.go.is_set():
            raise ConnectionError("the commit failed")
        work.committed += 1

    @websocket_listener("/commits", idempotent=once, dependencies={"held": Provide(transaction, scope="message")})
    async def commits(data: str, held: str) -> str:
        work.note(work.begun, data)
        return f"{data} {work.begun.count(data)} {work.committed}"

    routes = [handle, plain, sync, binary, void, sends, commits]
    return Telex(
        [*routes, Multiplex("/socket", routes=Multiplex.ALL)],
        middleware=[DefineMiddleware(AuthenticationMiddleware, backend=ByHeader())],
    )


@contextlib.asynccontextmanager
async def caller(running: Running, path: str = "/work/one", user: str | None = None) -> AsyncIterator[Caller]:
    """A client that has received ``hello``."""
    headers = None if user is None else {"user": user}
    async with connected(running, path, headers=headers, subprotocols=FRAMES) as client:
        found = Caller(client)
        found.hello = await found.receive()
        yield found


@contextlib.asynccontextmanager
async def served(work: Work, kind: ServerKind, once: Once | bool = True, **options: Any) -> AsyncIterator[Running]:
    """The app on a server, with its lifespan."""
    app = make_app(work, once, **options)
    async with app.lifespan(), serving(app, kind) as running:
        yield running


def data_of(frame: Any) -> Any:
    """The data of a reply."""
    assert frame["type"] == "reply", frame
    return frame["data"]


def error_of(frame: Any) -> tuple[str, str | None]:
    """The code of an error, and the reason in its data."""
    assert frame["type"] == "error", frame
    data = frame["error"].get("data")
    return frame["error"]["code"], data.get("reason") if isinstance(data, dict) else None


OTHER = ("conflict", "other_message")
UNKNOWN = ("conflict", "outcome_unknown")
