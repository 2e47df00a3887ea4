"""``MultiplexSession``: the frames of one socket that carries many routes.

It reads each frame, passes it to the route that its ``c`` names, and owns the tasks of the routes.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from telex.calls import Slots
from telex.connection import Socket
from telex.defaults import KIB, MAX_INVALID_MESSAGES, MIB, PING_AFTER
from telex.exceptions import ConnectionStateError, WebSocketDisconnect, WebSocketException
from telex.multiplex import frames
from telex.multiplex.denial import denied_frame
from telex.multiplex.frames import CloseRoute, CreditFrame, Head, OpenRoute
from telex.multiplex.opening import Opening
from telex.multiplex.scope import is_target, route_extensions, route_scope
from telex.multiplex.turns import Turns
from telex.multiplex.virtual import VirtualConnection
from telex.protocol.errors import cut
from telex.protocol.frames import CLIENT_TYPES, AuthFrame, BadFrame, read, unknown_type
from telex.protocol.output import FrameOutput
from telex.protocol.reading import LOG_IN_FIRST, FrameReading
from telex.protocol.refusals import Denial
from telex.protocol.runner import MAX_QUEUED_BYTES
from telex.status_codes import WS_1007_INVALID_FRAME_PAYLOAD_DATA, WS_1012_SERVICE_RESTART, is_sendable_close_code
from telex.telemetry.counts import RouteCounts
from telex.types import ASGIApp, Authentication, Message, Scope

__all__ = ("MultiplexPlan", "MultiplexSession")


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplexPlan:
    """What the sockets of one Multiplex share."""

    where: str
    find_route: Callable[[Scope], ASGIApp]
    """The ASGI app of a route, which refuses a path that is not served here."""
    max_routes: int
    max_message_size: int
    contract: Callable[[], str]
    """Returns the hash of the app's contract."""
    counts: RouteCounts | None = None
    reported: set[str] = field(default_factory=set)
    """The paths of routes whose headers were lost, each logged once."""


