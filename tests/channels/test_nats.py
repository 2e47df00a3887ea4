"""NATS in particular: readers that fail, servers without JetStream, others on the same server, and crowds."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from telex.channels import Channels, Event, Gap, Keep, Position
from telex.channels.backends.base import BrokerRefusal, Listener
from telex.channels.backends.nats import NatsBackend
from telex.channels.backends.nats.jetstream import Store
from telex.channels.names import TopicName
from telex.channels.recovery.reader import BrokerReader
from telex.exceptions import BackendUnavailable, ChannelsException, ImproperlyConfiguredException
from tests.channels.brokers import Broker, Nats
from tests.channels.conftest import KEEP, take, take_data, until, within

pytestmark = pytest.mark.broker


@pytest.fixture
def url(running_broker: Callable[[str], Broker]) -> str:
    return running_broker("nats").url


@asynccontextmanager
async def hub_on(backend: str | NatsBackend, **options: object) -> AsyncIterator[Channels]:
    async with Channels(backend, arbitrary_channels_allowed=True, **options) as hub:  # type: ignore[arg-type]
        yield hub


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    """Somebody else on the same server."""
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


# -- readers that fail


class FailingSink:
    """Takes ``good`` events, and raises at the next."""

    def __init__(self, keep: Keep | None, good: int = 0) -> None:
        self._keep = keep
        self._good = good
        self.offered: list[str] = []
        self.losses: list[BackendUnavailable] = []
        self.lost_one = asyncio.Event()

    def deliver(self, event: Event, pattern: str | None = None) -> None:
        self.offered.append(event.text)
        if len(self.offered) > self._good:
            raise RuntimeError("the sink is broken")

    def keep_for(self, channel: str, /) -> Keep | None:
        return self._keep

    def lost(self, error: BackendUnavailable) -> None:
        self.losses.append(error)
        self.lost_one.set()

    def dropped(self, topics: Collection[TopicName]) -> None:
        raise AssertionError

    def refused(self, topic: TopicName, error: BrokerRefusal) -> None:
        raise AssertionError


@pytest.mark.parametrize("way", ["live", "kept", "pattern"])
async def test_an_event_that_cannot_be_delivered_is_a_loss_and_the_end(
    url: str, name: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    keep = KEEP if way == "kept" else None
    topic = TopicName(f"{name}:*", is_pattern=True) if way == "pattern" else TopicName(f"{name}:1")
    backend = NatsBackend(url)
    sink = FailingSink(keep, good=1)
    try:
        await backend.open()
        async with backend.listen(sink) as listener:
            await listener.subscribe([topic])
            for number in range(4):
                await backend.publish([(f"{name}:1", keep)], str(number).encode())
            await within(sink.lost_one.wait())
            with pytest.raises(BackendUnavailable, match=r"NATS is lost: an event of .* could not be delivered"):
                await listener.ping()
    finally:
        await backend.close()
    assert sink.offered == ["0", "1"]
    assert [loss.detail.rpartition(": ")[2] for loss in sink.losses] == ["RuntimeError('the sink is broken')"]
    [record] = [record for record in caplog.records if record.name == "telex.channels"]
    assert record.exc_info is not None
    assert (record.levelname, record.getMessage()) == ("ERROR", f"an event of {topic.name!r} could not be delivered")


@pytest.mark.parametrize("kept", [True, False], ids=["history", "live"])
async def test_an_event_that_cannot_be_delivered_is_healed(
    url: str, name: str, kept: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")
    deliver, failures = BrokerReader.deliver, iter([RuntimeError("once")])

    def deliver_after_a_failure(reader: BrokerReader, event: Event, pattern: str | None = None) -> None:
        for failure in failures:
            raise failure
        deliver(reader, event, pattern)

    async with hub_on(url, history=KEEP if kept else None) as hub, hub.subscribe([name, f"{name}:other"]) as events:
        monkeypatch.setattr(BrokerReader, "deliver", deliver_after_a_failure)
        await hub.publish(name, "1")
        await until(lambda: hub.statistics().reconnects == 1)
        await hub.publish(name, "2")
        if kept:
            assert await take_data(events, 2) == ["1", "2"]
        else:
            gaps = await take(events, 2)
            assert {gap.channel for gap in gaps if isinstance(gap, Gap)} == {name, f"{name}:other"}
            assert await take_data(events, 1) == ["2"]


async def test_what_others_say_on_our_subjects_is_no_event_and_no_loss(url: str, name: str) -> None:
    subject = name.replace(":", ".")
    async with (
        hub_on(url, history={name: KEEP}) as hub,
        client_of(url) as stranger,
        hub.subscribe(name) as kept,
        hub.subscribe("test:*", pattern=True) as matching,
    ):
        await stranger.publish(f"telex.h.{subject}", b"was never stored")
        await stranger.publish(f"telex.h.0123.{subject}", b"nor was this")
        await stranger.publish("telex.c.test.=ZZ", b"no channel is called so")
        await stranger.publish("telex.c.test.=FF", b"nor so")
        await stranger.flush()
        await hub.publish(name, "ours")
        assert await take_data(kept, 1) == ["ours"]
        assert await take_data(matching, 1) == ["ours"]
        assert hub.statistics().reconnects == 0


# -- servers that cannot


SIZED: list[tuple[Callable[[int], object], int]] = [
    (bytes, 1_048_545),
    ("x".__mul__, 1_048_546),
    (lambda size: ["x" * (size - 4)], 1_048_576),
]
"""Values of a size, and the largest size that a NATS with its default limit takes."""


async def test_a_value_that_is_too_large_names_its_size_the_limit_and_the_setting(url: str, name: str) -> None:
    async with hub_on(url, history={"kept:*": KEEP}) as hub:
        for channel in (name, f"kept:{name}"):
            for make, most in SIZED:
                value: Any = make(most)  # the headers of text and bytes count too
                with pytest.raises(ChannelsException, match=rf"{most + 1:,} bytes .* the {most:,} .* max_payload"):
                    await hub.publish(channel, make(most + 1))
                async with hub.subscribe(channel) as events:
                    await hub.publish(channel, value)
                    [event] = await take(events, 1)
                    assert isinstance(event, Event)
                    assert len(event.data) == most
        assert hub.statistics().reconnects == 0


class WithoutJetStream(Nats):
    def command(self) -> list[str]:
        command = super().command()
        return command[: command.index("-js")]


class WithoutJetStreamForUs(Nats):
    """JetStream runs, but not for the account that we are in."""

    def command(self) -> list[str]:
        config = self.home / "config"
        config.write_text(
            "accounts { ours: { users: [{ user: u, password: p }] }, system: { users: [{ user: s, password: s }] } }\n"
            "system_account: system"
        )
        return [*super().command(), "-c", str(config)]

    @property
    def url(self) -> str:
        return super().url.replace("//", "//u:p@")


@pytest.fixture(params=[WithoutJetStream, WithoutJetStreamForUs])
def simple_server(request: pytest.FixtureRequest) -> Iterator[Nats]:
    server: Nats = request.param()
    try:
        server.start()
        yield server
    finally:
        server.remove()


async def test_history_without_jetstream_says_what_to_do(simple_server: Nats, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")
    advice = r"start the server with JetStream \(-js\).* or drop history="
    async with hub_on(simple_server.url, history={"kept": KEEP}, subscribe_timeout=0.3) as hub:
        with pytest.raises(BackendUnavailable, match=advice):
            await hub.publish("kept", "x")
        with pytest.raises(BackendUnavailable, match=advice):
            await hub.position("kept")
        with pytest.raises(BackendUnavailable, match=advice):
            await within(hub.subscribe("kept"))
    async with hub_on(simple_server.url) as hub, hub.subscribe("live") as events:
        await hub.publish("live", "works")
        assert await take_data(events, 1) == ["works"]


async def test_more_replicas_than_servers_are_refused_clearly(url: str) -> None:
    backend = NatsBackend(url, prefix="threefold", replicas=3)
    async with hub_on(backend, history=KEEP) as hub:
        with pytest.raises(BackendUnavailable, match=r"replicas > 1 not supported .* replicas=3"):
            await hub.publish("a", "x")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
async def frozen() -> AsyncIterator[tuple[NatsBackend, Listener]]:
    """A backend and its listener, whose server has stopped to read; it is given 0.3 s, and nothing is left of them."""
    server = Nats()
    backend = NatsBackend(server.url, timeout=0.3)
    try:
        server.start()
        files = open_files()
        await backend.publish([("kept", KEEP)], b"x")
        async with backend.listen(FailingSink(None)) as listener:
            await listener.subscribe([TopicName("before")])
            server.freeze()
            yield backend, listener
        await within(backend.close())
        ours = asyncio.current_task()
        await until(lambda: asyncio.all_tasks() == {ours} and open_files() <= files)
    finally:
        server.thaw()
        server.remove()


@pytest.mark.parametrize("keep", [None, KEEP], ids=["live", "history"])
async def test_who_publishes_more_than_a_frozen_server_takes_gives_up_in_time(
    frozen: tuple[NatsBackend, Listener], keep: Keep | None
) -> None:
    """The client library waits for its buffers, and forgets there that it is cancelled."""
    backend, _ = frozen
    publishing = [backend.publish([("kept", keep)] * 4, bytes(2**20 - 64)) for _ in range(8)]
    outcomes = await within(asyncio.gather(*publishing, return_exceptions=True))
    assert {type(outcome) for outcome in outcomes} == {BackendUnavailable}
    # What publishes live has given the connection up.
    with pytest.raises(BackendUnavailable, match=r"NATS (did|does) not answer"):
        await within(backend.publish([("kept", keep)], b"behind them"))


async def test_who_subscribes_to_more_than_a_frozen_server_takes_gives_up_in_time(
    frozen: tuple[NatsBackend, Listener],
) -> None:
    _, listener = frozen
    with pytest.raises(BackendUnavailable, match="NATS did not answer"):
        await within(listener.subscribe([TopicName(f"{number}:{'é' * 100}") for number in range(20_000)]))


async def test_the_end_of_the_connection_ends_the_wait_for_an_answer() -> None:
    server = Nats()
    backend = NatsBackend(server.url, timeout=60)
    try:
        server.start()
        await backend.publish([("kept", KEEP)], b"x")
        await backend.history("kept", KEEP)
        server.freeze()
        waiting = [
            asyncio.create_task(backend.publish([("kept", KEEP)], b"x")),
            asyncio.create_task(backend.publish([("live", None)], b"x")),
            asyncio.create_task(backend.history("kept", KEEP)),
        ]
        await asyncio.wait(waiting, timeout=0.05)
        server.kill()
        outcomes = await within(asyncio.gather(*waiting, return_exceptions=True))
        assert [type(outcome) for outcome in outcomes] == [BackendUnavailable] * 3
        assert all("NATS is lost" in str(outcome) for outcome in outcomes)
    finally:
        await backend.close()
        server.remove()


async def test_a_frozen_server_costs_all_who_wait_one_time_out_together() -> None:
    server = Nats()
    backend = NatsBackend(server.url, timeout=0.3)
    try:
        server.start()
        await backend.open()
        server.freeze()
        for _ in range(2):
            waiting: list[Awaitable[object]] = [backend.publish([("kept", KEEP)], b"x") for _ in range(20)]
            waiting += [backend.history("kept", KEEP) for _ in range(100)]
            outcomes = await within(asyncio.gather(*waiting, return_exceptions=True), 2)
            assert {type(outcome) for outcome in outcomes} == {BackendUnavailable}
        server.thaw()
        await backend.publish([("kept", KEEP)], b"x")
    finally:
        server.thaw()
        await backend.close()
        server.remove()


async def test_a_loss_is_told_although_somebody_waits_in_vain_just_then(frozen: tuple[NatsBackend, Listener]) -> None:
    """The time of one who waits is over, and it has not noticed yet."""
    _, listener = frozen
    sink = FailingSink(None)
    link = listener._link  # type: ignore[attr-defined]
    link._on_lost = sink.lost
    waiting = asyncio.create_task(listener.ping())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.31, link.fail, "just now")
    # Both are due when the loop goes on.
    time.sleep(0.4)  # noqa: ASYNC251
    with pytest.raises(BackendUnavailable):
        await within(waiting)
    assert [loss.detail for loss in sink.losses] == ["NATS is lost: just now"]


# -- others on the same server


async def test_apps_with_a_prefix_each_do_not_hear_each_other(url: str, name: str) -> None:
    shop, blog = (NatsBackend(url, prefix=prefix, replicas=1) for prefix in ("shop.eu", "blog"))
    async with hub_on(shop, history=KEEP) as here, hub_on(blog, history=KEEP) as there, client_of(url) as client:
        async with (
            here.subscribe(name) as mine,
            here.subscribe("*", pattern=True) as all_mine,
            there.subscribe(name) as theirs,
        ):
            await here.publish(name, "shop")
            await there.publish(name, "blog")
            assert await take_data(mine, 1) == await take_data(all_mine, 1) == ["shop"]
            assert await take_data(theirs, 1) == ["blog"]
            assert (mine.qsize, all_mine.qsize, theirs.qsize) == (0, 0, 0)
        async with there.subscribe(name, history=-1) as past:
            assert await take_data(past, 1) == ["blog"]
            assert past.qsize == 0
        js = client.jetstream()
        for prefix in ("shop.eu", "blog"):
            config = (await js.stream_info(await js.find_stream_name_by_subject(f"{prefix}.c.>"))).config
            assert config.name == prefix.replace(".", "=")
            assert (config.num_replicas, config.subjects) == (1, [f"{prefix}.c.>"])


@pytest.mark.parametrize("prefix", ["", "a b", "a.*", "a.", ".a", ">", "a..b", "é"])
def test_a_prefix_that_begins_no_subject_is_refused(prefix: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match="begins no subject of NATS: write letters"):
        NatsBackend("nats://localhost", prefix=prefix)


@pytest.mark.parametrize("subject", ["taken.c.audit", "taken.c.c.>"])
async def test_subjects_that_have_a_stream_already_are_refused(url: str, subject: str) -> None:
    async with client_of(url) as client, hub_on(NatsBackend(url, prefix="taken"), history=KEEP) as hub:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="TAKEN_BY_OTHERS", subjects=[subject]))
        try:
            with pytest.raises(
                BackendUnavailable,
                match=r"is stored by 'TAKEN_BY_OTHERS': delete that stream, or choose another prefix",
            ):
                await hub.publish("a", "x")
        finally:
            await js.delete_stream("TAKEN_BY_OTHERS")


async def test_nodes_that_start_together_make_one_stream(url: str) -> None:
    async with client_of(url) as client:
        for attempt in range(10):
            prefix = f"together{attempt}"
            backends = [NatsBackend(url, prefix=prefix) for _ in range(5)]
            try:
                await asyncio.gather(*(backend.open() for backend in backends))
                await asyncio.gather(*(backend.publish([("a", KEEP)], b"x") for backend in backends))
                pasts = await asyncio.gather(*(backend.history("a", KEEP) for backend in backends))
                assert [len(past.events) for past in pasts] == [5] * 5
                assert len({past.head for past in pasts}) == 1
                names = [stream.config.name for stream in await client.jetstream().streams_info()]
                assert [name for name in names if name and name.startswith(prefix)] == [prefix]
            finally:
                await asyncio.gather(*(backend.close() for backend in backends))


async def test_a_second_stream_with_the_same_subjects_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses to make one, unless it is asked for both at the same moment: here it only tells of one."""
    backend = NatsBackend(url, prefix="doubled")
    ask = Store._put

    async def doubled(store: Store, epoch: str, subject: str, data: bytes, headers: dict[str, str] | None) -> Position:
        told: Any = store._ask

        async def both(*question: Any, headers: dict[str, str] | None) -> list[Msg]:
            receipts = await told(*question, headers=headers)
            other = Msg(receipts[0]._client, data=receipts[0].data.replace(b'"doubled"', b'"DOUBLED_0123"'))
            return [*receipts, other]

        store._ask = both  # type: ignore[assignment]
        return await ask(store, epoch, subject, data, headers)

    monkeypatch.setattr(Store, "_put", doubled)
    try:
        with pytest.raises(BackendUnavailable, match="by the stream 'doubled' alone, and is stored by 'DOUBLED_0123'"):
            await backend.publish([("a", KEEP)], b"x")
    finally:
        await backend.close()


