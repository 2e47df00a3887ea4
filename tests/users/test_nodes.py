"""``app.users`` over nodes: two apps on one broker, each on a real socket; and brokers that are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telex import Telex, WebSocket, websocket, websocket_listener
from telex.channels import Channels, ChannelsBackend, MemoryBackend, backend_from_url
from telex.clock import loop_time
from telex.exceptions import BackendUnavailable, ChannelsException
from telex.handlers.channel import channel_listener
from telex.users import nodes as module
from telex.users.index import Closed
from telex.users.nodes import CHANNEL
from tests.channels.brokers import Broker, Nats, Postgres, Valkey
from tests.channels.conftest import Engine, until, within
from tests.contract.servers import Running
from tests.support.live import asked, connected, denied, ending, heard, heard_json, soon
from tests.users.conftest import as_user, site


@pytest.fixture(autouse=True)
def no_introduction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests wait themselves until the nodes know each other."""
    monkeypatch.setattr(module, "INTRODUCTION", 0.0)


@websocket_listener("/")
async def echo(data: str) -> str:
    return data


class Node:
    """An app that runs, on a hub of its own."""

    def __init__(self, app: Telex, hub: Channels, running: Running) -> None:
        self.app = app
        self.hub = hub
        self.running = running

    @property
    def follows(self) -> bool:
        """Whether it hears the others."""
        return CHANNEL in self.hub._followed and self._nodes._following.is_set()

    @property
    def _nodes(self) -> module.Nodes:
        assert self.app.users._nodes is not None
        return self.app.users._nodes

    def knows(self, other: Node) -> bool:
        """Whether it has heard of the other."""
        return other._nodes._node in self._nodes._others


@asynccontextmanager
async def node(backend: ChannelsBackend, **options: Any) -> AsyncIterator[Node]:
    hub = Channels(backend, arbitrary_channels_allowed=True, **options)
    app = Telex([echo], plugins=[hub])
    async with site(app) as running:
        yield Node(app, hub, running)


async def test_a_user_is_told_closed_and_counted_on_every_node(engine: Engine) -> None:
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(node(engine.new_backend())) for _ in range(2)]
        near = await stack.enter_async_context(connected(here.running, **as_user("ada")))
        far = [await stack.enter_async_context(connected(there.running, **as_user("ada"))) for _ in range(2)]
        other = await stack.enter_async_context(connected(there.running, **as_user("ben")))
        for client in (near, *far, other):
            await asked(client, "x")
        await until(lambda: here.follows and there.follows and here.knows(there) and there.knows(here))

        await soon(here.app.users.notify("ada", {"n": 1}))
        await soon(there.app.users.notify("ada", b"\x00\xff"))
        for client in (near, *far):
            assert {await heard(client), await heard(client)} == {'{"n":1}', b"\x00\xff"}

        for asking in (here, there):
            assert await asking.app.users.count("ada", within=30) == 3
            assert await asking.app.users.count("ben", within=30) == 1
            assert await asking.app.users.count("eve", within=30) == 0
        assert len(here.app.users.connections("ada")) == 1

        await soon(here.app.users.close("ada", 4403, "revoked"))
        for client in (near, *far):
            assert await ending(client) == (4403, "revoked")
        await until(lambda: not there.app.users.connections("ada"))
        assert await here.app.users.count("ada", within=30) == 0
        assert await asked(other, "still") == "still"


async def test_a_node_without_users_follows_nothing_and_reaches_the_others(engine: Engine) -> None:
    async with (
        node(engine.new_backend()) as worker,
        node(engine.new_backend()) as serving_node,
        connected(serving_node.running, **as_user("ada")) as client,
        connected(worker.running) as nobody,
    ):
        await asked(client, "x")
        await asked(nobody, "x")
        await until(lambda: serving_node.follows)
        await soon(worker.app.users.notify("ada", "hello"))
        assert await heard(client) == "hello"
        assert CHANNEL not in worker.hub._followed
        assert worker.hub.statistics().channels == serving_node.hub.statistics().channels == 0


async def test_a_node_that_does_not_answer_counts_none_and_delays_one_count() -> None:
    broker = MemoryBackend()
    async with (
        node(broker) as here,
        connected(here.running, **as_user("ada")) as client,
    ):
        await asked(client, "x")
        await until(lambda: here.follows)
        here._nodes._others.add("gone")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await here.app.users.count("ada", within=0.2) == 1
        assert loop.time() - began >= 0.19
        assert await here.app.users.count("ada", within=30) == 1


