"""What is kept of a call that has run; and the store in this process, within bounds."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from telex.clock import Clock, loop_time
from telex.defaults import KIB, MIB
from telex.once.keys import CallId
from telex.once.options import Once
from telex.protocol.failures import SettledError
from telex.protocol.frames import Encoded

__all__ = (
    "LONGEST_ANSWER",
    "OTHER_MESSAGE",
    "OUTCOME_UNKNOWN",
    "KeptAnswer",
    "AnswerStore",
    "Claim",
    "KeptError",
    "MemoryAnswers",
    "ClaimState",
)

logger: Final = logging.getLogger("telex")

LONGEST_ANSWER: Final = 256 * KIB
"""Bytes of an answer that is kept; of a longer one only that it was given."""
MOST_ANSWERS: Final = 100_000
MOST_BYTES: Final = 64 * MIB
"""What one process keeps in all. For more the oldest answers are forgotten."""
_OVERHEAD: Final = 500
"""Bytes that a short answer takes."""
_LOG_EVERY: Final = 60.0

ClaimState: TypeAlias = Literal["ours", "running", "answered", "other", "lost"]
"""What a store knows of a call: it is ours to run; another process runs it; it has an answer; its key came with another
message; or a process began it and has ended."""


class KeptError(msgspec.Struct, frozen=True, array_like=True):
    """An error as callers get it; ``data`` is JSON."""

    code: str
    message: str = ""
    path: str = ""
    data: str | None = None

    @classmethod
    def of(cls, error: SettledError) -> KeptError:
        """The part of an error that is kept."""
        return cls(error.code, error.message, error.path, error.data if isinstance(error.data, str) else None)

    def raised(self) -> SettledError:
        """The exception to raise in a caller."""
        return SettledError(self.code, self.message, self.path, self.data)


OTHER_MESSAGE: Final = KeptError(
    "conflict",
    "this key was used with another message, or with another version of this handler: use a new key",
    data='{"reason":"other_message"}',
)
OUTCOME_UNKNOWN: Final = KeptError(
    "conflict",
    "a call with this key was begun and interrupted, so that it may have had its effect: look before you call again"
    " with a new key",
    data='{"reason":"outcome_unknown"}',
)


class KeptAnswer(msgspec.Struct, frozen=True, array_like=True):
    """How a call was answered: with data as frames have it, JSON or bytes, or with an error."""

    json: str | None = None
    binary: bytes | None = None
    error: KeptError | None = None

    @classmethod
    def of(cls, data: Encoded | None) -> KeptAnswer:
        """The answer with this data, or with none."""
        return cls(json=data) if data is None or isinstance(data, str) else cls(binary=data)

    @property
    def data(self) -> Encoded | None:
        """The data of a reply."""
        return self.json if self.binary is None else self.binary

    @property
    def size(self) -> int:
        """About how many bytes it has."""
        error = 0 if self.error is None else len(self.error.message) + len(self.error.data or "")
        return len(self.data or "") + error

    def fitted(self) -> KeptAnswer:
        """What is kept of it: of a long answer only that it was given."""
        if self.size <= LONGEST_ANSWER:
            return self
        text = f"the call has run, and its answer of {self.size:,} bytes was too long to be kept"
        return KeptAnswer(error=KeptError("conflict", text, data='{"reason":"answer_not_kept"}'))


class Claim(NamedTuple):
    """What came of the attempt to begin a call."""

    state: ClaimState
    answer: KeptAnswer | None = None


class AnswerStore(Protocol):
    """A store of one listener's calls. Each may raise ``StoreUnavailable``."""

    def claim(self, call: CallId, message: str) -> Awaitable[Claim]:
        """Begin a call, unless it has begun; ``message`` is the hash of its message."""

    def keep(self, call: CallId, message: str, answer: KeptAnswer) -> Awaitable[None]:
        """A call that is ours has its answer."""

    def forget(self, call: CallId) -> Awaitable[None]:
        """A call that may be ours has failed, or has not begun: the next with its key runs."""

    def aclose(self) -> Awaitable[None]:
        """The app stops."""


class _Kept(NamedTuple):
    message: str
    answer: KeptAnswer
    until: float


class MemoryAnswers:
    """Answers in this process. What runs is known to who runs it, so that only answers are kept."""

    def __init__(self, once: Once, where: str, clock: Clock = loop_time) -> None:
        self._once = once
        self._where = where
        self._clock = clock
        self._kept: dict[CallId, _Kept] = {}  # the oldest first, which also end first
        self._of_user: dict[str, dict[CallId, None]] = {}
        self._logs_at = -math.inf
        self.bytes: int = 0
        self.forgotten: int = 0
        """Answers that were forgotten before their time, because there were too many in all."""

    def __len__(self) -> int:
        return len(self._kept)

    async def claim(self, call: CallId, message: str) -> Claim:
        """See :class:`AnswerStore`."""
        self._drop_ended()
        found = self._kept.get(call)
        if found is None:
            return Claim("ours")
        return Claim("answered", found.answer) if found.message == message else Claim("other")

    async def keep(self, call: CallId, message: str, answer: KeptAnswer) -> None:
        """See :class:`AnswerStore`."""
        self._drop_ended()
        self._kept[call] = _Kept(message, answer, self._clock() + self._once.within)
        self.bytes += answer.size + _OVERHEAD
        if call.is_of_user:
            others = self._of_user.setdefault(call.scope, {})
            others[call] = None
            if len(others) > self._once.results:
                self._drop(next(iter(others)))
        while len(self._kept) > MOST_ANSWERS or self.bytes > MOST_BYTES:
            self._drop(next(iter(self._kept)))
            self.forgotten += 1
            self._log()

    async def forget(self, call: CallId) -> None:
        """Nothing is kept of a call that has no answer."""

    async def aclose(self) -> None:
        """Nothing is open."""

    def _drop_ended(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))
            if self._kept[oldest].until > now:
                return
            self._drop(oldest)

    def _drop(self, call: CallId) -> None:
        self.bytes -= self._kept.pop(call).answer.size + _OVERHEAD
        if call.is_of_user:
            others = self._of_user[call.scope]
            del others[call]
            if not others:
                del self._of_user[call.scope]

    def _log(self) -> None:
        if self._clock() >= self._logs_at:
            self._logs_at = self._clock() + _LOG_EVERY
            logger.warning(
                "%s: too many answers to calls with keys: %d were forgotten, and would run again",
                self._where,
                self.forgotten,
            )
