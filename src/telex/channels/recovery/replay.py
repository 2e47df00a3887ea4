"""Reading the past: for recipients that catch up, and for topics that missed something.

A deploy makes all clients come back at once. So few reads run at a time, and recipients that wait for the same past
share one read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from telex.channels.backends.base import BrokerRefusal, ChannelsBackend
from telex.channels.delivery.topic import Recipient, Topic
from telex.channels.events import Keep, Past, Position
from telex.exceptions import BackendUnavailable, ChannelsException

__all__ = ("Replay", "all_of")

READS: Final = 16
"""Reads of the past that run at the same time for recipients."""

RETRY_SECONDS: Final = 0.05
"""The pause after a read that failed."""


class _Read:
    """A read that has not begun, and serves all that wait for it: from the oldest position that one of them has."""

    __slots__ = ("outcome", "since")

    def __init__(self, since: Position | None) -> None:
        self.since = since
        self.outcome: asyncio.Future[Past | None] = asyncio.get_running_loop().create_future()

    def serve(self, since: Position | None) -> None:
        if since is not None and self.since is not None and since.offset < self.since.offset:
            self.since = since


class Replay:
    """Reads the past of channels for the topics of one hub. ``timeout`` bounds the wait for a broker that fails."""

    def __init__(self, backend: ChannelsBackend, keep_for: Callable[[str], Keep | None], timeout: float) -> None:
        self._backend = backend
        self._keep_for = keep_for
        self._timeout = timeout
        self._places = asyncio.Semaphore(READS)
        self._waiting: dict[tuple[str, str | None, int | None], _Read] = {}
        self._interruptions = 0
        self.trouble: str = ""
        """What went wrong last."""

    def interrupt(self) -> None:
        """Live events may be missing: reads under way cannot tell whether the past and the present meet."""
        self._interruptions += 1

    def explained(self, what: str) -> str:
        """What the backend did not do, and what went wrong last."""
        return f"{type(self._backend).__name__} {what}" + (f": {self.trouble}" if self.trouble else "")

    def keep_of(self, topic: Topic) -> Keep | None:
        """What is kept of a topic; nothing is of a pattern."""
        return None if topic.name.is_pattern else self._keep_for(topic.name.name)

    # -- recipients

    async def catch_up(
        self, topic: Topic, recipient: Recipient, since: Position | None, limit: int | None
    ) -> tuple[Position, bool]:
        """Give ``recipient`` the past and then what came meanwhile, without a hole or a double between the two.

        Returns where its stream begins, and whether the past was complete.

        :raises BackendUnavailable: the past could not be read in time.
        """
        until: float | None = None
        while True:
            await self.until_live(topic)
            interruptions = self._interruptions
            catch_up = topic.begin_catch_up(recipient)
            try:
                past = await self._read_shared(topic.name.name, since, limit)
            except BrokerRefusal:
                raise
            except BackendUnavailable as error:
                # The publishing side may notice a loss before the reader does: ask again.
                self.trouble = error.detail
                until = until or time.monotonic() + self._timeout
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if interruptions == self._interruptions:
                break
        topic.end_catch_up(recipient, catch_up, past, marked=since is not None)
        return _beginning(past, since), past.complete

    async def until_live(self, topic: Topic) -> None:
        """Wait until the broker has confirmed the subscription.

        :raises BackendUnavailable: it refuses, or does not confirm in time.
        """
        if topic.live.is_set():
            return
        try:
            async with asyncio.timeout(self._timeout):
                await topic.live.wait()
        except TimeoutError:
            raise BackendUnavailable(self.explained("confirmed no subscription")) from None
        if topic.refusal is not None:
            raise BackendUnavailable(topic.refusal.detail) from topic.refusal

    async def _read_shared(self, channel: str, since: Position | None, limit: int | None) -> Past:
        key = (channel, None, limit) if since is None else (channel, since.epoch, None)
        while True:
            read = self._waiting.get(key)
            if read is None:
                read = self._waiting[key] = _Read(since)
                past = await self._lead(key, read)
            else:
                read.serve(since)
                past = await asyncio.shield(read.outcome)
            if past is None:
                # The one that led the read was cancelled: another one leads.
                continue
            if since is None or since == read.since:
                return past
            if past.complete and since.offset <= past.head.offset:
                return _after(past, since)
            # It failed for a position that is older.
            async with self._places:
                return await self._read(channel, since, limit)

    async def _lead(self, key: tuple[str, str | None, int | None], read: _Read) -> Past | None:
        """Read for all that ask before the read begins: who asks later may have missed events that it does not have."""
        past: Past | None = None
        try:
            async with self._places:
                del self._waiting[key]
                past = await self._read(key[0], read.since, key[2])
            return past
        except BackendUnavailable as error:
            read.outcome.set_exception(error)
            read.outcome.exception()  # marks it as seen, should nobody else wait for it
            raise
        finally:
            if self._waiting.get(key) is read:
                del self._waiting[key]
            if not read.outcome.done():
                read.outcome.set_result(past)

    async def _read(self, channel: str, since: Position | None, limit: int | None) -> Past:
        keep = self._keep_for(channel)
        if keep is None:
            raise ChannelsException(f"nothing is kept of {channel!r}: write Channels(..., history=Keep(...))")
        # No time-out here: a long past comes in pages, and the backend bounds the wait for each.
        return await self._backend.history(channel, keep, since=since, limit=limit)

    # -- topics

    async def missed_by(self, topic: Topic) -> Past | None:
        """What ``topic`` has missed; ``None`` if nothing is kept of it.

        :raises BackendUnavailable: the broker is gone.
        """
        keep = self.keep_of(topic)
        if keep is None or topic.last is None:
            return None
        return await self._backend.history(topic.name.name, keep, since=topic.last)

    async def note_positions(self, topics: Iterable[Topic]) -> None:
        """Note where topics with history stand *before* subscribing, so that a loss before the first event shows.

        :raises BackendUnavailable: the broker is gone.
        """
        wanted = {topic.name.name: topic for topic in topics}
        keeps = [(name, keep) for name, topic in wanted.items() if (keep := self.keep_of(topic)) is not None]
        for channel, position in (await self._backend.positions(keeps)).items() if keeps else ():
            if wanted[channel].last is None:
                wanted[channel].last = position


def _beginning(past: Past, since: Position | None) -> Position:
    """Where a stream that begins with ``past`` begins: whoever comes back with it gets that past again."""
    if not past.complete:
        return past.head
    if since is not None:
        return since
    first = past.events[0] if past.events else None
    if first is None or first.position is None:
        return past.head
    before = first.position.offset - 1 if first.previous is None else first.previous
    return Position(past.head.epoch, before)


def _after(past: Past, since: Position) -> Past:
    events = tuple(event for event in past.events if event.position is None or event.position.offset > since.offset)
    return Past(events, past.head, complete=True)


async def all_of(work: Iterable[Awaitable[None]]) -> None:
    """Do all of it at the same time, and raise the first failure after the last has ended."""
    # No task group: before Python 3.13 one whose task fails may leave its parent marked as cancelled.
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome
