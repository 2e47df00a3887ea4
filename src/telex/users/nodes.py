"""What the nodes of an app tell each other about users, on one internal channel.

Nothing is stored in the broker, and each message reaches each node that follows the channel at most once. A node
follows it from its first connection with a user on, or from its first question. When it begins, and when it may have
missed messages, it says ``hello``: each node answers with the closes that it has told lately.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from telex.channels.events import DataKind, Event
from telex.channels.hub import Channels
from telex.channels.names import INTERNAL
from telex.clock import loop_time
from telex.exceptions import BackendUnavailable, ChannelsException
from telex.status_codes import is_sendable_close_code
from telex.users.index import Closed, remember

__all__ = ("CHANNEL", "Here", "Nodes")

CHANNEL: Final = f"{INTERNAL}users"

INTRODUCTION: Final = 1.0
"""Seconds after its first hello in which a node does not know yet which others there are."""
CONFIRMED_WITHIN: Final = 10.0
"""Seconds that the broker may take to confirm the subscription."""
CHUNK: Final = 100
"""Closes in one message."""

logger: Final = logging.getLogger("telex.users")


class _Notify(msgspec.Struct, frozen=True, tag="notify"):
    node: str
    key: str
    kind: DataKind
    data: bytes


class _Close(msgspec.Struct, frozen=True, array_like=True):
    """``age`` in seconds: the clocks of nodes differ."""

    id: str
    key: str
    code: int
    reason: str
    age: float


class _Closes(msgspec.Struct, frozen=True, tag="closes"):
    node: str
    closes: Sequence[_Close]


class _Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Says that a node follows the channel; ``asks`` for the same of the others, and for their closes."""

    node: str
    asks: bool


class _Inquiry(msgspec.Struct, frozen=True, tag="inquiry"):
    node: str
    number: int
    key: str


class _Count(msgspec.Struct, frozen=True, tag="count"):
    """The answer to question ``number`` of ``to``."""

    node: str
    to: str
    number: int
    count: int


_Told: TypeAlias = _Notify | _Closes | _Hello | _Inquiry | _Count

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Told).decode


class Here(Protocol):
    """What this process does with the messages of other nodes."""

    def notify_here(self, key: str, notice: Event) -> None:
        """Send ``notice`` to the connections of this process."""

    def close_here(self, key: str, closed: Closed) -> None:
        """Close the connections of this process."""

    def count_here(self, key: str) -> int:
        """The number of connections of this process."""


class _Answers:
    """Collects the answers of the nodes in ``missing``."""

    __slots__ = ("answered", "count", "missing")

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.count = 0
        self.answered = asyncio.Event()
        if not missing:
            self.answered.set()


