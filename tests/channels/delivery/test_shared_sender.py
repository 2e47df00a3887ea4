"""The task that recipients share on servers without direct send, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from telex import WebSocket, websocket
from telex.channels import Channels, Policy, Subscriber, conflate
from telex.channels.delivery.encoding import Encoding, as_text
from telex.channels.delivery.forward import forward
from telex.channels.delivery.queue import DeliveryQueue
from telex.channels.delivery.shared_sender import SharedSender
from telex.types import ASGIApp, Message, Receive, Scope, Send
from tests.channels.conftest import until, within
from tests.channels.delivery.test_forward import follower, raw, read_text, site
from tests.contract.servers import ServerKind
from tests.support.raw import RawClient

KINDS = [ServerKind(name) for name in ("uvicorn-websockets", "uvicorn-wsproto", "hypercorn")]
Around: TypeAlias = Callable[[Scope, Send, Message], Awaitable[None]]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    found: ServerKind = request.param
    return found


@pytest.fixture
def hub() -> Channels:
    return Channels("memory://", arbitrary_channels_allowed=True)


def sending_by(around: Around) -> Callable[[ASGIApp], ASGIApp]:
    """A middleware that sends each event by ``around``."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_by(event: Message) -> None:
                if event["type"] == "websocket.send":
                    await around(scope, send, event)
                else:
                    await send(event)

            await app(scope, receive, send_by)

        return middleware

    return wrap


def senders() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "telex.channels.sender"]


async def test_sends_that_do_not_suspend_share_one_task(hub: Channels, kind: ServerKind) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def note(scope: Scope, send: Send, event: Message) -> None:
        tasks.append(asyncio.current_task())
        await send(event)

    async with site(hub, kind, follower("news", middleware=[sending_by(note)])) as running:
        async with raw(running) as one, raw(running) as two, raw(running) as three:
            await until(lambda: hub.statistics().subscribers == 3)
            for number in range(5):
                await hub.publish("news", str(number))
                for client in (one, two, three):
                    assert await within(read_text(client, 1)) == [str(number)]
        assert len(tasks) == 15
        assert len(set(tasks)) == 1
    await until(lambda: not senders())


async def test_a_blocked_send_delays_no_other_and_keeps_its_order(hub: Channels, kind: ServerKind) -> None:
    opened = asyncio.Event()
    blocked: list[str] = []

    async def hold(scope: Scope, send: Send, event: Message) -> None:
        if scope["path"] == "/slow":
            blocked.append(event["text"])
            await opened.wait()
        await send(event)

    handlers = [follower("news", path=path, middleware=[sending_by(hold)]) for path in ("/slow", "/fast")]
    async with (
        site(hub, kind, *handlers) as running,
        raw(running, "/fast") as first,
        raw(running, "/slow") as slow,
        raw(running, "/fast") as last,
    ):
        await until(lambda: hub.statistics().subscribers == 3)
        expected = [str(number) for number in range(100)]
        for number in expected:
            await hub.publish("news", number)
            for client in (first, last):
                assert await within(read_text(client, 1)) == [number]
        assert blocked == ["0"]
        opened.set()
        assert await within(read_text(slow, 100)) == expected
        # Fast again, it shares the task.
        await hub.publish("news", "again")
        for client in (first, slow, last):
            assert await within(read_text(client, 1)) == ["again"]
        await until(lambda: len(senders()) == 1)
    await until(lambda: not senders())


