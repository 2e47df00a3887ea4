"""What the operators' page states: rights of a Redis user, prefixes, workers that fork, what clients are told."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed

from telex import Telex, channel_listener
from telex.channels import Channels, ChannelsBackend, Event, Heartbeat, Keep, publisher
from telex.channels.backends.nats import NatsBackend
from telex.channels.backends.postgres import PostgresBackend
from telex.channels.backends.redis import RedisBackend, RedisClusterBackend
from telex.channels.recovery import reader
from telex.exceptions import BackendUnavailable
from tests.channels.brokers import Broker, Redis6, Valkey
from tests.channels.cluster import Cluster
from tests.channels.conftest import KEEP, take_data, until, within
from tests.contract.servers import ServerKind
from tests.docs.pages import ROOT
from tests.support.live import connected, denied, serving

# -- the rights of a Redis user


def rights(*purposes: str) -> list[str]:
    """What the page says that a user needs for ``purposes``."""
    page = (ROOT / "docs/how-to/operate-channels.md").read_text()
    section = page.partition("## Rights of a Redis user")[2].partition("\n## ")[0].replace("\n  ", " ")
    said = dict(re.findall(r"^- (.+): (`.*`)$", section, re.MULTILINE))
    return [right for purpose in purposes for right in re.findall("`(.+?)`", said[purpose])]


def let_in(server: Any, *purposes: str) -> None:
    """Make the user anew, with these rights alone."""
    server.execute_command("ACL", "DELUSER", "shop")
    server.execute_command("ACL", "SETUSER", "shop", "on", ">secret", "-@all", *rights(*purposes))
    server.execute_command("ACL", "LOG", "RESET")


@pytest.fixture(params=[Valkey, Redis6])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    running: Broker = request.param()
    try:
        running.start()
        yield running
    finally:
        running.remove()


async def use(backend: ChannelsBackend, *, history: bool = False, pattern: str | None = None) -> None:
    """All that a hub does, as far as its user may."""
    keep = Keep(5, seconds=60) if history else None
    hub = Channels(backend, arbitrary_channels_allowed=True, history=keep, presence=Heartbeat(), subscribe_timeout=1)
    async with hub, hub.presence.track("room:1", "me"):
        async with hub.subscribe("room:1") as events:
            await hub.publish("room:1", "one")
            assert await take_data(events, 1) == ["one"]
        if history:
            async with hub.subscribe("room:1", 1) as events:
                assert await take_data(events, 1) == ["one"]
            async with hub.subscribe("room:1", since=await hub.position("room:1")) as events:
                assert events.recovered is True
        if pattern:
            async with hub.subscribe(pattern, pattern=True) as events:
                await hub.publish("room:2", "two")
                assert await take_data(events, 1) == ["two"]
            async with hub.subscribe("room:3"):
                pass  # confirmed after the pattern was left: the server has counted that command


async def test_a_user_needs_what_the_page_says(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "HEARTBEAT_SECONDS", 0.01)
    with Redis(port=broker.port, decode_responses=True) as server:
        at = f"redis://shop:secret@127.0.0.1:{broker.port}"

        def shop(path: str = "") -> RedisBackend:
            return RedisBackend(at + path, prefix="shop:")

        let_in(server, "every app", "one server")
        await use(shop())
        with pytest.raises(BackendUnavailable):
            await use(shop(), history=True)
        let_in(server, "every app", "one server", "history")
        await use(shop(), history=True)
        with pytest.raises(BackendUnavailable, match="refused"):
            await use(shop(), pattern="room:*")
        assert {entry["object"] for entry in server.execute_command("ACL", "LOG")} == {"psubscribe"}
        let_in(server, "every app", "one server", "history", "patterns, here `room:*` alone")
        await use(shop(), pattern="room:*")
        with pytest.raises(BackendUnavailable, match="'select'"):
            await use(shop("/1"))
        let_in(
            server, "every app", "one server", "history", "patterns, here `room:*` alone", "a database that is not 0"
        )
        await use(shop("/1"), history=True, pattern="room:*")
        assert server.execute_command("ACL", "LOG") == []


async def test_a_pattern_is_a_right_by_itself(running_broker: Callable[[str], Broker]) -> None:
    with Redis(port=running_broker("valkey").port) as server:
        let_in(server, "every app", "one server", "patterns, here `room:*` alone")
        at = f"redis://shop:secret@127.0.0.1:{running_broker('valkey').port}"
        with pytest.raises(BackendUnavailable, match="No permissions to access a channel"):
            await use(RedisBackend(at, prefix="shop:"), pattern="roo*")
        server.execute_command("ACL", "DELUSER", "shop")


@pytest.mark.broker
async def test_a_user_needs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command that the page names is one that the server got."""
    monkeypatch.setattr(reader, "HEARTBEAT_SECONDS", 0.01)
    broker = Valkey()
    try:
        broker.start()
        with Redis(port=broker.port, decode_responses=True) as server:
            server.execute_command("CONFIG", "RESETSTAT")
            backend = RedisBackend(f"redis://127.0.0.1:{broker.port}/1", prefix="shop:")
            await use(backend, history=True, pattern="room:*")
            async with Channels(backend, arbitrary_channels_allowed=True):
                await until(lambda: "cmdstat_ping" in server.info("commandstats"))
            called = {name.removeprefix("cmdstat_") for name in server.info("commandstats")}
        named = rights(
            "every app", "one server", "history", "patterns, here `room:*` alone", "a database that is not 0"
        )
        assert {right[1:] for right in named if right[0] == "+"} == called - {"config|resetstat"}
    finally:
        broker.remove()


