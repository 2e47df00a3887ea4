"""What PostgreSQL knows of the past: which positions are recognised, also after a restore and a failover."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from telex.channels import Channels, Event, Gap, Item, Keep, Position
from telex.channels.backends.postgres.replay import HistoryRow, past_of
from tests.channels.brokers import Postgres
from tests.channels.conftest import take, take_data, until

HOUR = 493_000
"""In 2026."""

MICROS = HOUR * 3_600_000_000


def rows(last: int, *events: tuple[int, int]) -> list[HistoryRow]:
    """What the database answers: a head, and events with the numbers of those before them."""
    return [HistoryRow("e", last, *event, b"x", 1, "bytes") for event in events] or [
        HistoryRow("e", last, None, None, None, None, "bytes")
    ]


@pytest.mark.parametrize(
    ("answer", "since", "complete"),
    [
        pytest.param(rows(HOUR), HOUR, True, id="still nothing is known"),
        pytest.param(rows(HOUR), HOUR - 24, True, id="nothing is known for a day"),
        pytest.param(rows(HOUR), HOUR - 25, False, id="an event may have come and been forgotten"),
        pytest.param(rows(HOUR), MICROS, False, id="the channel was forgotten"),
        pytest.param(rows(MICROS + 2, (MICROS, 0), (MICROS + 2, MICROS)), HOUR, True, id="all since it began"),
        pytest.param(rows(MICROS, (MICROS, 0)), HOUR - 24, True, id="it began a day after"),
        pytest.param(rows(MICROS, (MICROS, 0)), HOUR - 25, False, id="it may have begun before"),
        pytest.param(rows(MICROS, (MICROS, 0)), HOUR + 1, True, id="it began in a transaction that was open"),
        pytest.param(rows(MICROS + 2, (MICROS + 2, MICROS)), HOUR, False, id="the first has aged"),
        pytest.param(rows(MICROS), HOUR, False, id="all have aged"),
        pytest.param(rows(MICROS), MICROS, True, id="nothing was missed, and all have aged"),
        pytest.param(rows(MICROS + 2, (MICROS + 2, MICROS)), MICROS, True, id="the next is there"),
        pytest.param(rows(MICROS + 2, (MICROS + 2, MICROS + 1)), MICROS, False, id="the next has aged"),
        pytest.param(rows(MICROS + 2), MICROS, False, id="what was missed has aged"),
        pytest.param(rows(MICROS + 9, (MICROS + 9, MICROS + 3)), MICROS + 5, False, id="lost in a restore"),
        pytest.param(rows(MICROS + 3), MICROS + 5, False, id="lost in a restore, and nothing since"),
        pytest.param(rows(MICROS + 9, (MICROS + 9, 0)), MICROS, False, id="the channel was forgotten, and began anew"),
    ],
)
def test_a_position_is_recognised_or_not(answer: list[HistoryRow], since: int, complete: bool) -> None:
    past = past_of("c", answer, Position("e", since))
    assert past.complete is complete
    assert past.head == Position("e", answer[0].last)
    assert len(past.events) == sum(row.number is not None for row in answer) * complete
    assert not past_of("c", answer, Position("another", since)).complete
    assert past_of("c", answer, None).complete


# -- a server of its own


@pytest.fixture
def broker() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")


@asynccontextmanager
async def hub_on(broker: Postgres) -> AsyncIterator[Channels]:
    async with Channels(broker.url, arbitrary_channels_allowed=True, history=Keep()) as hub:
        yield hub


async def back(broker: Postgres, hub: Channels) -> None:
    """Start the server again; returns when the hub hears it."""
    await until(lambda: not hub.is_ready)
    await broker.restart()
    await until(lambda: hub.is_ready)


def copy_data(source: Path, target: Path) -> None:
    # Not by shutil, which would not keep the owner.
    subprocess.run(["cp", "-a", source, target], check=True)


def last_of(items: list[Item]) -> Position:
    assert isinstance(items[-1], Event)
    assert items[-1].position is not None
    return items[-1].position


async def test_a_database_restored_from_a_backup_gives_no_number_twice(broker: Postgres) -> None:
    data, backup = broker.home / "data", broker.home / "backup"
    async with hub_on(broker) as hub, hub.subscribe("c") as events:
        await hub.publish("c", "1")
        saved = last_of(await take(events, 1))
        broker.kill()
        copy_data(data, backup)
        await back(broker, hub)
        await hub.publish("c", "2 is lost")
        await hub.publish("c", "3 is lost")
        lost = last_of(await take(events, 2))
        broker.kill()
        shutil.rmtree(data)
        backup.rename(data)
        await back(broker, hub)
        assert [type(item) for item in await take(events, 1)] == [Gap]
        for text in ("new 2", "new 3"):
            await hub.publish("c", text)
        assert await take_data(events, 2) == ["new 2", "new 3"]
        assert (await hub.position("c")).offset > lost.offset
        async with hub.subscribe("c", since=lost) as late:
            assert late.recovered is False
        async with hub.subscribe("c", since=saved) as late:
            assert late.recovered is True
            assert await take_data(late, 2) == ["new 2", "new 3"]


async def test_a_promoted_replica_begins_another_epoch(broker: Postgres) -> None:
    async with hub_on(broker) as hub, hub.subscribe("c") as events:
        await hub.publish("c", "1")
        before = last_of(await take(events, 1))
        empty = await hub.position("empty")
        broker.kill()
        await until(lambda: not hub.is_ready)
        # It wakes up as a replica of what it was, as one does that takes over, or that is recovered to a point in time.
        (broker.home / "data" / "standby.signal").touch()
        await broker.restart()
        with psycopg.connect(broker.url, autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        await until(lambda: hub.is_ready)
        assert [type(item) for item in await take(events, 1)] == [Gap]
        await hub.publish("c", "2")
        after = last_of(await take(events, 1))
        assert before.epoch == empty.epoch != after.epoch
        for channel, position in (("c", before), ("empty", empty)):
            async with hub.subscribe(channel, since=position) as late:
                assert late.recovered is False
        async with hub.subscribe("c", history=-1) as late:
            assert await take_data(late, 2) == ["1", "2"]
