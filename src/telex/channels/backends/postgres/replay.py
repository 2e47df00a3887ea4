"""Reads the history in a PostgreSQL database: which events follow a position, and whether any is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from telex.channels.events import Event, Past, Position

__all__ = ("HistoryRow", "completed", "parts_of", "past_of")

_HOURS: Final = 10**12
"""What is below is an hour, where a channel stands of which nothing is known. What is above is an event."""

_EVENTS_AN_HOUR: Final = 3_600_000_000
"""The number of an event is a microsecond."""

_GOOD_HOURS: Final = 24
"""For so long nothing that came after an hour can have been forgotten since."""


_PART_BYTES: Final = 262_144


class HistoryRow(NamedTuple):
    """A row of :attr:`Statements.history`: the channel's head, and an event unless it is the only row and has none.

    ``data`` is missing where it would be too much for one answer.
    """

    epoch: str
    last: int
    number: int | None
    previous: int | None
    data: bytes | None
    size: int | None


def parts_of(rows: Iterable[HistoryRow]) -> Iterator[list[int]]:
    """The numbers of the events whose data is missing, in parts that are not too much for one answer."""
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
    """The rows with the data that was missing, as far as it was there to be found: the oldest go first."""
    whole: list[HistoryRow] = []
    for row in rows:
        data = found.get(row.number) if row.number is not None and row.data is None else row.data
        if row.number is not None and data is None:
            whole.clear()
        else:
            whole.append(row._replace(data=data))
    return whole or [rows[-1]._replace(number=None)]


def past_of(channel: str, rows: Sequence[HistoryRow], since: Position | None) -> Past:
    """What the rows say: the events after ``since``, if none of them is missing."""
    epoch, last = rows[0].epoch, rows[0].last
    events = tuple(
        Event(channel, row.data, Position(epoch, row.number), row.previous)
        for row in rows
        if row.number is not None and row.data is not None
    )
    head = Position(epoch, last)
    if since is None:
        return Past(events, head, complete=True)
    whole = since.epoch == epoch and _follows(since.offset, events, head)
    return Past(events if whole else (), head, complete=whole)


def _follows(stood: int, events: Sequence[Event], head: Position) -> bool:
    """Whether ``events``, or the head without any, come next after ``stood``."""
    if stood >= _HOURS:
        return stood == (events[0].previous if events else head.offset)
    begun = _begun(events, head)
    return begun is not None and begun - stood <= _GOOD_HOURS


def _begun(events: Sequence[Event], head: Position) -> int | None:
    """The hour in which the channel began, if it is known that nothing was before: now, if it is about to."""
    if not events:
        return head.offset if head.offset < _HOURS else None
    first = events[0]
    return None if first.previous or first.position is None else first.position.offset // _EVENTS_AN_HOUR
