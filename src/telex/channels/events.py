"""The items of a channel, and how much of its history is kept: events, positions, gaps."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from telex.exceptions import ChannelsException, ImproperlyConfiguredException

__all__ = ("Event", "Gap", "Item", "Keep", "OnGap", "Past", "Position")


LONGEST: Final = 18
"""Digits of an offset: all that fits into the 64 bits with a sign that brokers count with."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """A place in a channel's history.

    ``offset`` grows with each event of the channel. ``epoch`` names the history that it counts in: a broker that was
    emptied, or restarted without its data, starts another epoch, and positions of different epochs do not compare.
    ``str(position)`` and :meth:`parse` are each other's inverse, for query strings and cookies.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that ``str`` wrote.

        :raises ChannelsException: the text is not a position. Clients send such texts: treat it as their mistake.
        """
        epoch, _, offset = text.rpartition(":")
        if not offset.isascii() or not offset.isdecimal() or len(offset) > LONGEST:
            raise ChannelsException(f"{text[:80]!r} is not a position: it looks like 'epoch:17'")
        return cls(epoch, int(offset)).checked()

    def checked(self) -> Position:
        """This position, if a broker may have given it.

        :raises ChannelsException: none has.
        """
        if (
            not 0 <= self.offset < 10**LONGEST
            or not self.epoch.isascii()
            or not self.epoch.isprintable()
            or not self.epoch
        ):
            raise ChannelsException(f"{str(self)[:80]!r} is not a position: it looks like 'epoch:17'")
        return self


class Event(msgspec.Struct, frozen=True, gc=False):
    """One published value as its subscribers see it.

    ``data`` is what was published: bytes and text as they were, everything else as JSON. ``position`` is ``None`` on a
    channel without history. ``previous`` is the offset of the channel's event before this one: a reader at another
    position has missed something.
    """

    channel: str
    data: bytes
    position: Position | None = None
    previous: int | None = None

    @property
    def text(self) -> str:
        """``data`` as text."""
        return self.data.decode()


class Gap(msgspec.Struct, frozen=True, gc=False):
    """Stands in a subscriber's stream where events of ``channel`` are missing, or may be.

    ``reason`` says why. ``position`` is where the stream goes on, when the channel has history: read your snapshot
    again and continue from here.
    """

    channel: str
    reason: str
    position: Position | None = None


Item: TypeAlias = Event | Gap
"""What a subscriber's stream consists of."""


YEARS: Final = 10 * 365 * 86_400.0
"""Seconds after which even the longest history ends."""


OnGap: TypeAlias = Literal["event", "close"]
"""How a subscriber learns that events were lost: by a :class:`Gap`, or by the end of its stream with 1012."""


class Keep(msgspec.Struct, frozen=True, gc=False):
    """How much of a channel's past can be replayed: the last ``size`` events, none older than ``seconds``."""

    size: int = 100
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.size < 1 or not self.seconds > 0:
            raise ImproperlyConfiguredException(f"{self} keeps nothing: both numbers are above 0")
        if self.seconds > YEARS:
            raise ImproperlyConfiguredException(f"{self}: brokers keep nothing for ever; at most {YEARS:.0f} seconds")


class Past(msgspec.Struct, frozen=True):
    """What a backend answers when it is asked for the past of a channel.

    ``events`` are in order and end at ``head``, the newest position. ``complete`` is true only when nothing between
    the position that was asked for and ``head`` is missing from them.
    """

    events: tuple[Event, ...]
    head: Position
    complete: bool
