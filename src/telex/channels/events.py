"""The items of a channel, and how much of its history is kept: events, positions, gaps."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from telex.exceptions import ChannelsException, ImproperlyConfiguredException

__all__ = ("Event", "Gap", "Item", "Keep", "DataKind", "OnGap", "Page", "Past", "Position", "kind_of")

DataKind: TypeAlias = Literal["text", "json", "bytes"]
"""What was published: a ``str``, bytes, or any other value, which travels as JSON."""


LONGEST: Final = 18
"""The most digits of an offset: brokers count in signed 64-bit integers."""


def kind_of(value: object) -> DataKind:
    """The kind of a value to publish."""
    if isinstance(value, str):
        return "text"
    return "bytes" if isinstance(value, (bytes, bytearray, memoryview)) else "json"


class Position(msgspec.Struct, frozen=True, gc=False):
    """A position in a channel's history.

    ``offset`` grows with each event of the channel. ``epoch`` identifies the history: a broker that was emptied, or
    restarted without its data, starts another epoch, and positions of different epochs cannot be compared.
    ``str(position)`` and :meth:`parse` convert to and from text, for query strings and cookies.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that ``text`` (made by ``str``) stands for.

        :raises ChannelsException: the text is not a position. If a client sent it, the client is in error.
        """
        epoch, _, offset = text.rpartition(":")
        if not offset.isascii() or not offset.isdecimal() or len(offset) > LONGEST:
            raise ChannelsException(f"{text[:80]!r} is not a position: it looks like 'epoch:17'")
        return cls(epoch, int(offset)).checked()

    def checked(self) -> Position:
        """This position, if it has the form of a broker's position.

        :raises ChannelsException: it does not.
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
    """One published value.

    ``data`` is the published value: bytes unchanged, text as UTF-8, everything else as JSON. ``position`` is ``None``
    on a channel without history. ``previous`` is the offset of the channel's event before this one: a reader whose last
    event has another offset has missed events. ``kind`` says what was published; what a program without Telex publishes
    counts as ``json``, and may be anything.
    """

    channel: str
    data: bytes
    position: Position | None = None
    previous: int | None = None
    kind: DataKind = "json"

    @property
    def text(self) -> str:
        """``data`` decoded as UTF-8."""
        return self.data.decode()


class Gap(msgspec.Struct, frozen=True, gc=False):
    """Marks the place in a subscriber's stream where events of ``channel`` are or may be missing.

    ``reason`` says why. ``position`` is where the stream continues, if the channel has history: read your snapshot
    again and continue from there.
    """

    channel: str
    reason: str
    position: Position | None = None


Item: TypeAlias = Event | Gap
"""An item of a subscriber's stream."""


YEARS: Final = 10 * 365 * 86_400.0
"""The longest allowed history, in seconds (ten years)."""


OnGap: TypeAlias = Literal["event", "close"]
"""What lost events do to a subscriber's stream: put a :class:`Gap` into it, or end it with 1012."""


class Keep(msgspec.Struct, frozen=True, gc=False):
    """How much history a channel has: its last ``size`` events, none older than ``seconds``."""

    size: int = 100
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if self.size < 1 or not self.seconds > 0:
            raise ImproperlyConfiguredException(f"{self} keeps nothing: both numbers must be above 0")
        if self.seconds > YEARS:
            raise ImproperlyConfiguredException(f"{self}: seconds must be at most {YEARS:.0f}")


class Page(msgspec.Struct, frozen=True):
    """A part of a channel's history, oldest first. ``more`` says whether earlier events are kept."""

    events: tuple[Event, ...]
    more: bool


class Past(msgspec.Struct, frozen=True):
    """What :meth:`ChannelsBackend.history` returns.

    ``events`` are in order and end at ``head``, the newest position. ``complete`` is true only if no event between the
    requested position and ``head`` is missing.
    """

    events: tuple[Event, ...]
    head: Position
    complete: bool
