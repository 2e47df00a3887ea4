"""Interprets the history rows of a PostgreSQL database: the events after a position, and whether any is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from telex.channels.events import DataKind, Event, Past, Position

__all__ = ("HistoryRow", "completed", "parts_of", "past_of")

_HOURS: Final = 10**12
"""Offsets below this are hours: positions of channels without a row. Offsets above are numbers of events."""

_EVENTS_AN_HOUR: Final = 3_600_000_000
"""Event numbers are microseconds, so this many fit into an hour."""

_GOOD_HOURS: Final = 24
"""How many hours a position that is an hour stays valid: no later event can have been deleted by then."""


_PART_BYTES: Final = 262_144


class HistoryRow(NamedTuple):
    """A row of :attr:`Statements.history`: the channel's head and an event. Without events there is one row.

    ``data`` is ``None`` if it would make the answer too large.
    """

    epoch: str
    last: int
    number: int | None
    previous: int | None
    data: bytes | None
    size: int | None
    kind: DataKind


def parts_of(rows: Iterable[HistoryRow]) -> Iterator[list[int]]:
    """The numbers of the events without data, in parts that are small enough for one answer."""
    part: list[int] = []
    size = 0
    for row in rows:
        if row.number is not None and row.data is None:
            if part and size + (row.size or 0) > _PART_BYTES:
                yield part
                part, size = [], 0
            part.append(row.number)
            size += row.size or 0
    if part:
        yield part


def completed(rows: Sequence[HistoryRow], found: Mapping[int, bytes]) -> Sequence[HistoryRow]:
    """The rows with their data filled in. Rows up to the last one whose data was deleted are left out."""
    whole: list[HistoryRow] = []
    for row in rows:
        data = found.get(row.number) if row.number is not None and row.data is None else row.data
        if row.number is not None and data is None:
            whole.clear()
        else:
            whole.append(row._replace(data=data))
    return whole or [rows[-1]._replace(number=None)]


def past_of(channel: str, rows: Sequence[HistoryRow], since: Position | None) -> Past:
    """The events after ``since``, if none of them is missing."""
    epoch, last = rows[0].epoch, rows[0].last
    events = tuple(
        Event(channel, row.data, Position(epoch, row.number), row.previous, row.kind)
        for row in rows
        if row.number is not None and row.data is not None
    )
    head = Position(epoch, last)
    if since is None:
        return Past(events, head, complete=True)
    whole = since.epoch == epoch and _follows(since.offset, events, head)
    return Past(events if whole else (), head, complete=whole)


def _follows(stood: int, events: Sequence[Event], head: Position) -> bool:
    """Whether ``events``, or the head if there are none, directly follow the offset ``stood``."""
    if stood >= _HOURS:
        return stood == (events[0].previous if events else head.offset)
    begun = _begun(events, head)
    return begun is not None and begun - stood <= _GOOD_HOURS


def _begun(events: Sequence[Event], head: Position) -> int | None:
    """The hour of the channel's first event; the current hour if it has no event; ``None`` if that is unknown."""
    if not events:
        return head.offset if head.offset < _HOURS else None
    first = events[0]
    return None if first.previous or first.position is None else first.position.offset // _EVENTS_AN_HOUR
