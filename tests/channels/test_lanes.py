"""A room's lanes: each event once to each, whoever boards, gets off or fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from telex.channels import Event
from telex.channels.delivery.begun import Begun
from telex.channels.delivery.broadcast import EventSend, Listed
from telex.channels.delivery.encoding import Frame, as_bytes, as_text
from telex.channels.delivery.topic import Room
from telex.channels.events import Gap
from telex.channels.names import TopicName
from telex.exceptions import WebSocketException
from telex.types import DirectSend


class Member:
    """Boards the lane of a room, and takes down what came which way."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.heard: list[object] = []
        self.sent = 0
        self.before_send: Callable[[], None] = lambda: None
        room.seat(self)

    def board(self, frame: Frame = as_text, limit: int = 100) -> Member:
        self.room.board(self, frame, DirectSend(self.send, limit))
        return self

    def send(self, opcode: int, data: bytes) -> None:
        self.before_send()
        self.heard.append((opcode, data))

    def put_nowait(self, event: Event) -> bool:
        self.heard.append(event.data)
        return True

    def note_sent(self, count: int) -> None:
        self.sent += count

    def fail(self, error: WebSocketException) -> None:
        self.heard.append(error.code)

    def put_gap(self, gap: Gap) -> None:
        self.heard.append(gap)

    def preload(self, items: object) -> None:
        raise AssertionError("nobody arrives here")

    @property
    def counted(self) -> int:
        return self.sent + self.room.sent_to(self)


@pytest.fixture
def room() -> Room:
    return Room(TopicName("c"))


def deliver(room: Room, *values: bytes) -> None:
    for value in values:
        assert room.deliver(Event("c", value))


def test_riders_are_sent_to_and_the_others_are_given_it(room: Room) -> None:
    one, two, binary, standing = Member(room).board(), Member(room).board(), Member(room).board(as_bytes), Member(room)
    deliver(room, b"a", b"b")
    assert one.heard == two.heard == [(1, b"a"), (1, b"b")]
    assert binary.heard == [(2, b"a"), (2, b"b")]
    assert standing.heard == [b"a", b"b"]
    assert (one.counted, standing.counted) == (2, 0)


def test_who_gets_off_goes_on_standing_and_keeps_his_count(room: Room) -> None:
    one = Member(room).board()
    deliver(room, b"a")
    room.alight(one)
    room.alight(one)
    deliver(room, b"b")
    assert one.heard == [(1, b"a"), b"b"]
    assert one.counted == 1
    one.board()
    one.board()
    deliver(room, b"c")
    assert one.heard[2:] == [(1, b"c")]
    assert one.counted == 2
    room.dismiss(one)
    deliver(room, b"d")
    assert (len(one.heard), one.counted, room.is_empty) == (3, 2, True)


def test_who_gets_off_while_it_is_sent_has_it_once(room: Room) -> None:
    riders = [Member(room).board() for _ in range(4)]

    def all_get_off() -> None:
        for rider in riders:
            room.alight(rider)

    for rider in riders:
        rider.before_send = all_get_off
    deliver(room, b"a")
    assert [rider.heard for rider in riders] == [[(1, b"a")]] * 4
    assert [rider.counted for rider in riders] == [1] * 4
    deliver(room, b"b")
    assert [rider.heard[1:] for rider in riders] == [[b"b"]] * 4


def test_who_boards_while_it_is_given_has_it_once(room: Room) -> None:
    class Boarder(Member):
        def put_nowait(self, event: Event) -> bool:
            self.board()
            return super().put_nowait(event)

    boarders = [Boarder(room) for _ in range(3)]
    deliver(room, b"a", b"b")
    assert [each.heard for each in boarders] == [[b"a", (1, b"b")]] * 3


def test_what_is_too_long_or_no_text_takes_each_riders_own_way(room: Room) -> None:
    short, long, binary = Member(room).board(limit=3), Member(room).board(limit=10), Member(room).board(as_bytes, 10)
    deliver(room, "üü".encode(), b"\xff")
    assert short.heard == ["üü".encode(), b"\xff"]
    assert long.heard == [(1, "üü".encode()), b"\xff"]
    assert binary.heard == [(2, "üü".encode()), (2, b"\xff")]
    assert (short.counted, long.counted, binary.counted) == (0, 1, 2)


