"""The JetStream stream of all channels with history."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar, get_args

import msgspec
from nats.aio.msg import Msg

from telex.channels.backends.base import BrokerRefusal
from telex.channels.backends.nats.subjects import Subjects
from telex.channels.events import DataKind, Event, Keep, Past, Position
from telex.exceptions import BackendUnavailable

__all__ = ("Ask", "Store", "kind_in", "with_kind")

READERS: Final = 4
"""The most channels that are read concurrently: their answers must fit into the buffers of one connection."""

BATCH: Final = 256
BATCH_BYTES: Final = 131_072
"""The most events of one answer, and the bytes after which it ends: the server sends without flow control."""

LEAST_SECONDS: Final = 1.0
"""The shortest age limit of the stream: the server refuses less than 0.1 s."""

SEQUENCE: Final = "Nats-Sequence"
PENDING: Final = "Nats-Num-Pending"
STATUS: Final = "Status"
KIND: Final = "Telex-Kind"
"""The header of events that are not JSON: the client library takes more time to read a message with headers."""

NO_JETSTREAM: Final = (
    "NATS keeps no history: start the server with JetStream (-js) and enable it for this account, or drop history="
)
STREAM_GONE: Final = 10059
NOT_FOUND: Final = 10037
WITHOUT_JETSTREAM: Final = {10039, 10076}
NAME_TAKEN: Final = 10058
"""JetStream's error codes: no such stream; no such event; JetStream is off; the name is in use with other options."""


class Ask(Protocol):
    """Sends a request over a connection."""

    async def __call__(
        self,
        subject: str,
        payload: bytes = b"",
        /,
        until: Callable[[Msg], bool] = ...,
        headers: dict[str, str] | None = ...,
    ) -> list[Msg]:
        """Send ``payload`` to ``subject``; returns the answer after the first message for which ``until`` is true.

        :raises BackendUnavailable: the connection is lost, or the answer did not arrive in time.
        """


class Refused(BrokerRefusal):
    """JetStream refused a request; ``code`` is its error code, 0 if there was no error answer."""

    def __init__(self, detail: str, code: int = 0) -> None:
        super().__init__(detail)
        self.code = code


class StreamGone(Refused):
    """The stream does not exist any more."""


class _Reason(msgspec.Struct):
    code: int
    err_code: int = 0
    description: str = ""


class _ApiAnswer(msgspec.Struct):
    error: _Reason | None = None


class _Receipt(msgspec.Struct):
    stream: str
    seq: int


class _StreamNames(msgspec.Struct):
    streams: list[str] | None = None


class _Extent(msgspec.Struct):
    first_seq: int
    last_seq: int


class _Stream(msgspec.Struct):
    """A stream's configuration and state, and the time ``ts`` by the clock that also sets the times of its events."""

    config: dict[str, Any]
    state: _Extent
    ts: datetime

    def end(self, epoch: str) -> Position:
        return Position(epoch, self.state.last_seq)


