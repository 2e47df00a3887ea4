"""One route on a shared socket: a virtual ASGI connection.

::

    PENDING ──accept──> OPEN ──the app closes──> ENDED ──cleanup──> FINISHED
       ├────────────a denial──────────> DENIED ────────────────────────┤
       └─────the client closes: the app is cancelled──cleanup──────────┘

Each route has one final frame: ``denied``, or ``closed`` after its cleanup.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from enum import IntEnum, auto
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from telex.defaults import KIB
from telex.exceptions import ConnectionStateError, WebSocketDisconnect
from telex.multiplex import frames
from telex.multiplex.credit import ClientCredit
from telex.multiplex.denial import DenialResponse, denied_frame
from telex.multiplex.frames import CREDIT, OpenRoute, Sent
from telex.multiplex.plain import as_notify, read_message
from telex.multiplex.turns import Turns
from telex.protocol.envelope import SUBPROTOCOL
from telex.protocol.frames import BadFrame, CallFrame, CancelFrame, Encoded, MoreFrame, error_frame, read
from telex.protocol.output import FrameOutput
from telex.protocol.refusals import Denial
from telex.protocol.runner import MAX_QUEUED_BYTES
from telex.status_codes import WS_1000_NORMAL_CLOSURE, WS_1008_POLICY_VIOLATION, WS_1011_UNEXPECTED_ERROR
from telex.types import Activity, Authentication, FedRoute, Message

__all__ = ("SharedSocket", "VirtualConnection")

logger: Final = logging.getLogger("telex")

RESERVED: Final = 32 * KIB
"""Bytes that each route may keep, whatever the others do; above, a route may use half of the socket's window."""
MAX_UNREAD: Final = 256
"""Frames of one route that wait to be read. A route reads at once, unless its client does not take what it sends."""
_NO_IDS: Final = range(0)


class _Stage(IntEnum):
    PENDING = auto()
    DENIED = auto()
    OPEN = auto()
    ENDED = auto()
    FINISHED = auto()


class SharedSocket(Protocol):
    """What a route needs of the socket that carries it."""

    output: FrameOutput
    turns: Turns
    bytes: int

    @property
    def authentication(self) -> Authentication | None:
        """Who the client is."""

    def answered(self, route: VirtualConnection, denied: bool | None) -> None:
        """``route`` has accepted or refused; ``None``: the client has closed it before."""

    def start(self, route: VirtualConnection) -> None:
        """Run ``route`` in a task of the socket."""

    def ended(self, route: VirtualConnection) -> None:
        """``route`` has ended, and its final frame is sent."""

    def lost_headers(self, route: VirtualConnection) -> None:
        """``route`` sets headers on its accept, which no client gets."""


