"""Channels over Redis 6.2 and newer, and Valkey: pub/sub for what is live, a stream for each channel with history.

An event of a channel with history is numbered, kept and published by one script, so that all three agree. The epoch of
a history belongs to one run of one server (``run_id``): a server that was restarted, or whose place a replica took, may
have lost the newest events, and nobody could tell. Such a server starts new epochs, and subscribers are told.
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

from telex.channels.backends.base import ChannelsBackend, Listener, OnDemand, Sink, Target, Topic
from telex.channels.history import Event, Keep, Past, Position
from telex.exceptions import BackendUnavailable, MissingDependencyException

try:
    from redis.asyncio import Connection, ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError
except ImportError as _missing:
    raise MissingDependencyException("redis") from _missing

from telex.channels.backends.redis_link import Link

__all__ = ("RedisBackend",)

Command: TypeAlias = tuple[str | bytes | int, ...]

META_SECONDS: Final = 86_400
"""A channel's epoch and offset outlive its events by a day, so that late positions are still recognised."""

_OPEN_LOG: Final = """
local meta = redis.call('HMGET', KEYS[2], 'run', 'epoch', 'offset')
if meta[1] ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'run', ARGV[1], 'epoch', ARGV[2], 'offset', '0')
  meta = {ARGV[1], ARGV[2], '0'}
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local now = redis.call('TIME')[1]
"""

PUBLISH: Final = (
    _OPEN_LOG
    + """
local offset = redis.call('HINCRBY', KEYS[2], 'offset', 1)
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[4], offset .. '-0', 't', now, 'd', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('PUBLISH', ARGV[7], meta[2] .. ':' .. offset .. ' ' .. ARGV[5])
return offset
"""
)

HISTORY: Final = (
    _OPEN_LOG
    + """
local events = {}
if ARGV[4] ~= '' then
  events = redis.call('XRANGE', KEYS[1], '(' .. ARGV[4] .. '-0', '+')
elseif ARGV[5] ~= '0' then
  events = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[5])
end
return {meta[2], meta[3], now, events}
"""
)


class _RedisListener(Listener):
    def __init__(self, link: Link, prefix: bytes) -> None:
        self._link = link
        self._prefix = prefix

    async def subscribe(self, topics: Collection[Topic]) -> None:
        await self._all(b"SUBSCRIBE", b"PSUBSCRIBE", topics)

    async def unsubscribe(self, topics: Collection[Topic]) -> None:
        await self._all(b"UNSUBSCRIBE", b"PUNSUBSCRIBE", topics)

    async def ping(self) -> None:
        await self._link.call(b"PING")

    async def _all(self, for_channels: bytes, for_patterns: bytes, topics: Collection[Topic]) -> None:
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

    publish_command: ClassVar[bytes] = b"PUBLISH"
    publish_script: ClassVar[str] = PUBLISH

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
            futures += await link.send(*self._publication(link, target, data))
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
            sink.deliver(read_event(reply[-2][start:].decode(), reply[-1]), pattern)
            return True

        link = Link(self._new_connection(), self._timeout, hear, sink.lost)
        await link.open()
        try:
            yield _RedisListener(link, self._prefix)
        finally:
            await link.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        found: dict[str, Position] = {}
        for channel, keep in targets:
            epoch, offset, _, _ = await self._read(channel, keep, "", 0)
            found[channel] = Position(epoch, offset)
        return found

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
            [info] = await link.call(b"INFO", b"server")
            link.run_id = _run_id(cast("bytes", info))
            await self._load_scripts(link)
        except BaseException:
            await link.close()
            raise
        return link

    async def _load_scripts(self, link: Link) -> None:
        for script in (self.publish_script, HISTORY):
            await link.call(b"SCRIPT", b"LOAD", script)

    async def _ask(self, channel: str, command: Callable[[Link], Command]) -> object:
        """The answer of the server that ``channel`` is on; ``command`` is made for the connection that it goes by.

        :raises BackendUnavailable: there is none.
        """
        link = await self._publishing.get()
        try:
            [answer] = await link.call(*command(link))
        except NoScriptError:
            await self._load_scripts(link)
            [answer] = await link.call(*command(link))
        return answer

    def _publication(self, link: Link, target: Target, data: bytes) -> Command:
        """The command that publishes ``data``, and keeps it if that is asked for."""
        channel, keep = target
        topic = self._topic_name(channel)
        if keep is None:
            return self.publish_command, topic, b" " + data
        arguments = (keep.size, data, math.ceil(keep.seconds * 1000), topic)
        return (*_evaluated(self.publish_script), *self._log_of(link, channel, keep), *arguments)

    def _topic_name(self, channel: str) -> bytes:
        return _broker_name(self._prefix, Topic(channel))

    async def _read(
        self, channel: str, keep: Keep, since: str, limit: int
    ) -> tuple[str, int, int, list[tuple[bytes, list[bytes]]]]:
        """Epoch, offset, the server's time in seconds, and entries of the log."""
        answer = await self._ask(
            channel, lambda link: (*_evaluated(HISTORY), *self._log_of(link, channel, keep), since, limit)
        )
        epoch, offset, now, entries = cast("tuple[bytes, bytes, bytes, list[tuple[bytes, list[bytes]]]]", answer)
        return epoch.decode(), int(offset), int(now), entries

    def _log_of(self, link: Link, channel: str, keep: Keep) -> Command:
        """The keys and arguments that both scripts begin with."""
        key = tagged(self._prefix, channel)
        milliseconds = round((keep.seconds + META_SECONDS) * 1000)
        return key + b":log", key + b":meta", link.run_id, secrets.token_hex(6), milliseconds


def tagged(prefix: bytes, channel: str) -> bytes:
    """A name by whose braces a cluster puts all that belongs to ``channel`` into one slot.

    The colon is for channels that begin with a closing brace: an empty tag would be none.
    """
    return prefix + b"{:" + channel.encode() + b"}"


@cache
def _evaluated(script: str) -> tuple[bytes, str, int]:
    return b"EVALSHA", hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest(), 2


def _broker_name(prefix: bytes, topic: Topic) -> bytes:
    """The channel, or the glob, as Redis knows it."""
    if not topic.is_pattern:
        return prefix + topic.name.encode()
    return re.sub(rb"([][*?\\^-])", rb"\\\1", prefix + topic.name[:-1].encode()) + b"*"


def _pattern(glob: bytes) -> bytes:
    """The prefixed pattern that became ``glob``."""
    return re.sub(rb"\\(.)", rb"\1", glob, flags=re.DOTALL)


def read_event(channel: str, message: bytes) -> Event:
    """What was published: ``epoch:offset data`` on a channel with history, a space and the data without."""
    stands, _, data = message.partition(b" ")
    if not stands:
        return Event(channel, data)
    position = Position.parse(stands.decode())
    return Event(channel, data, position, position.offset - 1)


def _run_id(info: bytes) -> str:
    found = re.search(rb"^run_id:(\w+)", info, re.MULTILINE)
    if found is None:
        raise BackendUnavailable("Redis does not tell its run_id: INFO server must be allowed")
    return found[1].decode()