async def test_a_stream_of_the_same_name_that_telex_did_not_make_is_refused(url: str) -> None:
    async with client_of(url) as client:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="foreign", subjects=["foreign.c.>"]))
        backend = NatsBackend(url, prefix="foreign")
        try:
            with pytest.raises(BackendUnavailable, match="the stream 'foreign' is not one of Telex"):
                await backend.publish([("a", KEEP)], b"x")
        finally:
            await backend.close()
            await js.delete_stream("foreign")


# -- crowds


async def test_positions_of_thousands_come_in_the_time_of_one_answer(url: str, name: str) -> None:
    backend = NatsBackend(url, timeout=1.0)
    try:
        await backend.publish([(f"{name}:7", KEEP)], b"x")
        positions = await backend.positions([(f"{name}:{number}", KEEP) for number in range(6000)])
        assert len(positions) == 6000
        assert await backend.positions([]) == {}
        past = await backend.history(f"{name}:7", KEEP, since=positions[f"{name}:7"])
        assert (past.events, past.complete) == ((), True)
    finally:
        await backend.close()


async def test_thousands_of_channels_with_history_subscribe_at_once(url: str, name: str) -> None:
    names = [f"{name}:{number}" for number in range(6000)]
    backend = NatsBackend(url, timeout=2.0)
    async with hub_on(backend, history=KEEP) as hub, hub.subscribe(f"{name}:innocent") as innocent:
        async with hub.subscribe(names) as events:
            await hub.publish([names[0], names[-1], f"{name}:innocent"], "x")
            assert await take_data(events, 2) == ["x", "x"]
        assert await take_data(innocent, 1) == ["x"]
        assert (hub.statistics().reconnects, hub.statistics().gaps) == (0, 0)


