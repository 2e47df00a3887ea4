"""The state of a connection, and the calls that change it: both handshakes, and raw ASGI events.

A connection has five states; the table ``_ALLOWED`` lists the calls that each state allows::

    init ──connect received──> connect ──accept──> open ──the client leaves──> disconnect
                                  └─────deny, close────┴──close──> closed
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, Self, TypeAlias, cast

import msgspec
from starlette.requests import HTTPConnection

from telex import codecs, events
from telex.datastructures import State
from telex.defaults import MAX_MESSAGE_SIZE, MAX_QUEUED_MESSAGES
from telex.event_reader import EventReader
from telex.exceptions import ConnectionStateError, WebSocketDisconnect, WebSocketException
from telex.protocol.envelope import MULTIPLEXED, SUBPROTOCOL, Envelope
from telex.status_codes import CLOSE_CODE_OF_STATUS, WS_1006_ABNORMAL_CLOSURE
from telex.streams import Streams
from telex.telemetry.counts import Handshakes, RouteCounts
from telex.types import (
    ActivityWatcher,
    Authentication,
    CloseEvent,
    Message,
    Mode,
    Receive,
    RouteConnection,
    Scope,
    Send,
    Transport,
    TypeDecoder,
    TypeEncoder,
)

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    from typing_extensions import TypeVar

__all__ = ("ConnectionOptions", "ConnectionState", "StatefulConnection", "no_channel", "unmarked_context")

StateT = TypeVar("StateT", bound=State, default=State)

ConnectionState: TypeAlias = Literal["init", "connect", "receive", "disconnect"]
"""The public states: ``receive`` is an open connection, ``disconnect`` one that either side has ended."""

_Step: TypeAlias = Literal["init", "connect", "open", "closed", "disconnect"]
_Call: TypeAlias = Literal["accept", "deny", "receive", "send"]

_ALLOWED: Final[Mapping[_Call, frozenset[_Step]]] = {
    "accept": frozenset({"init", "connect"}),
    "deny": frozenset({"init", "connect"}),
    "receive": frozenset({"init", "connect", "open"}),
    "send": frozenset({"init", "connect", "open"}),
}

_WHY_NOT: Final[Mapping[_Step, str]] = {
    "init": "it has not been accepted yet",
    "connect": "it has not been accepted yet",
    "open": "it has been accepted already",
    "closed": "it was closed by this side",
    "disconnect": "the client has left",
}

_PUBLIC: Final[Mapping[_Step, ConnectionState]] = {
    "init": "init",
    "connect": "connect",
    "open": "receive",
    "closed": "disconnect",
    "disconnect": "disconnect",
}

_SENDS_BEFORE_YIELD: Final = 32

_family: Final[ContextVar[object | None]] = ContextVar("telex_family", default=None)
"""Marks the context of one handler; tasks that the handler starts inherit it.

It holds a plain object and not the socket, because a context can outlive its connection."""


def unmarked_context() -> Context:
    """A copy of the current context without the mark of a handler: equal in two tasks with the same variables."""
    context = copy_context()
    context.run(_family.set, None)
    return context


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The layers' options for a connection: its limits and its type encoders."""

    max_message_size: int = MAX_MESSAGE_SIZE
    """Bytes of one message; a larger one closes with 1009."""
    max_queued_messages: int = MAX_QUEUED_MESSAGES
    """Messages that are read ahead while a handler is busy; then reading stops and TCP slows the client down."""
    type_encoders: Mapping[type, TypeEncoder] = field(default_factory=dict)
    type_decoders: Sequence[TypeDecoder] = ()
    open_envelope: Callable[[Any], Envelope] | None = None
    """Makes the frames of a connection whose client offers telex.v1; ``None`` where the handler does not speak it."""
    prefers_envelope: bool = False
    """Whether the handler speaks telex.v1 where it is offered, also if it names other subprotocols."""
    counts: RouteCounts | None = None
    """What the route counts; ``None`` where nobody asks."""
    handshakes: Handshakes | None = None
    """What the app counts of handshakes; given to the outermost connection of each."""
    may_rest: bool = False
    """Whether an idle route needs no task, because nothing of its handler is open between two messages."""
    limit_messages: Callable[[Any], None] | None = None
    """Limits the messages of an accepted connection; ``None`` where no limit is given."""
    notices: bool = True
    """Whether ``app.users.notify`` reaches the connection."""
    encode_json: Callable[[object], bytes] = field(init=False)

    def __post_init__(self) -> None:
        encode = msgspec.json.Encoder(enc_hook=codecs.encoder_hook(self.type_encoders)).encode
        object.__setattr__(self, "encode_json", encode)

    def value_writer(self, mode: Mode) -> codecs.Writer:
        """The function that writes any value: text and bytes unchanged, other values as JSON."""
        return codecs.value_writer(Any, mode, self.type_encoders)


