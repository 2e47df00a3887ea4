"""What is kept, how much of it, and for how long; the first part on every broker, so that all of them agree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from telex.channels import ChannelsBackend, Keep, Position
from telex.channels.backends.nats import NatsBackend
from telex.channels.backends.nats.jetstream import BATCH, READERS, Ask, Store
from telex.channels.backends.nats.subjects import Subjects
from telex.channels.events import LONGEST, Past
from tests.channels.brokers import Broker
from tests.channels.conftest import WAIT, Engine, until, within

LONG = Keep(size=1000, seconds=3600)


@pytest.fixture
async def backend(engine: Engine) -> AsyncIterator[ChannelsBackend]:
    """Each of the brokers, by itself."""
    made = engine.new_backend()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def nats_backend(running_broker: Callable[[str], Broker]) -> AsyncIterator[NatsBackend]:
    made = NatsBackend(running_broker("nats").url)
    yield made
    await made.close()


@pytest.fixture
async def js(running_broker: Callable[[str], Broker]) -> AsyncIterator[JetStreamContext]:
    """JetStream as an operator's tool reaches it."""
    client = await nats.connect(running_broker("nats").url)
    yield client.jetstream()
    await client.close()


@pytest.fixture
def delete_stream(running_broker: Callable[[str], Broker], js: JetStreamContext) -> Callable[[], Awaitable[None]]:
    """Delete Telex's stream with all that it has.

    The server removes the files in the background, and leaves them if it has not removed those of the time before.
    """

    async def delete() -> None:
        streams = running_broker("nats").home / "js/jetstream/$G/streams"
        await until(lambda: not any(streams.glob(".*")))
        await js.delete_stream("telex")

    return delete


async def fill(backend: ChannelsBackend, channel: str, keep: Keep, count: int) -> list[Position]:
    """Where the channel stood at first, and after each of ``count`` events."""
    stands = [await position(backend, channel, keep)]
    for number in range(count):
        await backend.publish([(channel, keep)], str(number).encode())
        stands.append(await position(backend, channel, keep))
    return stands


async def position(backend: ChannelsBackend, channel: str, keep: Keep) -> Position:
    return (await backend.positions([(channel, keep)]))[channel]


def texts(past: Past) -> list[str]:
    return [event.text for event in past.events]


async def in_time(read: Callable[[], Awaitable[Past]], is_so: Callable[[Past], bool]) -> Past:
    """What is read when it is so: time alone changes it, and nobody tells."""
    async with asyncio.timeout(WAIT):
        while not is_so(past := await read()):  # noqa: ASYNC110 - events age without telling
            await asyncio.sleep(0.02)
        return past


# -- what all brokers agree on


async def test_as_many_events_as_are_kept_are_recovered_and_not_one_more(backend: ChannelsBackend, name: str) -> None:
    keep = Keep(size=5, seconds=60)
    start, *stands = await fill(backend, name, keep, 5)
    from_the_start = await backend.history(name, keep, since=start)
    assert (texts(from_the_start), from_the_start.complete) == (["0", "1", "2", "3", "4"], True)
    stands += (await fill(backend, name, keep, 2))[1:]
    exactly = await backend.history(name, keep, since=stands[1])
    assert (texts(exactly), exactly.complete) == (["2", "3", "4", "0", "1"], True)
    one_more = await backend.history(name, keep, since=stands[0])
    assert (texts(one_more), one_more.complete) == ([], False)
    assert one_more.head.offset >= stands[-1].offset
    assert texts(await backend.history(name, keep)) == ["2", "3", "4", "0", "1"]
    assert texts(await backend.history(name, keep, limit=2)) == ["0", "1"]
    assert texts(await backend.history(name, keep, limit=99)) == ["2", "3", "4", "0", "1"]


async def test_what_is_too_old_is_not_replayed(backend: ChannelsBackend, name: str) -> None:
    keep = Keep(size=10, seconds=0.4)
    start, _, end = await fill(backend, name, keep, 2)
    await in_time(lambda: backend.history(name, keep), lambda past: not past.events)
    missed = await backend.history(name, keep, since=start)
    assert (missed.events, missed.complete) == ((), False)
    nothing_missed = await backend.history(name, keep, since=end)
    assert (nothing_missed.events, nothing_missed.complete) == ((), True)


# -- one stream for channels that keep more and less


async def test_a_channel_keeps_what_it_asked_for_beside_others_that_keep_more(
    nats_backend: NatsBackend, name: str
) -> None:
    more, less, shorter = f"{name}:more", f"{name}:less", f"{name}:shorter"
    few, brief = Keep(size=5, seconds=3600), Keep(size=1000, seconds=1)
    await nats_backend.publish([(more, LONG)], b"x")
    stands = await fill(nats_backend, less, few, 50)
    assert texts(await nats_backend.history(less, few)) == ["45", "46", "47", "48", "49"]
    assert texts(await nats_backend.history(less, few, limit=2)) == ["48", "49"]
    assert texts(await nats_backend.history(less, few, since=stands[45])) == ["45", "46", "47", "48", "49"]
    assert not (await nats_backend.history(less, few, since=stands[44])).complete
    [start, *_, end] = await fill(nats_backend, shorter, brief, 3)
    await in_time(lambda: nats_backend.history(shorter, brief), lambda past: not past.events)
    await nats_backend.publish([(shorter, brief)], b"new")
    assert texts(await nats_backend.history(shorter, brief)) == ["new"]
    assert not (await nats_backend.history(shorter, brief, since=start)).complete
    assert texts(await nats_backend.history(shorter, brief, since=end)) == ["new"]
    assert texts(await nats_backend.history(shorter, LONG)) == ["0", "1", "2", "new"]


async def test_a_stream_that_another_hub_made_narrower_is_widened_again(
    nats_backend: NatsBackend, js: JetStreamContext, name: str
) -> None:
    await nats_backend.publish([(name, LONG)], b"x")
    stream = await js.find_stream_name_by_subject("telex.c.>")
    config = (await js.stream_info(stream)).config
    # The stream may come from another test, with a window for duplicates of two minutes: it must not exceed the age.
    await js.update_stream(config, max_msgs_per_subject=7, max_age=60.0, duplicate_window=30.0)
    await position(nats_backend, name, LONG)
    config = (await js.stream_info(stream)).config
    assert config.max_msgs_per_subject >= LONG.size + 1
    assert (config.max_age or 0) >= LONG.seconds


async def test_limits_that_somebody_lifted_stay_so(nats_backend: NatsBackend, js: JetStreamContext, name: str) -> None:
    await nats_backend.publish([(name, LONG)], b"x")
    stream = await js.find_stream_name_by_subject("telex.c.>")
    config = (await js.stream_info(stream)).config
    await js.update_stream(config, max_msgs_per_subject=-1, max_age=0.0)
    await position(nats_backend, name, Keep(size=2000, seconds=7200))
    lifted = (await js.stream_info(stream)).config
    await js.update_stream(config)
    assert (lifted.max_msgs_per_subject, lifted.max_age) == (-1, 0)


async def test_what_the_server_has_removed_is_known_to_be_gone(
    running_broker: Callable[[str], Broker], js: JetStreamContext
) -> None:
    """Also: who keeps less than the server can gets as little."""
    backend, keep = NatsBackend(running_broker("nats").url, prefix="brief"), Keep(size=3, seconds=0.01)
    try:
        start, _, end = await fill(backend, "a", keep, 2)
        await in_time(lambda: backend.history("a", keep), lambda past: not past.events)
        stream = await js.find_stream_name_by_subject("brief.c.>")
        assert (await js.stream_info(stream)).state.messages == 2
        async with asyncio.timeout(WAIT):
            while (await js.stream_info(stream)).state.messages:  # noqa: ASYNC110 - nor does the server tell
                await asyncio.sleep(0.02)
        missed = await backend.history("a", keep, since=start)
        assert (missed.events, missed.complete, missed.head) == ((), False, end)
        nothing_missed = await backend.history("a", keep, since=end)
        assert (nothing_missed.events, nothing_missed.complete) == ((), True)
    finally:
        await backend.close()


async def test_reading_starts_a_new_stream_where_one_was_deleted(
    nats_backend: NatsBackend, delete_stream: Callable[[], Awaitable[None]], name: str
) -> None:
    asks: list[Callable[[Position], Awaitable[object]]] = [
        lambda _: nats_backend.history(name, LONG),
        lambda since: nats_backend.history(name, LONG, since=since),
        lambda _: position(nats_backend, name, LONG),
    ]
    for ask in asks:
        await nats_backend.publish([(name, LONG)], b"x")
        before = await position(nats_backend, name, LONG)
        await delete_stream()
        await ask(before)
        now = await position(nats_backend, name, LONG)
        assert (now.offset, now.epoch == before.epoch) == (0, False)
        past = await nats_backend.history(name, LONG, since=before)
        assert (past.events, past.complete, past.head) == ((), False, now)


async def test_a_stream_without_room_to_spare_knows_what_it_has_dropped(
    running_broker: Callable[[str], Broker],
) -> None:
    """Another channel's event is older than all, so that the stream's first one does not show what is gone."""
    backend, keep = NatsBackend(running_broker("nats").url, prefix="narrow"), Keep(size=5, seconds=60)
    try:
        await backend.publish([("quiet", keep)], b"first")
        quiet = await position(backend, "quiet", keep)
        stands = await fill(backend, "busy", keep, 20)
        exactly = await backend.history("busy", keep, since=stands[15])
        assert (texts(exactly), exactly.complete) == (["15", "16", "17", "18", "19"], True)
        for stand in stands[:15]:
            assert not (await backend.history("busy", keep, since=stand)).complete
        await backend.publish([("quiet", keep)], b"second")
        past = await backend.history("quiet", keep, since=quiet)
        assert (texts(past), past.complete) == (["second"], True)
    finally:
        await backend.close()


