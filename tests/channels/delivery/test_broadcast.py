"""Broadcast groups of a topic: each event once to each, whichever recipient joins, leaves or fails meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from telex.channels import Event
from telex.channels.delivery.broadcast import SnapshotDict
from telex.channels.delivery.encoding import Encoding, as_bytes, as_text
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.delivery.topic import Delivery, Recipient, Topic
from telex.channels.events import Past, Position
from telex.channels.names import TopicName
from telex.types import DirectSend


class Connection:
    """A transport that is ready for direct sends, its recipient, and what came which way."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.recipient = Recipient(DeliveryQueue(100))
        self.recipient.topics["c"] = topic
        self.sent: list[tuple[int, bytes]] = []
        self.long: list[str | bytes] = []
        self.limit, self.goes_on, self.is_broken = 100, True, False
        self.has_direct = True
        self.before_send: Callable[[], None] = lambda: None
        topic.add(self.recipient)

    def direct(self, encoding: Encoding = as_text, limit: int = 100) -> Connection:
        self.limit = limit
        transport: Any = self
        self.recipient.go_direct(transport, encoding)
        return self

    def open_direct(self, on_end: Callable[[], None]) -> DirectSend | None:
        return DirectSend(self.send_small, self.limit) if self.has_direct else None

    def close_direct(self, on_end: Callable[[], None]) -> None:
        """Nothing to forget."""

    def send_small(self, opcode: int, data: bytes) -> None:
        self.before_send()
        self.sent.append((opcode, data))

    def send(self, data: str | bytes) -> bool:
        if self.is_broken:
            raise OSError("gone")
        self.long.append(data)
        return self.goes_on

    @property
    def queued(self) -> list[bytes]:
        queue = self.recipient.queue
        items = [queue.get_nowait() for _ in range(len(queue))]
        return [item.data for item in items if isinstance(item, Event)]

    @property
    def state(self) -> Delivery:
        return self.topic.state_of(self.recipient)


@pytest.fixture
def topic() -> Topic:
    return Topic(TopicName("c"))


def deliver(topic: Topic, *values: bytes) -> None:
    for value in values:
        assert topic.deliver(Event("c", value))


def test_direct_recipients_are_sent_to_and_the_others_queue(topic: Topic) -> None:
    one, two, binary = (Connection(topic).direct(how) for how in (as_text, as_text, as_bytes))
    queued = Connection(topic)
    deliver(topic, b"a", b"b")
    assert one.sent == two.sent == [(1, b"a"), (1, b"b")]
    assert binary.sent == [(2, b"a"), (2, b"b")]
    assert (queued.sent, queued.queued) == ([], [b"a", b"b"])
    assert (one.recipient.delivered, queued.recipient.delivered) == (2, 2)


def test_a_recipient_that_leaves_its_group_queues_and_keeps_its_count(topic: Topic) -> None:
    one = Connection(topic).direct()
    deliver(topic, b"a")
    one.recipient.queue_up()
    one.recipient.queue_up()
    deliver(topic, b"b")
    assert (one.sent, one.queued, one.state) == ([(1, b"a")], [b"b"], Delivery.QUEUED)
    assert one.recipient.delivered == 2
    one.direct().direct()
    deliver(topic, b"c")
    assert (one.sent[1:], one.recipient.delivered) == ([(1, b"c")], 3)
    topic.remove(one.recipient)
    deliver(topic, b"d")
    assert (len(one.sent), one.recipient.delivered, topic.is_empty, one.state) == (2, 3, True, Delivery.ENDED)


def test_a_recipient_that_leaves_while_an_event_is_sent_has_it_once(topic: Topic) -> None:
    connections = [Connection(topic).direct() for _ in range(4)]

    def all_leave() -> None:
        for connection in connections:
            connection.recipient.queue_up()

    for connection in connections:
        connection.before_send = all_leave
    deliver(topic, b"a")
    assert [connection.sent for connection in connections] == [[(1, b"a")]] * 4
    assert [connection.recipient.delivered for connection in connections] == [1] * 4
    deliver(topic, b"b")
    assert [connection.queued for connection in connections] == [[b"b"]] * 4