async def test_a_count_right_after_the_start_waits_until_the_nodes_know_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "INTRODUCTION", 0.5)
    backend = MemoryBackend()
    async with (
        node(backend) as here,
        node(backend) as there,
        connected(there.running, **as_user("ada")) as client,
    ):
        await asked(client, "x")
        await until(lambda: there.follows)
        # Longer than the others may take to answer, which counts from then on; on a busy machine they are late.
        assert await within(here.app.users.count("ada", within=0.4)) in {0, 1}
        async with asyncio.timeout(30):  # a late answer makes the other node known again
            while await here.app.users.count("ada", within=20) != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_clients_and_user_code_cannot_name_the_channel(engine: Engine) -> None:
    """Not by a path, not by ``publish`` or ``subscribe``, and a pattern that has it as a prefix delivers nothing."""

    follow = channel_listener("/follow/{name:str}", channel=lambda name: name)
    hub = Channels(engine.new_backend(), arbitrary_channels_allowed=True)
    app = Telex([echo, follow], plugins=[hub])
    forged = msgspec.msgpack.encode({"type": "closes", "node": "x", "closes": [["id", "ada", 4403, "forged", 0.0]]})
    async with site(app) as running, connected(running, **as_user("ada")) as client:
        await asked(client, "x")
        await until(lambda: CHANNEL in hub._followed)
        for name in (CHANNEL, "\x1f"):
            with pytest.raises(ChannelsException, match="is no channel"):
                await hub.publish(name, forged)
            with pytest.raises(ChannelsException, match="is no channel"):
                hub.publish_nowait(name, forged)
            with pytest.raises(ChannelsException, match="is no channel"):
                hub.subscribe(name)
        assert (await denied(running, "/follow/%1Fusers")).status == 404
        if hub.backend.supports_patterns:
            async with hub.subscribe("*", pattern=True) as everything:
                await app.users.notify("ada", "secret")
                await hub.publish("room", "public")
                assert await heard(client) == "secret"
                async with asyncio.timeout(30):
                    assert getattr(await anext(everything), "data", None) == b"public"
        assert await asked(client, "still") == "still"


async def test_what_cannot_be_read_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with node(MemoryBackend()) as here, connected(here.running, **as_user("ada")) as client:
        await asked(client, "x")
        await until(lambda: here.follows)
        for bad in (
            b"",
            b"{}",
            msgspec.msgpack.encode({"type": "closes", "node": "x", "closes": [["id", "ada", "x"]]}),
        ):
            await here.hub.publish_internal(CHANNEL, bad)
        await here.app.users.notify("ada", "after")
        assert await heard(client) == "after"
        await until(lambda: "cannot be read" in caplog.text)


# -- closes that a node has missed


async def test_a_node_that_begins_to_hear_applies_the_closes_before_it_but_no_older_ones() -> None:
    """The first user of a node connects, and is closed elsewhere before the node hears the others."""
    backend = MemoryBackend()
    async with node(backend) as here, node(backend) as late:
        here._nodes.follow()
        await until(lambda: here.follows)
        here._nodes._told["ada"] = Closed("old", loop_time() - 60, 4403, "before she came")
        async with connected(late.running, **as_user("ada")) as fresh:
            await asked(fresh, "x")
            await until(lambda: late.follows and "ada" in late.app.connections.users._closed)
            assert await asked(fresh, "she has logged in since") == "she has logged in since"
            here._nodes._told["ada"] = Closed("new", loop_time(), 4403, "revoked")
            late._nodes._resume()  # as if it had not heard when the close was told
            assert await ending(fresh) == (4403, "revoked")


async def test_a_close_that_is_told_again_late_closes_nobody_who_has_logged_in_since() -> None:
    backend = MemoryBackend()
    async with (
        node(backend) as here,
        node(backend) as there,
        connected(here.running, **as_user("ben")) as other,
    ):
        async with connected(there.running, **as_user("ada")) as before:
            await asked(before, "x")
            await asked(other, "x")
            await until(lambda: here.follows and there.follows and here.knows(there))
            await within(here.app.users.close("ada", 4403, "revoked"))
            assert await ending(before) == (4403, "revoked")
        async with connected(there.running, **as_user("ada")) as since:
            await asked(since, "x")
            told = here._nodes._told["ada"]
            # As if the message had been on its way since then: its age is that of when it was sent.
            late = module._Closes(here._nodes._node, [module._Close(told.id, "ada", told.code, told.reason, 0.0)])
            there._nodes._hear(module._encode(late))
            assert await asked(since, "still here") == "still here"


async def test_a_node_that_hears_again_tells_its_own_closes_again() -> None:
    """Its broker was away when it has told them, and the others have said hello before it heard again."""
    backend = MemoryBackend()
    async with node(backend) as here, node(backend) as there, connected(there.running, **as_user("ada")) as far:
        await asked(far, "x")
        here._nodes.follow()
        await until(lambda: here.follows and there.follows and there.knows(here) and here.knows(there))
        here._nodes._told["ada"] = Closed("another", loop_time(), 4403, "revoked")
        here._nodes._others.clear()
        here._nodes._resume()
        assert await ending(far) == (4403, "revoked")


