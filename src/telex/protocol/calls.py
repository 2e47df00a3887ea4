"""``CallSession``: the calls and notifies of a listener's connection.

They are decoded when they are read. A sync function runs at once, where the frame was read; other calls run one after
another in the connection's own task, or in tasks of their own (:mod:`telex.protocol.runner`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from telex.calls import Slots
from telex.connection import Socket
from telex.protocol import frames
from telex.protocol.asking import read_data
from telex.protocol.jobs import NO_TARGET, CallPlan, CallTarget, Job
from telex.protocol.session import FrameSession

__all__ = ("CallSession",)


class CallSession(FrameSession):
    """The frames of one connection, handled by a listener."""

    __slots__ = ("_bind", "_read_bytes", "_read_json", "_target_of")

    def __init__(self, plan: CallPlan, socket: Socket) -> None:
        super().__init__(plan, socket)
        self._bind = plan.bind
        self._read_json = plan.read_json
        self._read_bytes = plan.read_bytes
        self._target_of: Callable[[Any], CallTarget] | None = None

    async def serve(self, slots: Slots) -> None:
        """Handle calls until the connection ends. The caller supervises it."""
        runner, reader = self._runner, self._socket.event_reader
        self._target_of = target_of = self._bind(self._socket, slots)
        try:
            async with asyncio.TaskGroup() as group:
                reader.mark_idle()
                try:
                    await runner.serve(group, target_of)
                except Exception:
                    self._stop()
                    await reader.until_let_go()
                    raise
                except asyncio.CancelledError:
                    self._stop()
                    if reader.interrupts:  # a task may have begun its cleanup since the interrupt
                        await reader.until_let_go()
                    raise
        finally:
            self._stop()

    def _take_in(
        self, call_id: int, found: frames.CallFrame | frames.NotifyFrame, payload: bytes | None, size: int
    ) -> None:
        try:
            data = read_data(found.data, payload, self._read_json, self._read_bytes)
        except Exception as exc:
            self._refuse_data(call_id, size, exc)
            return
        self._invalid_in_a_row = 0
        runner = self._runner
        target = NO_TARGET if self._target_of is None else self._target_of(data)
        if not target.awaits and target is not NO_TARGET and runner.is_idle:
            runner.run_inline(call_id, data, size, target)
        else:
            runner.start(Job(call_id, data, size, target), self._timeout_of(found))
