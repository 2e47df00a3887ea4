"""What a session knows of a handler, and of each call and notify that is in work or waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from telex.calls import Slots
from telex.codecs import Reader, Writer
from telex.connection import Socket
from telex.defaults import PING_AFTER
from telex.exception_handling import ExceptionPolicy, familiar
from telex.protocol.failures import Failures, SettledError
from telex.telemetry.counts import RouteCounts

__all__ = ("NO_TARGET", "BindTarget", "CallPlan", "CallTarget", "FramePlan", "Job", "KeyedCalls")

PARTS_AHEAD: Final = 16
"""Parts of an answer that are sent before the client gives credit for more."""

MAX_CREDIT: Final = 1 << 20
"""The most credit for parts that a client can save up."""


class CallTarget(NamedTuple):
    """The function that handles a message, bound to one connection, and how its answer is written."""

    handle: Callable[..., Any]
    write: Writer | None
    awaits: bool
    parts: bool = False
    """``handle`` returns an async generator: its items are the answer."""
    answers: bool = False
    """``handle`` takes the function that sends the answer as its second argument."""


BindTarget: TypeAlias = Callable[[Socket, Slots], Callable[[Any], CallTarget]]
"""Binds a handler to a connection; the result finds the target of a decoded message."""


class KeyedCalls(Protocol):
    """The calls of an idempotent listener that have a key."""

    def what_is_wrong(self, socket: Socket, key: str) -> str:
        """Why the client cannot use this key; empty if it can."""

    def target(self, plan: FramePlan, socket: Socket, job: Job, target: CallTarget) -> CallTarget:
        """What handles ``job`` instead of ``target``: it runs that, or gives its caller the answer of another call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePlan:
    """What every kind of handler says of its frames."""

    where: str
    contract: Callable[[], str]
    """Returns the hash of the app's contract."""
    read_as: Callable[[Any], tuple[Reader | None, Reader | None]]
    """The readers of JSON and of bytes for a type."""
    write_value: Writer
    errors: ExceptionPolicy
    failures: Failures
    close_at_first_invalid: bool
    max_invalid_messages: int
    max_message_size: int
    max_calls: int
    max_streams: int
    timeout: float | None
    ping: float = PING_AFTER
    max_concurrency: int = 1
    counts: RouteCounts | None = None
    on_unread: Callable[[bool], Exception | bool] | None = None
    """For a handler that receives nothing: what happens to a notify. Its calls are answered with an error."""
    once: KeyedCalls | None = None
    """For an idempotent listener: its calls with keys."""

    async def settle(self, socket: Socket, exc: Exception) -> SettledError:
        """The error that a caller gets for an exception of the handler; what is not declared is logged."""
        error, answer = familiar(exc), None
        handler = self.errors.find(exc)
        if handler is not None:
            answer = await self.errors.answer(socket, handler, exc)
        elif not self.failures.is_declared(error):
            self.errors.report(socket, error)
        failure = self.failures.of(error)
        data = self._encoded(socket, failure.data if answer is None else answer)
        return SettledError(failure.code, failure.message, failure.path, data)

    def _encoded(self, socket: Socket, data: object) -> str | bytes | None:
        """The data of an error; ``None`` if it cannot be written, which is logged: the call needs its answer."""
        if data is None:
            return None
        try:
            return self.write_value(data)
        except Exception as exc:
            self.errors.report(socket, exc)
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan(FramePlan):
    """How a listener's calls and notifies are read, handled and answered."""

    read_json: Reader | None
    read_bytes: Reader | None
    bind: BindTarget


class Job:
    """One call or notify; ``id`` is 0 for a notify, ``size`` 0 for one that was never counted.

    Most attributes keep the class's value through the whole call, so that a call sets four of them.
    """

    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    started = False
    """Whether the handler runs, and can be interrupted."""
    counted = True
    """Whether it uses credit of the client."""
    has_place = False
    final = False
    """Whether the final frame has been sent, or is being sent."""
    reason: str | None = None
    """Why the call is interrupted: ``cancelled`` or ``timeout``."""
    key: str | None = None
    raw: bytes = b""
    """The encoded data of a call with a key."""
    is_json = True
    credit: int = PARTS_AHEAD
    more: asyncio.Future[None] | None = None

    def __init__(self, call_id: int, data: Any, size: int, target: CallTarget) -> None:
        self.id = call_id
        self.data = data
        self.size = size
        self.target = target

    def add_credit(self, parts: int) -> None:
        """The client takes so many parts more."""
        self.credit = min(self.credit + parts, MAX_CREDIT)
        if self.more is not None and not self.more.done():
            self.more.set_result(None)


NO_TARGET: Final = CallTarget(handle=len, write=None, awaits=False)
"""The target of a call that its handler takes itself, and of one that comes before the handler is ready."""