class VirtualConnection:
    """A connection whose client offers telex.v1. Its ASGI app gets the client's frames unchanged.

    An app that does not accept telex.v1 gets plain messages: the text or bytes that are the data of notifies.
    """

    __slots__ = (
        "_activity",
        "_awaits_hello",
        "_denial",
        "_end",
        "_fed",
        "_go_on",
        "_in_hand",
        "_is_connected",
        "_is_plain",
        "_kept",
        "_owed",
        "_refused",
        "_resting",
        "_shared",
        "_stage",
        "_taken",
        "_unread",
        "_waiter",
        "c",
        "context",
        "credit",
        "path",
        "query",
        "task",
    )

    def __init__(self, shared: SharedSocket, found: OpenRoute) -> None:
        self._shared = shared
        self.c: int = found.c
        self.path: str = found.path
        self.query: str = found.query
        self.task: asyncio.Task[Any] | None = None
        """The task that runs the route, once it has begun."""
        self._activity: Activity | None = None
        self._fed: FedRoute | None = None
        """Takes the frames of the client where they are read, instead of :meth:`receive`."""
        self._stage = _Stage.PENDING
        self._end: tuple[int, str] | None = None
        """The code and reason that the route ended with."""
        self._denial: DenialResponse | None = None
        self._is_connected = False
        self._is_plain = False
        self._awaits_hello = False
        self._unread: list[str | bytes] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.credit: ClientCredit = ClientCredit(found.credit)
        self._owed = 0
        """Plain mode: messages of the client that the app has not received."""
        self._taken = 0
        """Plain mode: messages that the app has received since the last ``credit``."""
        self._in_hand = 0
        """Plain mode: bytes of the message that the app has received last."""
        self._kept = 0
        """Bytes of the socket's window that the route uses."""
        self.context: Context
        """See :attr:`telex.types.RouteConnection.context`."""
        self._go_on: Callable[[Any], Awaitable[None]] | None = None
        """Goes on after a rest; ``None`` while a task runs."""
        self._resting: object = None
        """The connection that ``_go_on`` takes."""
        self._refused: range = _NO_IDS
        """The ids of calls that were refused unread, since the last that was not."""

    # -- the interface of the server, for the connection's Telex app

    @property
    def shared(self) -> object:
        """See :attr:`telex.types.RouteConnection.shared`."""
        return self._shared

    @property
    def authentication(self) -> Authentication | None:
        """See :attr:`telex.types.RouteConnection.authentication`."""
        return self._shared.authentication

    def set_activity(self, activity: Activity) -> None:
        """See :meth:`telex.types.Transport.set_activity`."""
        self._activity = activity

    def feed(self, fed: FedRoute) -> None:
        """See :meth:`telex.types.RouteConnection.feed`."""
        self._fed = fed
        early, self._unread = self._unread, None
        for raw in early or ():
            self.count_bytes(-len(raw))
            fed.on_message(raw)

    def write(self, payload: Encoded) -> None:
        """See :meth:`telex.types.RouteConnection.write`."""
        if self._end is not None:
            raise OSError("the route is closed")
        self._shared.output.write(_numbered(payload, self.c))

    def write_now(self, payload: Encoded) -> bool:
        """See :meth:`telex.types.RouteConnection.write_now`."""
        if self._end is not None:
            raise OSError("the route is closed")
        shared = self._shared
        return shared.turns.is_free and shared.output.write_now(_numbered(payload, self.c))

    def has_room(self, size: int, times: int = 1) -> bool:
        """See :meth:`telex.types.RouteConnection.has_room`."""
        if self._kept + size <= RESERVED:
            return True
        limit = times * MAX_QUEUED_BYTES
        fits_share = self._kept + size <= limit // 2 or not self._kept
        return fits_share and self._shared.bytes + size <= limit

    def count_bytes(self, size: int) -> None:
        """See :meth:`telex.types.RouteConnection.count_bytes`."""
        self._kept += size
        self._shared.bytes += size

    @property
    def busy(self) -> bool:
        """Whether a drain must wait for the route."""
        return self._activity is None or self._activity.busy

    # -- run by the socket

    def start(self) -> None:
        """Begin: its turn has come."""
        self._shared.start(self)

    def give_up(self) -> None:
        """The app has not answered in time."""
        if self._stage is _Stage.PENDING:
            self._stage = _Stage.DENIED
            self._shared.output.write(denied_frame(self.c, Denial.of(503, "the route did not answer in time")))
            self._shared.answered(self, True)
            if self.task is not None:
                self.task.cancel()

    def rest(self, go_on: Callable[[Any], Awaitable[None]], socket: object) -> None:
        """See :meth:`telex.types.RouteConnection.rest`."""
        self._go_on, self._resting = go_on, socket

    def wake(self) -> None:
        """See :meth:`telex.types.RouteConnection.wake`."""
        if self._go_on is not None:
            work = partial(self._go_on, self._resting)
            self._go_on = self._resting = None
            self._shared.output.spawn(self.run(work), self.context)

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the route to its end, and send its final frame; or to its next rest."""
        self.task = asyncio.current_task()
        try:
            code = WS_1000_NORMAL_CLOSURE
            if self._end is None or self._stage is not _Stage.PENDING:
                try:
                    await work()
                except Exception:
                    if self._end is None:
                        logger.exception("Exception in the ASGI application of a route")
                    code = WS_1011_UNEXPECTED_ERROR
            if self._go_on is not None:
                return
            final = self._final_frame(code)
            if final is not None:
                await self._send_frame(final)
        except OSError:
            pass  # the socket has ended
        except asyncio.CancelledError:
            # The socket ends as well, or the app has cancelled its own task.
            final = self._final_frame(WS_1011_UNEXPECTED_ERROR)
            if final is not None:
                self._shared.output.write(final)
            raise
        finally:
            self.task = None
            self._shared.output.finished()
            if self._go_on is None:
                self.count_bytes(-self._kept)
                self._shared.ended(self)

    def _final_frame(self, code: int) -> str | None:
        """The frame that ends the route with ``code``, unless a side has ended it; ``None`` if there was one."""
        stage, self._stage = self._stage, _Stage.FINISHED
        if stage is _Stage.PENDING and self._end is None:
            self._shared.answered(self, True)
            return denied_frame(self.c, Denial.of(500, "the route ended without an answer"))
        return None if stage in {_Stage.DENIED, _Stage.FINISHED} else self.closed_frame(code)

    def closed_frame(self, code: int = WS_1000_NORMAL_CLOSURE) -> str:
        """The frame that says how the route has ended; ``code`` if neither side has closed it."""
        code, reason = self._end or (code, "")
        return msgspec.json.encode({"type": "closed", "c": self.c, "code": code, "reason": reason}).decode()

    # -- from the client

    def put(self, raw: str | bytes) -> None:
        """A frame of the client."""
        if self._end is not None or self._stage is _Stage.DENIED:
            return
        if self._fed is not None:
            self._fed.on_message(raw)
            return
        if len(self._unread or ()) >= MAX_UNREAD or not self.has_room(len(raw), 2):
            if not self._is_refused(raw):
                self.end(WS_1008_POLICY_VIOLATION, "more frames or bytes than there is credit for")
        elif self._refused and self._is_about_refused(raw):
            return
        elif self._is_plain:
            self._put_plain(raw)
        else:
            self._keep(raw)

    def _is_refused(self, raw: str | bytes) -> bool:
        """Answer a call that there is no room for, though the app reads late; false for other frames."""
        if self._is_plain or self._awaits_hello or self._stage is not _Stage.OPEN:
            return False
        try:
            found, _ = read(raw)
        except BadFrame:
            return False
        if isinstance(found, CancelFrame | MoreFrame):
            return found.id in self._refused
        if not isinstance(found, CallFrame) or found.id < self._refused.stop:
            return False
        self._refused = range(self._refused.start or found.id, found.id + 1)
        text = f"at most {MAX_QUEUED_BYTES} bytes of calls and notifies, and {MAX_UNREAD} unread frames, at once"
        self._shared.output.write(_numbered(error_frame(found.id, "too_many_calls", text), self.c))
        return True

    def _is_about_refused(self, raw: str | bytes) -> bool:
        """Whether a frame is about a call that the app does not know, because it was refused unread."""
        try:
            found, _ = read(raw)
        except BadFrame:
            return False
        if isinstance(found, CallFrame):
            self._refused = _NO_IDS  # the app knows a higher id
        return isinstance(found, CancelFrame | MoreFrame) and found.id in self._refused

    def _keep(self, raw: str | bytes) -> None:
        self.count_bytes(len(raw))
        if self._unread is None:
            self._unread = []
        self._unread.append(raw)
        self._wake()

    def _put_plain(self, raw: str | bytes) -> None:
        try:
            message = read_message(raw)
        except BadFrame as bad:
            text = error_frame(bad.id, bad.code, bad.message, path=bad.path)
            self._shared.output.write(_numbered(text, self.c))
            return
        if self._owed >= 2 * CREDIT:
            self.end(WS_1008_POLICY_VIOLATION, "more notifies than there is credit for")
            return
        self._owed += 1
        self._keep(message)

    def end(self, code: int, reason: str) -> None:
        """The client, a limit or the socket ends the route: its app gets a disconnect after the client's messages.

        An app that has not answered is cancelled, and no longer counts among those that may run at once.
        """
        if self._end is not None:
            return
        self._end = (code, reason)
        self._wake()
        self.credit.end()
        if self._activity is not None:
            self._activity.on_end(code, reason)
        if self._stage is _Stage.PENDING:
            self._shared.answered(self, None)
            if self.task is not None:
                self.task.cancel()

    # -- ASGI

    async def receive(self) -> Message:
        """The next event of the client."""
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        self.count_bytes(-self._in_hand)
        self._in_hand = 0
        while not self._unread and self._end is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if not self._unread or self._stage >= _Stage.ENDED:
            code, reason = self._end or (WS_1000_NORMAL_CLOSURE, "")
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        raw = self._unread.pop(0)
        if self._is_plain:
            self._in_hand = len(raw)
            self._count_taken()
        else:
            self.count_bytes(-len(raw))
        return {"type": "websocket.receive", "text" if isinstance(raw, str) else "bytes": raw}

    async def send(self, event: Message) -> None:
        """Send one event of the app.

        :raises OSError: the route has ended.
        """
        kind = event["type"]
        if self._end is not None or self._stage >= _Stage.ENDED:
            raise OSError("the route is closed")
        if self._stage is _Stage.OPEN and kind == "websocket.send":
            await self._send_message(event)
        elif self._stage is _Stage.OPEN and kind == "websocket.close":
            self._stage = _Stage.ENDED
            self._end = (event.get("code", WS_1000_NORMAL_CLOSURE), event.get("reason") or "")
            self._wake()
            self.credit.end()
        elif self._stage is _Stage.PENDING and kind == "websocket.accept":
            self._accept(event)
        elif self._stage is _Stage.PENDING:
            await self._deny(event)
        else:
            raise ConnectionStateError(f"{kind!r} cannot be sent while the route is {self._stage.name.lower()}")

    def _accept(self, event: Message) -> None:
        self._stage = _Stage.OPEN
        self._shared.answered(self, False)
        if event.get("headers"):
            self._shared.lost_headers(self)
        self._is_plain = event.get("subprotocol") != SUBPROTOCOL
        self._awaits_hello = not self._is_plain
        if self._is_plain:
            # Written without waiting: an answer to what the client has sent already must not come first.
            self._shared.output.write(f'{{"type":"opened","c":{self.c},"plain":true,"credit":{CREDIT}}}')
            early, self._unread = self._unread, None
            for raw in early or ():
                self.count_bytes(-len(raw))
                self._put_plain(raw)

    async def _deny(self, event: Message) -> None:
        kind = event["type"]
        if kind == "websocket.http.response.start" and self._denial is None:
            self._denial = DenialResponse(event)
        elif kind == "websocket.http.response.body" and self._denial is not None:
            self._denial.add(event.get("body", b""))
            if not event.get("more_body", False):
                await self._send_denial(self._denial.frame(self.c))
        elif kind == "websocket.close":
            denial = Denial.of_close(event.get("code", 1000), event.get("reason") or "")
            await self._send_denial(denied_frame(self.c, denial))
        else:
            raise ConnectionStateError(f"{kind!r} cannot be sent before the route is accepted")

    async def _send_denial(self, text: str) -> None:
        self._stage = _Stage.DENIED
        await self._send_frame(text)
        self._shared.answered(self, True)

    async def _send_message(self, event: Message) -> None:
        payload: Encoded | None = event.get("text")
        if payload is None:
            payload = bytes(event["bytes"])
        sent = None if self._is_plain else frames.read_sent(payload)
        if sent is None:
            payload, sent = as_notify(payload)
        if self._awaits_hello:
            self._awaits_hello = False
            if sent.kind == "hello" and isinstance(payload, str) and sent.at:
                await self._send_frame(f'{{"type":"opened","c":{self.c}{payload[sent.at :]}')
                return
            await self._send_frame(f'{{"type":"opened","c":{self.c}}}')
        if sent.kind in frames.PUSHES:
            await self.credit.take()
        await self._send_frame(payload, sent)

    async def _send_frame(self, payload: Encoded, sent: Sent | None = None) -> None:
        """Send one frame in turn with the other routes; with ``sent``, insert ``c`` into it."""
        turns = self._shared.turns
        await turns.take(self.c)
        try:
            if sent is not None:
                if self._end is not None:
                    raise OSError("the route is closed")
                payload = frames.with_route(payload, sent.at, self.c)
            await self._shared.output.send(payload)
        except WebSocketDisconnect as exc:
            raise OSError("the socket is lost") from exc
        finally:
            turns.give_back()

    def _count_taken(self) -> None:
        """Plain mode: return the client's credit in batches of half the window."""
        self._owed -= 1
        self._taken += 1
        if 2 * self._taken >= CREDIT:
            self._shared.output.write(f'{{"type":"credit","c":{self.c},"n":{self._taken}}}')
            self._taken = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _numbered(payload: Encoded, c: int) -> Encoded:
    sent = frames.read_sent(payload)
    return frames.with_route(payload, 0 if sent is None else sent.at, c)
