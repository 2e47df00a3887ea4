"""The clock of the test clients: what waits for time is tested without waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from telex import (
    Authenticate,
    Channels,
    Identity,
    ImproperlyConfiguredException,
    Multiplex,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    websocket,
    websocket_listener,
)
from telex.channels import Heartbeat, Keep, MemoryBackend
from telex.exceptions import CallError, ConnectionStateError
from telex.limits import Limit
from telex.testing import (
    AsyncTestClient,
    TestClient,
    TestClock,
    WebSocketDenied,
    create_async_test_client,
    create_test_client,
)
from telex.types import ASGIApp, Message, Receive, Scope, Send
from tests.support.leaks import no_leaks


@websocket_listener("/later")
async def later(data: float) -> str:
    await asyncio.sleep(data)
    return f"{data:g} s later"


# -- the clock itself


async def test_timers_fire_in_order_each_at_its_time_and_tasks_run_between_them() -> None:
    seen: list[tuple[str, float]] = []

    async with TestClock() as clock:
        start = clock.time()

        async def wait(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, clock.time() - start))

        async def one_after_the_other() -> None:
            await wait("first", 20)
            await wait("second", 20)

        tasks = [asyncio.create_task(wait("c", 50)), asyncio.create_task(one_after_the_other())]
        asyncio.get_running_loop().call_later(30, lambda: seen.append(("b", clock.time() - start)))
        await clock.advance(45)
        assert seen == [("first", 20), ("b", 30), ("second", 40)]
        assert clock.time() == start + 45
        await clock.advance(5)
        assert seen[3:] == [("c", 50)]
        await asyncio.gather(*tasks)


async def test_time_stands_still_until_it_is_advanced() -> None:
    async with TestClock() as clock:
        before = clock.time()
        until = time.monotonic() + 0.01
        while time.monotonic() < until:  # noqa: ASYNC110 - real time passes
            await asyncio.sleep(0)
        assert clock.time() == asyncio.get_running_loop().time() == before


async def test_a_time_out_fires_when_its_time_has_come_and_not_before() -> None:
    async with TestClock() as clock:
        waiting = asyncio.create_task(asyncio.wait_for(asyncio.Event().wait(), 30))
        await clock.advance(29.999)
        assert not waiting.done()
        await clock.advance(0.001)
        assert isinstance(waiting.exception(), TimeoutError)


async def test_advance_returns_once_the_app_is_idle() -> None:
    async with TestClock() as clock:
        rounds = 0

        async def work() -> None:
            nonlocal rounds
            await asyncio.sleep(1)
            for rounds in range(1, 501):  # noqa: B007 - the number is looked at
                await asyncio.sleep(0)

        task = asyncio.create_task(work())
        await clock.advance(0)
        assert rounds == 0
        await clock.advance(1)
        assert (rounds, task.done()) == (500, True)


async def test_timers_without_delay_and_of_before_fire_too() -> None:
    loop, fired = asyncio.get_running_loop(), list[str]()
    loop.call_later(3600, fired.append, "before")
    async with TestClock() as clock:
        loop.call_later(0, fired.append, "now")
        loop.call_at(clock.time() - 10, fired.append, "past")
        loop.call_later(10, fired.append, "cancelled").cancel()
        await clock.advance(0)
        assert fired == ["past", "now"]
        loop.call_later(3601, fired.append, "later")
        await clock.advance(3601)
        assert fired[2:] == ["before", "later"]


async def test_an_app_that_is_never_idle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telex.testing.clock.ROUNDS", 1_000)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - it waits for nothing
            await asyncio.sleep(0)

    async with TestClock() as clock:
        task = asyncio.create_task(spin(), name="the spinner")
        with pytest.raises(TimeoutError, match=r"never idle: one of its tasks continues without end: .*the spinner"):
            await clock.advance(1)
        task.cancel()


async def test_two_that_advance_at_once_do_so_one_after_the_other() -> None:
    async with TestClock() as clock:
        before = clock.time()
        await asyncio.gather(clock.advance(10), clock.advance(20))
        assert clock.time() == before + 30


async def test_many_timers_that_are_cancelled_are_not_kept() -> None:
    async with TestClock() as clock:
        for _ in range(2_000):
            async with asyncio.timeout(3600):
                await asyncio.sleep(0)
        assert len(clock._timers) < 300


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
async def test_time_goes_forward_by_seconds(seconds: float) -> None:
    async with TestClock() as clock:
        with pytest.raises(ValueError, match="finite number of seconds"):
            await clock.advance(seconds)


async def test_the_time_of_the_loop_never_goes_back() -> None:
    loop = asyncio.get_running_loop()
    async with TestClock() as clock:
        await clock.advance(3600)
        reached = clock.time()
    assert loop.time() >= reached
    async with asyncio.timeout(30):  # it runs again
        await asyncio.sleep(0.001)
    for again in (clock, TestClock()):
        async with again:
            assert (before := again.time()) >= reached
            await again.advance(1)
            assert again.time() == before + 1
    assert loop.time() >= reached + 2


async def test_a_loop_that_was_not_advanced_has_its_own_time_again() -> None:
    loop: Any = asyncio.get_running_loop()
    async with no_leaks():
        async with TestClock():
            pass
        assert not {"time", "call_at", "call_soon"} & vars(loop).keys()


async def test_a_loop_has_one_clock_at_a_time() -> None:
    async with TestClock() as clock:
        for other in (clock, TestClock()):
            with pytest.raises(ImproperlyConfiguredException, match="one clock at a time"):
                await other.__aenter__()


async def test_a_clock_that_is_not_entered_says_what_to_write() -> None:
    with pytest.raises(ConnectionStateError, match="enter its client"):
        await TestClock().advance(1)


def test_the_timers_of_uvloop_follow_no_other_clock() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def enter() -> None:
        with pytest.raises(ImproperlyConfiguredException, match=r"uvloop.*run the test on a loop of asyncio"):
            await TestClock().__aenter__()

    loop = uvloop.new_event_loop()
    loop.run_until_complete(enter())
    loop.close()


# -- the clients


async def test_a_handler_that_waits() -> None:
    client = create_async_test_client(later, clock=TestClock())
    async with client, client.websocket_connect("/later") as session:
        await session.send(30.0)
        await client.advance(29.9)
        await session.refute(timeout=0)
        await client.advance(0.1)
        await session.expect("30 s later", timeout=1)


def test_a_handler_that_waits_in_a_synchronous_test() -> None:
    client = create_test_client(later, clock=TestClock())
    with client, client.websocket_connect("/later") as session:
        session.send(3600.0)
        client.advance(3599)
        session.refute(timeout=0)
        client.advance(1)
        session.expect("3600 s later")


def test_a_client_without_a_clock_says_what_to_write() -> None:
    with create_test_client(later) as client, pytest.raises(ConnectionStateError, match=r"clock=TestClock\(\)"):
        client.advance(1)


def test_a_client_that_is_not_entered_says_what_to_write() -> None:
    client = create_test_client(later, clock=TestClock())
    with pytest.raises(ConnectionStateError, match=r"with client"), client.websocket_connect("/later"):
        client.advance(1)


def test_a_client_may_be_entered_again() -> None:
    client = create_test_client(later, clock=TestClock())
    for _ in range(2):
        with client, client.websocket_connect("/later") as session:
            session.send(60.0)
            client.advance(60)
            session.expect("60 s later")


async def test_waits_of_the_test_keep_their_limits_and_say_that_time_stands_still() -> None:
    async with AsyncTestClient(Telex([later]), timeout=30, clock=TestClock()) as client:
        session = await client.websocket_connect("/later")
        await session.send(120.0)
        waiting = asyncio.create_task(session.receive())
        await client.advance(60)  # more than the limit of the wait, which counts real seconds
        assert not waiting.done()
        with pytest.raises(TimeoutError, match=r"within 0\.1 s; it waits in later.*the client's clock stands still"):
            await session.expect(str, timeout=0.1)
        await client.advance(60)
        assert (await waiting)["text"] == "120 s later"


async def test_time_runs_while_the_app_starts_and_ends_and_while_sessions_are_left() -> None:
    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await asyncio.sleep(0.002)
        yield
        await asyncio.sleep(0.002)

    @websocket("/")
    async def slow(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        finally:
            await asyncio.sleep(0.002)

    @websocket_listener("/busy")
    async def busy(data: str) -> None:
        await asyncio.Event().wait()

    clock = TestClock()
    async with no_leaks(), create_async_test_client([slow, busy], lifespan=[lifespan], clock=clock) as client:
        async with client.websocket_connect("/"):
            pass
        async with client.websocket_connect("/busy") as session:
            await session.send("x")  # the handler is told of the end by a timer
        assert clock.stands_still
        await client.websocket_connect("/")


def test_an_app_that_fails_to_start_leaves_no_clock_behind() -> None:
    def fail() -> None:
        raise LookupError("no database")

    with pytest.raises(LookupError), create_test_client(later, on_startup=[fail], clock=TestClock()):
        pass
    assert not [each for each in threading.enumerate() if each.name == "telex-testing-clock"]


async def test_requests_have_limits_too() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    app = Telex([], http=never)
    async with AsyncTestClient(app, timeout=0.1, clock=TestClock()) as client:
        with pytest.raises(TimeoutError, match="did not finish GET /"):
            await client.get("/")


# -- what Telex does in time


async def test_limits_of_messages() -> None:
    @websocket_listener("/", message_limit=Limit(1, per=60, burst=2))
    def echo(data: str) -> str:
        return data

    client = create_async_test_client(echo, clock=TestClock())
    async with client, client.websocket_connect("/") as session:
        for each in "abcd":
            await session.send(each)
        await session.expect("a")
        await session.expect("b")
        await client.advance(59.9)
        await session.refute(timeout=0)
        await client.advance(0.1)
        await session.expect("c")
        await client.advance(60)
        await session.expect("d")


def one(_: WebSocket) -> str:
    """Counts all clients as one."""
    return "one"


@websocket_listener("/", connect_limit=Limit(1, per=3600, burst=2, key=one))
def limited(data: str) -> str:
    return data


async def test_limits_of_handshakes() -> None:
    async with create_async_test_client(limited, clock=TestClock()) as client:
        for _ in range(2):
            await client.websocket_connect("/")
        with pytest.raises(WebSocketDenied) as denied:
            await client.websocket_connect("/")
        assert denied.value.headers["retry-after"] == "3600"
        await client.advance(3600)
        await client.websocket_connect("/")


def test_an_app_forgets_what_it_counted_when_it_stops() -> None:
    """The next test has another event loop, whose time may be earlier."""
    app = Telex([limited])
    for days in (10, 0):
        with TestClient(app, clock=TestClock()) as client:
            client.advance(days * 86400)
            for _ in range(2):
                with client.websocket_connect("/"):
                    pass


async def test_time_outs_of_calls() -> None:
    @websocket_listener("/", call_timeout=30, max_concurrency=2)
    async def never(data: str) -> str:
        return await asyncio.Future()

    client = create_async_test_client(never, clock=TestClock())
    async with client, client.websocket_connect("/", ["telex.v1"]) as session:
        pending = await session.begin("x")
        shorter = await session.begin("y", frame={"timeout": 10})
        await client.advance(10)
        with pytest.raises(CallError, match="timeout"):
            await shorter.result()
        await client.advance(20)
        with pytest.raises(CallError, match="timeout"):
            await pending.result()


async def test_an_answer_that_nobody_reads_ends() -> None:
    ended = asyncio.Event()

    @websocket_listener("/")
    async def count(data: str) -> AsyncIterator[int]:
        try:
            for number in range(1_000):
                yield number
        finally:
            ended.set()

    client = create_async_test_client(count, clock=TestClock())
    async with client, client.websocket_connect("/", ["telex.v1"]) as session:
        numbers = session.stream("x", int, credit="manual")
        assert [await numbers.receive() for _ in range(16)] == list(range(16))
        await client.advance(59.9)
        assert not ended.is_set()
        await client.advance(0.1)
        assert ended.is_set()
        with pytest.raises(CallError, match="timeout"):
            await numbers.receive()


async def test_pings_where_nothing_else_is_sent() -> None:
    pings = list[float]()

    def noting(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            async def note(event: Message) -> None:
                if "ping" in event.get("text", ""):
                    pings.append(clock.time())
                await send(event)

            await app(scope, receive, note)

        return middleware

    clock = TestClock()
    client = AsyncTestClient(noting(Telex([later])), clock=clock)
    async with client, client.websocket_connect("/later", ["telex.v1"]) as session:
        seconds = session.hello["ping"]  # the first in the list
        await client.advance(3.5 * seconds)
    assert len(pings) >= 3
    assert all(seconds / 2 <= after - before <= 1.5 * seconds for before, after in pairwise(pings))


def test_routes_of_a_shared_socket() -> None:
    client = create_test_client([later, Multiplex("/socket", routes=[later])], clock=TestClock())
    with client, client.multiplex("/socket") as socket, socket.route("/later") as one, socket.route("/later") as other:
        slow, quick = one.begin(60.0), other.begin(30.0)
        client.advance(30)
        assert quick.result(str) == "30 s later"
        client.advance(30)
        assert slow.result(str) == "60 s later"


async def test_tokens_that_expire() -> None:
    async def who(token: str) -> Identity[str]:
        return Identity(token, expires_in=3600)

    client = create_async_test_client(later, authenticate=Authenticate(who, bearer=True), clock=TestClock())
    async with client, client.websocket_connect("/later", headers={"Authorization": "Bearer ada"}) as session:
        await client.advance(3599)
        await session.refute(timeout=0)
        await client.advance(1)
        assert (await session.expect(WebSocketDisconnect)).code == 4401


async def test_a_call_to_a_client_that_does_not_answer() -> None:
    @websocket_listener("/")
    async def ask(data: str, socket: WebSocket) -> str:
        try:
            return await socket.call("yes or no?", str, timeout=600)
        except TimeoutError:
            return "no answer"

    client = create_async_test_client(ask, clock=TestClock())
    async with client, client.websocket_connect("/", ["telex.v1"]) as session:
        pending = await session.begin("x")
        await client.advance(599)
        await client.advance(1)
        assert await pending.result(str) == "no answer"


async def test_a_channel_forgets_its_history() -> None:
    hub = Channels(MemoryBackend(), channels=["news"], history=Keep(10, seconds=3600))

    async with create_async_test_client([], plugins=[hub], clock=TestClock()) as client:
        await hub.publish("news", "old")
        await client.advance(1800)
        await hub.publish("news", "new")
        await client.advance(1801)
        assert [event.data for event in (await hub.history("news")).events] == [b"new"]


async def test_members_of_a_node_that_is_silent_leave() -> None:
    hub = Channels(MemoryBackend(), channels=["room"], presence=Heartbeat(seconds=5, lost_after=15))
    join = {"ref": "1", "channel": "room", "key": "bob", "meta": None}
    news = {"type": "whole", "node": "other", "version": 1, "members": [join], "first": True, "last": True}

    async with create_async_test_client([], plugins=[hub], clock=TestClock()) as client:
        await client.advance(1)
        hub.presence.hear(msgspec.json.encode(news))
        assert [member.key for member in hub.presence.members("room")] == ["bob"]
        await client.advance(14)
        assert hub.presence.members("room")
        await client.advance(6)
        assert not hub.presence.members("room")
