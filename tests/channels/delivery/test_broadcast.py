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
from telex.channels.names import TopicName
from telex.types import DirectSend


class Connection:
    """A transport that is ready for direct sends, its recipient, and what came which way."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.recipient = Recipient(DeliveryQueue(100))
        self.recipient.topics["c"] = topic
        self.sent: list[tuple[int, bytes]] = []
        self.limit = 100
        self.before_send: Callable[[], None] = lambda: None
        topic.add(self.recipient)

    def direct(self, encoding: Encoding = as_text, limit: int = 100) -> Connection:
        self.limit = limit
        transport: Any = self
        self.recipient.go_direct(transport, encoding)
        return self

    def open_direct(self, on_end: Callable[[], None]) -> DirectSend:
        return DirectSend(self.send, self.limit)

    def close_direct(self, on_end: Callable[[], None]) -> None:
        """Nothing to forget."""

    def send(self, opcode: int, data: bytes) -> None:
        self.before_send()
        self.sent.append((opcode, data))

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


def test_an_event_that_is_too_long_or_no_text_takes_the_queue(topic: Topic) -> None:
    short, long = Connection(topic).direct(limit=3), Connection(topic).direct(limit=10)
    binary = Connection(topic).direct(as_bytes, 10)
    deliver(topic, "üü".encode(), b"\xff")
    assert (short.sent, short.queued) == ([], ["üü".encode(), b"\xff"])
    assert (long.sent, long.queued) == ([(1, "üü".encode())], [b"\xff"])
    assert (binary.sent, binary.queued) == ([(2, "üü".encode()), (2, b"\xff")], [])


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

    one, misled = Connection(topic).direct(), Connection(topic).direct(Encoding(write, "text"))
    deliver(topic, b"a")
    assert (one.sent, misled.sent, misled.queued) == ([(1, b"a")], [], [b"a"])


def test_an_event_of_one_topic_does_not_overtake_what_waits_of_another(topic: Topic) -> None:
    other = Topic(TopicName("d"))
    one = Connection(topic).direct()
    one.recipient.topics["d"] = other
    other.add(one.recipient)
    other.deliver(Event("d", b"a"))
    deliver(topic, b"b")
    assert (one.sent, one.queued) == ([], [b"a", b"b"])


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