@pytest.mark.parametrize(
    ("policy", "kept", "dropped", "conflated"),
    [
        ("drop_oldest", ["0", "17", "18", "19"], 16, 0),
        ("drop_newest", ["0", "1", "2", "3"], 16, 0),
        (conflate(key=lambda event: int(event.data) % 2), ["0", "18", "19"], 0, 17),
        ("close", ["0"], 4, 0),
    ],
    ids=["drop_oldest", "drop_newest", "conflate", "close"],
)
async def test_the_backlog_of_a_blocked_recipient_follows_its_policy(
    kind: ServerKind, policy: Policy, kept: list[str], dropped: int, conflated: int
) -> None:
    hub = Channels("memory://", channels=["news"], subscriber_max_backlog=3, subscriber_backlog_strategy=policy)
    opened, blocked = asyncio.Event(), asyncio.Event()

    async def hold(scope: Scope, send: Send, event: Message) -> None:
        if scope["path"] == "/slow":
            blocked.set()
            await opened.wait()
        await send(event)

    made: list[Subscriber] = []
    handlers = [
        follower("news", path="/slow", made=made, middleware=[sending_by(hold)]),
        follower("news", path="/fast", middleware=[sending_by(hold)]),
    ]
    async with site(hub, kind, *handlers) as running, raw(running, "/slow") as slow, raw(running, "/fast") as fast:
        await until(lambda: hub.statistics().subscribers == 2)
        for number in range(20):
            await hub.publish("news", str(number))
            assert await within(read_text(fast, 1)) == [str(number)]
            if not number:
                await within(blocked.wait())
        [events] = made
        assert (events.dropped, events.conflated) == (dropped, conflated)
        opened.set()
        assert await within(read_text(slow, len(kept))) == kept
        if policy == "close":
            assert (await slow.read_close()).code == 1013
        else:
            await hub.publish("news", "100")
            assert await within(read_text(slow, 1)) == ["100"]