_DEFAULT_OPTIONS: Final = ConnectionOptions()


class StatefulConnection(HTTPConnection[StateT]):
    """A connection with its state: opened by ``accept`` or ``deny``, ended by ``close`` or by the client."""

    authentication: Authentication | None = None
    """Who the client is, where the option ``authenticate`` is given."""
    _is_accepted_first = False
    began: float = math.inf
    """When the handshake of a connection with a user began, on the clock of the event loop."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive | None = None,
        send: Send | None = None,
    ) -> None:
        super().__init__(scope)
        self.options: ConnectionOptions = _DEFAULT_OPTIONS
        self.event_reader: EventReader = EventReader(receive or no_channel)
        self.streams: Streams | None = None
        self.envelope: Envelope | None = None
        """The frames of a connection that speaks telex.v1, set by accept; ``None`` in plain mode."""
        self.transport: Transport | None = None
        """The server's fast path, set by accept; ``None`` on servers without one."""
        self.asgi_send: Send = send or no_channel
        self.close_code: int | None = None
        """The code that the connection ended with; ``None`` until then."""
        self.close_reason: str = ""
        self.ignored_messages: int = 0
        """Messages that were ignored because the listener does not receive their mode."""
        self._sent_in_a_row = 0
        self.is_open: bool = False
        """Whether the connection is accepted and neither side has ended it."""
        self._step: _Step = "init"
        self._was_accepted = False
        self._accepting: asyncio.Future[None] | None = None
        self._owner: asyncio.Task[object] | None = None
        self._announce: Callable[[Any], None] | None = None
        self._family: object | None = None
        self._closer = 0
        self._at_end: list[Callable[[], None]] | None = None
        self._ended_by = 0  # the exception's id: a reference would be a cycle

    def configure(self, options: ConnectionOptions) -> None:
        """Set the limits and encoders. The session calls this, so subclasses need not pass them to ``__init__``."""
        self.options = options
        self.event_reader.max_messages = options.max_queued_messages
        self.event_reader.max_bytes = options.max_message_size

    def own(self, task: asyncio.Task[object] | None) -> None:
        """Make ``task`` the only task that accepts by sending: it serves this connection."""
        self._owner = task
        self.event_reader.own(task)

    def rest(self, go_on: Callable[[Any], Awaitable[None]]) -> bool:
        """Whether the task that serves this connection may end: ``go_on(self)`` then serves it when it must go on."""
        route = self.event_reader.resting
        if route is None:
            return False
        self._owner = None
        self.event_reader.rest()
        route.rest(go_on, self)
        return True

    def when_gone(self, call: Callable[[], None]) -> None:
        """Call ``call`` when this connection or its handshake is over."""
        if self._at_end is None:
            self._at_end = []
        self._at_end.append(call)

    def gone(self) -> None:
        """The connection or its handshake is over."""
        for call in self._at_end or ():
            call()
        if not self._was_accepted and self._step == "disconnect":
            self._count_handshake("abandoned", "")

    def _count_handshake(self, outcome: str, status: str) -> None:
        if self.options.handshakes is not None:
            self.options.handshakes[outcome, status] += 1

    def own_tasks(self) -> None:
        """Allow tasks that this context starts from now on to accept by sending: they belong to the handler."""
        self._family = object()
        _family.set(self._family)

    def admit(self, announce: Callable[[Self], None]) -> None:
        """Guards and dependencies have passed: call ``announce`` as soon as the connection is open."""
        self._announce = announce
        if self.is_open:
            announce(self)

    # -- the opening handshake

    @property
    def connection_state(self) -> ConnectionState:
        """``init``, ``connect`` (the handshake waits for an answer), ``receive`` (open) or ``disconnect``."""
        return _PUBLIC[self._step]

    def has_left(self) -> bool:
        """Whether the client has left. Updates ``connection_state`` to match.

        The event reader can receive the disconnect before the handler does; the state then still describes the last
        event that the handler received.
        """
        if self.event_reader.disconnect is not None:
            self.lost()
        return self._step == "disconnect"

    @property
    def route(self) -> RouteConnection | None:
        """The connection of a route on a shared socket (:class:`telex.Multiplex`)."""
        return cast("RouteConnection | None", self.scope.get(MULTIPLEXED))

    @property
    def is_route(self) -> bool:
        """Whether this is a route on a shared socket."""
        return self.route is not None

    @property
    def was_accepted(self) -> bool:
        """Whether this side has completed the handshake; stays true after the connection closes."""
        return self._was_accepted

    async def accept(
        self, subprotocols: str | Sequence[str] | None = None, headers: events.HeaderValues | None = None
    ) -> None:
        """Complete the handshake. With a list of ``subprotocols``, select the first one that the client offered.

        :raises ConnectionStateError: the connection is already accepted, closed or lost.
        :raises ValueError: the client did not offer the single subprotocol, or a header is not safe to send.
        """
        if self._accepting is not None or self._step not in _ALLOWED["accept"]:
            if self._is_accepted_first:
                self._is_accepted_first = False
                return
            self._refuse("accept")
        open_envelope = self.options.open_envelope
        if subprotocols is None and open_envelope is not None:
            subprotocols = (SUBPROTOCOL,)
        elif self.options.prefers_envelope and SUBPROTOCOL in (self.scope.get("subprotocols") or ()):
            subprotocols = SUBPROTOCOL
        event = events.accept_event(self.scope, subprotocols, headers)
        accepting = self._accepting = asyncio.get_running_loop().create_future()
        try:
            await self._await_connect()
            await self._wire(cast("Message", event))
            self._step = "open"
            self.is_open = self._was_accepted = True
            self._count_handshake("accepted", "101")
            await self._begin(open_envelope if event["subprotocol"] == SUBPROTOCOL else None)
            if self.options.counts is not None:
                self._count_connection(self.options.counts)
            if self._announce is not None:
                await self._announce_or_close(self._announce)
        finally:
            accepting.set_result(None)
            self._accepting = None

    async def _announce_or_close(self, announce: Callable[[Self], None]) -> None:
        """Close here what may not be open: a handler could catch what :meth:`accept` raises, and go on."""
        try:
            announce(self)
        except WebSocketException as refused:
            await self.close(refused.code, refused.reason)
            raise

    def _count_connection(self, counts: RouteCounts) -> None:
        now = asyncio.get_running_loop().time
        counts.opened += 1
        begun = now()

        def count_end() -> None:
            code = WS_1006_ABNORMAL_CLOSURE if self.close_code is None else self.close_code
            counts.end(now() - begun, code, chosen_here=self.event_reader.closing)

        self.when_gone(count_end)

    async def accept_first(self) -> None:
        """Accept before guards and handler; the handler's own accept then does nothing."""
        await self.accept()
        self._is_accepted_first = True

    async def _begin(self, open_envelope: Callable[[Any], Envelope] | None) -> None:
        """Make the server and the application's side of the connection known to each other, and begin with frames."""
        reader, extensions = self.event_reader, self.scope.get("extensions") or {}
        self.transport = extensions.get("telex.transport")
        carrier: RouteConnection | None = self.route
        reader.server_reports_end = self.transport is not None or carrier is not None
        if carrier is not None:
            # The socket reads for all its routes, so that this one need not read ahead to notice the end.
            reader.max_messages = 0
        watched: ActivityWatcher | None = extensions.get("telex.activity") if carrier is None else carrier
        if watched is not None:
            watched.set_activity(reader)
        if self.options.limit_messages is not None:
            self.options.limit_messages(self)
        if open_envelope is not None:
            self.envelope = open_envelope(self)
            await self.envelope.begin()
            if (asks := reader.limiter or watched) is not None:
                asks.set_activity(self.envelope)

    async def deny(
        self,
        status: int = 403,
        body: object = None,
        headers: events.HeaderValues | None = None,
        *,
        code: int | None = None,
    ) -> None:
        """Refuse the handshake with an HTTP status, if the server supports denial responses.

        Other servers answer 403 to a close before accept. ``code`` (default: 4000 + ``status``) is the code of that
        close event, for middleware that reads it.

        :raises ConnectionStateError: the handshake is already answered.
        :raises ValueError: a header is not safe to send.
        """
        if self._accepting is not None or self._step not in _ALLOWED["deny"]:
            self._refuse("deny")
        # Built before the state changes: after an invalid denial the caller can still answer the handshake.
        answer: tuple[object, ...] = (
            events.denial_events(status, body, headers)
            if events.offers_denial(self.scope)
            else (events.close_event(code or CLOSE_CODE_OF_STATUS + status, ""),)
        )
        await self._await_connect()
        self._step = "closed"
        self._count_handshake("denied", str(status))
        for event in answer:
            await self._wire(cast("Message", event))

    async def _await_connect(self) -> None:
        if self._step != "init":
            return
        event = await self.event_reader.get()
        if event["type"] != "websocket.connect":
            raise self.lost()
        self._step = "connect"

    async def ensure_accepted(self, call: _Call = "send") -> None:
        """Accept the connection unless it is accepted. If another task is accepting, wait for it.

        ``call`` is the caller's method, for error messages.

        :raises WebSocketDisconnect: the client has left.
        :raises ConnectionStateError: the handshake was refused, the connection is closed, or a task that the handler
            did not start would accept by sending.
        """
        if self._step in {"closed", "disconnect"}:
            self._refuse(call)
        if self._step == "open":
            return
        if self._accepting is None:
            if call == "send" and not self._accepts_by_sending():
                raise ConnectionStateError(
                    "send() by a task that the handler did not start, on a connection that has not been accepted:"
                    " call 'await socket.accept()' in the handler before other tasks use the socket"
                )
            await self.accept()
        else:
            await asyncio.shield(self._accepting)
            if not self.is_open:
                self._refuse(call)

    def _accepts_by_sending(self) -> bool:
        task = asyncio.current_task()
        return self._owner in {None, task} or (self._family is not None and _family.get() is self._family)

    # -- the closing handshake

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection, or refuse the handshake before accept. Does nothing after the connection has ended.

        ``reason`` is cut to 123 bytes at a character boundary.

        :raises ValueError: RFC 6455 section 7.4 forbids sending this code.
        """
        event = events.close_event(code, reason)
        if self._step in {"closed", "disconnect"}:
            return
        await self._await_connect()
        await self.event_reader.stop_reading()
        if self._step not in {"closed", "disconnect"}:
            await self._send_close(event)

    async def close_while_reading(self, code: int, reason: str) -> None:
        """Close an open connection from the code that reads its events: reading need not be stopped."""
        if self.is_open:
            await self._send_close(events.close_event(code, reason))

    async def _send_close(self, event: CloseEvent) -> None:
        if self._step == "connect":
            self._count_handshake("denied", "403")
        self._step = "closed"
        self.is_open = False
        self.close_code, self.close_reason = event["code"], event["reason"]
        closer = asyncio.current_task()
        self._closer = id(closer)
        self.event_reader.closing = True
        if self.envelope is not None:
            self.envelope.closed()
        if closer is not self._owner:
            self.event_reader.stop_after_grace(WebSocketDisconnect(event["code"], event["reason"]))
        try:
            await self.asgi_send(cast("Message", event))
        except OSError:
            self.lost()

    def ended_by(self, exc: Exception) -> bool:
        """Record that ``exc`` ends this connection; returns whether it was already recorded."""
        before, self._ended_by = self._ended_by, id(exc)
        return before == id(exc)

    # -- raw events

    async def receive(self) -> Message:
        """The next ASGI event. Returns the disconnect event once, then raises.

        :raises WebSocketDisconnect: a disconnect event was already returned.
        :raises ConcurrencyError: another task is already waiting in ``receive``.
        """
        if self._step not in _ALLOWED["receive"]:
            self._refuse("receive")
        event = await self.event_reader.get()
        if event["type"] == "websocket.connect":
            self._step = "connect"
        elif event["type"] == "websocket.disconnect":
            self.lost()
        elif events.is_too_long(event, self.options.max_message_size):
            raise WebSocketException(1009, f"message over {self.options.max_message_size} bytes")
        return event

    async def send(self, event: Message) -> None:
        """Send one ASGI event unchanged.

        :raises ConnectionStateError: the connection's state does not allow it.
        :raises WebSocketDisconnect: the client has left.
        """
        kind = event["type"]
        if kind == "websocket.send":
            if self._step != "open":
                self._refuse("send")
            await self._wire(event)
        elif kind == "websocket.accept":
            await self.accept(event.get("subprotocol"), event.get("headers"))
        elif kind == "websocket.close":
            await self.close(event.get("code", 1000), event.get("reason"))
        else:
            await self._send_denial(event)

    async def _send_denial(self, event: Message) -> None:
        if event["type"] == "websocket.http.response.start":
            if self._step not in _ALLOWED["deny"]:
                self._refuse("deny")
            await self._await_connect()
            self._step = "closed"
            self._count_handshake("denied", str(event["status"]))
        await self._wire(event)

    async def _wire(self, event: Message) -> None:
        if self.event_reader.disconnect is not None:
            raise self.lost()  # some servers accept data that cannot be delivered
        try:
            await self.asgi_send(event)
        except OSError as exc:
            raise self.lost() from exc
        # A send that the transport accepts immediately does not suspend, so a loop of sends would block other tasks.
        self._sent_in_a_row = (self._sent_in_a_row + 1) % _SENDS_BEFORE_YIELD
        if not self._sent_in_a_row:
            await asyncio.sleep(0)

    def lost(self, code: int = 1006, reason: str = "the connection was lost") -> WebSocketDisconnect:
        """Mark the connection as lost; returns the exception that describes how the client left."""
        self._step = "disconnect"
        self.is_open = False
        end = self.event_reader.note_lost(WebSocketDisconnect(code, reason))
        if self.close_code is None:
            self.close_code, self.close_reason = end.code, end.reason
        return end

    def _refuse(self, call: _Call) -> NoReturn:
        if self._step == "disconnect":
            raise self.lost()
        if self._step == "closed" and self.close_code is not None and self._closer != id(asyncio.current_task()):
            raise WebSocketDisconnect(self.close_code, self.close_reason)
        raise ConnectionStateError(
            f"{call}() on a connection in state {self.connection_state!r}: {_WHY_NOT[self._step]}"
        )


async def no_channel(*_: object) -> NoReturn:
    raise ConnectionStateError("this WebSocket was made without an ASGI receive and send")