async def test_a_user_of_a_cluster_needs_what_the_page_says(
    running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "HEARTBEAT_SECONDS", 0.01)
    servers: list[Any] = [Redis(port=node.port, decode_responses=True) for node in running_cluster.nodes]
    url = running_cluster.url.replace("://", "://shop:secret@")
    try:
        for server in servers:
            let_in(server, "every app", "a cluster")
        await use(RedisClusterBackend(url, prefix="shop:"))
        for server in servers:
            let_in(server, "every app", "a cluster", "history")
        await use(RedisClusterBackend(url, prefix="shop:"), history=True)
        assert [server.execute_command("ACL", "LOG") for server in servers] == [[], [], []]
    finally:
        for server in servers:
            server.execute_command("ACL", "DELUSER", "shop")
            server.close()


# -- several apps on one broker


PREFIXED: dict[str, Callable[[str, str], ChannelsBackend]] = {
    "valkey": lambda url, app: RedisBackend(url, prefix=f"{app}:"),
    "nats": lambda url, app: NatsBackend(url, prefix=app),
    "postgres": lambda url, app: PostgresBackend(url, prefix=f"{app}_"),
}


@pytest.mark.parametrize("kind", PREFIXED)
async def test_apps_with_prefixes_do_not_hear_each_other(
    kind: str, running_broker: Callable[[str], Broker], name: str
) -> None:
    url = running_broker(kind).url

    def backend(app: str) -> ChannelsBackend:
        return PREFIXED[kind](url, app)

    hubs = [
        Channels(backend(app), arbitrary_channels_allowed=True, history={"kept*": KEEP}, presence=Heartbeat())
        for app in ("shop", "blog")
    ]
    async with (
        hubs[0] as shop,
        hubs[1] as blog,
        shop.subscribe([name, "kept"]) as events,
        blog.presence.track(name, "blogger"),
        publisher(backend("shop"), history={"kept*": KEEP}) as news,
    ):
        await blog.publish([name, "kept"], "blog")
        await shop.publish([name, "kept"], "shop")
        await news.publish(name, "worker")
        # The order of two channels is nobody's promise.
        assert sorted(await take_data(events, 3)) == ["shop", "shop", "worker"]
        await until(lambda: bool(blog.presence.members(name)))
        assert shop.presence.members(name) == ()


# -- workers that fork

FORKS = """
import asyncio, importlib, os, sys
from telex.channels import Channels, publisher
from telex.exceptions import ChannelsException

tasks = importlib.import_module(sys.argv[1])
hub, made = Channels(tasks.URL, arbitrary_channels_allowed=True), publisher(tasks.URL)

async def child():
    async with hub, made as news:
        await news.publish("job:hub", "child")

def in_child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

tasks.resize("parent")
with publisher(tasks.URL) as old:
    in_child(lambda: tasks.resize("child"))
    in_child(lambda: asyncio.run(child()))
    def misuse():
        try:
            old.publish("job:x", "never")
        except ChannelsException as error:
            tasks.news().publish("job:said", str(error))
    in_child(misuse)
tasks.resize("parent again")
"""


@pytest.mark.slow
async def test_each_process_of_a_pool_has_its_own_publisher(running_broker: Callable[[str], Broker]) -> None:
    url = running_broker("valkey").url
    async with (
        Channels(url, arbitrary_channels_allowed=True) as hub,
        hub.subscribe("job:*", pattern=True) as events,
    ):
        command = [sys.executable, "-W", "ignore", "-c", FORKS, "examples.docs.channels_forks"]
        environment = {"CHANNELS_URL": url, "PYTHONPATH": str(ROOT)}
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        heard = [item for item in [await within(anext(events)) for _ in range(5)] if isinstance(item, Event)]
    said = [event.channel for event in heard]
    assert said == ["job:parent", "job:child", "job:hub", "job:said", "job:parent again"]
    assert "opened before the process forked" in heard[3].text


# -- what clients are told


@pytest.mark.broker
@pytest.mark.parametrize("debug", [False, True])
async def test_clients_are_told_that_the_service_is_away(debug: bool, caplog: pytest.LogCaptureFixture) -> None:
    broker = Valkey()
    try:
        broker.start()
        hub = Channels(broker.url, channels=["c"], subscribe_timeout=0.2)
        app = Telex(
            [channel_listener("/", channel="c", publish=str)], plugins=[hub], allowed_origins=["*"], debug=debug
        )
        async with app.lifespan(), serving(app, ServerKind("telex")) as running, connected(running) as client:
            await until(lambda: hub.statistics().subscribers == 1)
            broker.kill()
            await client.send("hello")
            with pytest.raises(ConnectionClosed) as closed:
                await within(client.recv())
            refused: Any = (await denied(running)).json()
    finally:
        broker.remove()
    assert closed.value.rcvd is not None
    told = {closed.value.rcvd.reason, refused["detail"]}
    assert (closed.value.rcvd.code, refused["status_code"]) == (4503, 503)
    if debug:
        assert all("Redis" in each for each in told)
    else:
        assert told == {"Service Unavailable"}
    told_to_us = {record.name for record in caplog.records if str(broker.port) in record.getMessage()}
    assert "telex" in told_to_us
    assert "telex.channels" in {record.name for record in caplog.records}
