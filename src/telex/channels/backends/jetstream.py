"""What NATS keeps: the stream of all channels with history, and the names of channels as subjects."""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import suppress
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    RePublish,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import BadRequestError, NoStreamResponseError, NotFoundError

from telex.channels.backends.base import INTERNAL
from telex.channels.history import Event, Keep, Past, Position
from telex.exceptions import BackendUnavailable

__all__ = ("Store", "Subjects")

CONSUMER_SECONDS: Final = 10.0
"""A reader of the past that was cut off is removed by the server after this time."""

_PLAIN: Final = re.compile(rb"[A-Za-z0-9_/-]")


class Subjects:
    """Names of channels as subjects: ``:`` separates tokens, and what a token may not have is ``=`` and two digits."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.stream_prefix: str = re.sub(r"\W", "_", prefix).upper() + "_"
        self.all_live: str = f"{prefix}.c.>"
        self.all_stored: str = f"{prefix}.h.>"

    def live(self, channel: str) -> str:
        """Where a channel is published. The hub's own channels stand apart, so that no stream captures them."""
        return f"{self._prefix}.{'i' if channel.startswith(INTERNAL) else 'c'}.{_subject(channel)}"

    def stored(self, channel: str) -> str:
        """Where the stream republishes a channel."""
        return f"{self._prefix}.h.{_subject(channel)}"

    def beneath(self, prefix: str) -> str:
        """The narrowest subject with all channels that begin with ``prefix``."""
        parent, separator, _ = prefix.rpartition(":")
        return f"{self._prefix}.c.{_subject(parent)}.>" if separator else self.all_live

    def channel(self, subject: str) -> str:
        """The channel that a subject stands for."""
        return ":".join(_text(token) for token in subject[len(self._prefix) + 3 :].split("."))


def _subject(channel: str) -> str:
    return ".".join(_token(part) for part in channel.split(":"))


def _token(part: str) -> str:
    """A subject's token may not be empty: a single ``=`` stands for that."""
    raw = (bytes([byte]) for byte in part.encode())
    return "".join(byte.decode() if _PLAIN.match(byte) else f"={byte[0]:02X}" for byte in raw) or "="


def _text(part: str) -> str:
    if part == "=":
        return ""
    return re.sub(rb"=(..)", lambda found: bytes.fromhex(found[1].decode()), part.encode()).decode()