class MultiplexSession(FrameReading):
    """The frames of one socket, in both directions."""

    __slots__ = (
        "_before",
        "_extensions",
        "_goes_away",
        "_highest",
        "_invalid_in_a_row",
        "_opening",
        "_plan",
        "_reads",
        "_routes",
        "_since_turn",
        "_why_none",
        "bytes",
        "dropped",
        "output",
        "turns",
    )

    def __init__(self, plan: MultiplexPlan, socket: Socket) -> None:
        super().__init__(socket, plan.max_message_size)
        self._plan = plan
        self._before: Scope = socket.scope["telex.before_routing"]
        self._extensions = route_extensions(self._before)
        self._routes: dict[int, VirtualConnection] = {}
        self._opening = Opening()
        self._goes_away = False
        self._why_none = ""
        """Why no route may be opened."""
        self._reads = False
        self._highest = 0
        self._invalid_in_a_row = 0
        self._since_turn = 0
        """What was read since the routes had a turn of the event loop, in bytes."""
        self.output: FrameOutput = self._output
        self.turns: Turns = Turns()
        self.bytes: int = 0
        """Bytes of the messages of all routes that are in work or wait."""
        self.dropped: int = 0
        """Frames for routes that had ended."""

    # -- the interface of the connection

    async def begin(self) -> None:
        """Send ``hello``."""
        plan = self._plan
        hello = {
            "type": "hello",
            "session": secrets.token_urlsafe(12),
            "ping": PING_AFTER,
            "max": plan.max_message_size,
            "bytes": MAX_QUEUED_BYTES,
            "routes": plan.max_routes,
            "contract": plan.contract(),
        }
        authentication = self.authentication
        if authentication is not None:
            hello |= authentication.hello
        await self._output.send(msgspec.json.encode(hello).decode())
        self._output.ping_every(PING_AFTER)
        if authentication is not None and authentication.is_awaited:
            self.take_no_more(LOG_IN_FIRST)
            self._reads = True
            await self._start_reading()  # its token comes before its handler begins

    async def notify(self, data: object) -> None:
        """A socket of many routes has no messages of its own."""
        raise ConnectionStateError(f"{self._plan.where}: this socket carries routes: send on the socket of a route")

    async def call(self, data: object, answer: Any, within: float) -> Any:
        """As :meth:`notify`."""
        await self.notify(data)

    @property
    def busy(self) -> bool:
        """Whether a drain must wait: a route works, or opens."""
        return self._opening.is_busy or any(route.busy for route in self._routes.values())

    @property
    def authentication(self) -> Authentication | None:
        """Who the client is."""
        return self._socket.authentication

    def take_no_more(self, why: str) -> None:
        """Open no route."""
        self._why_none = why

    def take_again(self) -> None:
        """Undo :meth:`take_no_more`."""
        self._why_none = ""

    def refuse(self, raw: str | bytes, message: str, retry_after: float) -> bool:
        """Not called: a limit of a shared socket waits or closes."""
        return False

    def go_away(self, within: float, retry_after: float) -> bool:
        """Tell the client, once for all its routes; from now on no route is opened."""
        self._goes_away = True
        return super().go_away(within, retry_after)

    async def serve(self, slots: Slots) -> None:
        """Carry routes until the connection ends, and wait until each of them has ended."""
        end: BaseException = WebSocketDisconnect(1006)
        is_cancelled = True
        self._output.takes_work = True
        try:
            try:
                if not self._reads:
                    await self._start_reading()
                await self._until_end()
            except Exception as exc:
                end = exc
            except asyncio.CancelledError as exc:
                if not self._socket.event_reader.interrupts:
                    raise
                end = exc
            await self._end_routes(end)
            is_cancelled = False
        finally:
            self._opening.stop()
            try:
                await self._output.end_work(cancel=is_cancelled)
            finally:
                await self._end_resting()
        try:
            raise end
        finally:
            del end  # the exception references this frame

    async def _end_routes(self, end: BaseException) -> None:
        self._opening.stop()
        if isinstance(end, WebSocketException) and not isinstance(end, WebSocketDisconnect):
            await self._socket.close(end.code, end.reason)
        known = end if isinstance(end, WebSocketException) else self._socket.event_reader.disconnect
        code, reason = (1011, "") if known is None else (known.code, known.reason)
        for route in tuple(self._routes.values()):
            route.end(code, reason)

    async def _end_resting(self) -> None:
        """This task was cancelled, which ends the tasks of routes: those that rest have none, and end as the others."""
        if self._routes:
            self._output.takes_work = True
            for route in tuple(self._routes.values()):
                route.end(WS_1012_SERVICE_RESTART, "service restart")
            await self._output.end_work(cancel=False)

    # -- reading

    def take_event(self, event: Message) -> Awaitable[None] | None:
        """Let the routes read in between: a server with a queue of messages gives them without a turn of the loop."""
        wait = super().take_event(event)
        if event["type"] != "websocket.receive":
            return wait
        self._since_turn += len(event.get("text") or event.get("bytes") or "") + _PER_FRAME
        if self._since_turn < _PER_TURN:
            return wait
        self._since_turn = 0
        return self._give_turn(wait)

    @staticmethod
    async def _give_turn(wait: Awaitable[None] | None) -> None:
        if wait is not None:
            await wait
        await asyncio.sleep(0)

    def _feed(self, raw: str | bytes) -> None:
        if self._failure is not None:
            return
        try:
            if 4 * len(raw) > self._max_message_size:
                self._check_size(raw)
            try:
                head = frames.read_head(raw)
                self._route(head, raw)
                self._invalid_in_a_row = 0
            except BadFrame as bad:
                self._refuse_frame(bad)
        except Exception as exc:
            self._failure = exc

    def _route(self, head: Head, raw: str | bytes) -> None:
        kind, c = head.type, head.c
        if kind == "auth" and c is None:
            self._on_auth(raw)
            return
        if c is None or kind in _NEVER_WITH_ROUTE:
            self._handle_own(head)
            return
        if kind in _ABOUT_ROUTES:
            _ABOUT_ROUTES[kind](self, frames.read_route_frame(raw))
            return
        route = self._routes.get(c)
        if route is not None:
            route.put(raw)
        else:
            self._check_opened(c)
            self._drop_frame()

    def _drop_frame(self) -> None:
        self.dropped += 1
        if self._plan.counts is not None:
            self._plan.counts.frames_dropped += 1

    def _handle_own(self, head: Head) -> None:
        """A frame about the socket itself."""
        if head.c is not None:
            raise BadFrame("bad_frame", f"a frame of type {head.type!r} has no 'c'")
        if head.type == "ping":
            self._output.write('{"type":"pong"}')
        elif head.type == "error":
            self._socket.logger.info("%s: the client reports an error", self._plan.where)
        elif head.type not in CLIENT_TYPES and head.type not in _ABOUT_ROUTES:
            raise unknown_type(head.type)
        elif head.type != "pong":
            raise BadFrame("bad_frame", f"a frame of type {head.type!r} needs 'c', the number of its route")

    def _on_auth(self, raw: str | bytes) -> None:
        found, _ = read(raw)
        if isinstance(found, AuthFrame):
            self._renew(found)

    def _check_opened(self, c: int) -> None:
        if c > self._highest:
            raise BadFrame("bad_frame", f"route {c} was not opened", "$.c")

    def _refuse_frame(self, bad: BadFrame) -> None:
        self._invalid_in_a_row += 1
        if self._invalid_in_a_row >= MAX_INVALID_MESSAGES:
            self._failure = WebSocketException(WS_1007_INVALID_FRAME_PAYLOAD_DATA, cut(bad.message))
        self._output.write(frames.error_of(None, bad.code, cut(bad.message), cut(bad.path)))

    # -- frames about routes

    def _on_open(self, found: OpenRoute) -> None:
        c = found.c
        if c <= self._highest:
            raise BadFrame("bad_frame", f"'c' is {c}, which is not higher than the last: take a new one", "$.c")
        self._highest = c
        refusal = self._why_not(found)
        if refusal is not None:
            self._output.write(denied_frame(c, refusal))
            return
        route = self._routes[c] = VirtualConnection(self, found)
        self._opening.add(route)

    def _why_not(self, found: OpenRoute) -> Denial | None:
        """Why a route is refused before its app is asked."""
        delay = self._opening.delay()
        if not is_target(found.path, found.query):
            return Denial.of(400, "path and query must be those of a request target, percent-encoded")
        if self._why_none:
            return Denial.of(401, self._why_none)
        if self._goes_away:
            return Denial.of(503, "the server stops: open the route on another connection")
        if len(self._routes) >= self._plan.max_routes:
            return Denial.of(429, f"at most {self._plan.max_routes} routes at once")
        if delay:
            return Denial.of(429, "too many routes were opened", retry_after=math.ceil(delay * 1000) / 1000)
        return None

    def _on_close(self, found: CloseRoute) -> None:
        route = self._routes.get(found.c)
        if route is None:
            self._check_opened(found.c)
            self._drop_frame()
            return
        if not is_sendable_close_code(found.code):
            raise BadFrame("bad_frame", f"close code {found.code} may not be sent", "$.code")
        route.end(found.code, found.reason)
        if self._opening.discard(route):
            del self._routes[found.c]
            self._output.write(route.closed_frame())

    def _on_credit(self, found: CreditFrame) -> None:
        route = self._routes.get(found.c)
        if route is not None:
            route.credit.give(found.n)
        else:
            self._check_opened(found.c)
            self._drop_frame()

    # -- called by routes

    def start(self, route: VirtualConnection) -> None:
        """Run ``route`` in a task of the socket."""
        scope = route_scope(self._before, self._socket.scope, route, self._extensions)
        app = self._plan.find_route(scope)
        self._output.spawn(route.run(partial(app, scope, route.receive, route.send)))

    def ended(self, route: VirtualConnection) -> None:
        """``route`` has ended, and its final frame is sent."""
        del self._routes[route.c]

    def answered(self, route: VirtualConnection, denied: bool | None) -> None:
        """``route`` has accepted or refused; ``None``: the client has closed it before."""
        self._opening.answered(route, denied)

    def lost_headers(self, route: VirtualConnection) -> None:
        """Log, once for each path, that the headers of an accept reach no client."""
        if route.path not in self._plan.reported and len(self._plan.reported) < _MAX_REPORTED:
            self._plan.reported.add(route.path)
            self._socket.logger.warning(
                "%s: the route %r sets headers when it accepts, which a route on a shared socket cannot send",
                self._plan.where,
                cut(route.path),
            )


_MAX_REPORTED: Final = 100
_PER_TURN: Final = MIB
_PER_FRAME: Final = 16 * KIB
"""What a frame counts beside its bytes: 64 small frames give the routes a turn."""
_NEVER_WITH_ROUTE: Final = frozenset({"ping", "pong", "auth", "goaway", "hello"})
_ABOUT_ROUTES: Final[dict[str, Callable[[MultiplexSession, Any], None]]] = {
    "open": MultiplexSession._on_open,
    "close": MultiplexSession._on_close,
    "credit": MultiplexSession._on_credit,
}
