"""The members of each channel on all nodes. Nothing is stored: the nodes exchange their members by messages.

Each node owns its members and numbers its changes. It publishes each change, and every few seconds a beat with the
number of the last change. A node that receives an unexpected number requests the whole list. A node that sends no beat
for ``lost_after`` seconds counts as crashed, and its members are removed. All views therefore agree soon after the
last change, even if messages are lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import msgspec

from telex.channels.delivery.queue import DeliveryQueue
from telex.clock import loop_time
from telex.exceptions import BackendUnavailable, ChannelsException, ImproperlyConfiguredException

__all__ = ("Change", "Heartbeat", "Joined", "Left", "Member", "Presence", "Watch", "write_change")

logger: logging.Logger = logging.getLogger("telex.channels")

MEMBER_BYTES: Final = 8_192
"""The limit of a member as JSON: every node keeps the metadata of all members."""

CHUNK: Final = 100
"""Members in one message. Brokers limit the message size (NATS: 1 MiB)."""

WATCH_BACKLOG: Final = 10_000
"""Changes that may wait for a slow watcher. One more ends the watcher with 1013."""


class Member(msgspec.Struct, frozen=True):
    """One member of a channel. ``key`` identifies the user, and several members may have the same key.

    ``ref`` is unique. ``meta`` is the given value after a conversion to JSON types.
    """

    channel: str
    key: str
    ref: str
    meta: object = None


class Joined(msgspec.Struct, frozen=True):
    """A member joined."""

    member: Member


class Left(msgspec.Struct, frozen=True):
    """A member left, or its node crashed."""

    member: Member


Change: TypeAlias = Joined | Left


def write_change(change: Change) -> str:
    """The JSON text of a change, as the frame of telex.v1."""
    kind = "joined" if isinstance(change, Joined) else "left"
    return msgspec.json.encode({"type": kind, "member": change.member}).decode()


class Heartbeat(msgspec.Struct, frozen=True):
    """``seconds`` between two beats of a node; after ``lost_after`` seconds without one its members are removed."""

    seconds: float = 5.0
    lost_after: float = 15.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < self.lost_after:
            raise ImproperlyConfiguredException(f"{self}: lost_after must be longer than the seconds between two beats")


class _Beat(msgspec.Struct, frozen=True, tag="beat"):
    node: str
    version: int


class _Delta(msgspec.Struct, frozen=True, tag="delta"):
    node: str
    version: int
    joined: Sequence[Member]
    left: Sequence[str]


class _Whole(msgspec.Struct, frozen=True, tag="whole"):
    """One part of a node's list of members; the part with ``last`` completes the list."""

    node: str
    version: int
    members: Sequence[Member]
    first: bool
    last: bool