class Nodes:
    """The exchange of one node with the others."""

    def __init__(self, hub: Channels, here: Here) -> None:
        self._hub = hub
        self._here = here
        self._node = secrets.token_hex(8)
        self._others: set[str] = set()
        self._told: dict[str, Closed] = {}
        self._numbers = itertools.count(1)
        self._questions: dict[int, _Answers] = {}
        self._following = asyncio.Event()
        self._introduced_at = 0.0

    def follow(self) -> None:
        """Hear the others from now on, if the channels run."""
        if self._hub.follow_internal(CHANNEL, self._hear, self._resume):
            self._following = asyncio.Event()
            self._others.clear()
            self._introduced_at = loop_time() + INTRODUCTION

    # -- to the others

    async def notify(self, key: str, notice: Event) -> None:
        """Tell the others to send ``notice``.

        :raises BackendUnavailable: the connection to the broker failed; they may or may not be told.
        """
        await self._tell(_Notify(self._node, key, notice.kind, notice.data))

    async def close(self, key: str, closed: Closed) -> None:
        """Tell the others to close the connections of a user.

        :raises BackendUnavailable: as :meth:`notify`. They are told again by an answer to a ``hello``.
        """
        self.follow()
        remember(self._told, key, closed)
        # As of when it is heard: an age of some milliseconds would spare a handshake that began in the same turn.
        await self._tell(_Closes(self._node, [_as_message(key, closed, 0.0)]))

    async def count(self, key: str, within: float) -> int:
        """The connections of a user on the other nodes; one that does not answer ``within`` seconds counts none.

        :raises BackendUnavailable: the connection to the broker failed, or it has not confirmed the subscription.
        """
        await self._introduced()
        number = next(self._numbers)
        question = self._questions[number] = _Answers(set(self._others))
        try:
            async with asyncio.timeout(within):
                await self._tell(_Inquiry(self._node, number, key))
                await question.answered.wait()
        except TimeoutError:
            self._others -= question.missing  # they are known again as soon as they say something
        finally:
            del self._questions[number]
        return question.count

    async def _introduced(self) -> None:
        """Wait until this node knows the others: once, after it has begun to follow them."""
        self.follow()
        try:
            async with asyncio.timeout(CONFIRMED_WITHIN):
                await self._following.wait()
        except TimeoutError:
            raise BackendUnavailable("the broker has not confirmed the subscription of app.users") from None
        if (left := self._introduced_at - loop_time()) > 0:
            await asyncio.sleep(left)

    async def _tell(self, message: _Told) -> None:
        await self._hub.publish_internal(CHANNEL, _encode(message))

    def _answer(self, message: _Told) -> None:
        try:
            self._hub.queue_internal(CHANNEL, _encode(message))
        except (BackendUnavailable, ChannelsException) as error:
            logger.warning("another node was not told of users: %s", error)

    def _answer_with_closes(self) -> None:
        now = loop_time()
        closes = [_as_message(key, closed, now - closed.at) for key, closed in self._told.items()]
        for start in range(0, len(closes), CHUNK):
            self._answer(_Closes(self._node, closes[start : start + CHUNK]))

    def _resume(self) -> None:
        """The broker has confirmed, or messages were lost: also those of this node, perhaps."""
        self._following.set()
        self._answer(_Hello(self._node, asks=True))
        self._answer_with_closes()

    # -- from the others

    def _hear(self, data: bytes) -> None:
        try:
            message: _Told = _decode(data)
        except msgspec.DecodeError:
            logger.warning("users: a message that cannot be read was dropped")
            return
        if message.node != self._node:
            self._others.add(message.node)
            _HEARD[type(message)](self, message)

    def _on_notify(self, told: _Notify) -> None:
        self._here.notify_here(told.key, Event(CHANNEL, told.data, kind=told.kind))

    def _on_closes(self, told: _Closes) -> None:
        now = loop_time()
        for close in told.closes:
            if is_sendable_close_code(close.code):
                self._here.close_here(close.key, Closed(close.id, now - max(0.0, close.age), close.code, close.reason))

    def _on_hello(self, told: _Hello) -> None:
        if told.asks:
            self._answer(_Hello(self._node, asks=False))
            self._answer_with_closes()

    def _on_ask(self, told: _Inquiry) -> None:
        self._answer(_Count(self._node, told.node, told.number, self._here.count_here(told.key)))

    def _on_count(self, told: _Count) -> None:
        question = self._questions.get(told.number) if told.to == self._node else None
        if question is None or told.node not in question.missing:
            return
        question.missing.discard(told.node)
        question.count += told.count
        if not question.missing:
            question.answered.set()


_HEARD: Final[dict[type, Callable[[Nodes, object], None]]] = {
    _Notify: Nodes._on_notify,  # type: ignore[dict-item]
    _Closes: Nodes._on_closes,  # type: ignore[dict-item]
    _Hello: Nodes._on_hello,  # type: ignore[dict-item]
    _Inquiry: Nodes._on_ask,  # type: ignore[dict-item]
    _Count: Nodes._on_count,  # type: ignore[dict-item]
}


def _as_message(key: str, closed: Closed, age: float) -> _Close:
    return _Close(closed.id, key, closed.code, closed.reason, age)