class Store:
    """The stream, over one connection. Errors are those of nats-py: the caller bounds and translates them."""

    def __init__(self, client: Client, names: Subjects, replicas: int, timeout: float) -> None:
        self._js = client.jetstream(timeout=timeout)
        self._names = names
        self._replicas = replicas
        self._timeout = timeout
        self._config: StreamConfig | None = None
        self._lock = asyncio.Lock()

    async def publish(self, channel: str, keep: Keep, data: bytes) -> None:
        """Store one event; the stream publishes it then."""
        await self._ensure(keep)
        subject = self._names.live(channel)
        try:
            await self._js.publish(subject, data, timeout=self._timeout)
        except NoStreamResponseError:
            # Somebody deleted the stream. Nobody has stored this event, so it is not there twice.
            self._config = None
            await self._ensure(keep)
            await self._js.publish(subject, data, timeout=self._timeout)

    async def position(self, channel: str, keep: Keep) -> Position:
        """Where the channel stands: its newest event, or the end of the stream when none is kept."""
        info = await self._info(keep)
        offset = info.state.last_seq
        with suppress(NotFoundError):
            newest = await self._js.get_last_msg(_name(info), self._names.live(channel))
            offset = newest.seq or offset
        return Position(_name(info), offset)

    async def last(self, channel: str, keep: Keep, limit: int | None) -> Past:
        """The last ``limit`` events, all that are kept by default."""
        info = await self._info(keep)
        events = await self._read(_name(info), channel, 0)
        head = events[-1].position if events else None
        wanted = events if limit is None else events[max(0, len(events) - limit) :]
        return Past(tuple(wanted), head or await self.position(channel, keep), complete=True)

    async def after(self, channel: str, keep: Keep, since: Position) -> Past:
        """All events after ``since``, or none when one of them may be gone."""
        info = await self._info(keep)
        if since.epoch == _name(info) and since.offset <= info.state.last_seq:
            events = await self._read(_name(info), channel, since.offset)
            if await self._reaches_back(channel, keep, since):
                head = events[-1].position if events else None
                return Past(tuple(events), head or since, complete=True)
        return Past((), await self.position(channel, keep), complete=False)

    async def _reaches_back(self, channel: str, keep: Keep, since: Position) -> bool:
        """Whether nothing after ``since`` is gone; asked after reading, so that the answer holds for what was read.

        Within a subject the oldest goes first, so nothing is gone if the event at ``since`` is still there. If there
        is none of this channel at ``since``, nothing is gone when the stream begins before it (nothing was too old) and
        the subject is not full (nothing was too much).
        """
        subject = self._names.live(channel)
        with suppress(NotFoundError):
            found = await self._js.get_msg(since.epoch, since.offset) if since.offset else None
            if found is not None and found.subject == subject:
                return True
        info = await self._js.stream_info(since.epoch, subjects_filter=subject)
        stored = (info.state.subjects or {}).get(subject, 0)
        return info.state.first_seq <= since.offset + 1 and stored < info.config.max_msgs_per_subject

    async def _read(self, stream: str, channel: str, after: int) -> list[Event]:
        subject = self._names.live(channel)
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            filter_subject=subject,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=CONSUMER_SECONDS,
            mem_storage=True,
            num_replicas=1,
        )
        reader = await self._js.pull_subscribe(subject, stream=stream, config=config)
        try:
            info = await reader.consumer_info()
            left = info.num_pending or 0
            messages: list[Msg] = []
            while left > 0:
                fetched = await reader.fetch(left, timeout=self._timeout)
                messages += fetched
                left -= len(fetched)
        finally:
            await reader.unsubscribe()
        await self._js.delete_consumer(stream, info.name)
        return _events(stream, channel, messages)

    # -- the stream itself

    async def _info(self, keep: Keep) -> StreamInfo:
        config = await self._ensure(keep)
        try:
            return await self._js.stream_info(config.name or "")
        except NotFoundError:
            self._config = None
            config = await self._ensure(keep)
            return await self._js.stream_info(config.name or "")

    async def _ensure(self, keep: Keep) -> StreamConfig:
        """The stream, wide enough for ``keep``."""
        if self._config is None or not _is_wide_enough(self._config, keep):
            async with self._lock:
                self._config = await self._widened(keep)
        return self._config

    async def _widened(self, keep: Keep) -> StreamConfig:
        try:
            name = await self._js.find_stream_name_by_subject(self._names.all_live)
        except NotFoundError:
            try:
                return (await self._js.add_stream(self._new(keep))).config
            except BadRequestError:
                # Another node was faster: its stream has these subjects now.
                name = await self._js.find_stream_name_by_subject(self._names.all_live)
        if not name.startswith(self._names.stream_prefix):
            raise BackendUnavailable(f"the stream {name!r} has the subjects of the channels: choose another prefix")
        config = (await self._js.stream_info(name)).config
        if not _is_wide_enough(config, keep):
            size, seconds = max(config.max_msgs_per_subject, keep.size), max(config.max_age or 0, keep.seconds)
            config = (await self._js.update_stream(config, max_msgs_per_subject=size, max_age=seconds)).config
        return config

    def _new(self, keep: Keep) -> StreamConfig:
        return StreamConfig(
            name=self._names.stream_prefix + secrets.token_hex(6),
            subjects=[self._names.all_live],
            max_msgs_per_subject=keep.size,
            max_age=keep.seconds,
            storage=StorageType.FILE,
            num_replicas=self._replicas,
            republish=RePublish(src=self._names.all_live, dest=self._names.all_stored),
        )


def _is_wide_enough(config: StreamConfig, keep: Keep) -> bool:
    return config.max_msgs_per_subject >= keep.size and (config.max_age or 0) >= keep.seconds


def _name(info: StreamInfo) -> str:
    return info.config.name or ""


def _events(stream: str, channel: str, messages: list[Msg]) -> list[Event]:
    events: list[Event] = []
    previous: int | None = None
    for message in messages:
        offset = message.metadata.sequence.stream
        events.append(Event(channel, message.data, Position(stream, offset), previous))
        previous = offset
    return events