class _Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Requests the whole list of ``node``, or of every node if it is ``None``."""

    node: str | None


class _Bye(msgspec.Struct, frozen=True, tag="bye"):
    node: str


_Message: TypeAlias = _Beat | _Delta | _Whole | _Ask | _Bye

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode
_decode_member = msgspec.json.Decoder(Member).decode


class _View:
    """The state of another node as received so far."""

    __slots__ = ("members", "partial", "seen", "version")

    def __init__(self) -> None:
        self.version = 0
        self.seen = 0.0
        self.members: dict[str, Member] = {}
        self.partial: dict[str, Member] = {}


class Watch:
    """``members`` are those at the start; the iteration yields each later change."""

    def __init__(self, members: Sequence[Member], changes: DeliveryQueue[Change]) -> None:
        self.members = members
        self._changes = changes

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Change:
        return await self._changes.get()


class Presence:
    """The members of all channels as this node sees them.

    ``tell`` publishes a message to all nodes. :meth:`hear` handles each received message, this node's own included.
    A node that does not receive its own beats has lost its broker: until it receives again, no other node is removed.
    """

    def __init__(self, tell: Callable[[bytes], Awaitable[None]], heartbeat: Heartbeat) -> None:
        self._tell = tell
        self._received_at = loop_time()
        self._heartbeat = heartbeat
        self.node: str = secrets.token_hex(8)
        self._own = _View()
        self._others: dict[str, _View] = {}
        self._channels: dict[str, dict[str, Member]] = {}
        self._watchers: dict[str, set[DeliveryQueue[Change]]] = {}
        self._joined: list[Member] = []
        self._left: list[str] = []
        self._asking: set[str | None] = {None}
        self._asked = False
        self._news = asyncio.Event()
        self._news.set()

    # -- public

    @asynccontextmanager
    async def track(self, channel: str, key: str, meta: object = None) -> AsyncIterator[Member]:
        """Add a member to ``channel`` while the body runs. Other nodes see it shortly after.

        :raises ChannelsException: ``key`` is not a ``str``, ``meta`` cannot be written as JSON, or it is too large.
        """
        member = _checked(channel, key, meta)
        self._own.members[member.ref] = member
        self._joined.append(member)
        self._join(member)
        self._news.set()
        try:
            yield member
        finally:
            del self._own.members[member.ref]
            self._left.append(member.ref)
            self._leave(member)
            self._news.set()

    def members(self, channel: str) -> tuple[Member, ...]:
        """The members of ``channel`` that this node has received."""
        return tuple(self._channels.get(channel, {}).values())

    @asynccontextmanager
    async def watch(self, channel: str) -> AsyncIterator[Watch]:
        """The members of ``channel``, and then every :class:`Joined` and :class:`Left`, with no gap between the two."""
        changes: DeliveryQueue[Change] = DeliveryQueue(WATCH_BACKLOG, "close")
        watchers = self._watchers.setdefault(channel, set())
        watchers.add(changes)
        try:
            yield Watch(self.members(channel), changes)
        finally:
            watchers.discard(changes)
            if not watchers and self._watchers.get(channel) is watchers:
                del self._watchers[channel]

    # -- called by the hub

    def hear(self, data: bytes) -> None:
        """Handle a received message. Data that is not a message is logged and dropped."""
        self._note_hearing(loop_time())
        try:
            message = _decode(data)
        except msgspec.DecodeError:
            logger.warning("presence: a message that cannot be read was dropped")
            return
        if isinstance(message, _Ask):
            self._asked = self._asked or message.node in {None, self.node}
            self._news.set()
        elif message.node != self.node:
            self._hear_of(message)

    def _note_hearing(self, now: float) -> None:
        silence, self._received_at = now - self._received_at, now
        if silence > self._isolated_after:
            self.resume()

    @property
    def _isolated_after(self) -> float:
        """Seconds without any message, own beats included, after which this node has lost its broker."""
        seconds, lost_after = self._heartbeat.seconds, self._heartbeat.lost_after
        # Longer than the pause between two own beats. Short enough that no other node reaches lost_after meanwhile.
        return max(1.2 * seconds, 0.8 * (lost_after - seconds))

    def resume(self) -> None:
        """Request the lists of all nodes and publish the own list again, because messages were lost."""
        now = loop_time()
        for node in self._others.values():
            node.seen = now
        self._ask(None)
        self._asked = True

    async def run(self) -> None:
        """Publish changes and beats, until cancelled."""
        next_beat = loop_time()
        while True:
            self._news.clear()
            for message in self._pending():
                await self._say(message)
            now = loop_time()
            if now >= next_beat:
                next_beat = now + self._heartbeat.seconds * random.uniform(0.8, 1.0)  # noqa: S311
                await self._say(_Beat(self.node, self._own.version))
                self._expire(now)
            try:
                async with asyncio.timeout(next_beat - now):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def end(self) -> None:
        """Close the watchers, and publish the end of this node, so that the others remove its members at once."""
        for watchers in self._watchers.values():
            for changes in watchers:
                changes.close()
        await self._say(_Bye(self.node))

    # -- sending

    def _pending(self) -> Iterable[_Message]:
        joined, self._joined = self._joined, []
        left, self._left = self._left, []
        for start in range(0, len(joined), CHUNK):
            self._own.version += 1
            yield _Delta(self.node, self._own.version, joined[start : start + CHUNK], ())
        for start in range(0, len(left), CHUNK):
            self._own.version += 1
            yield _Delta(self.node, self._own.version, (), left[start : start + CHUNK])
        if self._asked:
            self._asked = False
            yield from self._whole()
        while self._asking:
            yield _Ask(self._asking.pop())

    def _whole(self) -> Iterable[_Whole]:
        members = list(self._own.members.values())
        starts = range(0, max(1, len(members)), CHUNK)
        for start in starts:
            part = members[start : start + CHUNK]
            yield _Whole(self.node, self._own.version, part, start == 0, start == starts[-1])

    async def _say(self, message: _Message) -> None:
        try:
            await self._tell(_encode(message))
        except (BackendUnavailable, ChannelsException) as error:
            # The number in the next beat shows the other nodes that they missed a change.
            logger.debug("presence: %s was not published: %s", type(message).__name__, error)

    # -- receiving

    def _hear_of(self, message: _Beat | _Delta | _Whole | _Bye) -> None:
        if isinstance(message, _Bye):
            self._forget(message.node)
            return
        node = self._others.get(message.node)
        if node is None:
            node = self._others[message.node] = _View()
        node.seen = loop_time()
        if isinstance(message, _Whole):
            self._replace(node, message)
        elif isinstance(message, _Delta) and message.version == node.version + 1:
            self._apply(node, message)
        elif message.version != node.version:
            self._ask(message.node)

    def _apply(self, node: _View, delta: _Delta) -> None:
        node.version = delta.version
        for member in delta.joined:
            # A member that joined shortly before the whole list was sent may be in that list and in a change.
            if member.ref not in node.members:
                node.members[member.ref] = member
                self._join(member)
        for ref in delta.left:
            gone = node.members.pop(ref, None)
            if gone is not None:
                self._leave(gone)

    def _replace(self, node: _View, whole: _Whole) -> None:
        if whole.first:
            node.partial = {}
        node.partial.update({member.ref: member for member in whole.members})
        if not whole.last:
            return
        before, node.members, node.partial = node.members, node.partial, {}
        node.version = whole.version
        for ref, member in before.items():
            if ref not in node.members:
                self._leave(member)
        for ref, member in node.members.items():
            if ref not in before:
                self._join(member)

    def _expire(self, now: float) -> None:
        if now - self._received_at > self._isolated_after:
            return
        for name, node in list(self._others.items()):
            if now - node.seen > self._heartbeat.lost_after:
                self._forget(name)

    def _forget(self, name: str) -> None:
        node = self._others.pop(name, None)
        if node is not None:
            for member in node.members.values():
                self._leave(member)

    def _ask(self, node: str | None) -> None:
        self._asking.add(node)
        self._news.set()

    # -- the view

    def _join(self, member: Member) -> None:
        self._channels.setdefault(member.channel, {})[member.ref] = member
        self._announce(member.channel, Joined(member))

    def _leave(self, member: Member) -> None:
        channel = self._channels[member.channel]
        del channel[member.ref]
        if not channel:
            del self._channels[member.channel]
        self._announce(member.channel, Left(member))

    def _announce(self, channel: str, change: Change) -> None:
        for changes in self._watchers.get(channel, ()):
            changes.put(change)


def _checked(channel: str, key: object, meta: object) -> Member:
    """A new member. It is encoded here, so that one that cannot be sent raises in the caller of ``track``."""
    if not isinstance(key, str):
        raise ChannelsException(f"the key of a presence must be a str, not {key!r:.80}: write track(channel, str(key))")
    try:
        member = Member(channel, key, secrets.token_hex(8), msgspec.to_builtins(meta))
        size = len(_encode(member))
        _decode_member(_encode(member))
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ChannelsException(f"the presence of {key!r:.80} cannot be sent as JSON: {error}") from error
    if size > MEMBER_BYTES:
        raise ChannelsException(f"the presence of {key!r:.80} has {size} bytes; at most {MEMBER_BYTES} may be sent")
    return member
