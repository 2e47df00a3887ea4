"""The app's side of a test connection: the task, ``receive`` and ``send``, and the pipes to the client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from telex.exception_handling import REPORT_EXTENSION
from telex.exceptions import WebSocketDisconnect
from telex.signatures import describe
from telex.status_codes import WS_1006_ABNORMAL_CLOSURE
from telex.testing.clock import real_timeout
from telex.testing.errors import ClientGone, ProtocolMisuse, WebSocketDenied
from telex.testing.frame_client import FrameClient
from telex.testing.handshake import DENIAL_EXTENSION
from telex.testing.matching import disconnect_of
from telex.testing.pipe import Pipe
from telex.testing.protocol import AppProtocol, ConnectionPhase
from telex.testing.tasks import bounded, is_cancelled, name_of, stop, whereabouts
from telex.types import ASGIApp, Message, Scope

__all__ = ("AppRun",)

T = TypeVar("T")


class AppRun:
    """Runs an app on one connection, and stores its failure for the test."""

    def __init__(
        self, app: ASGIApp, scope: Scope, frames: FrameClient, *, max_queued: int, raise_server_exceptions: bool
    ) -> None:
        """``frames`` sees each message first. ``max_queued``: the limit of queued events in each direction."""
        self.left: bool = False
        """Whether the client has closed; the app's sends then raise :class:`ClientGone`."""
        self._app = app
        self._scope = scope
        self._frames = frames
        self._max_queued = max_queued
        self._raise_server_exceptions = raise_server_exceptions
        self._protocol = AppProtocol(scope["subprotocols"], may_deny=DENIAL_EXTENSION in scope["extensions"])
        self._to_app = Pipe(max_queued)
        self._from_app = Pipe(max_queued)
        self._sending = asyncio.Lock()  # keeps the order of blocked sends
        self._error: BaseException | None = None
        self._reported: deque[Exception] = deque()  # what Telex answered with a close, or with an error of a call
        self._misuse: ProtocolMisuse | None = None
        self._client_error: BaseException | None = None
        self._surfaced = False
        self._accepted = False
        if raise_server_exceptions:
            scope["extensions"][REPORT_EXTENSION] = self._reported.append
        self._task = asyncio.create_task(self._run(), name=f"test session of {name_of(app)}")

    # -- the client's side

    async def put(self, event: Message, limit: float) -> None:
        """Queue ``event`` for the app; drop it if the app has closed or ended, as on a network.

        :raises TimeoutError: the queue was full for ``limit`` seconds.
        """
        what = f"{self._name()} did not read one of its {self._max_queued} waiting messages (max_queued)"
        await self.within(self._to_app.put(event), limit, what)

    def put_at_once(self, event: Message) -> None:
        """Queue ``event`` for the app, even above the limit; for a route, whose credit bounds what it sends so."""
        self._to_app.add(event)

    async def take(self, limit: float, what: str) -> Message | None:
        """The app's next event; ``None`` after the last.

        :raises TimeoutError: no event came within ``limit`` seconds; the text begins with ``what``.
        :raises ProtocolMisuse: the app broke the protocol.
        :raises Exception: the exception that the app raised.
        """
        event = await self.within(self._from_app.get(), limit, f"{what} from {self._name()}")
        is_reported = self._reported and event is not None and event["type"] != "websocket.send"
        if (event is None or is_reported) and (failure := self.failure()):
            raise failure
        return event

    async def look(self, index: int, limit: float) -> Message | None:
        """The queued event at ``index``; ``None`` if none comes within ``limit`` seconds or before the end.

        :raises Exception: the app failed; as :meth:`take`.
        """
        try:
            async with real_timeout(limit):
                event = await self._from_app.peek(index)
        except TimeoutError:
            return None
        if event is None and (failure := self.failure()):
            raise failure
        return event

    def disconnect(self, event: Message) -> None:
        """End the connection as the client: ``event`` is the app's last event."""
        self.left = True
        self._frames.end(disconnect_of(event))
        self._to_app.end(event)
        self._from_app.end()

    def hang_up(self) -> None:
        """Accept no more events from the app: the client has received its close."""
        self._from_app.end()

    async def finish(self, limit: float) -> None:
        """Wait for the app to end, and raise its failure if no earlier call raised it.

        :raises TimeoutError: the app did not end within ``limit`` seconds and was cancelled.
        """
        if not self._task.done():
            await bounded(self._task, limit, f"{self._name()} did not end after the disconnect")
        if not self._surfaced and (failure := self.failure()):
            raise failure

    async def abandon(self) -> None:
        """Cancel the app and discard its failure."""
        self._surfaced = True
        await stop(self._task)

    def ending(self) -> WebSocketDisconnect:
        """The client's exception after an app ended without a close, as servers report it.

        :raises ProtocolMisuse: the app ended without an answer to the handshake.
        """
        if self._accepted:
            how = "ended without a close" if self._error is None else "failed"
            return WebSocketDisconnect(WS_1006_ABNORMAL_CLOSURE, f"the app {how}")
        if self._error is None:
            raise ProtocolMisuse(f"{self._name()} ended without an answer to websocket.connect")
        return WebSocketDenied(500, [(b"content-type", b"text/plain")], b"Internal Server Error")

    def failure(self) -> BaseException | None:
        """The failure of the app or of the test's own functions, for the caller to raise."""
        failure = self._misuse or self._client_error
        if failure is None and self._raise_server_exceptions:
            failure = self._reported[0] if self._reported else self._error
        self._surfaced = self._surfaced or failure is not None
        return failure

    def failed_call(self) -> BaseException | None:
        """The failure behind an error that answers a call; the next call has another."""
        reported = self._reported.popleft() if self._reported else None
        failure, self._client_error = self._client_error or reported, None
        return failure

    def fail(self, error: BaseException) -> None:
        """A function of the test has failed, which the app called."""
        self._client_error = self._client_error or error

    def _name(self) -> str:
        """The app and its handler, which Telex, Litestar and Starlette write into the scope."""
        handler = getattr(self._scope.get("route_handler"), "fn", None) or self._scope.get("endpoint")
        return name_of(self._app) + (f", handler {describe(handler)}," if handler is not None else "")

    async def within(self, wait: Coroutine[Any, Any, T], limit: float, what: str) -> T:
        """Wait at most ``limit`` seconds.

        :raises TimeoutError: it took longer; the text begins with ``what``.
        """
        try:
            async with real_timeout(limit):
                return await wait
        except TimeoutError:
            raise TimeoutError(
                f"{what} within {limit:g} s; {whereabouts(self._task)}{self._frames.transcript()}"
            ) from None

    # -- the app's side

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except ClientGone:
            pass  # an app need not catch it
        except BaseException as error:  # also SystemExit, which would end the event loop
            if not (isinstance(error, asyncio.CancelledError) and is_cancelled()):  # only the session cancels this task
                self._error = error
        finally:
            self._from_app.end()
            self._to_app.end()
            self._frames.end(WebSocketDisconnect(WS_1006_ABNORMAL_CLOSURE, "the app ended without a close"))

    async def _receive(self) -> Message:
        event = await self._to_app.get()
        if event is None:  # after a disconnect, receive() blocks for ever on most servers
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never
        return event

    async def _send(self, event: Message) -> None:
        async with self._sending:
            self._check_present()
            was_open = self._protocol.state is ConnectionPhase.OPEN
            try:
                self._protocol.advance(event)
            except ProtocolMisuse as misuse:
                self._misuse = self._misuse or misuse
                self._from_app.end()
                raise
            self._accepted = self._accepted or self._protocol.state is ConnectionPhase.OPEN
            if self._protocol.state is ConnectionPhase.CLOSED:
                self._to_app.end(_disconnect_after(event, was_open=was_open))
            if self._frames.take(event):
                return
            if not await self._from_app.put(event):
                self._check_present()

    def _check_present(self) -> None:
        if self.left:
            raise ClientGone("the client has closed the connection")


def _disconnect_after(event: Message, *, was_open: bool) -> Message:
    """The disconnect event after the app's own close: with its code, or 1006 after a refused handshake."""
    closed = disconnect_of(event) if was_open else WebSocketDisconnect(WS_1006_ABNORMAL_CLOSURE)
    return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
