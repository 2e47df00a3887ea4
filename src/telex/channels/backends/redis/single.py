"""The backend for Redis 6.2 or newer, and Valkey: pub/sub for live events, a stream for each channel with history."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import compress
from typing import ClassVar, Final, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from telex.channels.backends.base import BrokerRefusal, ConnectedBackend, Listener, Sink
from telex.channels.backends.redis.connection import Command, Demoted, RedisConnection
from telex.channels.backends.redis.followed_logs import FollowedLogs
from telex.channels.backends.redis.scripts import HISTORY, META_SECONDS, PUBLISH, evaluated
from telex.channels.events import DataKind, Event, Keep, Past, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import BackendUnavailable, ChannelsException, ImproperlyConfiguredException

__all__ = ("RedisBackend",)


_OURS: Final = {"protocol", "socket_timeout", "socket_connect_timeout"}


class _RedisListener(Listener):
    def __init__(self, backend: RedisBackend, connection: RedisConnection, sink: Sink) -> None:
        self._connection = connection
        self._sink = sink
        self._prefix = backend.prefix
        self._kept = FollowedLogs(backend, sink)

    async def subscribe(self, topics: Collection[TopicName]) -> None:
        answers = self._send(b"SUBSCRIBE", b"PSUBSCRIBE", topics)
        # Each topic has its own answer, so that one refusal does not affect the others.
        for topic, outcome in zip(topics, await asyncio.gather(*answers, return_exceptions=True), strict=True):
            if isinstance(outcome, BrokerRefusal):
                self._sink.refused(topic, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                self._kept.add(topic)

    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        self._kept.discard(topics)
        await self._connection.answers(self._send(b"UNSUBSCRIBE", b"PUNSUBSCRIBE", topics))

    async def ping(self) -> None:
        # A refusal is an answer: a server that cannot save refuses PING too.
        with suppress(BrokerRefusal):
            await self._connection.call((b"PING",))
        await self._kept.touch()

    def _send(
        self, for_channel: bytes, for_pattern: bytes, topics: Collection[TopicName]
    ) -> list[asyncio.Future[object]]:
        return self._connection.send(
            *((for_pattern if topic.is_pattern else for_channel, _broker_name(self._prefix, topic)) for topic in topics)
        )


class RedisBackend(ConnectedBackend[RedisConnection]):
    """Channels over one Redis or Valkey server, or a primary with replicas.

    ``url`` is a URL of redis-py: ``redis://``, or ``rediss://`` with TLS, with user, password, database and options.
    With TLS the server's certificate must be signed by a system authority or one in the file ``?ssl_ca_certs=``, and
    must contain the host name. ``ssl_certfile`` and ``ssl_keyfile`` are the client's certificate and key.
    All keys and channels start with ``prefix``. ``timeout`` (seconds) limits connecting and each answer.
    """

    supports_patterns = True

    publish_script: ClassVar[str] = PUBLISH
    scripts: ClassVar[tuple[str, ...]] = (PUBLISH, HISTORY)

    def __init__(self, url: str, *, prefix: str = "telex:", timeout: float = 5.0) -> None:
        self.prefix: bytes = prefix.encode()
        self.timeout = timeout
        self._new_connection = _connections_to(url, timeout)
        super().__init__(self._connect_anew, self._connect_anew)
        self._hearing: set[RedisConnection] = set()

    async def publish(self, targets: Sequence[Target], data: bytes, kind: DataKind = "bytes") -> Mapping[str, Position]:
        connection = await self._publishing.get()
        futures = connection.send(*(self._publication(target, data, kind) for target in targets))
        try:
            return positions_of(targets, await connection.answers(futures))
        except NoScriptError:
            # The server's scripts were flushed: load them again, and repeat the commands that did nothing.
            await self._load_scripts(connection)
            undone = [isinstance(future.exception(), NoScriptError) for future in futures]
            done = [None if future.exception() else future.result() for future in futures]
            repeated = await self.publish(list(compress(targets, undone)), data, kind)
            return {**positions_of(targets, done), **repeated}

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        start = len(self.prefix)

        def hear(reply: list[bytes]) -> bool:
            if reply[0] not in {b"message", b"pmessage"}:
                return False
            pattern = None if len(reply) == 3 else _pattern(reply[1])[start:].decode()
            channel = reply[-2][start:].decode(errors="replace")
            sink.deliver(read_event(channel, reply[-1]), pattern)
            return True

        connection = RedisConnection(self._new_connection(), self.timeout, hear, sink.lost)
        await connection.open()
        self._hearing.add(connection)
        try:
            await connection.ping()
            yield _RedisListener(self, connection, sink)
        finally:
            self._hearing.discard(connection)
            await connection.close()

    async def positions(self, targets: Collection[tuple[str, Keep]]) -> Mapping[str, Position]:
        pages = await asyncio.gather(
            *(self._read(channel, keep, "+", 0) for channel, keep in targets), return_exceptions=True
        )
        for page in pages:
            if isinstance(page, BaseException):
                raise page
        return {
            channel: page.head
            for (channel, _), page in zip(targets, pages, strict=True)
            if not isinstance(page, BaseException)
        }

    async def history(
        self,
        channel: str,
        keep: Keep,
        *,
        since: Position | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> Past:
        if since is None:
            wanted = keep.size if limit is None else min(limit, keep.size)
            return await self._last(channel, keep, wanted, "+" if before is None else f"({max(before, 1)}-0")
        return await self._after(channel, keep, since)

    async def _last(self, channel: str, keep: Keep, wanted: int, end: str) -> Past:
        found: list[tuple[int, bytes]] = []
        page = first = await self._read(channel, keep, end, wanted, backwards=True)
        while page.entries and page.head.epoch == first.head.epoch:
            found += page.entries
            if page.ends_in is None or len(found) >= wanted:
                break
            page = await self._read(channel, keep, f"({page.ends_in}-0", wanted - len(found), backwards=True)
        return Past(_events(channel, first.head.epoch, reversed(found)), first.head, complete=True)

    async def _after(self, channel: str, keep: Keep, since: Position) -> Past:
        # Clients send positions: larger offsets than Redis can store are limited.
        start = since.offset if 0 <= since.offset < 2**63 else 2**63 - 1
        page = first = await self._read(channel, keep, f"({start}-0", keep.size)
        found = [*page.entries]
        while page.ends_in is not None and page.ends_in < first.head.offset:
            page = await self._read(channel, keep, f"({page.ends_in}-0", keep.size)
            found += page.entries
        head = first.head
        # Events after the head of the first page arrive live.
        events = _events(channel, head.epoch, (entry for entry in found if entry[0] <= head.offset))
        if not (since.epoch == head.epoch == page.head.epoch and since.offset + len(events) == head.offset):
            return Past((), page.head, complete=False)
        return Past(events, head, complete=True)

    # -- connections and scripts

    async def _connect_anew(self) -> RedisConnection:
        return await self._connect(self._new_connection())

    async def _connect(self, connection: Connection) -> RedisConnection:
        made = RedisConnection(connection, self.timeout, on_lost=self._note_loss)
        await made.open()
        try:
            await self._prepare(made)
        except BaseException:
            await made.close()
            raise
        return made

    async def _prepare(self, connection: RedisConnection) -> None:
        await connection.ping()
        await self._load_scripts(connection)

    def _note_loss(self, error: BackendUnavailable) -> None:
        """Fail the listeners of a demoted server: only publishers get an error from it."""
        if isinstance(error, Demoted):
            for connection in tuple(self._hearing):
                connection.fail(error.detail)

    async def _load_scripts(self, connection: RedisConnection) -> None:
        for script in self.scripts:
            await connection.call((b"SCRIPT", b"LOAD", script))

    async def _ask(self, channel: str, command: Command) -> object:
        """The answer of the server of ``channel``.

        :raises BackendUnavailable: it does not answer.
        """
        connection = await self._reading.get()
        try:
            [answer] = await connection.call(command)
        except NoScriptError:
            await self._load_scripts(connection)
            [answer] = await connection.call(command)
        return answer

    def _publication(self, target: Target, data: bytes, kind: DataKind) -> Command:
        """The command that publishes ``data``, and stores it if the target has history."""
        channel, keep = target
        topic = self._topic_name(channel)
        data = _LETTERS[kind] + data
        if keep is None:
            return (*self._published_live(), topic, b" " + data)
        arguments = (keep.size, data, math.ceil(keep.seconds * 1000), topic)
        return (*evaluated(self.publish_script, 2), *self._log_of(channel, keep), *arguments)

    def _published_live(self) -> Command:
        """The beginning of the command for an event without history; the name and the data follow."""
        return (b"PUBLISH",)

    def _topic_name(self, channel: str) -> bytes:
        return _broker_name(self.prefix, TopicName(channel))

    async def _read(self, channel: str, keep: Keep, start: str, wanted: int, *, backwards: bool = False) -> _Page:
        arguments = (*self._log_of(channel, keep), start, int(backwards), wanted)
        answer = await self._ask(channel, (*evaluated(HISTORY, 2), *arguments))
        epoch, offset, now, entries = cast("tuple[bytes, bytes, bytes, list[tuple[bytes, list[bytes]]]]", answer)
        oldest = int(now) - keep.seconds * 1000
        numbers = [int(entry_id.partition(b"-")[0]) for entry_id, _ in entries]
        young = [
            (number, fields[3]) for number, (_, fields) in zip(numbers, entries, strict=True) if int(fields[1]) > oldest
        ]
        return _Page(Position(epoch.decode(), int(offset)), young, numbers[-1] if numbers else None)

    def _log_of(self, channel: str, keep: Keep) -> Command:
        """The first keys and arguments of both scripts."""
        key = tagged(self.prefix, channel)
        milliseconds = round((keep.seconds + META_SECONDS) * 1000)
        return key + b":log", key + b":meta", secrets.token_hex(6), milliseconds


class _Page(NamedTuple):
    """A part of a log: the head, the events that are not too old, and the number of the last event of any age."""

    head: Position
    entries: list[tuple[int, bytes]]
    ends_in: int | None


def _events(channel: str, epoch: str, entries: Iterable[tuple[int, bytes]]) -> tuple[Event, ...]:
    return tuple(
        Event(channel, marked[1:], Position(epoch, number), number - 1, _kind_in(marked)) for number, marked in entries
    )


_LETTERS: Final[Mapping[DataKind, bytes]] = {"json": b"j", "text": b"t", "bytes": b"b"}
_KINDS: Final[Mapping[bytes, DataKind]] = {letter: kind for kind, letter in _LETTERS.items()}


def _kind_in(marked: bytes) -> DataKind:
    """The kind of a value that is stored or sent with its letter before it."""
    return _KINDS.get(marked[:1], "json")


def positions_of(targets: Sequence[Target], answers: Sequence[object]) -> Mapping[str, Position]:
    """The positions in the answers of the script that publishes to a channel with history."""
    return {
        channel: Position.parse(answer.decode())
        for (channel, keep), answer in zip(targets, answers, strict=True)
        if keep is not None and isinstance(answer, bytes)
    }


def _connections_to(url: str, timeout: float) -> Callable[[], Connection]:
    """A function that creates connections, not opened yet.

    :raises ImproperlyConfiguredException: the URL has options that redis-py does not support.
    """
    parts = urlsplit(url)
    # Drops options that would interfere with our time-outs or change the format of the answers.
    options = [(name, value) for name, value in parse_qsl(parts.query) if name not in _OURS]
    # redis-py before version 6 verifies the signature of a certificate, but not its host name.
    verified = {"ssl_check_hostname": True} if parts.scheme == "rediss" else {}
    try:
        pool = ConnectionPool.from_url(
            urlunsplit(parts._replace(query=urlencode(options))),
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            **verified,
        )
        make = cast("Callable[[], Connection]", pool.make_connection)
        make()
    except (TypeError, ValueError, RedisError) as error:
        raise ImproperlyConfiguredException(f"the URL of Redis has an option that cannot be used: {error}") from error
    return make


def tagged(prefix: bytes, channel: str) -> bytes:
    """A key with a hash tag, so that a cluster stores all keys of ``channel`` in one slot.

    The colon is for channels that begin with a closing brace: an empty tag would be ignored.
    """
    return prefix + b"{:" + channel.encode() + b"}"


def _broker_name(prefix: bytes, topic: TopicName) -> bytes:
    """The name of the channel in Redis, or the glob of a pattern."""
    if not topic.is_pattern:
        return prefix + topic.name.encode()
    return re.sub(rb"([][*?\\^-])", rb"\\\1", prefix + topic.name[:-1].encode()) + b"*"


def _pattern(glob: bytes) -> bytes:
    """The prefixed pattern that ``glob`` was made from."""
    return re.sub(rb"\\(.)", rb"\1", glob, flags=re.DOTALL)


def read_event(channel: str, message: bytes) -> Event:
    """The event in a message: ``epoch:offset data`` on a channel with history, a space and the data without.

    The data begins with the letter of its kind. Any other message was published by another program, and becomes an
    event without history.
    """
    stands, _, marked = message.partition(b" ")
    kind = _KINDS.get(marked[:1])
    if kind is None:
        return Event(channel, message)
    if not stands:
        return Event(channel, marked[1:], None, None, kind)
    try:
        position = Position.parse(stands.decode())
    except (ChannelsException, UnicodeDecodeError):
        return Event(channel, message)
    return Event(channel, marked[1:], position, position.offset - 1, kind)
