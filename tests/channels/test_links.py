"""What a connection to a broker outlives, and what it does not take from a URL, a database or a caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest
import redis

from telex.channels import Channels, ChannelsBackend, Event, Keep, MemoryBackend, Position, backend_from_url
from telex.channels.backends.redis import RedisBackend
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException
from tests.channels.brokers import Broker, Valkey
from tests.channels.conftest import KEEP, Engine, take, take_data, until, within
from tests.docs.pages import ROOT
from tests.support.proxy import TcpProxy

# -- callers


async def test_a_caller_that_is_cancelled_takes_no_other_publish_with_it(engine: Engine, name: str) -> None:
    async with (
        Channels(engine.new_backend(), arbitrary_channels_allowed=True) as hub,
        hub.subscribe(name, max_backlog=5000) as events,
    ):
        publishing = [asyncio.create_task(hub.publish(name, f"{number}" + "x" * 20_000)) for number in range(200)]
        await asyncio.sleep(0)
        for task in publishing[::2]:
            task.cancel()
        outcomes = await within(asyncio.gather(*publishing, return_exceptions=True))
        assert outcomes[1::2] == [{}] * 100
        await hub.publish(name, "end")
        heard: list[str] = []
        while heard[-1:] != ["end"]:
            heard += [text.partition("x")[0] for text in await take_data(events, 1)]
        assert set(map(str, range(1, 200, 2))) <= set(heard)
        assert hub.statistics().reconnects == 0


@pytest.mark.parametrize("offset", [-1, 2**63 - 1, 2**63, 2**64, 10**30])
async def test_an_offset_that_no_broker_counts_to_is_a_gap(engine: Engine, name: str, offset: int) -> None:
    backend = engine.new_backend()
    await backend.open()
    try:
        await backend.publish([(name, KEEP)], b"x")
        epoch = (await backend.positions([(name, KEEP)]))[name].epoch
        past = await within(backend.history(name, KEEP, since=Position(epoch, offset)), 3)
        assert (past.events, past.complete) == ((), False)
    finally:
        await backend.close()


# -- URLs


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost?no_such_option=1",
        "redis+cluster://localhost?no_such_option=1",
        "redis://localhost?ssl_cert_reqs=none",
        "nats://localhost?timeout=5",
        "postgresql://localhost/d?no_such_option=1",
    ],
)
def test_an_option_that_a_url_cannot_have_is_an_error_of_the_description(url: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match="URL"):
        backend_from_url(url)


@pytest.mark.parametrize("option", ["socket_timeout=1", "protocol=3", "socket_connect_timeout=60&socket_timeout=0.1"])
async def test_options_of_redis_that_are_ours_change_nothing(
    running_broker: Callable[[str], Broker], name: str, option: str
) -> None:
    begun = time.monotonic()
    async with Channels(f"{running_broker('valkey').url}?{option}", arbitrary_channels_allowed=True) as hub:
        async with hub.subscribe(name) as events:
            await asyncio.sleep(0.2)  # longer than the option lets a reader wait
            await hub.publish(name, "x")
            assert await take_data(events, 1) == ["x"]
        assert hub.statistics().reconnects == 0
    assert time.monotonic() - begun < 20


# -- Redis


async def test_redis_counts_ages_in_less_than_seconds(running_broker: Callable[[str], Broker], name: str) -> None:
    """An event of the end of a second is not a second old when the next one begins."""
    keep = Keep(10, seconds=0.9)
    backend = RedisBackend(running_broker("valkey").url)
    with redis.Redis(port=running_broker("valkey").port) as server:
        await until(lambda: server.time()[1] > 950_000)
        begun = server.time()[0]
        await backend.publish([(name, keep)], b"x")
        await until(lambda: server.time()[0] > begun)
    past = await backend.history(name, keep)
    await backend.close()
    assert [event.data for event in past.events] == [b"x"]


@pytest.mark.broker
async def test_a_demoted_redis_is_left_for_its_successor(name: str) -> None:
    """They change places in good order, and all connections to the old one stay."""
    old, new = Valkey(), Valkey()
    try:
        await asyncio.gather(old.restart(), new.restart())
        with redis.Redis(port=old.port) as at_old, redis.Redis(port=new.port) as at_new:
            at_new.replicaof("127.0.0.1", str(old.port))
            await until(lambda: at_new.info("replication")["master_link_status"] == "up", 30)
            async with TcpProxy(old.port) as proxy:
                options = {"arbitrary_channels_allowed": True, "history": {"kept:*": KEEP}}
                async with (
                    Channels(proxy.url(old.url), **options) as hub,  # type: ignore[arg-type]
                    hub.subscribe(["kept:a", "live"], max_backlog=10_000) as events,
                ):
                    await hub.publish(["kept:a", "live"], "before")
                    await take_data(events, 2)
                    at_new.replicaof("NO", "ONE")
                    at_old.replicaof("127.0.0.1", str(new.port))
                    proxy.target = new.port
                    await until(lambda: not hub.is_ready)
                    await until(lambda: hub.is_ready)
                    async with (
                        Channels(new.url, **options) as other,  # type: ignore[arg-type]
                        other.subscribe(["kept:a", "live"]) as others,
                    ):
                        for number in range(5):
                            await hub.publish(["kept:a", "live"], str(number))
                        assert len(await take_data(others, 10)) == 10
                    gaps: set[str] = set()
                    texts: list[str] = []
                    while len(texts) < 10:
                        [item] = await take(events, 1)
                        if isinstance(item, Event):
                            texts.append(item.text)
                        else:
                            gaps.add(item.channel)
                    assert gaps == {"kept:a", "live"}
                    assert texts == [str(number) for number in range(5) for _ in range(2)]
    finally:
        old.remove()
        new.remove()


@pytest.mark.broker
async def test_a_replica_of_redis_is_no_start() -> None:
    primary, replica = Valkey(), Valkey()
    try:
        await asyncio.gather(primary.restart(), replica.restart())
        with redis.Redis(port=replica.port) as server:
            server.replicaof("127.0.0.1", str(primary.port))
        with pytest.raises(BackendUnavailable, match="is a replica of another one"):
            await within(Channels(replica.url, channels=["a"]).__aenter__())
    finally:
        primary.remove()
        replica.remove()


# -- quiet channels


@pytest.mark.parametrize("engine", ["valkey", "redis6", "valkey-cluster"], indirect=True)
async def test_the_epoch_of_a_quiet_channel_lasts_as_long_as_it_is_followed(
    engine: Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis would forget it after a day."""
    monkeypatch.setattr("telex.channels.backends.redis.followed_logs.TOUCH_SECONDS", 0)
    monkeypatch.setattr("telex.channels.recovery.reader.HEARTBEAT_SECONDS", 0.05)
    backend, touched = engine.new_backend(), asyncio.Event()
    asked = type(backend).positions

    async def positions(self: ChannelsBackend, targets: list[tuple[str, Keep]]) -> object:
        if targets:
            touched.set()
        return await asked(self, targets)

    async with (
        Channels(backend, arbitrary_channels_allowed=True, history=KEEP) as hub,
        hub.subscribe([name, f"{name}:other"]),
    ):
        monkeypatch.setattr(type(backend), "positions", positions)
        await within(touched.wait())
        assert hub.is_ready


