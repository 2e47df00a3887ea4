"""A room: the subscribers of one channel (or pattern) in this process, and where they stand in its history."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol

from telex.channels.delivery.broadcast import Lane, Listed, Rider, Way, give, lane_for
from telex.channels.delivery.encoding import Frame
from telex.channels.events import Event, Gap, Item, Past, Position
from telex.channels.names import TopicName

__all__ = ("Arrival", "Member", "Room")

HELD_LIMIT: Final = 10_000
"""Events that a room holds back while it fetches what it missed; more than that are declared lost."""

LOST: Final = "the connection to the broker was lost"
NOT_KEPT: Final = "the history does not reach back to where the stream stood"
OVERFLOW: Final = "too many events came while the past was fetched"


class Member(Rider, Protocol):
    """What a room needs of a subscriber.

    ``put_nowait`` is looked up for each event anew: a subscriber may change the way that they go.
    """

    def put_gap(self, gap: Gap) -> None:
        """Take the mark of a loss."""

    def preload(self, items: Iterable[Item]) -> None:
        """Take a replay."""


class Arrival:
    """A subscriber that waits for the past: its newest live events are held until the past is there.

    Then ``floor`` is where that past ended. Live events up to there are in it already, and may still be on their way.
    """

    __slots__ = ("floor", "held")

    def __init__(self) -> None:
        # Whatever falls out at the far end shows as a hole after the past.
        self.held: deque[Event] = deque(maxlen=HELD_LIMIT)
        self.floor: Position | None = None


class Room:
    """The subscribers of one topic. All but those that a lane has taken are given each event one by one.

    ``last`` is the position of the newest event that was fanned out. While ``held`` is a list the room waits for the
    past: live events are held in it.
    """

    __slots__ = (
        "_aboard",
        "_lanes",
        "_standing",
        "arriving",
        "confirmed",
        "held",
        "last",
        "members",
        "reason",
        "topic",
    )

    def __init__(self, topic: TopicName) -> None:
        self.topic: TopicName = topic
        self.members: dict[Member, None] = {}
        self._standing: Listed[Member, Member] = Listed()
        self._aboard: dict[Rider, Lane[Any, Any]] = {}
        self._lanes: Listed[tuple[Frame, int | None], Lane[Any, Any]] = Listed()
        self.arriving: dict[Member, Arrival] = {}
        self.confirmed: asyncio.Event = asyncio.Event()
        self.last: Position | None = None
        self.held: list[Event] | None = None
        self.reason: str = LOST

    # -- who is in it

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here, or about to be."""
        return not self.members and not self.arriving

    def seat(self, member: Member) -> None:
        """Give ``member`` all that comes from now on."""
        self.members[member] = None
        self._standing[member] = member

    def expect(self, member: Member) -> None:
        """Hold for ``member`` what comes from now on, until its past is there."""
        self.arriving[member] = Arrival()

    def dismiss(self, member: Member) -> None:
        """Give ``member`` nothing more."""
        self.alight(member)
        self._standing.pop(member)
        self.members.pop(member, None)
        self.arriving.pop(member, None)

    def board(self, member: Member, frame: Frame, way: Way) -> None:
        """Send to ``member`` by ``way``, in one lane with all to whom the same may go."""
        if member not in self._standing:
            return
        key = (frame, way.limit)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = lane_for(frame, way)
        lane.board(member, way)
        self._aboard[member] = lane
        self._standing.pop(member)

    def alight(self, member: Member) -> None:
        """Give ``member`` each event by itself again."""
        lane = self._aboard.pop(member, None)
        if lane is not None:
            lane.alight(member)
            if not len(lane):
                self._lanes.pop(lane.key)
            self._standing[member] = member

    def sent_to(self, member: Member) -> int:
        """How many events the lane that ``member`` is in has brought it so far."""
        lane = self._aboard.get(member)
        return 0 if lane is None else lane.sent_to(member)

    # -- live

    def deliver(self, event: Event) -> bool:
        """Fan ``event`` out; false when the room now waits for events that were missed before it."""
        if self.held is not None:
            self._hold(event, self.held)
            return True
        if event.position is not None and not self.topic.is_pattern:
            last = self.last
            if last is not None:
                if last.epoch == event.position.epoch and event.position.offset <= last.offset:
                    return True
                if _is_after_hole(event, last):
                    self.held = [event]
                    return False
            self.last = event.position
        self._fan_out(event)
        return True

    def _hold(self, event: Event, held: list[Event]) -> None:
        if len(held) >= HELD_LIMIT:
            # All of it counts as missed: the last position says from where.
            held.clear()
            self.reason = OVERFLOW
        held.append(event)

    def _fan_out(self, event: Event) -> None:
        # Before the lanes go: who gets off one meanwhile has had the event.
        standing = self._standing.values
        for lane in self._lanes.values:
            lane.deliver(event)
        for member in standing:
            give(member, event)
        if self.arriving:
            self._tell_arriving(event)

    def _tell_arriving(self, event: Event) -> None:
        for member, arrival in list(self.arriving.items()):
            if arrival.floor is None:
                arrival.held.append(event)
            elif not _is_before(event, arrival.floor):
                self._admit(member)
                give(member, event)

    # -- loss and recovery

    def suspend(self) -> None:
        """The connection is lost. A room that was never confirmed has promised nothing and so misses nothing."""
        if self.confirmed.is_set() and self.held is None:
            self.held = []
        self.confirmed.clear()

    def resume(self, past: Past | None) -> bool:
        """Go on after a loss: with what was missed, or with a gap when that is not to be had.

        False when what was held back shows another loss, for which the room waits again.
        """
        held, self.held = self.held or [], None
        reason, self.reason = self.reason, LOST
        if past is None:
            self._mark(Gap(self.topic.name, reason))
            self.last = None
        elif past.complete:
            for event in past.events:
                self._fan_out(event)
            self.last = past.head
        else:
            self._mark(Gap(self.topic.name, reason if reason is OVERFLOW else NOT_KEPT, past.head))
            # The held events came live, after what is missing: they are delivered wherever they stand.
            self.last = None if held else past.head
        for index, event in enumerate(held):
            if not self.deliver(event):
                self.held = held[index:]
                return False
        return True

    def _mark(self, gap: Gap) -> None:
        for member in self.members:
            member.put_gap(gap)
        for member, arrival in list(self.arriving.items()):
            if arrival.floor is not None:
                self._admit(member)
                member.put_gap(gap)

    # -- arrivals

    def settle(self, member: Member, arrival: Arrival, past: Past, *, marked: bool) -> None:
        """The past of an arriving subscriber is there: replay all of it or say that it is not whole."""
        if self.arriving.get(member) is not arrival:
            return
        if past.complete:
            member.preload(past.events)
        elif marked:
            member.preload([Gap(self.topic.name, NOT_KEPT, past.head)])
        held, arrival.held = arrival.held, deque()
        arrival.floor = past.head
        late = [event for event in held if not _is_before(event, past.head)]
        stands = past.head
        for event in late:
            if event.position is not None:
                if _is_after_hole(event, stands):
                    member.put_gap(Gap(self.topic.name, NOT_KEPT, event.position))
                stands = event.position
            give(member, event)
        if late or self._has_reached(past.head):
            self._admit(member)

    def _admit(self, member: Member) -> None:
        del self.arriving[member]
        self.seat(member)

    def _has_reached(self, head: Position) -> bool:
        return self.last is not None and self.last.epoch == head.epoch and self.last.offset >= head.offset


def _is_before(event: Event, head: Position) -> bool:
    """Whether the past that ended at ``head`` has ``event`` already."""
    position = event.position
    return position is not None and position.epoch == head.epoch and position.offset <= head.offset


def _is_after_hole(event: Event, stands: Position) -> bool:
    """Whether something was published between where the stream ``stands`` and ``event``."""
    if event.position is None or event.previous is None:
        return False
    return event.position.epoch != stands.epoch or event.previous > stands.offset
