"""``FrameSession``: the frames of one connection that speaks ``telex.v1``, whatever handles its calls.

Reading begins with ``hello`` and never waits for the handler; what the client may have in work is bounded by its
credit.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

import msgspec

from telex.codecs import as_validation_error
from telex.connection import Socket
from telex.exceptions import WebSocketDisconnect, WebSocketException
from telex.protocol import frames
from telex.protocol.asking import Asking
from telex.protocol.errors import cut
from telex.protocol.frames import BadFrame
from telex.protocol.jobs import FramePlan
from telex.protocol.reading import LOG_IN_FIRST, FrameReading
from telex.protocol.runner import MAX_QUEUED_BYTES, CallRunner
from telex.status_codes import (
    WS_1007_INVALID_FRAME_PAYLOAD_DATA,
    WS_1008_POLICY_VIOLATION,
)

__all__ = ("FrameSession",)


class FrameSession(FrameReading):
    """The frames of one connection, in both directions."""

    __slots__ = ("_asking", "_end", "_invalid_in_a_row", "_max_calls", "_plan", "_runner", "_why_none")

    def __init__(self, plan: FramePlan, socket: Socket) -> None:
        super().__init__(socket, plan.max_message_size)
        self._plan = plan
        self._max_calls = plan.max_calls
        """The client's credit: 0 while nothing is taken."""
        self._why_none = ""
        self._runner = CallRunner(plan, socket, self._output)
        self._asking: Asking | None = None
        """The calls of the server, once there was one."""
        self._end: WebSocketDisconnect | None = None
        self._invalid_in_a_row = 0

    # -- the interface of the connection

    async def begin(self) -> None:
        """Send ``hello``, then read."""
        plan = self._plan
        hello = {
            "type": "hello",
            "session": secrets.token_urlsafe(12),
            "ping": plan.ping,
            "max": plan.max_message_size,
            "credit": plan.max_calls,
            "bytes": MAX_QUEUED_BYTES,
            "features": () if plan.once is None else ("idempotent",),
            "contract": plan.contract(),
        }
        authentication = self._socket.authentication
        if authentication is not None:
            hello |= authentication.hello
            if authentication.is_awaited:
                self.take_no_more(LOG_IN_FIRST)
        await self._output.send(msgspec.json.encode(hello).decode())
        if not self._socket.is_route:  # its socket sends pings
            self._output.ping_every(plan.ping)
        await self._start_reading()

    async def notify(self, data: object) -> None:
        """Send a value that wants no answer."""
        await self.notify_encoded(self._plan.write_value(data))

    async def call(self, data: object, answer: Any, within: float) -> Any:
        """Ask the client; see :meth:`telex.WebSocket.call`."""
        if self._asking is None:
            self._asking = Asking(self._output.send, self._output.write, self._plan.counts)
            if self._end is not None:
                self._asking.end(self._end)
        counts = self._plan.counts
        if counts is None:
            return await self._asking.ask(self._plan.write_value(data), answer, within)
        with counts.asking():
            return await self._asking.ask(self._plan.write_value(data), answer, within)

    async def aclose(self) -> None:
        """The handler has ended: stop the timers, and wake those who wait for the client's answers."""
        self._stop()
        self._runner.calls.clear()
        self._socket.event_reader.calls = 0
        await super().aclose()

    def closed(self) -> None:
        """This side has closed the connection: wake those who wait for the client's answers."""
        self._end_asking(WebSocketDisconnect(self._socket.close_code or 1006, self._socket.close_reason))

    def _lost(self) -> None:
        self._end_asking(self._socket.event_reader.disconnect or WebSocketDisconnect(1006))

    def _end_asking(self, end: WebSocketDisconnect) -> None:
        self._end = end
        if self._asking is not None:
            self._asking.end(end)

    def _stop(self) -> None:
        """Begin nothing more, and ignore what the client still sends."""
        self._is_over = True
        self._runner.stop()
        self.closed()

    # -- reading

    def refuse(self, raw: str | bytes, message: str, retry_after: float) -> bool:
        """Answer a call or notify that a limit refuses; false for other frames, and for what is no valid frame."""
        try:
            self._check_size(raw)
            found, _ = frames.read(raw)
        except (BadFrame, WebSocketException):
            return False
        if isinstance(found, frames.CallFrame) and found.id > self._last_id:
            self._last_id = found.id
            self._output.write(frames.error_frame(found.id, "rate_limited", message, retry_after=retry_after))
            return True
        if isinstance(found, frames.NotifyFrame):
            text = frames.error_frame(None, "rate_limited", message, about="notify", retry_after=retry_after)
            self._output.write(text)
            self._runner.count_notify()
            return True
        return False

    def _check_size(self, raw: str | bytes) -> None:
        """The largest message bounds ``data``; the rest of a frame may add to it."""
        super()._check_size(raw)
        if not self._is_longer(raw, self._max_message_size):
            return
        try:
            found, payload = frames.read(raw)
        except BadFrame:
            return
        data = getattr(found, "data", b"") if payload is None else payload
        if len(bytes(data)) > self._max_message_size:
            raise self._too_big()

    def _feed(self, raw: str | bytes) -> None:
        try:
            found, payload = frames.read(raw)
        except BadFrame as bad:
            self._refuse_frame(bad)
            return
        self._handle(found, payload, raw)

    def _handle(self, found: frames.ClientFrame, payload: bytes | None, raw: str | bytes) -> None:
        """Handle a frame that was read from ``raw``."""
        kind = found.__class__
        if kind is frames.CallFrame:
            if self._admits(found, len(raw)):  # type: ignore[arg-type]  # its class was compared
                self._take_in(found.id, found, payload, len(raw))  # type: ignore[union-attr,arg-type]
        elif kind is frames.NotifyFrame:
            if self._has_room(0, len(raw)):
                self._take_in(0, found, payload, len(raw))  # type: ignore[arg-type]
        else:
            self._invalid_in_a_row = 0
            _ROUTES[kind](self, found, payload)

    def _refuse_frame(self, bad: BadFrame) -> None:
        """Answer what is no frame. A call whose id can be read gets its final frame; the id is used up."""
        call_id = bad.id if bad.id is not None and bad.id > self._last_id else None
        if call_id is not None:
            self._last_id = call_id
        self._count_invalid(bad.message)
        self._output.write(frames.error_frame(call_id, bad.code, cut(bad.message), path=cut(bad.path)))

    def _count_invalid(self, detail: str) -> None:
        self._invalid_in_a_row += 1
        if self._plan.counts is not None:
            self._plan.counts.invalid += 1
        if self._invalid_in_a_row >= self._plan.max_invalid_messages or self._plan.close_at_first_invalid:
            self._failure = WebSocketException(WS_1007_INVALID_FRAME_PAYLOAD_DATA, cut(detail))

    # -- calls and notifies of the client

    @abstractmethod
    def _take_in(
        self, call_id: int, found: frames.CallFrame | frames.NotifyFrame, payload: bytes | None, size: int
    ) -> None:
        """Handle a call or notify that has credit, or keep it for the handler; ``call_id`` is 0 for a notify."""

    def _admits(self, found: frames.CallFrame, size: int) -> bool:
        """Whether a call may be handled; one that may not has been answered."""
        call_id = found.id
        if call_id <= self._last_id:
            self._refuse_frame(BadFrame("bad_frame", f"the id {call_id} is not higher than the last"))
            return False
        self._last_id = call_id
        if found.key is not None:
            text = "this handler takes no 'key'"
            if self._plan.once is not None:
                text = self._plan.once.what_is_wrong(self._socket, found.key)
                if not text:
                    return self._has_room(call_id, size)
            self._output.write(frames.error_frame(call_id, "bad_frame", text, path="$.key"))
            return False
        return self._has_room(call_id, size)

    def _has_room(self, call_id: int, size: int) -> bool:
        """Whether the client has credit. A call without is refused; notifies may take it twice."""
        runner, most = self._runner, self._max_calls
        if runner.used < most and runner.has_room(size):
            return True
        if not most:
            self._refuse_unauthorized(call_id)
            return False
        if call_id:
            text = f"at most {most} calls and notifies, and {MAX_QUEUED_BYTES} bytes, at once"
            self._output.write(frames.error_frame(call_id, "too_many_calls", text))
            if self._plan.counts is not None:
                self._plan.counts.answered("refused")
            return False
        if runner.used >= 2 * most or not runner.has_room(size, 2):
            raise WebSocketException(WS_1008_POLICY_VIOLATION, "more notifies than there is credit for")
        return True

    def take_no_more(self, why: str) -> None:
        """Refuse calls and notifies. Without credit none is admitted, so that the path of calls has no check more."""
        self._max_calls, self._why_none = 0, why

    def take_again(self) -> None:
        """Undo :meth:`take_no_more`."""
        self._max_calls = self._plan.max_calls

    def _refuse_unauthorized(self, call_id: int) -> None:
        about = "connection" if call_id else "notify"
        text = frames.error_frame(call_id or None, "not_authorized", self._why_none, about=about)
        self._output.write(text)
        if not call_id:
            self._runner.count_notify()

    def _timeout_of(self, found: frames.CallFrame | frames.NotifyFrame) -> float | None:
        """The limit of a call: the shorter of the handler's and the client's."""
        timeout = self._plan.timeout
        if isinstance(found, frames.CallFrame) and found.timeout is not None:
            return found.timeout if timeout is None else min(timeout, found.timeout)
        return timeout

    def _refuse_data(self, call_id: int, size: int, exc: Exception) -> None:
        """Answer data that is not of the handler's type; ``size`` is 0 for a message that the handler has taken.

        :raises Exception: ``exc``, if it was raised for another reason.
        """
        invalid = as_validation_error(exc)
        if invalid is None:
            raise exc
        self._count_invalid(invalid.detail)
        if self._failure is not None and self._plan.close_at_first_invalid:
            return
        if size and self._plan.errors.find(invalid) is not None and self._runner.answer_failure(call_id, size, invalid):
            return
        about = "connection" if call_id else "notify"
        text, path = cut(invalid.detail), cut(invalid.path)
        self._output.write(frames.error_frame(call_id or None, "invalid_message", text, path=path, about=about))
        if size and call_id and self._plan.counts is not None:
            self._plan.counts.answered("refused")
        if size and not call_id:
            self._runner.count_notify()

    # -- the other frames of the client

    def _on_cancel(self, found: frames.CancelFrame, _: bytes | None) -> None:
        job = self._runner.calls.get(found.id)
        if job is not None:
            self._runner.interrupt(job, "cancelled")
        elif found.id > self._last_id:
            self._refuse_frame(BadFrame("bad_frame", f"there was no call {found.id}"))

    def _on_more(self, found: frames.MoreFrame, _: bytes | None) -> None:
        job = self._runner.calls.get(found.id)
        if job is not None:
            job.add_credit(found.n)
        elif found.id > self._last_id:
            self._refuse_frame(BadFrame("bad_frame", f"there was no call {found.id}"))

    def _on_answer(self, found: frames.ReplyFrame | frames.ErrorFrame, payload: bytes | None) -> None:
        if found.id is None:
            self._socket.logger.info("%s: the client reports an error: %s", self._plan.where, cut(found.error.code))
        elif self._asking is None or not self._asking.answered(found, payload):
            self._refuse_frame(BadFrame("bad_frame", f"the server made no call {found.id}"))

    def _on_auth(self, found: frames.AuthFrame, _: bytes | None) -> None:
        try:
            self._renew(found)
        except BadFrame as bad:
            self._refuse_frame(bad)

    def _on_ping(self, _: frames.PingFrame, __: bytes | None) -> None:
        self._output.write('{"type":"pong"}')

    def _on_part(self, found: frames.ItemFrame | frames.EndFrame, _: bytes | None) -> None:
        self._refuse_frame(BadFrame("bad_frame", "clients answer with one reply"))


_ROUTES: Final[dict[type, Callable[[FrameSession, Any, bytes | None], None]]] = {
    frames.ReplyFrame: FrameSession._on_answer,
    frames.ErrorFrame: FrameSession._on_answer,
    frames.CancelFrame: FrameSession._on_cancel,
    frames.MoreFrame: FrameSession._on_more,
    frames.AuthFrame: FrameSession._on_auth,
    frames.PingFrame: FrameSession._on_ping,
    frames.PongFrame: lambda _, __, ___: None,  # any frame shows that the client lives
    frames.ItemFrame: FrameSession._on_part,
    frames.EndFrame: FrameSession._on_part,
}