async def test_memory_keeps_the_log_of_a_channel_that_is_followed() -> None:
    now = 0.0
    backend, keep = MemoryBackend(clock=lambda: now), Keep(10, seconds=1)
    async with (
        Channels(backend, arbitrary_channels_allowed=True, history=keep) as hub,
        hub.subscribe("quiet") as events,
    ):
        await hub.publish("quiet", "0")
        await hub.publish("left", "0")
        left = await hub.position("left")
        now = 100.0
        await hub.publish("other", "has the old ones swept")
        await hub.publish("quiet", "1")
        assert await take_data(events, 2) == ["0", "1"]
        assert (await hub.position("left")).epoch != left.epoch


# -- PostgreSQL


async def test_defaults_of_a_database_are_no_concern_of_ours(running_broker: Callable[[str], Broker]) -> None:
    url = running_broker("postgres").url
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE odd ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        admin.execute("ALTER DATABASE odd SET default_transaction_isolation = 'serializable'")
        admin.execute("ALTER DATABASE odd SET default_transaction_read_only = on")
    try:
        with psycopg.connect(url.replace("/postgres", "/odd"), autocommit=True) as owner:
            owner.execute("SET default_transaction_read_only = off")
        odd = url.replace("/postgres", "/odd")
        options = {"arbitrary_channels_allowed": True, "history": KEEP}
        async with Channels(odd, **options) as one, Channels(odd, **options) as two:  # type: ignore[arg-type]
            async with one.subscribe("é", max_backlog=1000) as events:
                await asyncio.gather(*(hub.publish("é", "x") for hub in (one, two) for _ in range(50)))
                heard = [item for item in await take(events, 100) if isinstance(item, Event)]
                assert len(heard) == 100
                assert isinstance(heard[0].position and heard[0].position.epoch, str)
            async with one.subscribe("é", since=heard[89].position) as missed:
                assert missed.recovered is True
                assert len(await take_data(missed, 10)) == 10
    finally:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP DATABASE odd WITH (FORCE)")


