"""A topic: the recipients of one channel (or pattern) in this process, and the delivery state of each.

============  =================================================  ================
A recipient   and an event of the topic                          may become
============  =================================================  ================
CATCHING_UP   is held until the past before it has been read     QUEUED, ENDED
QUEUED        is put into the recipient's queue                  DIRECT, ENDED
DIRECT        is written to its connection within the publish    QUEUED, ENDED
ENDED         is not delivered to it                             –
============  =================================================  ================

:data:`MAY_BECOME` is this table. Only :meth:`Topic._move` changes a state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from typing import Final

from telex.channels.delivery.broadcast import BroadcastGroup, SnapshotDict
from telex.channels.delivery.encoding import Encoding, lost
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.delivery.shared_sender import SharedSender
from telex.channels.events import Event, Gap, Item, OnGap, Past, Position
from telex.channels.names import TopicName
from telex.exceptions import BackendUnavailable, WebSocketException
from telex.types import DirectSend, Transport

__all__ = ("CatchUp", "Delivery", "Recipient", "Topic", "TopicState")


class Delivery(Enum):
    """How the events of a topic reach a recipient."""

    CATCHING_UP = auto()
    QUEUED = auto()
    DIRECT = auto()
    ENDED = auto()


MAY_BECOME: Final[Mapping[Delivery | None, frozenset[Delivery]]] = {
    None: frozenset({Delivery.CATCHING_UP, Delivery.QUEUED}),
    Delivery.CATCHING_UP: frozenset({Delivery.QUEUED, Delivery.ENDED}),
    Delivery.QUEUED: frozenset({Delivery.DIRECT, Delivery.ENDED}),
    Delivery.DIRECT: frozenset({Delivery.QUEUED, Delivery.ENDED}),
}


class TopicState(Enum):
    """The state of a topic's subscription at the broker."""

    NEW = auto()
    """Not confirmed yet: no event can have been missed."""
    LIVE = auto()
    """Events are delivered as they arrive."""
    RECOVERING = auto()
    """Events may have been missed: live events are held until the missed ones have been read."""


HELD_LIMIT: Final = 10_000
"""The most events that a topic holds while it reads the missed ones. One more, and all held ones count as missed."""

LOST: Final = "the connection to the broker was lost"
NOT_KEPT: Final = "the history does not reach back to where the stream stood"
OVERFLOW: Final = "too many events came while the past was fetched"


ONE_BY_ONE: Final = DirectSend(lambda opcode, payload: None, -1)
"""Used for a connection without direct send. With the limit -1 every event is sent by :meth:`Recipient.send`."""


