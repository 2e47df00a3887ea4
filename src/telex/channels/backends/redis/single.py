"""Channels over Redis 6.2 and newer, and Valkey: pub/sub for what is live, a stream for each channel with history.

An event of a channel with history is numbered, kept and published by one script, so that all three agree.

The epoch of a history belongs to one reign of one server. Servers save and replicate after they have answered, so one
that was restarted, and a replica that takes the place of its primary, may lack the newest events: those that publishers
were told are kept, and that subscribers have seen. It would give their numbers to other events. And nobody can tell
whether it lacks any, as who knew is gone. So the first script that finds a channel's head written in another reign
begins a new epoch, and subscribers are told. What is there of the log stays, and goes on being counted: it is a true
beginning of the old one, and a position of the new epoch never meant anything else.

A reign is known by ``master_replid``, which a server makes anew when it starts and when it is promoted. Its ``run_id``
would not do: a primary that was replaced, and later takes its place back, is the same process, with what its successor
had; if nobody used the channel in between, its head bears that ``run_id`` still, and its numbers start again from
before those that were lost. And the script itself has to ask: a connection outlives both changes, so what a client once
asked would be of another reign. The price, beside some microseconds, is an epoch that ends early when a server gets its
first replica, or has been without one for an hour: then it changes the id as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from itertools import compress
from typing import ClassVar, Final, TypeAlias, cast

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from telex.channels.backends.base import ChannelsBackend, Listener, OnDemand, Sink
from telex.channels.backends.redis.connection import Link
from telex.channels.events import Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import ChannelsException

__all__ = ("RedisBackend",)

Command: TypeAlias = tuple[str | bytes | int, ...]

META_SECONDS: Final = 86_400
"""A channel's epoch and offset outlive its events by a day, so that late positions are still recognised."""

_OPEN_LOG: Final = """
local reign = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local meta = redis.call('HMGET', KEYS[2], 'reign', 'epoch', 'offset')
if not meta[3] then
  redis.call('DEL', KEYS[1])
  meta[3] = '0'
end
if meta[1] ~= reign then
  meta[2] = ARGV[1]
  redis.call('HSET', KEYS[2], 'reign', reign, 'epoch', meta[2], 'offset', meta[3])
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local now = redis.call('TIME')[1]
"""

PUBLISH: Final = (
    _OPEN_LOG
    + """
local offset = redis.call('HINCRBY', KEYS[2], 'offset', 1)
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[3], offset .. '-0', 't', now, 'd', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[6], meta[2] .. ':' .. offset .. ' ' .. ARGV[4])
return offset
"""
)

HISTORY: Final = (
    _OPEN_LOG
    + """
local events = {}
if ARGV[3] ~= '' then
  events = redis.call('XRANGE', KEYS[1], '(' .. ARGV[3] .. '-0', '+')
elseif ARGV[4] ~= '0' then
  events = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[4])
end
return {meta[2], meta[3], now, events}
"""
)


class _RedisListener(Listener):
    def __init__(self, link: Link, prefix: bytes) -> None:
        self._link = link
        self._prefix = prefix

    async def subscribe(self, topics: Collection[TopicName]) -> None:
        await self._all(b"SUBSCRIBE", b"PSUBSCRIBE", topics)

    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        await self._all(b"UNSUBSCRIBE", b"PUNSUBSCRIBE", topics)

    async def ping(self) -> None:
        await self._link.call(b"PING")

    async def _all(self, for_channels: bytes, for_patterns: bytes, topics: Collection[TopicName]) -> None:
        for command, wanted in ((for_channels, False), (for_patterns, True)):
            names = [_broker_name(self._prefix, topic) for topic in topics if topic.is_pattern is wanted]
            if names:
                await self._link.call(command, *names, replies=len(names))


