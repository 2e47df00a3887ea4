"""What a broker refuses fails alone, at once, and with the broker's own reason; what else is heard goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import redis

from telex.channels import Channels
from telex.exceptions import BackendUnavailable, ChannelsException
from tests.channels.brokers import Broker, Nats, Valkey
from tests.channels.conftest import KEEP, take_data, until, within

PROMPT = 20.0
"""Seconds: far below the time-out of subscriptions here."""


@asynccontextmanager
async def hub_on(url: str) -> AsyncIterator[Channels]:
    async with Channels(url, arbitrary_channels_allowed=True, history={"kept:*": KEEP}, subscribe_timeout=60) as hub:
        yield hub


async def fails_alone(hub: Channels, refused: list[str], reason: str, *, pattern: bool = False) -> None:
    """A subscription to ``refused`` fails with ``reason``, while the one to ``ok`` hears everything."""
    async with hub.subscribe("ok") as events:
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable, match=reason):
            await within(hub.subscribe(refused, pattern=pattern).__aenter__())
        assert time.monotonic() - begun < PROMPT
        await hub.publish("ok", "still heard")
        assert await take_data(events, 1) == ["still heard"]
        assert (hub.is_ready, hub.statistics().reconnects, hub.statistics().gaps) == (True, 0, 0)


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    server = Valkey()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.mark.broker
async def test_redis_refuses_a_channel_by_its_permissions(own_valkey: Valkey) -> None:
    with redis.Redis(port=own_valkey.port) as admin:
        allowed = ["resetchannels", "&telex:ok", "&telex:fine*", "~telex:*", "+@all"]
        admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", *allowed)
    async with hub_on(own_valkey.url.replace("redis://", "redis://app:pw@")) as hub:
        await fails_alone(hub, ["secret"], "No permissions|NOPERM|no permissions")
        await fails_alone(hub, ["fine1", "secret", "fine2"], "No permissions|NOPERM|no permissions")
        await fails_alone(hub, ["secret*"], "No permissions|NOPERM|no permissions", pattern=True)
        with pytest.raises(BackendUnavailable, match="Redis refused"):
            await hub.publish("secret", "x")
        await hub.publish("ok", "x")


@pytest.mark.broker
async def test_redis_refuses_writes_for_want_of_a_replica(own_valkey: Valkey) -> None:
    async with hub_on(own_valkey.url) as hub:
        with redis.Redis(port=own_valkey.port) as admin:
            admin.config_set("min-replicas-to-write", "1")
            await fails_alone(hub, ["kept:new"], "NOREPLICAS")
            admin.config_set("min-replicas-to-write", "0")
        async with hub.subscribe("kept:new") as events:
            await hub.publish("kept:new", "x")
            assert await take_data(events, 1) == ["x"]


async def refuses_writes_alone(hub: Channels, reason: str) -> None:
    """Publishes to channels with history fail at once with ``reason``; channels without history go on."""
    async with hub.subscribe("ok") as events:
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable, match=reason):
            await within(hub.publish("kept:a", "x"))
        assert time.monotonic() - begun < PROMPT
        for number in range(20):
            # Several signs of life are asked for meanwhile.
            await hub.publish("ok", str(number))
            await asyncio.sleep(0.02)
        assert await take_data(events, 20) == [str(number) for number in range(20)]
        assert (hub.is_ready, hub.statistics().reconnects, hub.statistics().gaps) == (True, 0, 0)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telex.channels.recovery.reader.HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr("telex.channels.backends.base.PROBE_SECONDS", 0.05)
    monkeypatch.setattr("telex.channels.backends.redis.cluster.MAP_SECONDS", 0.05)


@pytest.mark.broker
@pytest.mark.usefixtures("hurried")
async def test_redis_without_memory_refuses_what_is_kept(own_valkey: Valkey) -> None:
    async with hub_on(own_valkey.url) as hub, hub.subscribe("kept:a") as events:
        with redis.Redis(port=own_valkey.port) as admin:
            admin.config_set("maxmemory", "1")
            await refuses_writes_alone(hub, "Redis refused: .*(OOM|maxmemory)")
            admin.config_set("maxmemory", "0")
        await hub.publish("kept:a", "y")
        assert await take_data(events, 1) == ["y"]


class Saving(Valkey):
    """Saves to a file, but rarely."""

    def command(self) -> list[str]:
        return [*super().command()[:-2], "--dbfilename", "saved", "--save", "3600 1000000"]


@pytest.mark.broker
@pytest.mark.usefixtures("hurried")
async def test_redis_that_cannot_save_refuses_what_is_kept() -> None:
    """After a failed attempt it refuses all writes, and PING."""
    server = Saving()
    try:
        await server.restart()
        (server.home / "saved").mkdir()
        async with hub_on(server.url) as hub, hub.subscribe("kept:a") as events:
            with redis.Redis(port=server.port) as admin:
                admin.bgsave()
                await until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err")
                await refuses_writes_alone(hub, "Redis refused: .*MISCONF")
                admin.config_set("stop-writes-on-bgsave-error", "no")
            await hub.publish("kept:a", "y")
            assert await take_data(events, 1) == ["y"]
    finally:
        server.remove()


@pytest.mark.broker
@pytest.mark.usefixtures("hurried")
async def test_redis_refuses_commands_by_its_permissions(own_valkey: Valkey) -> None:
    with redis.Redis(port=own_valkey.port) as admin:
        rights = ["allchannels", "~telex:*", "+@all", "-xadd", "-hincrby", "-ping"]
        admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rights)
    async with hub_on(own_valkey.url.replace("redis://", "redis://app:pw@")) as hub:
        await refuses_writes_alone(hub, "Redis refused: .*(NOPERM|can't run|permission)")


class NatsWith(Nats):
    """With a configuration of its own."""

    def __init__(self, config: str, *, jetstream: bool = True) -> None:
        super().__init__()
        self._config = config
        self._jetstream = jetstream

    def command(self) -> list[str]:
        (self.home / "nats.conf").write_text(self._config)
        command = super().command()
        return [*(command if self._jetstream else command[: command.index("-js")]), "-c", str(self.home / "nats.conf")]


PERMISSIONS = """
authorization { users = [
  {user: app, password: pw, permissions: {
    publish: {deny: "telex.c.secret"},
    subscribe: {deny: ["telex.c.secret", "telex.h.*.kept.Secret", "telex.c.hidden.>"]}
  }}
] }
"""


@pytest.mark.broker
async def test_nats_refuses_a_channel_by_its_permissions() -> None:
    server = NatsWith(PERMISSIONS)
    try:
        await server.restart()
        async with hub_on(server.url.replace("nats://", "nats://app:pw@")) as hub:
            await fails_alone(hub, ["secret"], "permissions violation for subscription")
            await fails_alone(hub, ["fine", "secret"], "permissions violation for subscription")
            await fails_alone(hub, ["kept:Secret"], "permissions violation for subscription")
            await fails_alone(hub, ["hidden:a*", "hidden:b*"], "permissions violation for subscription", pattern=True)
            begun = time.monotonic()
            with pytest.raises(BackendUnavailable, match="permissions violation for publish"):
                await hub.publish("secret", "x")
            assert time.monotonic() - begun < PROMPT
            await hub.publish("ok", "x")
            assert hub.is_ready
    finally:
        server.remove()


@pytest.mark.broker
async def test_nats_without_jetstream_refuses_channels_with_history() -> None:
    server = NatsWith("", jetstream=False)
    try:
        await server.restart()
        async with hub_on(server.url) as hub:
            await fails_alone(hub, ["kept:a"], "start the server with JetStream")
            await fails_alone(hub, ["plain", "kept:a"], "start the server with JetStream")
    finally:
        server.remove()


async def test_postgresql_refuses_a_name_that_the_database_cannot_encode(
    running_broker: Callable[[str], Broker],
) -> None:
    url = running_broker("postgres").url
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        async with hub_on(url.replace("/postgres", "/latin")) as hub:
            await fails_alone(hub, ["kept:\N{GRINNING FACE}"], "has no equivalent in encoding")
            with pytest.raises(BackendUnavailable, match="has no equivalent in encoding"):
                await hub.publish("kept:\N{GRINNING FACE}", "x")
            async with hub.subscribe("kept:é") as events:
                await hub.publish("kept:é", "é\N{GRINNING FACE}")
                assert await take_data(events, 1) == ["é\N{GRINNING FACE}"]
    finally:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize("pattern", ["x" * 255 + "*", "\ud800*", "a\x1fb*", "a\0b*"])
async def test_patterns_are_checked_before_they_leave(pattern: str) -> None:
    async with Channels("memory://", arbitrary_channels_allowed=True) as hub:
        with pytest.raises(ChannelsException, match=r"is no (pattern|channel)"):
            hub.subscribe(pattern, pattern=True)


@pytest.mark.broker
async def test_a_topic_that_was_refused_is_asked_for_again(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that followed it before go on when the broker lets them."""
    monkeypatch.setattr("telex.channels.recovery.reader.REFUSED_SECONDS", 0.05)
    with redis.Redis(port=own_valkey.port) as admin:

        def allow(*channels: str) -> None:
            rights = ["resetchannels", *channels, "~telex:*", "+@all"]
            admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rights)

        allow("&telex:*")
        async with (
            hub_on(own_valkey.url.replace("redis://", "redis://app:pw@")) as hub,
            hub.subscribe("a") as events,
            hub.subscribe("b") as others,
        ):
            # The server ends connections that hear what they may not any more.
            allow("&telex:b")
            await within(anext(others))
            await hub.publish("b", "heard")
            assert await take_data(others, 1) == ["heard"]
            allow("&telex:*")
            await within(anext(events))
            await hub.publish("a", "heard again")
            assert await take_data(events, 1) == ["heard again"]
            assert await asyncio.to_thread(admin.ping)