def test_one_that_fails_gets_it_his_own_way_and_costs_nobody_else(room: Room) -> None:
    def fail() -> None:
        raise RuntimeError("the handler is closed")

    one, bad, two = (Member(room).board() for _ in range(3))
    bad.before_send = fail
    deliver(room, b"a")
    assert [one.heard, bad.heard, two.heard] == [[(1, b"a")], [b"a"], [(1, b"a")]]
    assert [one.counted, bad.counted, two.counted] == [1, 0, 1]


def test_one_that_cannot_take_an_event_ends_alone(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Member):
        def put_nowait(self, event: Event) -> bool:
            raise LookupError("a class of the user's")

    def write(item: object) -> str:
        raise LookupError("a frame of the user's")

    one, broken, two = Member(room), Broken(room), Member(room)
    aboard, misled = Broken(room).board(Frame(write, "text")), Member(room).board(Frame(write, "text"))
    deliver(room, b"a")
    assert one.heard == two.heard == misled.heard == [b"a"]
    assert broken.heard == aboard.heard == [1011]
    assert len([record for record in caplog.records if record.exc_info]) == 2


# -- ASGI's way


class Socket:
    """An ASGI ``send`` that may wait, or fail."""

    def __init__(self, room: Room) -> None:
        self.member = Member(room)
        self.events: list[Any] = []
        self.gate: asyncio.Event | None = None
        self.begun: Begun | None = None
        self.error: Exception | None = None

    def board(self) -> Socket:
        self.member.room.board(self.member, as_text, EventSend(self.send, self.take_over))
        return self

    async def send(self, event: Any) -> None:
        if self.error is not None:
            raise self.error
        if self.gate is not None:
            await self.gate.wait()
        self.events.append(event)

    def take_over(self, begun: Begun) -> None:
        self.begun = begun
        self.member.room.alight(self.member)


async def test_only_who_has_to_wait_gets_the_rest_of_it(room: Room) -> None:
    sockets = [Socket(room).board() for _ in range(5)]
    for waiting in (sockets[1], sockets[2], sockets[4]):
        waiting.gate = asyncio.Event()
    deliver(room, b"a")
    expected = [{"type": "websocket.send", "text": "a"}]
    assert [bool(socket.begun) for socket in sockets] == [False, True, True, False, True]
    assert [socket.events for socket in sockets] == [expected, [], [], expected, []]
    deliver(room, b"b")
    for waiting in (sockets[4], sockets[1], sockets[2]):
        assert waiting.gate is not None
        assert waiting.begun is not None
        waiting.gate.set()
        await waiting.begun
        assert waiting.events == expected
        assert waiting.member.heard == [b"b"]
    assert [len(socket.events) for socket in sockets] == [2, 1, 1, 2, 1]
    assert [socket.member.counted for socket in sockets] == [2, 1, 1, 2, 1]


async def test_an_asgi_send_that_fails_costs_nobody_else(room: Room) -> None:
    sockets = [Socket(room).board() for _ in range(3)]
    sockets[1].error = OSError("gone")
    deliver(room, b"a")
    assert [len(socket.events) for socket in sockets] == [1, 0, 1]
    assert sockets[1].member.heard == [b"a"]


async def test_one_that_waits_and_then_fails_says_so_to_its_owner(room: Room) -> None:
    sockets = [Socket(room).board() for _ in range(2)]
    sockets[0].gate = asyncio.Event()

    async def fail_after(event: Any) -> None:
        await sockets[0].gate.wait()  # type: ignore[union-attr]
        raise OSError("gone")

    room.alight(sockets[0].member)
    sockets[0].send = fail_after  # type: ignore[method-assign]
    sockets[0].board()
    deliver(room, b"a")
    assert sockets[0].begun is not None
    sockets[0].gate.set()
    with pytest.raises(OSError, match="gone"):
        await sockets[0].begun


def test_what_is_listed_is_walked_over_as_it_was() -> None:
    listed: Listed[str, int] = Listed()
    listed["a"], listed["b"] = 1, 2
    seen = []
    for value in listed.values:
        listed.pop("b")
        listed["c"] = 3
        seen.append(value)
    assert seen == [1, 2]
    assert (listed.values, len(listed), "b" in listed, listed.get("c")) == ((1, 3), 2, False, 3)