async def test_the_statement_of_the_page_publishes_text_as_it_is(
    running_broker: Callable[[str], Broker], name: str
) -> None:
    """With a literal, as programs without a driver's types send it."""
    url = running_broker("postgres").url
    texts = ["C:\\temp", '{"t": "two\\nlines"}', "\\x41", "a\\101b", "é", "it's"]
    async with Channels(url, arbitrary_channels_allowed=True, history=KEEP) as hub, hub.subscribe(name) as events:
        with psycopg.connect(url, autocommit=True) as other:
            page = (ROOT / "docs/topics/channels.md").read_text()
            said = page[page.index("SELECT telex_publish(") :].partition("`")[0]
            other.execute(said.replace("room:1", name).encode())
            assert await take_data(events, 1) == ["text"]
            for text in texts:
                literal = text.replace("'", "''")
                other.execute(f"SELECT telex_publish('{name}', '{literal}', 50, 60)".encode())
                assert await take_data(events, 1) == [text]
            other.execute("SELECT telex_publish(%s, %s::jsonb, 50, 60)", (name, '{"a":  1}'))
            other.execute("SELECT telex_publish(%s, %s, 50, 60)", (name, b"\x00\xff"))
            other.execute("SELECT telex_publish(%s, 'a' || 'b', NULL, NULL)", (name,))
            json, raw, live = await take(events, 3)
            assert [item.data for item in (json, raw, live) if isinstance(item, Event)] == [
                b'{"a": 1}',
                b"\x00\xff",
                b"ab",
            ]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_transaction_that_sees_one_moment_fails_at_its_commit_if_others_published(
    running_broker: Callable[[str], Broker], name: str, level: str
) -> None:
    """As with any row that others have changed; without history there is none."""
    url = running_broker("postgres").url
    async with (
        Channels(url, arbitrary_channels_allowed=True, history={"test:*": KEEP}) as hub,
        hub.subscribe([name, "live"]) as events,
        await psycopg.AsyncConnection.connect(url) as user,
    ):
        await hub.publish(name, "before")
        for channel, fails in ((name, True), ("live", False)):
            await user.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
            await user.execute("SELECT 1 FROM pg_class LIMIT 1")
            await hub.publish(channel, "mine", transaction=user)
            await hub.publish(channel, "another's")
            if fails:
                with pytest.raises(psycopg.errors.SerializationFailure):
                    await user.commit()
            else:
                await user.commit()
        assert await take_data(events, 4) == ["before", "another's", "another's", "mine"]