class RedisBackend(ChannelsBackend):
    """Channels over one Redis or Valkey server, or a primary with replicas.

    ``url`` is as redis-py takes it: ``redis://``, or ``rediss://`` with TLS, with user, password, database, options.
    With TLS the server's certificate must be signed by an authority that this machine trusts, or one of the file
    ``?ssl_ca_certs=``, and must name the host; ``ssl_certfile`` and ``ssl_keyfile`` are this side's own.
    ``prefix`` begins the name of every key and channel. ``timeout`` (seconds) bounds connecting and each answer.
    """

    supports_patterns = True

    publish_script: ClassVar[str] = PUBLISH
    scripts: ClassVar[tuple[str, ...]] = (PUBLISH, HISTORY)

    def __init__(self, url: str, *, prefix: str = "telex:", timeout: float = 5.0) -> None:
        self._prefix = prefix.encode()
        self._timeout = timeout
        # Versions of redis-py before 6 check who signed a certificate, but not whom it names.
        verified = {"ssl_check_hostname": True} if url.startswith("rediss:") else {}
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            **verified,
        )
        self._new_connection = cast("Callable[[], Connection]", pool.make_connection)
        self._publishing = OnDemand(lambda: self._connect(self._new_connection()))

    async def open(self) -> None:
        await self._publishing.get()

    async def close(self) -> None:
        await self._publishing.close()

    async def publish(self, targets: Sequence[Target], data: bytes) -> None:
        link = await self._publishing.get()
        futures: list[asyncio.Future[object]] = []
        for target in targets:
            futures += await link.send(*self._publication(target, data))
        try:
            await link.answers(futures)
        except NoScriptError:
            # Somebody flushed the server's scripts: load them again, and send again what did nothing.
            await self._load_scripts(link)
            undone = [isinstance(future.exception(), NoScriptError) for future in futures]
            await self.publish(list(compress(targets, undone)), data)

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        start = len(self._prefix)

        def hear(reply: list[bytes]) -> bool:
            if reply[0] not in {b"message", b"pmessage"}:
                return False
            pattern = None if len(reply) == 3 else _pattern(reply[1])[start:].decode()
            channel = reply[-2][start:].decode(errors="replace")
            sink.deliver(read_event(channel, reply[-1]), pattern)
            return True

        link = Link(self._new_connection(), self._timeout, hear, sink.lost)
        await link.open()
        try:
            yield _RedisListener(link, self._prefix)
        finally:
            await link.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        heads = await asyncio.gather(*(self._read(channel, keep, "", 0) for channel, keep in targets))
        return {
            channel: Position(epoch, offset) for (channel, _), (epoch, offset, _, _) in zip(targets, heads, strict=True)
        }

    async def history(
        self, channel: str, keep: Keep, *, since: Position | None = None, limit: int | None = None
    ) -> Past:
        wanted = keep.size if limit is None else min(limit, keep.size)
        asked = "" if since is None else str(since.offset)
        epoch, offset, now, entries = await self._read(channel, keep, asked, wanted)
        head = Position(epoch, offset)
        if since is None:
            entries.reverse()
        events = tuple(
            Event(channel, fields[3], Position(epoch, number), number - 1)
            for entry_id, fields in entries
            if int(fields[1]) > now - keep.seconds
            for number in (int(entry_id.partition(b"-")[0]),)
        )
        if since is None:
            return Past(events, head, complete=True)
        whole = since.epoch == epoch and since.offset + len(events) == offset
        return Past(events if whole else (), head, complete=whole)

    # -- connections and scripts

    async def _connect(self, connection: Connection) -> Link:
        link = Link(connection, self._timeout)
        await link.open()
        try:
            await self._load_scripts(link)
        except BaseException:
            await link.close()
            raise
        return link

    async def _load_scripts(self, link: Link) -> None:
        for script in self.scripts:
            await link.call(b"SCRIPT", b"LOAD", script)

    async def _ask(self, channel: str, command: Command) -> object:
        """The answer of the server that ``channel`` is on.

        :raises BackendUnavailable: there is none.
        """
        link = await self._publishing.get()
        try:
            [answer] = await link.call(*command)
        except NoScriptError:
            await self._load_scripts(link)
            [answer] = await link.call(*command)
        return answer

    def _publication(self, target: Target, data: bytes) -> Command:
        """The command that publishes ``data``, and keeps it if that is asked for."""
        channel, keep = target
        topic = self._topic_name(channel)
        if keep is None:
            return (*self._published_live(), topic, b" " + data)
        arguments = (keep.size, data, math.ceil(keep.seconds * 1000), topic)
        return (*evaluated(self.publish_script, 2), *self._log_of(channel, keep), *arguments)

    def _published_live(self) -> Command:
        """What comes before the name and the data of an event that is not kept."""
        return (b"PUBLISH",)

    def _topic_name(self, channel: str) -> bytes:
        return _broker_name(self._prefix, TopicName(channel))

    async def _read(
        self, channel: str, keep: Keep, since: str, limit: int
    ) -> tuple[str, int, int, list[tuple[bytes, list[bytes]]]]:
        """Epoch, offset, the server's time in seconds, and entries of the log."""
        answer = await self._ask(channel, (*evaluated(HISTORY, 2), *self._log_of(channel, keep), since, limit))
        epoch, offset, now, entries = cast("tuple[bytes, bytes, bytes, list[tuple[bytes, list[bytes]]]]", answer)
        return epoch.decode(), int(offset), int(now), entries

    def _log_of(self, channel: str, keep: Keep) -> Command:
        """The keys and arguments that both scripts begin with."""
        key = tagged(self._prefix, channel)
        milliseconds = round((keep.seconds + META_SECONDS) * 1000)
        return key + b":log", key + b":meta", secrets.token_hex(6), milliseconds


def tagged(prefix: bytes, channel: str) -> bytes:
    """A name by whose braces a cluster puts all that belongs to ``channel`` into one slot.

    The colon is for channels that begin with a closing brace: an empty tag would be none.
    """
    return prefix + b"{:" + channel.encode() + b"}"


@cache
def evaluated(script: str, keys: int) -> Command:
    """The beginning of the command that runs a script, to which so many keys follow and then the arguments."""
    return b"EVALSHA", hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest(), keys


def _broker_name(prefix: bytes, topic: TopicName) -> bytes:
    """The channel, or the glob, as Redis knows it."""
    if not topic.is_pattern:
        return prefix + topic.name.encode()
    return re.sub(rb"([][*?\\^-])", rb"\\\1", prefix + topic.name[:-1].encode()) + b"*"


def _pattern(glob: bytes) -> bytes:
    """The prefixed pattern that became ``glob``."""
    return re.sub(rb"\\(.)", rb"\1", glob, flags=re.DOTALL)


def read_event(channel: str, message: bytes) -> Event:
    """What was published: ``epoch:offset data`` on a channel with history, a space and the data without.

    Anything else is somebody else's publication, by hand perhaps: an event too, of which nothing is kept.
    """
    stands, _, data = message.partition(b" ")
    if not stands:
        return Event(channel, data)
    try:
        position = Position.parse(stands.decode())
    except (ChannelsException, UnicodeDecodeError):
        return Event(channel, message)
    return Event(channel, data, position, position.offset - 1)