async def test_others_get_their_turns_while_many_subscribe(url: str, name: str) -> None:
    backend = NatsBackend(url)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with backend.listen(FailingSink(None)) as listener:
        counting = asyncio.create_task(count())
        await listener.subscribe([TopicName(f"{name}:{number}") for number in range(1000)])
        counting.cancel()
        await asyncio.wait([counting])
    assert turns >= 20


async def test_a_thousand_readers_of_the_past_come_at_once(url: str, name: str) -> None:
    names = [f"{name}:{number}" for number in range(1000)]
    backend = NatsBackend(url, timeout=2.0)
    async with hub_on(backend, history=KEEP) as hub:
        await hub.publish(names[::50], "before")
        subscribers = await within(asyncio.gather(*[hub.subscribe(each, history=5) for each in names]))
        assert [subscriber.qsize for subscriber in subscribers[::50]] == [1] * 20
        assert sum(subscriber.qsize for subscriber in subscribers) == 20
        for subscriber in subscribers:
            await hub.unsubscribe(subscriber)
        assert hub.statistics().reconnects == 0


@pytest.mark.parametrize("kept", [True, False], ids=["history", "live"])
async def test_cancellations_leave_no_task(url: str, name: str, kept: bool) -> None:
    chance = random.Random(5)
    untouched = asyncio.all_tasks()

    async def publish(hub: Channels) -> None:
        await hub.publish(name, "x")

    async def follow(hub: Channels, number: int) -> None:
        async with hub.subscribe(f"{name}:{number % 7}", history=3 if kept else None):
            await asyncio.sleep(0)

    async with hub_on(url, history=KEEP if kept else None, subscriber_max_backlog=1000) as hub:
        if kept:
            # The connection that reads the past is opened at the first use.
            await hub.position(name)
        tasks = asyncio.all_tasks()
        for _ in range(20):
            work = [asyncio.create_task(publish(hub)) for _ in range(10)]
            work += [asyncio.create_task(follow(hub, number)) for number in range(10)]
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            for task in chance.sample(work, 12):
                task.cancel()
            outcomes = await within(asyncio.gather(*work, return_exceptions=True))
            assert not [each for each in outcomes if isinstance(each, Exception)]
        # A subscription that has ended is cancelled, and gone a moment later.
        await until(lambda: asyncio.all_tasks() <= tasks)
        assert (hub.statistics().channels, hub.statistics().reconnects) == (0, 0)
    await until(lambda: asyncio.all_tasks() <= untouched)
