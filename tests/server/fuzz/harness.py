"""The server's protocols over a transport in memory, so that thousands of connections take seconds."""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from uvicorn.server import ServerState

from telex.server.connection import Connection
from telex.server.http import GuardedH11Protocol
from telex.server.http_tools import GuardedHttpToolsProtocol
from telex.server.settings import ServerConfig, Settings
from telex.types import ASGIApp, Receive, Scope, Send
from tests.server.apps import answer_http, transport_of

T = TypeVar("T")
PROTOCOLS = {"httptools": GuardedHttpToolsProtocol, "h11": GuardedH11Protocol}


class _Socket:
    """Has an address and takes options."""

    family = 2

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_: object) -> None: ...

    def getsockopt(self, *_: object) -> int:
        return 0

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 80)

    getpeername = getsockname


class Pipe(asyncio.Transport):
    """A transport whose other end is the test; what arrives while reading is paused waits."""

    def __init__(self) -> None:
        super().__init__({"socket": _Socket(), "peername": ("127.0.0.1", 1234), "sockname": ("127.0.0.1", 80)})
        self.sent = bytearray()
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._paused = self._closing = self._pumping = self._stalled = self._losing = False
        self._protocol: Any = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        if not self._closing:
            self.sent += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        return 1  # so that picows does not write to the socket by itself

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._pump)

    def close(self) -> None:
        """Lost when all is written: a client that does not read keeps the connection."""
        self._closing = True
        if not self._stalled:
            self.abort()

    def abort(self) -> None:
        self._closing = True
        if not self._losing:
            self._losing = True
            self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        self.lost = True
        self._protocol.connection_lost(None)

    def feed(self, data: bytes) -> None:
        """Bytes of the client."""
        self._waiting += data
        self._pump()

    def half_close(self) -> None:
        """The client ends its stream, and still reads."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def stall(self, stalled: bool) -> None:
        """The client stops to read, or reads again."""
        if self._losing or stalled == self._stalled or (stalled and self._closing):
            return
        self._stalled = stalled
        if stalled:
            self._protocol.pause_writing()
        else:
            self._protocol.resume_writing()
            if self._closing:
                self.abort()

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._waiting and not self._paused and not self._closing:
                if isinstance(self._protocol, asyncio.BufferedProtocol):
                    room = memoryview(self._protocol.get_buffer(-1))
                    size = min(len(room), len(self._waiting))
                    room[:size] = self._waiting[:size]
                    del self._waiting[:size]
                    self._protocol.buffer_updated(size)
                else:
                    data = bytes(self._waiting)
                    self._waiting.clear()
                    self._protocol.data_received(data)
        finally:
            self._pumping = False


class Keeper:
    """Accepts, keeps all messages and how it ended; echoes in some way or not at all."""

    def __init__(self, how: str = "events") -> None:
        self.how = how
        self.messages: list[str | bytes] = []
        self.code: int | None = None
        self.ended = asyncio.Event()
        self.most_kept = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer_http(send)
            return
        await receive()
        transport = transport_of(scope)
        assert isinstance(transport, Connection)
        if self.how == "frame":
            transport.set_message_handler(self._keep)
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            self.most_kept = max(self.most_kept, transport._queued_bytes)
            self._keep(event["bytes"] if event.get("text") is None else event["text"])
            if self.how == "slow":
                await asyncio.sleep(0)
        self.code = event["code"]
        self.ended.set()

    def _keep(self, data: str | bytes) -> None:
        self.messages.append(data)


class _Current:
    """The app of the running case: a configuration is expensive, so that all cases of a kind share one."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


_current = _Current()


@cache
def _config(settings: tuple[tuple[str, Any], ...]) -> ServerConfig:
    quiet: dict[str, Any] = {"proxy_headers": False, "log_format": "none", "access_log": False, "ping_interval": None}
    config = ServerConfig(_current, Settings(**(quiet | dict(settings))))
    config.load()
    return config


def connect(app: ASGIApp, http: str = "httptools", **settings: Any) -> tuple[Pipe, ServerState]:
    """A new connection to a server of ``app``."""
    _current.app = app
    state, pipe = ServerState(), Pipe()
    protocol: asyncio.Protocol = PROTOCOLS[http](
        _config(tuple(sorted(settings.items()))), state, {}, asyncio.get_running_loop()
    )
    pipe.set_protocol(protocol)
    protocol.connection_made(pipe)
    return pipe, state


async def settled(pipe: Pipe, chunks: Sequence[bytes] = (), *, turns: int = 12) -> None:
    """Feeds the chunks, and gives the server time until it writes no more."""
    for chunk in chunks:
        pipe.feed(chunk)
        await asyncio.sleep(0)
    quiet = 0
    while quiet < turns:
        before = len(pipe.sent), len(pipe._waiting)
        await asyncio.sleep(0)
        quiet = 0 if before != (len(pipe.sent), len(pipe._waiting)) else quiet + 1


async def gone(pipe: Pipe, state: ServerState) -> None:
    """Cuts the connection; nothing of it may be left."""
    pipe.abort()
    async with asyncio.timeout(9):
        while state.connections or state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0)


def run(case: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a case in a loop of its own, in which nothing may be logged as an error."""
    with logged_errors() as errors:
        result = asyncio.run(case())
    assert errors == []
    return result


class _NoWait(selectors.DefaultSelector):
    """Adds the time that the loop would wait to its clock."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is scheduled: the case would wait for ever"
        ready = super().select(0)
        if not ready:
            self.skipped += max(timeout, 0)
        return ready


class LoopWithoutWaiting(asyncio.SelectorEventLoop):
    """A loop whose timers are due as soon as nothing else is to do."""

    def __init__(self) -> None:
        self._clock = _NoWait()
        super().__init__(self._clock)

    def time(self) -> float:
        return super().time() + self._clock.skipped


@contextmanager
def logged_errors() -> Iterator[list[str]]:
    """The records of level ERROR and above, with their tracebacks."""
    errors: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(self.format(record))

    handler = Handler(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield errors
    finally:
        logging.getLogger().removeHandler(handler)


def frames_of(sent: bytes) -> list[tuple[int, bytes, bool]]:
    """The server's frames as opcode, payload and RSV1; all must be whole and unmasked."""
    found = []
    while sent:
        first, second = sent[0], sent[1]
        assert second < 128
        assert first & 0xB0 == 0x80
        extended = {126: 2, 127: 8}.get(second, 0)
        size = int.from_bytes(sent[2 : 2 + extended], "big") if extended else second
        start = 2 + extended
        assert len(sent) >= start + size
        found.append((first & 15, bytes(sent[start : start + size]), bool(first & 64)))
        sent = sent[start + size :]
    return found
