"""A topic alone: holes, gaps, catching up, and the table of states."""

from __future__ import annotations

import itertools

import pytest

from telex.channels import Event, Gap, Item, Position
from telex.channels.delivery import topic as module
from telex.channels.delivery.encoding import Encoding
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.delivery.topic import MAY_BECOME, Delivery, Recipient, Topic
from telex.channels.events import Past
from telex.channels.names import TopicName


class Taker(Recipient):
    """A recipient and what it has taken so far."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        super().__init__(DeliveryQueue(1000))
        self._items: list[Item] = []

    @property
    def items(self) -> list[Item]:
        self._items += [self.queue.get_nowait() for _ in range(len(self.queue))]
        return self._items

    @property
    def seen(self) -> list[object]:
        return [item.position.offset if isinstance(item, Event) and item.position else "gap" for item in self.items]


def event(offset: int, epoch: str = "e", previous: int | None = None) -> Event:
    return Event("c", b"", Position(epoch, offset), offset - 1 if previous is None else previous)


def past(*offsets: int, head: int, complete: bool = True) -> Past:
    return Past(tuple(event(offset) for offset in offsets), Position("e", head), complete)


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest.fixture
def topic(taker: Taker) -> Topic:
    topic = Topic(TopicName("c"))
    topic.add(taker)
    topic.last = Position("e", 3)
    return topic


def test_a_hole_is_filled_from_the_past(topic: Topic, taker: Taker) -> None:
    assert topic.deliver(event(4))
    assert not topic.deliver(event(7))
    assert topic.deliver(event(8))
    assert topic.deliver(event(8))
    assert topic.resume(past(5, 6, 7, head=7))
    assert topic.deliver(event(9))
    assert taker.seen == [4, 5, 6, 7, 8, 9]


def test_a_second_hole_in_what_was_held_is_filled_too(topic: Topic, taker: Taker) -> None:
    assert not topic.deliver(event(5))
    assert topic.deliver(event(8))
    assert topic.deliver(event(9))
    assert not topic.resume(past(4, 5, head=5))
    assert topic.deliver(event(10))
    assert topic.resume(past(6, 7, 8, 9, head=9))
    assert taker.seen == [4, 5, 6, 7, 8, 9, 10]


def test_what_the_past_has_not_is_a_gap(topic: Topic, taker: Taker) -> None:
    assert not topic.deliver(event(7))
    assert topic.deliver(event(8))
    assert topic.resume(past(head=8, complete=False))
    assert topic.deliver(event(9))
    assert taker.seen == ["gap", 7, 8, 9]


def test_another_epoch_is_a_gap(topic: Topic, taker: Taker) -> None:
    assert not topic.deliver(event(1, epoch="f"))
    assert topic.resume(Past((), Position("f", 1), complete=False))
    assert topic.deliver(event(2, epoch="f"))
    assert taker.seen == ["gap", 1, 2]


def test_offsets_of_a_shared_stream_may_jump(topic: Topic, taker: Taker) -> None:
    assert topic.deliver(event(40, previous=2))
    assert not topic.deliver(event(50, previous=45))
    assert taker.seen == [40]


def test_a_second_loss_leaves_nothing_before_its_own_hole(topic: Topic, taker: Taker) -> None:
    topic.confirm()
    topic.suspend()
    assert topic.deliver(Event("c", b"between the losses"))
    topic.suspend()
    assert topic.deliver(Event("c", b"after both"))
    assert topic.resume(None)
    gap, after = taker.items
    assert isinstance(gap, Gap)
    assert isinstance(after, Event)
    assert after.text == "after both"


def test_what_was_held_before_a_second_loss_is_read_again(topic: Topic, taker: Taker) -> None:
    assert not topic.deliver(event(5))
    topic.suspend()
    assert topic.deliver(event(9))
    assert topic.resume(past(4, 5, 6, 7, 8, 9, head=9))
    assert taker.seen == [4, 5, 6, 7, 8, 9]


def test_more_than_can_be_held_is_declared_lost(topic: Topic, taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_LIMIT", 3)
    topic.confirm()
    topic.suspend()
    for offset in range(4, 9):
        topic.deliver(event(offset))
    assert topic.resume(None)
    assert taker.seen == ["gap", 7, 8]
    assert isinstance(taker.items[0], Gap)
    assert taker.items[0].reason == module.OVERFLOW


@pytest.mark.parametrize(
    ("live", "head", "later", "expected"),
    [
        ([4, 5], 3, [6], [1, 2, 3, 4, 5, 6]),
        ([4, 5], 5, [6], [1, 2, 3, 4, 5, 6]),
        ([4], 5, [5, 6], [1, 2, 3, 4, 5, 6]),
        ([], 5, [4, 5, 6], [1, 2, 3, 4, 5, 6]),
        ([], 3, [4], [1, 2, 3, 4]),
    ],
)
def test_a_catch_up_sees_the_past_and_the_present_once(
    topic: Topic, live: list[int], head: int, later: list[int], expected: list[int]
) -> None:
    late = Taker()
    topic.add(late, catching_up=True)
    catch_up = topic.begin_catch_up(late)
    for offset in live:
        topic.deliver(event(offset))
    topic.end_catch_up(late, catch_up, past(*range(1, head + 1), head=head), marked=True)
    for offset in later:
        topic.deliver(event(offset))
    assert late.seen == expected
    assert topic.state_of(late) is Delivery.QUEUED


def test_a_catch_up_sees_a_hole_between_the_past_and_what_was_held(topic: Topic) -> None:
    late = Taker()
    topic.add(late, catching_up=True)
    catch_up = topic.begin_catch_up(late)
    topic.last = None
    topic.deliver(event(9))
    topic.end_catch_up(late, catch_up, past(4, 5, head=5), marked=True)
    assert late.seen == [4, 5, "gap", 9]


def test_a_gap_reaches_a_recipient_with_its_past_but_waits_for_the_head(topic: Topic) -> None:
    late = Taker()
    topic.add(late, catching_up=True)
    catch_up = topic.begin_catch_up(late)
    topic.end_catch_up(late, catch_up, past(4, 5, head=5), marked=True)
    assert not topic.deliver(event(8))
    assert topic.resume(past(head=8, complete=False))
    assert late.seen == [4, 5, "gap", 8]


def test_only_what_the_table_allows_may_happen(topic: Topic) -> None:
    for state, to in itertools.product(MAY_BECOME, Delivery):
        one = Taker()
        if state is not None:
            topic.add(one, catching_up=state is Delivery.CATCHING_UP)
        if state is Delivery.DIRECT:
            topic.go_direct(one, Encoding(lambda item: ""), module.ONE_BY_ONE)
        if to in MAY_BECOME[state] and to is not Delivery.DIRECT:
            topic._move(one, to)
            assert topic.state_of(one) is to
        elif to not in MAY_BECOME[state]:
            with pytest.raises(RuntimeError, match="cannot become"):
                topic._move(one, to)