def test_a_long_event_is_sent_one_by_one_and_one_that_is_no_text_takes_the_queue(topic: Topic) -> None:
    short, long = Connection(topic).direct(limit=3), Connection(topic).direct(limit=10)
    full, broken = Connection(topic).direct(limit=3), Connection(topic).direct(limit=3)
    binary = Connection(topic).direct(as_bytes, 10)
    full.goes_on, broken.is_broken = False, True
    deliver(topic, "üü".encode())
    assert (short.long, short.queued, short.state) == (["üü"], [], Delivery.DIRECT)
    assert (full.long, full.queued, full.state) == (["üü"], [], Delivery.QUEUED)
    assert (broken.long, broken.queued, broken.state) == ([], ["üü".encode()], Delivery.QUEUED)
    deliver(topic, b"\xff")
    assert (short.long, short.queued) == (["üü"], [b"\xff"])
    assert (long.sent, long.queued) == ([(1, "üü".encode())], [b"\xff"])
    assert (binary.sent, binary.queued) == ([(2, "üü".encode()), (2, b"\xff")], [])
    assert [each.recipient.delivered for each in (short, full, broken)] == [2, 1, 1]


def test_a_connection_without_a_direct_send_is_sent_to_one_by_one_until_it_has_one(topic: Topic) -> None:
    one = Connection(topic)
    one.has_direct = False
    one.direct()
    deliver(topic, b"a")
    one.has_direct = True
    deliver(topic, b"b", b"c")
    assert (one.long, one.sent, one.queued) == (["a", "b"], [(1, b"c")], [])
    assert (one.recipient.delivered, one.state) == (3, Delivery.DIRECT)


def test_a_connection_that_fails_gets_the_event_through_its_queue_and_costs_the_others_nothing(topic: Topic) -> None:
    def fail() -> None:
        raise RuntimeError("the handler is closed")

    one, bad, two, worse = (Connection(topic).direct() for _ in range(4))
    bad.before_send = worse.before_send = fail
    deliver(topic, b"a")
    assert [each.sent for each in (one, bad, two, worse)] == [[(1, b"a")], [], [(1, b"a")], []]
    assert [each.recipient.delivered for each in (one, bad, two, worse)] == [1, 0, 1, 0]
    assert [each.queued for each in (one, bad, two, worse)] == [[], [b"a"], [], [b"a"]]


def test_an_encoding_that_fails_is_left_to_each_recipients_own_task(topic: Topic) -> None:
    def write(item: object) -> str:
        raise LookupError("an encoding of the user's")

    one, misled = Connection(topic).direct(), Connection(topic).direct(Encoding(write))
    deliver(topic, b"a")
    assert (one.sent, misled.sent, misled.queued) == ([(1, b"a")], [], [b"a"])


def test_a_recipient_is_direct_in_all_of_its_topics_or_in_none(topic: Topic) -> None:
    other = Topic(TopicName("d"))
    one = Connection(topic)
    one.recipient.topics["d"] = other
    other.add(one.recipient, catching_up=True)
    one.direct()
    assert (one.state, other.state_of(one.recipient)) == (Delivery.QUEUED, Delivery.CATCHING_UP)
    other.end_catch_up(
        one.recipient, other.begin_catch_up(one.recipient), Past((), Position("e", 0), True), marked=True
    )
    other.deliver(Event("d", b"a", Position("e", 1), 0))
    deliver(topic, b"b")
    assert one.queued == [b"a", b"b"]
    one.direct()
    assert one.state is other.state_of(one.recipient) is Delivery.DIRECT
    one.recipient.put(Event("d", b"c"))
    deliver(topic, b"d")
    assert (one.sent, one.queued) == ([], [b"c", b"d"])


def test_what_is_listed_is_iterated_as_it_was() -> None:
    listed: SnapshotDict[str, int] = SnapshotDict()
    listed["a"], listed["b"] = 1, 2
    seen = []
    for value in listed.values:
        if "b" in [key for key in ("b",) if listed.get(key)]:
            listed.pop("b")
        listed["c"] = 3
        seen.append(value)
    assert seen == [1, 2]
    assert (listed.values, len(listed), listed.get("b"), listed["c"]) == ((1, 3), 2, None, 3)
