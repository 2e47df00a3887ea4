"""The WebSocket protocol class for uvicorn: reads the handshake, runs the ASGI app and opens the connection.

``uvicorn --ws telex.server:WebSocketProtocol app:app`` uses it under plain uvicorn; Telex's own server always uses it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from telex import status_codes
from telex.defaults import KIB
from telex.exceptions import ConnectionStateError
from telex.headers import ACCEPT_HEADERS, checked_headers, read_origin
from telex.protocol.envelope import SUBPROTOCOL
from telex.protocol.refusals import CLOSE_WITHIN, Denial, offers_frames
from telex.server.closing import Stage
from telex.server.connection import Connection
from telex.server.deflate import negotiate
from telex.server.frames import TEXT, CloseReason, ConnectionClosed, close_frame, frame_header
from telex.server.handshake import Refusal, Request, denial, read_request, switching_protocols
from telex.server.limits import Limits
from telex.types import Message, Scope

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ("MAX_EARLY", "WebSocketProtocol")

_logger: Final = logging.getLogger("uvicorn.error")

MAX_EARLY: Final = 64 * KIB
"""Bytes that a client may send before the handshake is answered; above this the server stops reading."""

_FULL: Final = "The server has reached its limit of connections."

_MAX_LOGGED: Final = 500
"""The maximum characters of a path in a log line."""


class WebSocketProtocol(asyncio.Protocol):
    """One connection. uvicorn makes it for an upgrade request, and passes it that request.

    Until the connection is accepted it sends HTTP responses; after that the transport passes the data to the parser.
    """

    __slots__ = (
        "_app_state",
        "_config",
        "_connected",
        "_connection",
        "_denial",
        "_disconnect_sent",
        "_early",
        "_http",
        "_limits",
        "_loop",
        "_refused",
        "_request",
        "_scope",
        "_state",
        "_timer",
        "transport",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._limits = Limits.of(config)
        self._connection = Connection(self._limits, self._loop, self._on_lost)
        self._early = b""
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._http: asyncio.BaseProtocol | None = None
        self._request: Request | None = None
        self._scope: Scope = {}
        self._timer: asyncio.TimerHandle | None = None
        self._connected = False
        self._disconnect_sent = False
        self._refused = False
        self._denial: list[bytes] | None = None

    # Called by the event loop and uvicorn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over from uvicorn's HTTP protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self._http = self.transport.get_protocol()
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._timer = self._loop.call_later(self._limits.handshake_timeout, self._on_timeout)

    def data_received(self, data: bytes) -> None:
        """Read the request (the first call), or buffer data that the client sends before it is accepted."""
        if self._request is not None or self._refused:
            self._early += data
            if len(self._early) > MAX_EARLY:
                self.transport.pause_reading()
            return
        try:
            is_full = self._is_full()
            if is_full and SUBPROTOCOL.encode() not in data:
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, _FULL)
            self._check_http()
            self._request = read_request(data)
            self._scope = self._make_scope(self._request)
            if is_full:
                self._refuse_for_now(_FULL)
            else:
                self._start_app()
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            # The transport does not use this protocol yet: an escaping exception would leave the connection counted.
            _logger.exception("Exception while a WebSocket request was read")
            self._end(HTTPStatus.INTERNAL_SERVER_ERROR, status_codes.WS_1011_UNEXPECTED_ERROR)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left before it was accepted."""
        self._connection.lost()

    def shutdown(self) -> None:
        """Refuse the handshake with 503, or close the accepted connection with 1012: the server stops."""
        if self._connection.stage == Stage.OPENING:
            self._refuse_for_now("The server is shutting down.")
        else:
            self._connection.close(CloseReason(status_codes.WS_1012_SERVICE_RESTART))

    @property
    def accepted(self) -> bool:
        """Whether the handshake is complete: accepted or refused."""
        return self._connection.stage != Stage.OPENING

    @property
    def open(self) -> bool:
        """Whether messages can be sent and received."""
        return self._connection.stage == Stage.OPEN

    @property
    def idle(self) -> bool:
        """Whether the application is waiting for the client, so that closing now interrupts no work."""
        return not self._connection.busy

    def go_away(self, within: float, retry_after: float) -> bool:
        """Tell the client that it must leave; false if it cannot be told. See :class:`telex.types.Activity`."""
        return self._connection.go_away(within, retry_after)

    def close(self, close: CloseReason) -> None:
        """Start the closing handshake of an accepted connection."""
        self._connection.close(close)

    def _on_lost(self) -> None:
        self._state.connections.discard(self)
        self._stop_timer()

    # The handshake

    def _is_full(self) -> bool:
        most = self._limits.max_connections
        return most is not None and len(self._state.connections) > most

    def _check_http(self) -> None:
        """Make the checks that need uvicorn's HTTP protocol: the pending response and the HTTP version."""
        http, self._http = self._http, None
        cycle = getattr(http, "cycle", None)
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            self.transport.abort()  # the client would read an answer as a part of that response
            raise Refusal(HTTPStatus.BAD_REQUEST, "An upgrade must wait for the response to the request before it.")
        if (getattr(http, "scope", None) or {}).get("http_version", "1.1") != "1.1":
            raise Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "A WebSocket opens with HTTP/1.1.")

    def _make_scope(self, request: Request) -> Scope:
        root_path = self._config.root_path
        secure = self.transport.get_extra_info("sslcontext") is not None
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if secure else "ws",
            "server": _address(self.transport.get_extra_info("sockname")),
            "client": _address(self.transport.get_extra_info("peername")),
            "root_path": root_path,
            "path": root_path + request.path,
            "raw_path": root_path.encode() + request.raw_path,
            "query_string": request.query_string,
            "headers": request.headers,
            "subprotocols": request.subprotocols,
            "state": self._app_state.copy(),
            "extensions": {
                "websocket.http.response": {},
                "telex.transport": self._connection,
                "telex.activity": self._connection,
            },
        }

    def _start_app(self) -> None:
        context = contextvars.Context() if self._config.reset_contextvars else None
        task = self._loop.create_task(self._run_app(), name=f"WebSocket {self._scope['path']!r:.500}", context=context)
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    async def _run_app(self) -> None:
        try:
            await self._config.loaded_app(self._scope, self._receive, self._send)
        except ConnectionClosed:
            self._connection.close(CloseReason(status_codes.WS_1000_NORMAL_CLOSURE))
        except asyncio.CancelledError:
            self.shutdown()
            raise
        except Exception:
            _logger.exception("Exception in ASGI application")
            self._end(HTTPStatus.INTERNAL_SERVER_ERROR, status_codes.WS_1011_UNEXPECTED_ERROR)
        else:
            if self._connection.stage == Stage.OPENING and not self._refused:
                _logger.error("The ASGI application returned without accepting or refusing the connection.")
            self._end(HTTPStatus.INTERNAL_SERVER_ERROR, status_codes.WS_1000_NORMAL_CLOSURE)

    def _end(self, status: HTTPStatus, code: int) -> None:
        """End the connection after the application returned or failed; the client gets no details."""
        if self._connection.stage == Stage.OPENING:
            self._refuse(Refusal(status, status.phrase))
        else:
            self._connection.close(CloseReason(code))

    def _on_timeout(self) -> None:
        self._refuse_for_now("The application did not answer in time.")

    def _refuse(self, refusal: Refusal) -> None:
        body = refusal.text.encode()
        headers = [*refusal.headers, (b"content-type", b"text/plain; charset=utf-8"), _length(body)]
        self._respond([denial(refusal.status, [*self._state.default_headers, *headers]), body])

    def _refuse_for_now(self, text: str) -> None:
        """Refuse with 503: in the socket, if the client is a page of this host that reads frames of telex.v1."""
        request, refusal = self._request, Refusal(HTTPStatus.SERVICE_UNAVAILABLE, text)
        if request is not None and not self._refused:
            self._log_access(refusal.status)
        if request is None or not offers_frames(self._scope) or not self._is_of_own_page(request):
            self._refuse(refusal)
            return
        denial = Denial.of(refusal.status, text)
        frame = denial.frame.encode()
        self._respond(
            [
                switching_protocols(request, SUBPROTOCOL, None, self._state.default_headers),
                frame_header(TEXT, len(frame)),
                frame,
                close_frame(CloseReason(*denial.close)),
            ]
        )

    def _is_of_own_page(self, request: Request) -> bool:
        origins = [value for name, value in request.headers if name == b"origin"]
        origin = read_origin(origins[0].decode("latin-1")) if len(origins) == 1 else None
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        return origin is not None and origin.is_own(hosts, secure=self._scope["scheme"] == "wss")

    def _respond(self, parts: list[bytes]) -> None:
        """Write a whole response, or the rest of one, and close."""
        if self._refused:
            return
        self._refused = True
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.write(b"".join(parts))
            self.transport.close()
            self._timer = self._loop.call_later(self._limits.close_timeout, self.transport.abort)
        self._connection.refused()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _log_access(self, outcome: object) -> None:
        path = quote(str(self._scope["path"])[:_MAX_LOGGED])
        query = self._scope["query_string"].decode("ascii")[:_MAX_LOGGED]
        client = self._scope["client"]
        _logger.info(
            '%s - "WebSocket %s%s" %s',
            f"{quote(str(client[0])[:_MAX_LOGGED], safe=':.[]')}:{client[1]}" if client else "",
            path,
            f"?{query}" if query else "",
            outcome,
        )

    # ASGI

    async def _receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        data = await self._connection.receive()
        if isinstance(data, str):
            return {"type": "websocket.receive", "text": data}
        if data is not None:
            return {"type": "websocket.receive", "bytes": data}
        if self._disconnect_sent:
            raise ConnectionStateError("receive() after websocket.disconnect: the connection has no more events.")
        self._disconnect_sent = True
        code, reason = self._connection.closed_with or CloseReason(status_codes.WS_1006_ABNORMAL_CLOSURE)
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def _send(self, event: Message) -> None:
        kind = event["type"]
        if kind == "websocket.send" and self._connection.stage != Stage.OPENING:
            data = event.get("text")
            if data is None:
                data = event["bytes"]
            if data.__class__ is not str and data.__class__ is not bytes:
                data = str.__str__(data) if isinstance(data, str) else bytes(data)
            if not self._connection.send(data):
                await self._connection.drain()
            return
        handle = _BEFORE_ACCEPT.get(kind) if self._connection.stage == Stage.OPENING else _AFTER_ACCEPT.get(kind)
        if handle is None and self._connection.stage >= Stage.CLOSING:
            raise ConnectionClosed(f"{kind!r} cannot be sent: the connection is closed.")
        if handle is None:
            stage = self._connection.stage.name.lower()
            raise ConnectionStateError(f"{kind!r} cannot be sent while the connection is {stage}.")
        handle(self, event)

    def _accept(self, event: Message) -> None:
        request = self._request
        if request is None or self._refused or self.transport.is_closing():
            raise ConnectionClosed("The client left before it was accepted.")
        agreement = negotiate(request.extensions, self._connection.limits)
        response = switching_protocols(
            request,
            event.get("subprotocol"),
            agreement.header if agreement else None,
            [*self._state.default_headers, *checked_headers(event.get("headers") or (), ACCEPT_HEADERS)],
        )
        self._stop_timer()
        self._log_access(event.get("refused_with", "[accepted]"))
        if "refused_with" in event:
            self._connection.hasten(CLOSE_WITHIN)
        self.transport.write(response)
        early, self._early = self._early, b""
        self._request = None
        self._connection.open(self.transport, agreement, early)

    def _close_unaccepted(self, event: Message) -> None:
        if not self._refused:
            self._log_access(HTTPStatus.FORBIDDEN)
        self._refuse(Refusal(HTTPStatus.FORBIDDEN, HTTPStatus.FORBIDDEN.phrase))

    def _start_denial(self, event: Message) -> None:
        status = event["status"]
        if not 200 <= status < 600:
            raise ValueError(f"websocket.http.response.start has the status {status!r}: give one from 200 to 599.")
        headers = checked_headers(event.get("headers") or ())
        self._denial = [denial(status, [*self._state.default_headers, *headers])]
        self._log_access(status)

    def _continue_denial(self, event: Message) -> None:
        if self._denial is None:
            raise ConnectionStateError("'websocket.http.response.body' before 'websocket.http.response.start'.")
        self._denial.append(event.get("body", b""))
        if not event.get("more_body", False):
            self._respond(self._denial)

    def _close_accepted(self, event: Message) -> None:
        code = event.get("code", status_codes.WS_1000_NORMAL_CLOSURE)
        if not status_codes.is_sendable_close_code(code):
            raise ValueError(f"websocket.close has the code {code!r}: give {status_codes.SENDABLE_CLOSE_CODES}.")
        self._connection.close(CloseReason(code, event.get("reason") or ""))


_Handler = Callable[[WebSocketProtocol, Message], None]

_BEFORE_ACCEPT: Final[Mapping[str, _Handler]] = {
    "websocket.accept": WebSocketProtocol._accept,
    "websocket.close": WebSocketProtocol._close_unaccepted,
    "websocket.http.response.start": WebSocketProtocol._start_denial,
    "websocket.http.response.body": WebSocketProtocol._continue_denial,
}

_AFTER_ACCEPT: Final[Mapping[str, _Handler]] = {"websocket.close": WebSocketProtocol._close_accepted}


def _address(name: object) -> tuple[str, int | None] | None:
    """A socket's address in ASGI's form: host and port, or a Unix socket's path and ``None``."""
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    if isinstance(name, str) and name:
        return name, None
    return None


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()
