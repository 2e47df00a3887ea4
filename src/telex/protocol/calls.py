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
from telex.event_reader import Supervision
from telex.protocol import frames
from telex.protocol.asking import read_data
from telex.protocol.jobs import NO_TARGET, CallPlan, CallTarget, Job
from telex.protocol.session import FrameSession

__all__ = ("CallSession",)


class CallSession(FrameSession):
    """The frames of one connection, handled by a listener."""

    __slots__ = ("_call_plan", "_read_json", "_target_of")

    def __init__(self, plan: CallPlan, socket: Socket) -> None:
        super().__init__(plan, socket)
        self._call_plan = plan
        self._read_json = plan.read_json
        self._target_of: Callable[[Any], CallTarget] | None = None

    async def serve(self, slots: Slots) -> None:
        """Handle calls until the connection ends: one after another, or in tasks with ``max_concurrency`` above 1.

        Where the server has no fast path, this task reads itself until a handler first waits for something: from then
        on the event reader reads beside it. So calls whose handlers never wait cost no task switch. All this is one
        coroutine: each idle connection keeps it, and each wake-up passes through it. A route of a handler that may rest
        keeps none: this returns, and is called again for the next message.
        """
        runner, reader, output = self._runner, self._socket.event_reader, self._output
        rests_on = output.route if self._socket.options.may_rest else None
        async with Supervision(reader):
            reader.mark_idle()
            try:
                if self._target_of is None:
                    self._target_of = target_of = self._call_plan.bind(self._socket, slots)
                    runner.begin(target_of)
                task, in_order = asyncio.current_task(), runner.max_concurrency == 1
                reads = in_order and self._reads_late()
                while True:
                    if in_order and runner.queue:
                        await runner.run_next(task, reader.start_pump if reads else None)
                        reads = reads and not reader.reads_ahead
                    elif reads:
                        taken = reader.pass_on(await reader.next_directly())
                        if taken is not None:
                            await taken
                    elif rests_on is not None and not (runner.calls or output.works or reader.interrupts):
                        runner.rest(rests_on)
                        return
                    else:
                        await runner.wait()
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
                if reader.resting is None:
                    self._stop()
                    await output.end_work(cancel=True)

    def _feed(self, raw: str | bytes) -> None:
        """Handle an ordinary call with few steps; all others as the base does."""
        if raw.__class__ is not str:
            super()._feed(raw)
            return
        try:
            found = frames.decode(raw)
        except Exception:
            super()._feed(raw)
            return
        size, target_of, runner = len(raw), self._target_of, self._runner
        if found.__class__ is not frames.CallFrame or found.meta is not frames.NOTHING:
            super()._feed(raw)
            return
        if (
            found.id <= self._last_id
            or found.key is not None
            or found.timeout is not None
            or target_of is None
            or self._read_json is None
            or not found.data
            or runner.used >= self._max_calls
            or not runner.has_room(size)
        ):
            self._handle(found, None, raw)
            return
        self._last_id = call_id = found.id
        try:
            data = self._read_json(bytes(found.data))
        except Exception as exc:
            self._refuse_data(call_id, size, exc)
            return
        self._invalid_in_a_row = 0
        target = target_of(data)
        if target.awaits or runner.running or runner.queue:
            runner.start(Job(call_id, data, size, target), self._plan.timeout)
        else:
            runner.run_inline(call_id, data, size, target)

    def _take_in(
        self, call_id: int, found: frames.CallFrame | frames.NotifyFrame, payload: bytes | None, size: int
    ) -> None:
        try:
            data = read_data(found.data, payload, self._read_json, self._call_plan.read_bytes)
        except Exception as exc:
            self._refuse_data(call_id, size, exc)
            return
        self._invalid_in_a_row = 0
        runner = self._runner
        target = NO_TARGET if self._target_of is None else self._target_of(data)
        if isinstance(found, frames.CallFrame) and found.key is not None:
            job = Job(call_id, data, size, target)
            job.key, job.is_json = found.key, payload is None
            job.raw = bytes(found.data) if payload is None else payload
            job.target = runner.keyed(job, target)
            runner.start(job, self._timeout_of(found))
        elif not (target.awaits or target is NO_TARGET or runner.running or runner.queue):
            runner.run_inline(call_id, data, size, target)
        else:
            runner.start(Job(call_id, data, size, target), self._timeout_of(found))