async def test_two_hubs_of_one_app_have_a_sender_each(hub: Channels, kind: ServerKind) -> None:
    other = Channels("memory://", channels=["sport"])
    opened, blocked, tasks = asyncio.Event(), asyncio.Event(), dict[str, asyncio.Task[Any] | None]()

    async def hold(scope: Scope, send: Send, event: Message) -> None:
        tasks.setdefault(scope["path"], asyncio.current_task())
        if event["text"] == "held":
            blocked.set()
            await opened.wait()
        await send(event)

    @websocket("/sport", middleware=[sending_by(hold)])
    async def sport(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        async with other.subscribe("sport") as events:
            await forward(events, socket, as_text)

    news = follower("news", path="/news", middleware=[sending_by(hold)])
    async with site(hub, kind, news, sport) as running, raw(running, "/news") as one:
        async with other, raw(running, "/sport") as two:
            await until(lambda: (hub.statistics().subscribers, other.statistics().subscribers) == (1, 1))
            await hub.publish("news", "first")
            await other.publish("sport", "first")
            assert await within(read_text(one, 1)) == await within(read_text(two, 1)) == ["first"]
            assert len(senders()) == len(set(tasks.values())) == 2
            await other.publish("sport", "held")
            await within(blocked.wait())
            await hub.publish("news", "second")
            assert await within(read_text(one, 1)) == ["second"]
            opened.set()
            assert await within(read_text(two, 1)) == ["held"]
        # The end of one hub ends nothing of the other.
        await hub.publish("news", "third")
        assert await within(read_text(one, 1)) == ["third"]
        assert len(senders()) == 1
    await until(lambda: not senders())


async def test_the_end_of_a_connection_cancels_its_blocked_send(hub: Channels, kind: ServerKind) -> None:
    told: list[str] = []

    async def hold(scope: Scope, send: Send, event: Message) -> None:
        if scope["path"] == "/slow":
            told.append("blocked")
            try:
                await asyncio.Event().wait()
            finally:
                told.append("ended")
        await send(event)

    handlers = [follower("news", path=path, middleware=[sending_by(hold)]) for path in ("/slow", "/fast")]
    async with site(hub, kind, *handlers) as running, raw(running, "/fast") as fast:
        async with raw(running, "/slow"):
            await until(lambda: hub.statistics().subscribers == 2)
            await hub.publish("news", "one")
            await until(lambda: told == ["blocked"])
            assert await within(read_text(fast, 1)) == ["one"]
        await until(lambda: told == ["blocked", "ended"])
        await until(lambda: hub.statistics().subscribers == 1)
        await hub.publish("news", "two")
        assert await within(read_text(fast, 1)) == ["two"]
        assert len(senders()) == 1
    await until(lambda: not senders())


async def test_a_handler_that_cancels_its_forwarding_waits_for_the_end_of_the_send(
    hub: Channels, kind: ServerKind
) -> None:
    told: list[str] = []

    async def hold(scope: Scope, send: Send, event: Message) -> None:
        if event["text"] != "held":
            await send(event)
            return
        told.append("blocked")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("ended")

    @websocket("/", middleware=[sending_by(hold)])
    async def follow(socket: WebSocket[Any, Any, Any], channels: Channels) -> None:
        await socket.accept()
        async with channels.subscribe("news") as events:
            forwarding = asyncio.create_task(forward(events, socket, as_text))
            await until(lambda: "blocked" in told)
            forwarding.cancel()
            await asyncio.wait([forwarding])
            told.append("waited")
        await socket.send_text("over")

    async with site(hub, kind, follow) as running, raw(running) as client:
        await until(lambda: hub.statistics().subscribers == 1)
        await hub.publish("news", "held")
        assert await within(read_text(client, 1)) == ["over"]
        assert told == ["blocked", "ended", "waited"]


@pytest.mark.parametrize("error", [ValueError("broken"), ConnectionResetError("gone")], ids=lambda error: error.args[0])
async def test_a_failing_send_ends_its_recipient_alone(hub: Channels, kind: ServerKind, error: Exception) -> None:
    seen: list[BaseException] = []

    async def fail(scope: Scope, send: Send, event: Message) -> None:
        if scope["path"] == "/broken":
            raise error
        await send(event)

    @websocket("/broken", middleware=[sending_by(fail)])
    async def broken(socket: WebSocket[Any, Any, Any], channels: Channels) -> None:
        await socket.accept()
        async with channels.subscribe("news") as events:
            try:
                await forward(events, socket, as_text)
            except Exception as raised:
                seen.append(raised)

    async with (
        site(hub, kind, broken, follower("news", path="/good")) as running,
        raw(running, "/broken"),
        raw(running, "/good") as good,
    ):
        await until(lambda: hub.statistics().subscribers == 2)
        await hub.publish("news", "one")
        assert await within(read_text(good, 1)) == ["one"]
        await until(lambda: len(seen) == 1)
        assert error in (seen[0], seen[0].__cause__)
        await until(lambda: hub.statistics().subscribers == 1)
        await hub.publish("news", "two")
        assert await within(read_text(good, 1)) == ["two"]


spoken: ContextVar[str] = ContextVar("spoken", default="")


async def test_a_send_that_sets_a_context_variable_shows_it_to_no_other_connection(
    hub: Channels, kind: ServerKind
) -> None:
    found: list[tuple[str, str]] = []

    async def speak(scope: Scope, send: Send, event: Message) -> None:
        found.append((scope["path"], spoken.get()))
        spoken.set(scope["path"])
        await send(event)

    handlers = [follower("news", path=path, middleware=[sending_by(speak)]) for path in ("/a", "/b")]
    async with site(hub, kind, *handlers) as running, raw(running, "/a") as one, raw(running, "/b") as two:
        await until(lambda: hub.statistics().subscribers == 2)
        for number in range(10):
            await hub.publish("news", str(number))
            assert await within(read_text(one, 1)) == await within(read_text(two, 1)) == [str(number)]
    assert len(found) == 20
    # The first send of each is the only one that does not find the value of its own connection.
    assert [found.count((path, "")) for path in ("/a", "/b")] == [1, 1]
    assert all(said in ("", path) for path, said in found)


async def test_the_end_of_the_hub_ends_the_streams_and_no_send(hub: Channels, kind: ServerKind) -> None:
    opened = asyncio.Event()
    blocked: list[str] = []

    async def hold(scope: Scope, send: Send, event: Message) -> None:
        blocked.append(event["text"])
        await opened.wait()
        await send(event)

    @websocket("/", middleware=[sending_by(hold)])
    async def follow(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        async with hub_of_this_test.subscribe("news") as events:
            await forward(events, socket, as_text)

    hub_of_this_test = Channels("memory://", arbitrary_channels_allowed=True)
    async with site(hub, kind, follow) as running:
        async with hub_of_this_test:
            client = await RawClient.open(running.port)
            assert (await client.handshake("/")).status == 101
            await until(lambda: hub_of_this_test.statistics().subscribers == 1)
            for number in range(3):
                await hub_of_this_test.publish("news", str(number))
            await until(lambda: blocked == ["0"])
        opened.set()
        async with client:
            assert await within(read_text(client, 3)) == ["0", "1", "2"]
    await until(lambda: not senders())


class Fake:
    """A socket whose ``send`` is ``asgi_send``."""

    is_open = True
    event_reader = SimpleNamespace(disconnect=None)

    def __init__(self, send: Send) -> None:
        self.asgi_send = send


class Alone:
    """A recipient of ``sender`` without a server, in its own task."""

    def __init__(self, sender: SharedSender, send: Callable[[Any], Awaitable[None]], write: Any = str) -> None:
        self.queue: DeliveryQueue[Any] = DeliveryQueue(100)
        socket: Any = Fake(send)
        self.socket = weakref.ref(socket)
        self.task = asyncio.create_task(sender.send_queue(socket, self.queue, Encoding(write)))


async def test_a_task_that_is_cancelled_before_it_starts_stops_no_recipient() -> None:
    sender, sent = SharedSender(), list[str]()

    async def send(event: Message) -> None:
        sent.append(event["text"])

    sender.open()
    for task in senders():
        task.cancel()
    recipient = Alone(sender, send)
    await asyncio.sleep(0)
    recipient.queue.put(1)
    await until(lambda: sent == ["1"])
    recipient.task.cancel()
    await asyncio.wait([recipient.task])
    await sender.close()


async def test_the_hub_ends_while_a_ready_recipient_is_being_cancelled() -> None:
    async def send(event: Message) -> None: ...

    sender = SharedSender()
    sender.open()
    recipient = Alone(sender, send)
    await asyncio.sleep(0)
    recipient.queue.put(1)
    recipient.task.cancel()
    await sender.close()
    await asyncio.wait([recipient.task])
    assert recipient.task.cancelled()


async def test_an_encoding_that_raises_stop_iteration_ends_its_recipient() -> None:
    async def send(event: Message) -> None: ...

    sender = SharedSender()
    sender.open()
    recipient = Alone(sender, send, lambda item: next(iter(())))
    await asyncio.sleep(0)
    recipient.queue.put(1)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await within(recipient.task)
    await sender.close()


@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_recipient_that_goes_back_leaves_no_reference_cycle(suspends: bool, fails: bool) -> None:
    async def send(event: Message) -> None:
        if suspends:
            await asyncio.sleep(0)
        if fails:
            raise ValueError("broken")

    sender = SharedSender()
    sender.open()
    gc.disable()
    try:
        recipient = Alone(sender, send)
        await asyncio.sleep(0)
        recipient.queue.put(1)
        recipient.queue.close()
        await asyncio.wait([recipient.task])
        assert isinstance(recipient.task.exception(), ValueError if fails else (StopAsyncIteration, type(None)))
        socket = recipient.socket
        del recipient
        await until(lambda: socket() is None)
    finally:
        gc.enable()
    await sender.close()


async def test_a_send_that_cancels_its_own_task_ends_its_recipient_alone() -> None:
    sent: list[str] = []

    async def cancel(event: Message) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def suspend(event: Message) -> None:
        await asyncio.sleep(0)
        sent.append(event["text"])

    sender = SharedSender()
    sender.open()
    culprit, other = Alone(sender, cancel), Alone(sender, suspend)
    await asyncio.sleep(0)
    for recipient in (culprit, other):
        recipient.queue.put(1)
    with pytest.raises(asyncio.CancelledError):
        await within(culprit.task)
    await until(lambda: sent == ["1"])
    await within(other.task)  # it goes on in its own task
    await sender.close()


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("compare its items")

    __hash__ = None  # type: ignore[assignment]


held: ContextVar[Incomparable | None] = ContextVar("held", default=None)


async def test_a_context_variable_that_cannot_be_compared_fails_no_send() -> None:
    sent: list[str] = []

    async def send(event: Message) -> None:
        held.set(Incomparable())
        sent.append(event["text"])

    held.set(Incomparable())
    sender = SharedSender()
    sender.open()
    assert sender.is_usable
    recipient = Alone(sender, send)
    await asyncio.sleep(0)
    recipient.queue.put(1)
    await within(recipient.task)  # its own task goes on
    assert sent == ["1"]
    await sender.close()


async def test_a_turn_of_the_shared_task_is_bounded_by_the_recipients() -> None:
    """Each turn sends about one item to each recipient, however many items wait."""
    sent, turns = 0, [0]

    async def send(event: Message) -> None:
        nonlocal sent
        sent += 1

    async def count() -> None:
        while turns[-1] < 100 * 90:
            await asyncio.sleep(0)
            turns.append(sent)

    sender = SharedSender()
    sender.open()
    recipients = [Alone(sender, send) for _ in range(100)]
    await asyncio.sleep(0)
    for recipient in recipients:
        for number in range(90):
            recipient.queue.put(number)
    await within(count())
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 100
    for recipient in recipients:
        recipient.task.cancel()
    await asyncio.wait([recipient.task for recipient in recipients])
    await sender.close()