class _Stored(msgspec.Struct):
    """A stored event; ``time`` is in the format of RFC 3339."""

    seq: int
    time: str
    data: bytes = b""
    hdrs: bytes = b""
    kind: DataKind = "json"

    def __post_init__(self) -> None:
        for line in self.hdrs.decode(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name == KIND:
                self.kind = kind_in({KIND: value.strip()})


class _Found(msgspec.Struct):
    message: _Stored


T = TypeVar("T")


class Store:
    """Access to the stream over one connection.

    Its methods raise :class:`BackendUnavailable` if the connection is lost, an answer does not arrive in time, or
    JetStream refuses.
    """

    def __init__(self, ask: Ask, names: Subjects, replicas: int) -> None:
        self._ask = ask
        self._names = names
        self._replicas = replicas
        self._config: dict[str, Any] | None = None
        self._lock = asyncio.Lock()
        self._places = asyncio.Semaphore(READERS)
        self._failures = 0
        self._failure = BackendUnavailable()

    async def publish(self, channel: str, keep: Keep, data: bytes, headers: dict[str, str] | None) -> Position:
        """Store one event; the stream then republishes it."""
        subject = self._names.live(channel)
        # If the stream is gone, the event was not stored, so a retry does not store it twice.
        return await self._on_stream(keep, lambda epoch: self._put(epoch, subject, data, headers))

    async def end(self, keep: Keep) -> Position:
        """The end of the stream, which is a valid position of each channel: all its later events come after it."""
        return await self._on_stream(keep, lambda epoch: self._end(epoch, keep))

    async def last(self, channel: str, keep: Keep, limit: int | None, before: int | None) -> Past:
        """The last ``limit`` events below ``before``; all kept ones by default."""
        async with self._in_turn(self._places):
            return await self._on_stream(keep, lambda epoch: self._last(epoch, channel, keep, limit, before))

    async def after(self, channel: str, keep: Keep, since: Position) -> Past:
        """All events after ``since``, or none if one of them may be missing."""
        async with self._in_turn(self._places):
            return await self._on_stream(keep, lambda epoch: self._after(epoch, channel, keep, since))

    @asynccontextmanager
    async def _in_turn(self, turn: AbstractAsyncContextManager[None]) -> AsyncIterator[None]:
        """Wait for a turn, or raise the failure of a task that has one.

        So a server that does not answer costs all waiting tasks one time-out together, not one each.
        """
        failures = self._failures
        async with turn:
            if self._failures != failures:
                raise BackendUnavailable(self._failure.detail) from self._failure
            try:
                yield
            except BrokerRefusal:
                raise
            except BackendUnavailable as failure:
                self._failures += 1
                self._failure = failure
                raise

    # -- the past

    async def _end(self, epoch: str, keep: Keep) -> Position:
        return (await self._info(epoch, keep)).end(epoch)

    async def _last(self, epoch: str, channel: str, keep: Keep, limit: int | None, before: int | None) -> Past:
        subject = self._names.live(channel)
        most = keep.size if limit is None else min(max(limit, 0), keep.size)
        newest = await self._message({"last_by_subj": subject})
        # JetStream reads forwards only: what is below ``before`` is found in all that is kept.
        read = await self._read(subject, 0, newest, most if before is None else keep.size)
        stored = await self._still_there(subject, read[0].seq - 1 if read else 0, read)
        stream = await self._info(epoch, keep)
        events = _events(epoch, channel, _young(stored, keep, stream.ts))
        head = _head(events) or stream.end(epoch)
        if before is not None:
            earlier = [event for event in events if event.position is not None and event.position.offset < before]
            events = tuple(earlier[max(0, len(earlier) - most) :])
        return Past(events, head, complete=True)

    async def _after(self, epoch: str, channel: str, keep: Keep, since: Position) -> Past:
        subject = self._names.live(channel)
        # Clients send positions: the server refuses larger numbers.
        is_ours = since.epoch == epoch and 0 <= since.offset < 2**63
        read: Sequence[_Stored] = ()
        if is_ours:
            newest = await self._message({"last_by_subj": subject})
            read = await self._read(subject, since.offset, newest, keep.size + 1)
        stored = await self._still_there(subject, since.offset, read)
        # Requested after reading, so that the state covers all events read.
        stream = await self._info(epoch, keep)
        # The stream removes its oldest events first: if its first event is not after ``since``, none was removed for
        # its age. It keeps one event more of a channel than ``keep``: if it has that one, events may be missing.
        is_whole = (
            is_ours
            and stream.state.first_seq - 1 <= since.offset <= stream.state.last_seq
            and len(read) <= keep.size
            and len(read) == len(_young(stored, keep, stream.ts))
        )
        if not is_whole:
            return Past((), stream.end(epoch), complete=False)
        events = _events(epoch, channel, stored)
        return Past(events, _head(events) or since, complete=True)

    async def _read(self, subject: str, after: int, newest: _Stored | None, most: int) -> Sequence[_Stored]:
        """The last ``most`` events after ``after``, at least up to ``newest`` (read from the leader)."""
        stored: deque[_Stored] = deque(maxlen=most)
        while newest is not None and newest.seq > after:
            # Any replica may answer, and it may lag behind the leader.
            events = await self._batch(subject, after + 1) or await self._leaders(subject, after + 1)
            if not events:
                break
            stored.extend(events)
            after = events[-1].seq
        return stored

    async def _still_there(self, subject: str, after: int, read: Sequence[_Stored]) -> Sequence[_Stored]:
        """``read``, the events after ``after``, without the oldest ones that the stream has removed meanwhile.

        Nothing if the leader has an earlier one: a replica, which may remove old events before the leader, answered.
        """
        oldest = await self._next(subject, after + 1) if read else None
        if oldest is None or oldest.seq < read[0].seq:
            return ()
        return [event for event in read if event.seq >= oldest.seq]

    async def _batch(self, subject: str, start: int) -> list[_Stored]:
        """The first events from ``start`` on. A server before 2.11 has no batches and returns one event."""
        question = {"seq": start, "next_by_subj": subject, "batch": BATCH, "max_bytes": BATCH_BYTES}
        where = f"$JS.API.DIRECT.GET.{self._names.stream}"
        answer = await self._ask(where, msgspec.json.encode(question), until=_ends_batch)
        return [
            _Stored(int(headers[SEQUENCE]), headers["Nats-Time-Stamp"], data, kind=kind_in(headers))
            for headers, data in _kept(answer)
        ]

    async def _leaders(self, subject: str, start: int) -> list[_Stored]:
        event = await self._next(subject, start)
        return [] if event is None else [event]

    async def _next(self, subject: str, start: int) -> _Stored | None:
        """The leader's first event from ``start`` on."""
        return await self._message({"seq": start, "next_by_subj": subject})

    async def _message(self, question: object) -> _Stored | None:
        try:
            return (await self._call(f"STREAM.MSG.GET.{self._names.stream}", question, _Found)).message
        except Refused as refusal:
            if refusal.code == NOT_FOUND:
                return None
            raise

    # -- the stream itself

    async def _on_stream(self, keep: Keep, work: Callable[[str], Awaitable[T]]) -> T:
        """Run ``work`` with the stream's epoch; run it once more if the stream was deleted."""
        try:
            return await work(await self._epoch_for(keep))
        except StreamGone:
            self._config = None
            return await work(await self._epoch_for(keep))

    async def _put(self, epoch: str, subject: str, data: bytes, headers: dict[str, str] | None) -> Position:
        receipts: list[_Receipt] = []
        for answer in await self._ask(subject, data, headers=headers):
            if _is_unanswered(answer):
                raise StreamGone("no stream stores the published events")
            _raise_refusal(answer)
            receipts.append(msgspec.json.decode(answer.data, type=_Receipt))
        # A second stream with the same subjects sends its own receipt, in any order.
        self._check_alone([receipt.stream for receipt in receipts])
        return Position(epoch, receipts[0].seq)

    async def _info(self, epoch: str, keep: Keep) -> _Stream:
        """The current configuration and state of the stream of ``epoch``."""
        stream = await self._stream()
        if self._names.epoch(stream.config["republish"]["dest"]) != epoch:
            raise StreamGone("the stream was deleted and created again")
        if not _is_wide_enough(stream.config, keep):
            # Another node has overwritten our change of the configuration.
            self._config = None
            await self._epoch_for(keep)
        return stream

    async def _epoch_for(self, keep: Keep) -> str:
        """The epoch of the stream, after creating or widening it for ``keep``."""
        async with self._in_turn(self._lock):
            if self._config is None or not _is_wide_enough(self._config, keep):
                self._config = await self._widened(keep)
            return self._names.epoch(self._config["republish"]["dest"])

    async def _widened(self, keep: Keep) -> dict[str, Any]:
        found = (await self._call("STREAM.NAMES", {"subject": self._names.all_live}, _StreamNames)).streams or []
        self._check_alone(found)
        if not found:
            await self._create(keep)
        config = (await self._stream()).config
        if not _is_wide_enough(config, keep):
            config |= _widths(keep, config)
            await self._call(f"STREAM.UPDATE.{self._names.stream}", config, _ApiAnswer)
        return config

    def _check_alone(self, streams: Sequence[str]) -> None:
        others = [name for name in streams if name != self._names.stream]
        if others:
            raise Refused(
                f"{self._names.all_live!r} has to be stored by the stream {self._names.stream!r} alone, and is"
                f" stored by {', '.join(map(repr, others))}: delete that stream, or choose another prefix"
            )

    async def _stream(self) -> _Stream:
        """The stream.

        :raises Refused: the stream of this name was not created by Telex.
        """
        stream = await self._call(f"STREAM.INFO.{self._names.stream}", {}, _Stream)
        republished = stream.config.get("republish") or {}
        if stream.config["subjects"] != [self._names.all_live] or not self._names.epoch(republished.get("dest", "")):
            raise Refused(f"the stream {self._names.stream!r} is not one of Telex: delete it, or choose another prefix")
        return stream

    async def _create(self, keep: Keep) -> None:
        """Create the stream, unless another node has created it first."""
        config = {
            "name": self._names.stream,
            "subjects": [self._names.all_live],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self._replicas,
            "republish": {"src": self._names.all_live, "dest": self._names.all_stored(secrets.token_hex(6))},
            **_widths(keep),
        }
        try:
            await self._call(f"STREAM.CREATE.{self._names.stream}", config, _ApiAnswer)
        except Refused as refusal:
            if refusal.code != NAME_TAKEN:
                raise Refused(f"{refusal.detail}, when creating a stream with replicas={self._replicas}") from refusal

    async def _call(self, verb: str, question: object, answer: type[T]) -> T:
        [message] = await self._ask(f"$JS.API.{verb}", msgspec.json.encode(question))
        if _is_unanswered(message):
            raise Refused(NO_JETSTREAM)
        _raise_refusal(message)
        return msgspec.json.decode(message.data, type=answer)


def _is_unanswered(message: Msg) -> bool:
    """Whether this is the server's message that no service answers on the subject."""
    return not message.data and (message.headers or {}).get(STATUS) == "503"


def _raise_refusal(message: Msg) -> None:
    reason = msgspec.json.decode(message.data, type=_ApiAnswer).error
    if reason is None:
        return
    if reason.err_code in WITHOUT_JETSTREAM:
        raise Refused(NO_JETSTREAM, reason.err_code)
    kind = StreamGone if reason.err_code == STREAM_GONE else Refused
    raise kind(f"JetStream refused: {reason.description} ({reason.err_code})", reason.err_code)


def kind_in(headers: Mapping[str, str] | None) -> DataKind:
    """The kind of an event with these headers."""
    kind: Any = headers.get(KIND) if headers else None
    return kind if kind in get_args(DataKind) else "json"


def with_kind(kind: DataKind) -> dict[str, str] | None:
    """The headers of an event of this kind."""
    return None if kind == "json" else {KIND: kind}


def _ends_batch(message: Msg) -> bool:
    headers = message.headers or {}
    return SEQUENCE not in headers or PENDING not in headers


def _kept(answer: Iterable[Msg]) -> Iterable[tuple[dict[str, str], bytes]]:
    for message in answer:
        if message.headers and SEQUENCE in message.headers:
            yield message.headers, message.data


def _widths(keep: Keep, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """The limits of a stream for ``keep`` that are not narrower than those in ``config``."""
    size, age = keep.size + 1, int(max(keep.seconds, LEAST_SECONDS) * 1e9)
    if config is not None:
        # A limit may have been removed by hand: then max_msgs_per_subject is -1, or max_age is 0.
        old_size, old_age = config["max_msgs_per_subject"], config.get("max_age", 0)
        size, age = max(size, old_size) if old_size > 0 else old_size, max(age, old_age) if old_age > 0 else old_age
    return {"max_msgs_per_subject": size, "max_age": age, "allow_direct": True}


def _is_wide_enough(config: dict[str, Any], keep: Keep) -> bool:
    return config.items() >= _widths(keep, config).items()


def _young(stored: Sequence[_Stored], keep: Keep, now: datetime) -> Sequence[_Stored]:
    """The events that are not older than ``keep`` allows; the stream may keep them for longer."""
    since = now - timedelta(seconds=keep.seconds)
    old = 0
    while old < len(stored) and datetime.fromisoformat(stored[old].time) <= since:
        old += 1
    return [*stored][old:]


def _events(epoch: str, channel: str, stored: Iterable[_Stored]) -> tuple[Event, ...]:
    events: list[Event] = []
    previous: int | None = None
    for each in stored:
        events.append(Event(channel, each.data, Position(epoch, each.seq), previous, each.kind))
        previous = each.seq
    return tuple(events)


def _head(events: Sequence[Event]) -> Position | None:
    return events[-1].position if events else None