class Recipient:
    """The hub's side of a subscriber: its topics deliver events to it."""

    __slots__ = (
        "_encoding",
        "_has_direct_send",
        "_transport",
        "is_forwarded",
        "on_finish",
        "on_gap",
        "queue",
        "sender",
        "topics",
    )

    def __init__(self, queue: DeliveryQueue[Item]) -> None:
        self.queue: DeliveryQueue[Item] = queue
        self.topics: dict[str, Topic] = {}
        self.on_gap: OnGap = "event"
        self.on_finish: Callable[[], object] | None = None
        self.is_forwarded: bool = False
        self.sender: SharedSender | None = None
        self._transport: Transport | None = None
        self._encoding: Encoding | None = None
        self._has_direct_send = False

    # -- called by topics

    def put(self, event: Event) -> None:
        """Queue an event that could not be sent directly."""
        self.queue_up()
        self.queue.put(event)

    def send(self, event: Event, message: str | bytes) -> None:
        """Send an event that its group cannot send. The recipient must be direct."""
        transport, encoding = self._transport, self._encoding
        if transport is None or encoding is None:
            self.put(event)
            return
        try:
            goes_on = transport.send(message)
        except (OSError, WebSocketException):
            # The connection is broken. The task that forwards the queue raises the error, not the publisher.
            self.put(event)
            return
        self.queue.delivered += 1
        if not goes_on:
            self.queue_up()
        elif not self._has_direct_send:
            self.queue_up()
            self.go_direct(transport, encoding)

    def put_gap(self, gap: Gap) -> None:
        """Queue ``gap`` even if the queue is full, or end the stream if ``on_gap`` is ``close``."""
        self.queue_up()
        if self.on_gap == "close":
            self.queue.fail(lost(gap))
        else:
            self.queue.put_mark(gap)

    def preload(self, items: Iterable[Item]) -> None:
        """Put a replay before the waiting items. It does not count towards the limit."""
        self.queue_up()
        self.queue.preload(items)

    # -- ending

    def finish(self) -> None:
        """Accept no more items: the stream ends after the waiting ones."""
        self.queue_up()
        self.queue.close()
        if self.on_finish is not None:
            self.on_finish()

    def fail(self, error: WebSocketException) -> None:
        """Accept no more items, drop the waiting ones, and raise ``error`` in the reader."""
        self.queue_up()
        self.queue.fail(error)

    # -- queued or direct, the same in all topics, so that no event overtakes one of another topic

    def go_direct(self, transport: Transport, encoding: Encoding) -> None:
        """Write events to ``transport`` within the publish, unless a topic catches up. The queue must be empty."""
        if self._transport is not None or any(
            topic.state_of(self) is not Delivery.QUEUED for topic in self.topics.values()
        ):
            return
        self._transport, self._encoding = transport, encoding
        direct = transport.open_direct(self.queue_up)
        self._has_direct_send = direct is not None
        for topic in self.topics.values():
            topic.go_direct(self, encoding, direct or ONE_BY_ONE)

    def queue_up(self) -> None:
        """Put the following events into the queue."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close_direct(self.queue_up)
            for topic in self.topics.values():
                topic.queue_up(self)

    @property
    def delivered(self) -> int:
        """How many events the reader has received."""
        return self.queue.delivered + sum(topic.sent_to(self) for topic in self.topics.values())


class CatchUp:
    """The state of a recipient in CATCHING_UP: its live events are held until the past has been read.

    Then ``floor`` is the position where that past ended. Live events up to ``floor`` that arrive later are skipped.
    """

    __slots__ = ("floor", "held")

    def __init__(self) -> None:
        # If the deque drops its oldest event, end_catch_up finds the hole after the past.
        self.held: deque[Event] = deque(maxlen=HELD_LIMIT)
        self.floor: Position | None = None


class Topic:
    """The recipients of one channel or pattern. ``last`` is the position of the newest delivered event.

    ``first`` is the position that ``last`` had before the broker confirmed the subscription: all events after it were
    delivered to the first recipients.
    """

    __slots__ = (
        "_catching_up",
        "_direct",
        "_groups",
        "_held",
        "_queued",
        "_reason",
        "_state",
        "_states",
        "first",
        "last",
        "live",
        "name",
        "refusal",
    )

    def __init__(self, name: TopicName) -> None:
        self.name: TopicName = name
        self.first: Position | None = None
        self.last: Position | None = None
        self.live: asyncio.Event = asyncio.Event()
        """Set while the state is LIVE, and after the broker has refused the subscription."""
        self.refusal: BackendUnavailable | None = None
        self._state = TopicState.NEW
        self._held: list[Event] = []
        self._reason = LOST
        self._states: dict[Recipient, Delivery] = {}
        self._queued: SnapshotDict[Recipient, Callable[[Event], object]] = SnapshotDict()
        self._catching_up: dict[Recipient, CatchUp] = {}
        self._direct: dict[Recipient, BroadcastGroup] = {}
        self._groups: SnapshotDict[tuple[Encoding, int], BroadcastGroup] = SnapshotDict()

    # -- recipients and their states

    @property
    def is_empty(self) -> bool:
        """Whether there is no recipient."""
        return not self._states

    def state_of(self, recipient: Recipient) -> Delivery:
        """The delivery state of ``recipient``."""
        return self._states.get(recipient, Delivery.ENDED)

    def add(self, recipient: Recipient, *, catching_up: bool = False) -> None:
        """Deliver the following events to ``recipient``; hold them until its past has been read if ``catching_up``."""
        self._move(recipient, Delivery.CATCHING_UP if catching_up else Delivery.QUEUED)

    def remove(self, recipient: Recipient) -> None:
        """Deliver no more events to ``recipient``."""
        if recipient in self._states:
            self._move(recipient, Delivery.ENDED)

    def go_direct(self, recipient: Recipient, encoding: Encoding, direct: DirectSend) -> None:
        """Send events to ``recipient`` within the publish."""
        self._move(recipient, Delivery.DIRECT)
        group = self._groups.get((encoding, direct.limit))
        if group is None:
            group = self._groups[encoding, direct.limit] = BroadcastGroup(encoding, direct.limit)
        group.join(recipient, direct.send)
        self._direct[recipient] = group

    def queue_up(self, recipient: Recipient) -> None:
        """Put events into the queue of ``recipient``."""
        self._move(recipient, Delivery.QUEUED)

    def _move(self, recipient: Recipient, to: Delivery) -> None:
        state = self._states.get(recipient)
        if to not in MAY_BECOME[state]:
            raise RuntimeError(f"a recipient of {self.name.name!r} is {state}: it cannot become {to}")
        if state is Delivery.CATCHING_UP:
            del self._catching_up[recipient]
        elif state is Delivery.QUEUED:
            self._queued.pop(recipient)
        elif state is Delivery.DIRECT:
            self._leave_group(recipient)
        self._states[recipient] = to
        if to is Delivery.CATCHING_UP:
            self._catching_up[recipient] = CatchUp()
        elif to is Delivery.QUEUED:
            self._queued[recipient] = recipient.queue.put
        elif to is Delivery.ENDED:
            del self._states[recipient]

    def _leave_group(self, recipient: Recipient) -> None:
        group = self._direct.pop(recipient)
        recipient.queue.delivered += group.leave(recipient)
        if not len(group):
            self._groups.pop(group.key)

    def sent_to(self, recipient: Recipient) -> int:
        """How many events were sent to ``recipient`` since it last became direct."""
        group = self._direct.get(recipient)
        return 0 if group is None else group.sent_to(recipient)

    # -- live

    def deliver(self, event: Event) -> bool:
        """Deliver ``event`` to all recipients; false if events before it were missed and the topic now recovers."""
        if self._state is TopicState.RECOVERING:
            self._hold(event)
            return True
        position = event.position
        if position is not None and not self.name.is_pattern:
            last = self.last
            if last is not None:
                if last.epoch == position.epoch and position.offset <= last.offset:
                    return True
                if _is_after_hole(event, last):
                    self._enter(TopicState.RECOVERING)
                    self._held.append(event)
                    return False
            self.last = position
        self._fan_out(event)
        return True

    def _hold(self, event: Event) -> None:
        if len(self._held) >= HELD_LIMIT:
            # All held events count as missed: the recovery reads again from the last position.
            self._held.clear()
            self._reason = OVERFLOW
        self._held.append(event)

    def _fan_out(self, event: Event) -> None:
        # Taken before the groups send: a recipient that leaves a group meanwhile already has the event.
        queued = self._queued.values
        for group in self._groups.values:
            group.deliver(event)
        for put in queued:
            put(event)
        for recipient, catch_up in list(self._catching_up.items()) if self._catching_up else ():
            if catch_up.floor is None:
                catch_up.held.append(event)
            elif not _is_before(event, catch_up.floor):
                self._move(recipient, Delivery.QUEUED)
                recipient.queue.put(event)

    # -- loss and recovery

    @property
    def is_recovering(self) -> bool:
        """Whether events are held until the missed ones have been read."""
        return self._state is TopicState.RECOVERING

    def _enter(self, state: TopicState) -> None:
        self._state = state
        self.refusal = None
        if state is TopicState.LIVE:
            self.live.set()
        else:
            self.live.clear()

    def confirm(self) -> None:
        """Become LIVE: the broker has confirmed the subscription, and no event was missed."""
        self._enter(TopicState.LIVE)

    def ask(self) -> None:
        """Clear an earlier refusal, because the subscription is requested again."""
        if self._state is not TopicState.LIVE:
            self._enter(self._state)

    def refuse(self, refusal: BackendUnavailable) -> None:
        """Raise ``refusal`` in the tasks that wait for the subscription."""
        self.refusal = refusal
        self.live.set()

    def suspend(self) -> None:
        """Hold events until the recovery, because the connection to the broker was lost."""
        # Events held since an earlier loss count as missed: others may be missing after them, and without history the
        # one gap of the recovery stands before all held events.
        self._held.clear()
        if self._state is TopicState.LIVE:
            self._enter(TopicState.RECOVERING)

    def resume(self, past: Past | None) -> bool:
        """Continue after a loss: deliver the missed events, or a gap if they are not available, then the held events.

        Returns false if the held events show another loss, so that the topic recovers again.
        """
        held, self._held = self._held, []
        reason, self._reason = self._reason, LOST
        self._enter(TopicState.LIVE)
        if past is None:
            self._put_gap(Gap(self.name.name, reason))
            self.last = None
        elif past.complete:
            for event in past.events:
                self._fan_out(event)
            self.last = past.head
        else:
            self._put_gap(Gap(self.name.name, reason if reason is OVERFLOW else NOT_KEPT, past.head))
            # The held events arrived after the missing ones, so they are delivered at any position.
            self.last = None if held else past.head
        for index, event in enumerate(held):
            if not self.deliver(event):
                self._held = held[index:]
                return False
        return True

    def _put_gap(self, gap: Gap) -> None:
        for recipient in list(self._states):
            catch_up = self._catching_up.get(recipient)
            if catch_up is not None:
                if catch_up.floor is None:
                    continue
                self._move(recipient, Delivery.QUEUED)
            recipient.put_gap(gap)

    # -- catching up

    def begin_catch_up(self, recipient: Recipient) -> CatchUp:
        """Hold events for ``recipient`` from here, before its past is read. Events held earlier are dropped."""
        catch_up = self._catching_up[recipient] = CatchUp()
        return catch_up

    def end_catch_up(self, recipient: Recipient, catch_up: CatchUp, past: Past, *, marked: bool) -> None:
        """Replay ``past`` to ``recipient``, or a gap if it is incomplete and ``marked``; then its held events."""
        if self._catching_up.get(recipient) is not catch_up:
            return
        if past.complete:
            recipient.preload(past.events)
        elif marked:
            recipient.preload([Gap(self.name.name, NOT_KEPT, past.head)])
        held, catch_up.held = catch_up.held, deque()
        catch_up.floor = stands = past.head
        late = [event for event in held if not _is_before(event, past.head)]
        for event in late:
            if event.position is not None:
                if _is_after_hole(event, stands):
                    recipient.put_gap(Gap(self.name.name, NOT_KEPT, event.position))
                stands = event.position
            recipient.queue.put(event)
        if late or self._has_reached(past.head):
            self._move(recipient, Delivery.QUEUED)

    def _has_reached(self, head: Position) -> bool:
        return self.last is not None and self.last.epoch == head.epoch and self.last.offset >= head.offset


def _is_before(event: Event, head: Position) -> bool:
    """Whether the past up to ``head`` contains ``event``."""
    position = event.position
    return position is not None and position.epoch == head.epoch and position.offset <= head.offset


def _is_after_hole(event: Event, stands: Position) -> bool:
    """Whether events were published between the position ``stands`` of the stream and ``event``."""
    if event.position is None or event.previous is None:
        return False
    return event.position.epoch != stands.epoch or event.previous > stands.offset
