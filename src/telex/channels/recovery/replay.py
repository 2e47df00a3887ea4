"""Reads past events: for recipients that catch up, and for topics that missed events.

After a deployment all clients reconnect at once. So the number of concurrent reads is limited, and recipients that
need the same past share one read. The work for them in one turn of the event loop is limited too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from telex.channels.backends.base import BrokerRefusal, ChannelsBackend
from telex.channels.delivery.topic import Recipient, Topic
from telex.channels.events import Keep, Past, Position
from telex.clock import loop_time
from telex.exceptions import BackendUnavailable, ChannelsException

__all__ = ("Replay", "all_of")

READS: Final = 16
"""The most concurrent reads for recipients and of pages."""

RETRY_SECONDS: Final = 0.05
"""The pause after a failed read."""

PER_TURN: Final = 32
"""The most recipients that start, or get their past, in one turn of the event loop."""


class Pace:
    """Spreads the work of many tasks that run in one turn of the event loop over several turns.

    Thousands of clients that return at the same moment would make one turn so long that publishers wait for it.
    """

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(PER_TURN)

    async def keep(self) -> None:
        """Return at once for the first :data:`PER_TURN` tasks of a turn, in a later turn for the others."""
        await self._places.acquire()
        asyncio.get_running_loop().call_soon(self._places.release)


class _Read:
    """A read that has not started. It begins at the oldest position of all tasks that wait for it."""

    __slots__ = ("outcome", "since")

    def __init__(self, since: Position | None) -> None:
        self.since = since
        self.outcome: asyncio.Future[Past | None] = asyncio.get_running_loop().create_future()

    def serve(self, since: Position | None) -> None:
        if since is not None and self.since is not None and since.offset < self.since.offset:
            self.since = since


class Replay:
    """Reads past events for the topics of one hub. ``timeout`` (seconds) limits the wait for a broker that fails."""

    def __init__(self, backend: ChannelsBackend, keep_for: Callable[[str], Keep | None], timeout: float) -> None:
        self._backend = backend
        self._keep_for = keep_for
        self._timeout = timeout
        self._places = asyncio.Semaphore(READS)
        self.pace: Pace = Pace()
        self._waiting: dict[tuple[str, str | None, int | None], _Read] = {}
        self._interruptions = 0
        self.trouble: str = ""
        """The text of the last error."""

    def interrupt(self) -> None:
        """Restart the reads in progress: live events may be missing between their past and the held events."""
        self._interruptions += 1

    def explained(self, what: str) -> str:
        """An error text: the backend, ``what`` it did not do, and the last error."""
        return f"{type(self._backend).__name__} {what}" + (f": {self.trouble}" if self.trouble else "")

    def keep_of(self, topic: Topic) -> Keep | None:
        """The history of a topic. Patterns have none."""
        return None if topic.name.is_pattern else self._keep_for(topic.name.name)

    # -- recipients

    async def catch_up(
        self, topic: Topic, recipient: Recipient, since: Position | None, limit: int | None
    ) -> tuple[Position, bool]:
        """Deliver the past to ``recipient``, then the events that arrived meanwhile, without gaps or duplicates.

        Returns the position where its stream begins, and whether the past was complete.

        :raises BackendUnavailable: the past could not be read within the time-out.
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
                # This connection may fail before the reader's connection does: try again.
                self.trouble = error.detail
                until = until or loop_time() + self._timeout
                if loop_time() > until:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if interruptions == self._interruptions:
                break
        topic.end_catch_up(recipient, catch_up, past, marked=since is not None)
        return _beginning(past, since), past.complete

    async def until_live(self, topic: Topic) -> None:
        """Wait until the broker has confirmed the subscription.

        :raises BackendUnavailable: it refuses, or does not confirm within the time-out.
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
                await self.pace.keep()
            if past is None:
                # The task that ran the read was cancelled: try again, possibly as the task that runs it.
                continue
            if since is None or since == read.since:
                return past
            if past.complete and since.offset <= past.head.offset:
                return _after(past, since)
            # The shared read began at an older position, which is not kept: read for this one alone.
            async with self._places:
                return await self._read(channel, since, limit)

    async def _lead(self, key: tuple[str, str | None, int | None], read: _Read) -> Past | None:
        """Run a shared read. Tasks can share it until it starts: for later ones its result may be too old."""
        past: Past | None = None
        try:
            async with self._places:
                del self._waiting[key]
                past = await self._read(key[0], read.since, key[2])
            return past
        except BackendUnavailable as error:
            read.outcome.set_exception(error)
            read.outcome.exception()  # marks it as retrieved, in case no other task waits for it
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
        # No time-out here: a long past is read in pages, and the backend limits the wait for each page.
        return await self._backend.history(channel, keep, since=since, limit=limit)

    # -- pages

    async def page(self, channel: str, keep: Keep, before: int | None, limit: int) -> Past:
        """The last ``limit`` events below ``before``; takes its turn among the reads for recipients.

        :raises BackendUnavailable: the connection to the broker failed.
        """
        async with self._places:
            return await self._backend.history(channel, keep, before=before, limit=limit)

    # -- topics

    async def missed_by(self, topic: Topic) -> Past | None:
        """The events that ``topic`` has missed; ``None`` if it has no history.

        :raises BackendUnavailable: the connection to the broker failed.
        """
        keep = self.keep_of(topic)
        if keep is None or topic.last is None:
            return None
        return await self._backend.history(topic.name.name, keep, since=topic.last)

    async def note_positions(self, topics: Iterable[Topic]) -> None:
        """Set ``last`` of topics with history *before* subscribing, so that a loss before the first event is detected.

        :raises BackendUnavailable: the connection to the broker failed.
        """
        wanted = {topic.name.name: topic for topic in topics}
        keeps = [(name, keep) for name, topic in wanted.items() if (keep := self.keep_of(topic)) is not None]
        for channel, position in (await self._backend.positions(keeps)).items() if keeps else ():
            if wanted[channel].last is None:
                wanted[channel].first = wanted[channel].last = position


def _beginning(past: Past, since: Position | None) -> Position:
    """The position where a stream that starts with ``past`` begins. A replay since it returns the same past."""
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
    """Await all of ``work`` concurrently, then raise the first exception, if any."""
    # No task group: before Python 3.13 a task group with a failed task may leave its parent marked as cancelled.
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if outcome is not None:
            raise outcome