async def test_a_handler_that_closes_its_own_user_reaches_the_other_nodes() -> None:
    """Its own connection is closed first, which cancels it."""
    ended, may_publish = asyncio.Event(), asyncio.Event()

    class Slow(MemoryBackend):
        async def publish(self, targets: Any, data: bytes, kind: Any = "bytes") -> Any:
            if targets[0][0] == CHANNEL and b"closes" in data:
                await within(may_publish.wait())
            return await super().publish(targets, data, kind)

    @websocket("/leave")
    async def leave(socket: WebSocket) -> None:
        await socket.receive_text()
        try:
            await app.users.close(socket.user, 4001, "logged out")
        finally:
            ended.set()

    backend = Slow()
    app = Telex([leave], plugins=[Channels(backend, arbitrary_channels_allowed=True)])
    async with node(backend) as there, site(app) as running, connected(there.running, **as_user("ada")) as far:
        await asked(far, "x")
        async with connected(running, "/leave", **as_user("ada")) as near:
            nodes = app.users._nodes
            assert nodes is not None
            await until(lambda: there.follows and bool(app.users.connections("ada")) and bool(nodes._others))
            await near.send("log out")
            assert await ending(near) == (4001, "logged out")
            await within(ended.wait())
            may_publish.set()
            assert await ending(far) == (4001, "logged out")


async def test_a_long_value_reaches_every_node(engine: Engine) -> None:
    """PostgreSQL's own notifications take 8,000 bytes."""
    async with (
        node(engine.new_backend()) as here,
        node(engine.new_backend()) as there,
        connected(there.running, **as_user("ada")) as far,
    ):
        await asked(far, "x")
        await until(lambda: there.follows)
        await soon(here.app.users.notify("ada", "é" * 100_000))
        assert await heard(far) == "é" * 100_000


@pytest.mark.broker
@pytest.mark.parametrize("kind", [Valkey, Nats, Postgres])
async def test_a_broker_that_is_away(kind: type[Broker]) -> None:
    """Killed: notify raises and sends nothing, close ends the own connections and raises; back, all is as before."""
    broker = kind()
    try:
        await broker.restart()
        async with AsyncExitStack() as stack:
            here, there = [await stack.enter_async_context(node(backend_from_url(broker.url))) for _ in range(2)]
            near = await stack.enter_async_context(connected(here.running, **as_user("ada")))
            far = await stack.enter_async_context(connected(there.running, **as_user("ada")))
            for client in (near, far):
                await asked(client, "x")
            await until(lambda: here.follows and there.follows and here.knows(there) and there.knows(here))
            await asyncio.to_thread(broker.kill)
            await until(lambda: not here.hub.is_ready and not there.hub.is_ready)

            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(here.app.users.notify("ada", "lost"), 30)
            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(here.app.users.count("ada", within=20), 30)
            assert await asked(near, "nothing was sent") == "nothing was sent"
            with pytest.raises(BackendUnavailable):
                await asyncio.wait_for(here.app.users.close("ada", 4403, "revoked"), 30)
            assert await ending(near) == (4403, "revoked")
            assert await asked(far, "not reached") == "not reached"

            await broker.restart()
            # The node that has closed tells it as soon as it hears again, or is asked by the other.
            async with asyncio.timeout(60):
                await far.wait_closed()
            assert (far.close_code, far.close_reason) == (4403, "revoked")
            await until(lambda: here.hub.is_ready and there.hub.is_ready)
            again = await stack.enter_async_context(connected(there.running, **as_user("ada")))
            await asked(again, "x")
            await soon(here.app.users.notify("ada", {"n": 2}))
            assert await heard_json(again) == {"n": 2}
    finally:
        broker.remove()


@pytest.mark.broker
async def test_a_broker_that_refuses_the_channel_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A login of NATS that may follow the app's channels, and not those of Telex itself."""
    monkeypatch.setattr("telex.channels.hub.RESTART_SECONDS", 0.01)
    broker = Nats()
    config = tmp_path / "nats.conf"
    config.write_text('authorization { users: [{user: ann, password: x, permissions: {subscribe: {deny: "*.i.>"}}}] }')
    monkeypatch.setattr(broker, "command", lambda: [*Nats.command(broker), "-c", str(config)])
    try:
        await broker.restart()
        url = broker.url.replace("//", "//ann:x@")
        async with node(backend_from_url(url)) as here, connected(here.running, **as_user("ada")) as client:
            await asked(client, "x")
            await until(lambda: "cannot hear each other of users" in caplog.text)
            tries: list[object] = []
            assert here.hub._reader is not None
            join = here.hub._reader.join

            async def counted(*args: Any) -> None:
                tries.append(args)
                await join(*args)

            monkeypatch.setattr(here.hub._reader, "join", counted)
            await until(lambda: len(tries) > 2)
            assert caplog.text.count("cannot hear each other of users") == 1
            assert "Traceback" not in caplog.text
            monkeypatch.setattr(module, "CONFIRMED_WITHIN", 0.1)
            with pytest.raises(BackendUnavailable, match="has not confirmed"):
                await here.app.users.count("ada")
            await here.app.users.notify("ada", "here")  # those of this process are reached all the same
            assert await heard(client) == "here"
    finally:
        broker.remove()


async def test_channels_that_do_not_run_raise() -> None:
    app = Telex([echo], plugins=[Channels("memory://", channels=["x"])])
    with pytest.raises(ChannelsException, match="do not run"):
        await app.users.notify("ada", 1)
    with pytest.raises(ChannelsException, match="do not run"):
        await app.users.close("ada")
