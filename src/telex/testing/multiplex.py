"""Many routes on one test connection: a ``Multiplex``, and a session for each route that a test opens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from telex.exceptions import WebSocketDisconnect
from telex.multiplex.frames import PUSHES, with_route
from telex.protocol.envelope import SUBPROTOCOL
from telex.protocol.frames import BadFrame, Encoded, frame
from telex.testing.clock import real_timeout
from telex.testing.frame_client import FrameClient
from telex.testing.frames import fields_of, payload_of
from telex.testing.handshake import QueryParams, target_url
from telex.testing.line import Line
from telex.testing.pipe import Pipe
from telex.testing.session import AsyncWebSocketTestSession
from telex.testing.tasks import checked_timeout, settled, unmasked
from telex.types import Message

__all__ = ("CREDIT", "AsyncMultiplexTestSession", "RouteLine")

T = TypeVar("T")

CREDIT: Final = 64
"""Messages that a route may push before the test takes one."""


class AsyncMultiplexTestSession:
    """A socket that carries routes: ``async with client.multiplex("/socket") as socket``."""

    def __init__(self, session: AsyncWebSocketTestSession) -> None:
        """Made by ``AsyncTestClient.multiplex``."""
        self.session: AsyncWebSocketTestSession = session
        """The socket itself, for frames that concern no route."""
        self._numbers: Iterator[int] = iter(range(1, 1 << 53))
        self._routes: dict[int, RouteLine] = {}
        self._sessions: set[AsyncWebSocketTestSession] = set()

    @property
    def hello(self) -> dict[str, Any]:
        """The first frame of the socket."""
        return self.session.hello

    def route(
        self, path: str, params: QueryParams | None = None, *, credit: int = CREDIT, timeout: float | None = None
    ) -> AsyncWebSocketTestSession:
        """A session with a route; ``async with`` or ``await`` opens it.

        :param path: the route's path, relative to the app; it may have a query.
        :param params: query parameters in addition to those in ``path``.
        :param credit: messages that the route may push before the test takes one.
        :param timeout: the default timeout of the session in seconds; ``None`` means that of the socket.
        """
        target = target_url("ws://route", path, params)
        return _RouteSession(self, target.path, target.query, credit, timeout)

    async def __aenter__(self) -> Self:
        await self.session.connect()
        self.session._frames.carry(self._take, self._end)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await unmasked(self.aclose(), exc)

    async def aclose(self) -> None:
        """Close the routes that are open, then the socket, and wait for the app to end."""
        outcomes = await asyncio.gather(*[settled(session.aclose()) for session in self._sessions])
        await self.session.aclose()
        for _, failure in outcomes:
            if failure is not None:
                raise failure

    def _start(self, path: str, query: str, credit: int, frames: FrameClient) -> RouteLine:
        c = next(self._numbers)
        line = self._routes[c] = RouteLine(self.session._connected(), frames, c, path, query, credit)
        return line

    def _take(self, c: int, event: Message) -> bool:
        line = self._routes.get(c)
        if line is not None:
            line.arrived(event)
            if line.has_ended:
                del self._routes[c]
        return line is not None

    def _end(self, closed: WebSocketDisconnect) -> None:
        for line in self._routes.values():
            line.lost(closed)
        self._routes.clear()


class _RouteSession(AsyncWebSocketTestSession):
    """A session whose connection is a route on a socket."""

    def __init__(
        self, shared: AsyncMultiplexTestSession, path: str, query: str, credit: int, timeout: float | None
    ) -> None:
        socket = shared.session
        options = replace(socket._options, on_accept=lambda _: None)
        if timeout is not None:
            options = replace(options, timeout=checked_timeout(timeout))
        scope = {**socket.scope, "path": path, "raw_path": path.encode(), "query_string": query.encode()}
        super().__init__(socket._app, scope, options, shared._sessions)
        self._start: Callable[[FrameClient], RouteLine] = lambda frames: shared._start(path, query, credit, frames)

    def _begin_line(self) -> Line:
        return self._start(self._frames)


class RouteLine:
    """The events of one route, as if it had a connection of its own."""

    def __init__(self, socket: Line, frames: FrameClient, c: int, path: str, query: str, credit: int) -> None:
        """``socket`` carries the route ``c``; ``frames`` sees each message of the app first."""
        self.left: bool = False
        self.has_ended: bool = False
        self._socket = socket
        self._frames = frames
        self._c = c
        self._open = {"type": "open", "c": c, "path": path, "query": query, "credit": credit}
        self._credit = credit
        self._taken = 0
        self._is_plain = False
        self._from_app = Pipe(credit)
        self._ended = asyncio.Event()

    # -- the interface of a connection

    async def put(self, event: Message, limit: float) -> None:
        """Send ``event`` to the route: its first opens the route."""
        if event["type"] == "websocket.connect":
            await self._send(msgspec.json.encode(self._open).decode(), limit)
            return
        payload = payload_of(event)
        if self._is_plain:
            data = msgspec.json.encode(payload).decode() if isinstance(payload, str) else payload
            payload = frame('{"type":"notify"', data)
        if isinstance(payload, bytes) or payload.startswith("{"):
            with contextlib.suppress(BadFrame, UnicodeDecodeError, ValueError):  # what is no frame is sent as it is
                payload = with_route(payload, 0, self._c)
        await self._send(payload, limit)

    async def take(self, limit: float, what: str) -> Message | None:
        """The next event of the route; ``None`` after the last.

        :raises TimeoutError: none came in time.
        :raises Exception: the exception that ended the route.
        """
        event = await self.within(self._from_app.get(), limit, f"{what} from the route {self._open['path']}")
        if event is None or event["type"] == "websocket.close":
            if failure := self.failed_call():
                raise failure
        elif event["type"] == "websocket.send":
            await self._took(event, limit)
        return event

    async def look(self, index: int, limit: float) -> Message | None:
        """The queued event at ``index``; ``None`` if none comes in time or before the end."""
        try:
            async with real_timeout(limit):
                return await self._from_app.peek(index)
        except TimeoutError:
            return None

    def disconnect(self, event: Message) -> None:
        """Close the route as the client."""
        self.left = True
        self._frames.end(WebSocketDisconnect(event["code"], event["reason"]))
        self._from_app.end()
        if not self.has_ended:
            close = {"type": "close", "c": self._c, "code": event["code"], "reason": event["reason"]}
            self._socket.put_at_once(_text(msgspec.json.encode(close).decode()))

    def hang_up(self) -> None:
        """Accept no more events of the route."""
        self._from_app.end()

    async def finish(self, limit: float) -> None:
        """Wait for the route's cleanup: its last frame comes after it."""
        await self.within(self._ended.wait(), limit, f"the end of the route {self._open['path']} did not come")
        if failure := self.failed_call():
            raise failure

    async def abandon(self) -> None:
        """Close the route and wait for nothing."""
        self.disconnect({"code": 1000, "reason": ""})

    def ending(self) -> WebSocketDisconnect:
        """The client's exception after the socket was lost."""
        return WebSocketDisconnect(1006, "the socket of the route has ended")

    async def within(self, wait: Coroutine[Any, Any, T], limit: float, what: str) -> T:
        """Wait at most ``limit`` seconds."""
        return await self._socket.within(wait, limit, what)

    def failure(self) -> BaseException | None:
        """The failure of the app, for the caller to raise."""
        return self._socket.failure()

    def failed_call(self) -> BaseException | None:
        """The failure behind an error or a close."""
        return self._socket.failed_call()

    def fail(self, error: BaseException) -> None:
        """A function of the test has failed, which the app called."""
        self._socket.fail(error)

    def put_at_once(self, event: Message) -> None:
        """Not for routes: a Multiplex is never opened by another."""
        raise NotImplementedError

    # -- from the socket

    def arrived(self, event: Message) -> None:
        """A frame of the route."""
        found = fields_of(event) or {}
        del found["c"]
        match found["type"]:
            case "opened":
                self._opened(found)
            case "denied":
                self._denied(found)
            case "closed":
                self._close({"type": "websocket.close", "code": found["code"], "reason": found["reason"]})
            case "credit" if self._is_plain:
                pass
            case "notify" if self._is_plain:
                data = found["data"]
                self._add({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
            case _:
                self._add(_event_of(found))

    def lost(self, closed: WebSocketDisconnect) -> None:
        """The socket has ended."""
        self._frames.end(closed)
        self._from_app.end()
        self._stop()

    def _opened(self, found: dict[str, Any]) -> None:
        self._is_plain = bool(found.get("plain"))
        self._add({"type": "websocket.accept", "subprotocol": None if self._is_plain else SUBPROTOCOL})
        if not self._is_plain:
            self._add(_event_of(found | {"type": "hello"}))

    def _denied(self, found: dict[str, Any]) -> None:
        error, headers = found["error"], []
        if "retry_after" in found:
            headers.append((b"retry-after", str(found["retry_after"]).encode()))
        body = msgspec.json.encode(error["data"]) if "data" in error else error["message"].encode()
        self._add({"type": "websocket.http.response.start", "status": found["status"], "headers": headers})
        self._add({"type": "websocket.http.response.body", "body": body})
        self._stop()

    def _close(self, event: Message) -> None:
        self._add(event)
        self._stop()

    def _stop(self) -> None:
        self.has_ended = True
        self._ended.set()

    def _add(self, event: Message) -> None:
        if not self._frames.take(event):
            self._from_app.add(event)
        elif event["type"] == "websocket.send" and _is_push(event):
            self._give_credit()

    # -- to the socket

    async def _send(self, payload: Encoded, limit: float) -> None:
        await self._socket.put(_text(payload), limit)

    async def _took(self, event: Message, limit: float) -> None:
        if self._is_plain or _is_push(event):
            self._give_credit()

    def _give_credit(self) -> None:
        """Return the credit in batches of half the window."""
        self._taken += 1
        if 2 * self._taken >= self._credit and not self.has_ended:
            self._socket.put_at_once(_text(f'{{"type":"credit","c":{self._c},"n":{self._taken}}}'))
            self._taken = 0


def _is_push(event: Message) -> bool:
    return (fields_of(event) or {}).get("type") in PUSHES


def _event_of(found: dict[str, Any]) -> Message:
    data = found.get("data")
    if isinstance(data, bytes):
        head = msgspec.json.encode({name: value for name, value in found.items() if name != "data"}).decode()[:-1]
        return {"type": "websocket.send", "bytes": frame(head, data)}
    return {"type": "websocket.send", "text": msgspec.json.encode(found).decode()}


def _text(payload: Encoded) -> Message:
    return {"type": "websocket.receive", "text" if isinstance(payload, str) else "bytes": payload}
