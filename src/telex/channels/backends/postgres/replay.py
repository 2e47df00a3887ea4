"""How what is kept in a PostgreSQL database is read: which events follow a position, and whether they are all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from telex.channels.events import Event, Past, Position

__all__ = ("past_of",)

_HOURS: Final = 10**12
"""What is below is an hour, where a channel stands of which nothing is known. What is above is an event."""

_EVENTS_AN_HOUR: Final = 3_600_000_000
"""The number of an event is a microsecond."""

_GOOD_HOURS: Final = 24
"""For so long nothing that came after an hour can have been forgotten since."""


def past_of(channel: str, rows: Sequence[tuple[Any, ...]], since: Position | None) -> Past:
    """What :attr:`Statements.history` gave. Each row has the head; the only one may have no event."""
    epoch, last = rows[0][:2]
    events = tuple(
        Event(channel, data, Position(epoch, number), previous)
        for _, _, number, previous, data in rows
        if number is not None
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
