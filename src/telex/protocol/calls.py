"""``CallSession``: the frames of one connection that speaks ``telex.v1``.

The connection's task reads, always: so answers, cancels and credit never wait behind a busy handler, and every end is
noticed at once. On Telex's server frames are handled inside the server's frame callback. A sync function runs there
too; every other call and notify runs in a task of its own (:mod:`telex.protocol.runner`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec

from telex.calls import Slots
from telex.codecs import as_validation_error
from telex.connection import Socket
from telex.defaults import MIB
from telex.exceptions import WebSocketDisconnect, WebSocketException
from telex.protocol import frames
from telex.protocol.asking import Asking, read_data
from telex.protocol.failures import cut
from telex.protocol.frames import BadFrame
from telex.protocol.jobs import CallPlan, CallTarget, Job
from telex.protocol.reading import FrameReading
from telex.protocol.runner import CallRunner
from telex.status_codes import WS_1007_INVALID_FRAME_PAYLOAD_DATA, WS_1008_POLICY_VIOLATION

__all__ = ("CallSession",)

MAX_QUEUED_BYTES: Final = 4 * MIB
"""Bytes of the calls and notifies of one connection that are in work or wait."""


class CallSession(FrameReading):
    """The frames of one connection, in both directions."""

    __slots__ = (
        "_asking",
        "_invalid_in_a_row",
        "_last_id",
        "_plan",
        "_runner",
        "_target_of",
    )

    def __init__(self, plan: CallPlan, socket: Socket) -> None:
        super().__init__(socket, plan.max_message_size)
        self._plan = plan
        self._runner = CallRunner(plan, socket, self._output)
        self._asking = Asking(self._output.write)
        self._target_of: Callable[[Any], CallTarget] | None = None
        self._last_id = 0
        self._invalid_in_a_row = 0

    # -- the interface of the connection

    async def begin(self) -> None:
        """Send ``hello``."""
        plan = self._plan
        hello = {
            "type": "hello",
            "session": secrets.token_urlsafe(12),
            "max": plan.max_message_size,
            "credit": plan.max_calls,
            "bytes": MAX_QUEUED_BYTES,
        }
        await self._output.send(msgspec.json.encode(hello).decode())

    async def notify(self, data: object) -> None:
        """Send a value that wants no answer."""
        await self._output.send(frames.frame('{"type":"notify"', self._plan.write_value(data)))

    async def call(self, data: object, answer: Any, within: float) -> Any:
        """Ask the client; see :meth:`telex.WebSocket.call`."""
        return await self._asking.ask(self._plan.write_value(data), answer, within)

    async def serve(self, slots: Slots) -> None:
        """Exchange frames until the connection ends."""
        socket, reader = self._socket, self._socket.event_reader
        self._target_of = self._plan.bind(socket, slots)
        self._runner.run_here()
        try:
            async with asyncio.TaskGroup() as self._output.group:
                try:
                    await self._read()
                except Exception:
                    self._stop()
                    await reader.until_let_go()
                    raise
        finally:
            self._stop()
            self._runner.calls.clear()
            reader.calls = 0

    def _stop(self) -> None:
        """The connection has ended: begin nothing more, and wake those who wait for the client's answers."""
        self._runner.stop()
        self._asking.end(WebSocketDisconnect(self._socket.close_code or 1006, self._socket.close_reason))

    # -- reading

    def _feed(self, raw: str | bytes) -> None:
        if self._failure is not None:
            return
        try:
            if len(raw) > self._quick_limit:
                self._check_size(raw)
            try:
                found, payload = frames.read(raw)
            except BadFrame as bad:
                self._refuse_frame(bad)
                return
            kind = found.__class__
            if kind is frames.CallFrame or kind is frames.NotifyFrame:
                self._take_in(found, payload, len(raw))  # type: ignore[arg-type]  # its class was compared
            else:
                self._invalid_in_a_row = 0
                _ROUTES[kind](self, found, payload)
        except Exception as exc:
            self._failure = exc

    def _refuse_frame(self, bad: BadFrame) -> None:
        """Answer what is no frame. A call whose id can be read gets its final frame; the id is used up."""
        call_id = bad.id if bad.id is not None and bad.id > self._last_id else None
        if call_id is not None:
            self._last_id = call_id
        self._count_invalid(bad.message)
        self._output.write(frames.error_frame(call_id, bad.code, cut(bad.message), path=cut(bad.path)))

    def _count_invalid(self, detail: str) -> None:
        self._invalid_in_a_row += 1
        if self._invalid_in_a_row >= self._plan.max_invalid_messages or self._plan.close_at_first_invalid:
            self._failure = WebSocketException(WS_1007_INVALID_FRAME_PAYLOAD_DATA, cut(detail))

    # -- calls and notifies of the client

    def _take_in(self, found: frames.CallFrame | frames.NotifyFrame, payload: bytes | None, size: int) -> None:
        plan, call_id = self._plan, 0
        if isinstance(found, frames.CallFrame):
            call_id = found.id
            if call_id <= self._last_id:
                self._refuse_frame(BadFrame("bad_frame", f"the id {call_id} is not higher than the last"))
                return
            self._last_id = call_id
            if found.key is not None:
                text = "this handler takes no 'key'"
                self._output.write(frames.error_frame(call_id, "bad_frame", text, path="$.key"))
                return
        if not self._has_room(call_id, size):
            return
        try:
            data = read_data(found.data, payload, plan.read_json, plan.read_bytes)
        except Exception as exc:
            self._refuse_data(call_id, exc)
            return
        self._invalid_in_a_row = 0
        if self._target_of is None:
            raise WebSocketException(WS_1008_POLICY_VIOLATION, "a message before the handler was ready")
        target = self._target_of(data)
        if not target.awaits and self._runner.is_idle:
            self._runner.run_inline(call_id, data, target)
            return
        timeout = plan.timeout
        if call_id and found.timeout is not None:  # type: ignore[union-attr]  # it is a call
            timeout = found.timeout if timeout is None else min(timeout, found.timeout)  # type: ignore[union-attr]
        self._runner.start(Job(call_id, data, size, target), timeout)

    def _has_room(self, call_id: int, size: int) -> bool:
        """Whether the client has credit. A call without is refused; notifies may take it twice."""
        plan, used, kept = self._plan, self._runner.used, self._runner.bytes
        if used < plan.max_calls and (kept + size <= MAX_QUEUED_BYTES or not kept):
            return True
        if call_id:
            text = f"at most {plan.max_calls} calls and notifies, and {MAX_QUEUED_BYTES} bytes, at once"
            self._output.write(frames.error_frame(call_id, "too_many_calls", text))
            return False
        if used >= 2 * plan.max_calls or kept + size > 2 * MAX_QUEUED_BYTES:
            raise WebSocketException(WS_1008_POLICY_VIOLATION, "more notifies than there is credit for")
        return True

    def _refuse_data(self, call_id: int, exc: Exception) -> None:
        invalid = as_validation_error(exc)
        if invalid is None:
            raise exc
        self._count_invalid(invalid.detail)
        if self._failure is not None and self._plan.close_at_first_invalid:
            return
        handler = self._plan.errors.find(invalid)
        if handler is None or self._output.group is None:
            about = "connection" if call_id else "notify"
            text, path = cut(invalid.detail), cut(invalid.path)
            self._output.write(frames.error_frame(call_id or None, "invalid_message", text, path=path, about=about))
        else:
            self._output.spawn(self._runner.fail(Job(call_id, None, 0, _NO_TARGET), invalid))

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
            job.credit = min(job.credit + found.n, _MAX_CREDIT)
            if job.more is not None and not job.more.done():
                job.more.set_result(None)
        elif found.id > self._last_id:
            self._refuse_frame(BadFrame("bad_frame", f"there was no call {found.id}"))

    def _on_answer(self, found: frames.ReplyFrame | frames.ErrorFrame, payload: bytes | None) -> None:
        if found.id is None:
            self._socket.logger.info("%s: the client reports an error: %s", self._plan.where, cut(found.error.code))
        elif not self._asking.answered(found, payload):
            self._refuse_frame(BadFrame("bad_frame", f"the server made no call {found.id}"))

    def _on_ping(self, _: frames.PingFrame, __: bytes | None) -> None:
        self._output.write('{"type":"pong"}')

    def _on_pong(self, _: frames.PongFrame, __: bytes | None) -> None:
        """Any frame shows that the client lives."""

    def _on_part(self, found: frames.ItemFrame | frames.EndFrame, _: bytes | None) -> None:
        self._refuse_frame(BadFrame("bad_frame", "clients answer with one reply"))


_NO_TARGET: Final = CallTarget(handle=len, write=None, awaits=False)
_MAX_CREDIT: Final = 1 << 20
_ROUTES: Final[dict[type, Callable[[CallSession, Any, bytes | None], None]]] = {
    frames.ReplyFrame: CallSession._on_answer,
    frames.ErrorFrame: CallSession._on_answer,
    frames.CancelFrame: CallSession._on_cancel,
    frames.MoreFrame: CallSession._on_more,
    frames.PingFrame: CallSession._on_ping,
    frames.PongFrame: CallSession._on_pong,
    frames.ItemFrame: CallSession._on_part,
    frames.EndFrame: CallSession._on_part,
}