async def test_a_position_that_no_stream_has_is_answered(nats_backend: NatsBackend, name: str) -> None:
    """Clients send positions."""
    now = await position(nats_backend, name, LONG)
    past = await nats_backend.history(name, LONG, since=Position.parse(f"{now.epoch}:{'9' * LONGEST}"))
    assert (past.events, past.complete, past.head) == ((), False, now)


# -- how it is read


async def test_a_long_history_comes_whole_and_in_order(nats_backend: NatsBackend, name: str) -> None:
    """More events than one answer has."""
    count = 2 * BATCH + 40
    start = await position(nats_backend, name, LONG)
    await asyncio.gather(*[nats_backend.publish([(name, LONG)], str(number).encode()) for number in range(count)])
    past = await nats_backend.history(name, LONG, since=start)
    assert (texts(past), past.complete) == ([str(number) for number in range(count)], True)
    offsets = [event.position.offset for event in past.events if event.position]
    assert [event.previous for event in past.events] == [None, *offsets[:-1]]
    assert past.events[-1].position == past.head
    assert texts(await nats_backend.history(name, LONG, limit=300)) == texts(past)[-300:]
    assert (await nats_backend.history(name, LONG, limit=0)).events == ()


async def test_large_events_come_in_several_answers(
    nats_backend: NatsBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = Between(monkeypatch)
    start = await position(nats_backend, name, LONG)
    values = [bytes([number]) * 700_000 for number in range(8)]
    for value in values:
        await nats_backend.publish([(name, LONG)], value)
    past = await nats_backend.history(name, LONG, since=start)
    assert [event.data for event in past.events] == values
    assert between.batches >= len(values) // 2


async def test_history_is_read_beside_a_publisher_without_a_hole(nats_backend: NatsBackend, name: str) -> None:
    """While it is read the oldest events go: what is said to be whole is, and the last events follow each other."""
    keep = Keep(size=20, seconds=60)
    since = await position(nats_backend, name, keep)
    seen: int | None = -1

    async def publish() -> None:
        for number in range(300):
            await nats_backend.publish([(name, keep)], str(number).encode())

    publishing = asyncio.create_task(publish())
    while not publishing.done():
        missed = await nats_backend.history(name, keep, since=since)
        for past in (missed, await nats_backend.history(name, keep)):
            numbers = [int(text) for text in texts(past)]
            assert numbers == [*range(numbers[0], numbers[0] + len(numbers))] if numbers else True
        if missed.events:
            assert seen is None or int(missed.events[0].text) == seen + 1
            seen = int(missed.events[-1].text)
        elif not missed.complete:
            seen = None
        since = missed.head
    await publishing


async def test_not_too_many_are_read_at_the_same_time(
    nats_backend: NatsBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = Between(monkeypatch)
    await nats_backend.publish([(name, LONG)], b"x")
    since = await position(nats_backend, f"{name}:other", LONG)
    reading = [nats_backend.history(name, LONG, since=each) for each in [None, since] * 50]
    assert [texts(past) for past in await asyncio.gather(*reading)] == [["x"], []] * 50
    assert between.most_asking == READERS


# -- servers that differ: the real one answers, and its answers are made to look like theirs


async def nothing() -> None:
    """By default."""


class Between:
    """Stands between a store and the server."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        question: Callable[[bytes], bytes] = lambda asked: asked,
        answer: Callable[[list[Msg]], list[Msg]] = lambda told: told,
        info: Callable[[Msg], None] = lambda _: None,
        before_batch: Callable[[], Awaitable[None]] = nothing,
    ) -> None:
        self.batches = 0
        self.asking = 0
        self.most_asking = 0

        def store(ask: Ask, names: Subjects, replicas: int) -> Store:
            async def changed(
                subject: str,
                payload: bytes = b"",
                /,
                until: Callable[[Msg], bool] = lambda _: True,
                headers: dict[str, str] | None = None,
            ) -> list[Msg]:
                self.asking += 1
                self.most_asking = max(self.asking, self.most_asking)
                try:
                    if ".DIRECT.GET." in subject:
                        self.batches += 1
                        await before_batch()
                        return answer(await ask(subject, question(payload), until))
                    told = await ask(subject, payload, until, headers)
                    if ".STREAM.INFO." in subject:
                        info(told[0])
                    return told
                finally:
                    self.asking -= 1

            return Store(changed, names, replicas)

        monkeypatch.setattr("telex.channels.backends.nats.core.Store", store)


def is_event(message: Msg) -> bool:
    return "Nats-Sequence" in (message.headers or {})


def without_batch(asked: bytes) -> bytes:
    """The question as a server without batches understands it."""
    return json.dumps({key: value for key, value in json.loads(asked).items() if key != "batch"}).encode()


async def test_what_a_replica_behind_the_leader_has_not_yet_is_read_too(
    nats_backend: NatsBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_last_two(told: list[Msg]) -> list[Msg]:
        events = [message for message in told if is_event(message)]
        return [*events[:-2], *[message for message in told if not is_event(message)]]

    Between(monkeypatch, answer=without_the_last_two)
    start, *_ = await fill(nats_backend, name, LONG, 9)
    past = await nats_backend.history(name, LONG, since=start)
    assert (texts(past), past.complete) == ([*"012345678"], True)
    assert texts(await nats_backend.history(name, LONG, limit=4)) == [*"5678"]


async def test_a_server_that_knows_no_batches_tells_one_event_at_a_time(
    nats_backend: NatsBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NATS 2.10."""
    between = Between(monkeypatch, question=without_batch)
    start, *_ = await fill(nats_backend, name, LONG, 5)
    past = await nats_backend.history(name, LONG, since=start)
    assert (texts(past), past.complete) == ([*"01234"], True)
    assert between.batches == 5


@pytest.mark.parametrize("is_recovery", [True, False])
async def test_reading_ends_although_somebody_publishes_as_fast(
    nats_backend: NatsBackend, name: str, monkeypatch: pytest.MonkeyPatch, is_recovery: bool
) -> None:
    async def publish_one_more() -> None:
        await nats_backend.publish([(name, LONG)], b"more")

    Between(monkeypatch, question=without_batch, before_batch=publish_one_more)
    start, *_ = await fill(nats_backend, name, LONG, 3)
    past = await within(nats_backend.history(name, LONG, since=start if is_recovery else None))
    assert (texts(past), past.complete) == (["0", "1", "2"], True)


async def test_a_stream_that_is_deleted_while_it_is_read_is_no_past(
    nats_backend: NatsBackend,
    delete_stream: Callable[[], Awaitable[None]],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    between = Between(monkeypatch, before_batch=delete_stream)
    start, *_ = await fill(nats_backend, name, LONG, 3)
    past = await nats_backend.history(name, LONG, since=start)
    assert between.batches == 1
    assert (past.events, past.complete, past.head.offset) == ((), False, 0)
    assert past.head.epoch != start.epoch


@pytest.mark.parametrize("is_recovery", [True, False])
async def test_what_goes_while_it_is_read_makes_no_hole(
    running_broker: Callable[[str], Broker], monkeypatch: pytest.MonkeyPatch, is_recovery: bool
) -> None:
    backend, keep = NatsBackend(running_broker("nats").url, prefix=f"going{is_recovery}"), Keep(size=5, seconds=60)
    pushes = iter([0, 5])

    async def push_out() -> None:
        await fill(backend, "busy", keep, next(pushes))

    Between(monkeypatch, question=without_batch, before_batch=push_out)
    try:
        await backend.publish([("quiet", keep)], b"holds the stream's beginning")
        start, *_ = await fill(backend, "busy", keep, 4)
        past = await backend.history("busy", keep, since=start if is_recovery else None)
        assert list(pushes) == []
        assert (texts(past), past.complete) == (([], False) if is_recovery else (["3"], True))
    finally:
        await backend.close()


async def test_a_replica_that_has_removed_more_than_the_leader_makes_no_hole(
    running_broker: Callable[[str], Broker], js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first event that was missed is too old: gone on the replica that we read, still there at the leader."""
    keep = Keep(size=9, seconds=60)
    too_old = 0
    now = datetime.now(UTC)

    def without_the_first(told: list[Msg]) -> list[Msg]:
        return [message for message in told if (message.headers or {}).get("Nats-Sequence") != str(too_old)]

    def when_the_first_is_too_old(message: Msg) -> None:
        message.data = json.dumps(json.loads(message.data) | {"ts": now.isoformat()}).encode()

    Between(monkeypatch, answer=without_the_first, info=when_the_first_is_too_old)
    backend = NatsBackend(running_broker("nats").url, prefix="uneven")
    try:
        _, since, first, second, _ = await fill(backend, "a", keep, 4)
        too_old = first.offset
        times = [(await js.get_msg("uneven", stand.offset)).time for stand in (first, second)]
        assert times[0] is not None
        assert times[1] is not None
        now = times[0] + (times[1] - times[0]) / 2 + timedelta(seconds=keep.seconds)
        past = await backend.history("a", keep, since=since)
        assert (past.events, past.complete) == ((), False)
    finally:
        await backend.close()
