"""Presence, slow clients and ends of channel listeners in telex.v1."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from typing import Any

import pytest

from telex import Telex, WebSocket
from telex.channels import Channels, Heartbeat, Keep, MemoryBackend, Position
from telex.channels.delivery import encoding
from telex.protocol.envelope import SUBPROTOCOL
from tests.channels.conftest import KEEP, until, within
from tests.channels.framed import HUB, TELEX, following, rest, room, site
from tests.contract.servers import Running, ServerKind
from tests.server.conftest import running as run_server
from tests.support.live import connected, ending, serving


@pytest.fixture(params=["uvicorn-websockets", "telex"])
def kind(request: pytest.FixtureRequest) -> ServerKind:
    return ServerKind(request.param)


# -- presence, slow clients, ends


async def test_presence_is_shown_in_frames(kind: ServerKind) -> None:
    async def who(socket: WebSocket) -> tuple[str, object]:
        return socket.query_params["as"], {"color": "red"}

    hub = Channels(MemoryBackend(), **HUB, presence=Heartbeat())
    async with site(hub, kind, room(presence=who)) as running:
        async with following(running, "/room:1?as=ann") as (ann, _):
            assert await ann.receive() == {"type": "present", "members": []}
            joined = await ann.receive()
            assert (joined["type"], joined["member"]["key"]) == ("joined", "ann")
            assert joined["member"]["meta"] == {"color": "red"}
            async with following(running, "/room:1?as=bob") as (bob, _):
                assert [member["key"] for member in (await bob.receive())["members"]] == ["ann"]
                assert (await ann.receive())["member"]["key"] == "bob"
            left = await ann.receive()
            assert (left["type"], left["member"]["key"]) == ("left", "bob")
        await until(lambda: hub.presence.members("room:1") == ())


@pytest.mark.long
async def test_a_slow_client_is_closed_with_1013_and_can_come_back(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), arbitrary_channels_allowed=True, history=Keep(2000, 60), subscriber_max_backlog=20)
    large = os.urandom(50_000).hex()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(site(hub, kind, room()))
        slow, begin = await stack.enter_async_context(following(running, "/room:1", max_queue=1))
        quick, _ = await stack.enter_async_context(following(running, "/room:1", max_queue=None))
        published = 0
        while not hub.statistics().dropped:
            assert published < 1000
            await hub.publish("room:1", {"n": published, "large": large})
            assert (await quick.receive())["data"]["n"] == published
            published += 1
        frames, code = await rest(slow)
        assert code == 1013
        stands = frames[-1]["position"] if frames else begin["position"]
        heard = [event["data"]["n"] for event in frames]
        back, _ = await stack.enter_async_context(following(running, f"/room:1?since={stands}"))
        heard += [(await back.receive())["data"]["n"] for _ in range(published - len(heard))]
        assert heard == list(range(published))


async def test_answers_do_not_wait_for_a_client_that_reads_no_events() -> None:
    hub = Channels(MemoryBackend(), **HUB)
    async with site(hub, TELEX, room(publish=str)) as running, following(running, "/room:1") as (caller, _):
        ids = [await caller.begin(f"{number}") for number in range(20)]
        frames = [await caller.receive() for _ in range(40)]
        assert [each["id"] for each in frames if each["type"] == "reply"] == ids
        assert [each["data"] for each in frames if each["type"] == "event"] == [f"{n}" for n in range(20)]


async def test_a_drain_closes_who_follows_a_channel_with_1012() -> None:
    hub = Channels(MemoryBackend(), **HUB)
    app = Telex([room(publish=str)], plugins=[hub])
    async with run_server(app, drain_interval=0.02, drain_within=0.1, drain_timeout=8.0) as server:
        place = Running(server.port)
        async with following(place, "/room:1") as (one, _), following(place, "/room:1") as (other, _):
            await one.send({"type": "notify", "data": "hi"})
            assert (await one.receive())["data"] == (await other.receive())["data"] == "hi"
            server.stop()
            for caller in (one, other):
                frames, code = await rest(caller)
                assert code == 1012
                assert {frame["type"] for frame in frames} <= {"goaway"}


async def test_a_hub_that_ends_closes_with_1012_and_leaves_no_task(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    app = Telex([room()], plugins=[hub], allowed_origins=["*"])
    async with AsyncExitStack() as stack:
        async with app.lifespan():
            running = await stack.enter_async_context(serving(app, kind))
            caller, _ = await stack.enter_async_context(following(running, "/room:1"))
        assert (await ending(caller.client))[0] == 1012
        await until(lambda: not app.connections)


async def test_a_socket_class_that_overrides_sending_stays_plain(kind: ServerKind) -> None:
    class Loud(WebSocket):
        async def send_data(self, data: str | bytes, mode: Any = "text", encoding: str = "utf-8") -> None:
            await super().send_data(str(data).upper(), mode)

    hub = Channels(MemoryBackend(), **HUB)
    async with (
        site(hub, kind, room(websocket_class=Loud)) as running,
        connected(running, "/room:1", subprotocols=[SUBPROTOCOL]) as client,
    ):
        assert client.subprotocol is None
        await until(lambda: hub.statistics().subscribers == 1)
        await hub.publish("room:1", "hello")
        assert await within(client.recv()) == "HELLO"


async def test_the_generated_routes_speak_frames(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), channels=["news"], history=KEEP, create_ws_route_handlers=True)
    async with site(hub, kind) as running, following(running, "/news") as (caller, begin):
        assert begin["position"]
        await hub.publish("news", "hello")
        event = await caller.receive()
        assert event["data"] == "hello"
        assert (await caller.call({"type": "history"}))["data"]["events"] == [
            {"data": "hello", "position": event["position"]}
        ]
        assert (await caller.call("hello"))["error"]["code"] == "invalid_message"


def test_positions_are_strings_that_json_can_carry() -> None:
    assert json.loads(encoding.with_position("{", Position('odd"epoch', 3)).replace("{,", "{") + "}") == {
        "position": 'odd"epoch:3'
    }


async def test_a_client_that_leaves_during_a_call_leaves_nothing(kind: ServerKind) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def say(data: str) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return data

    hub = Channels(MemoryBackend(), **HUB)
    async with site(hub, kind, room(publish=str, on_publish=say)) as running:
        async with following(running, "/room:1") as (caller, _):
            await caller.begin("x")
            await within(began.wait())
            caller.client.transport.abort()
        await within(ended.wait())
        await until(lambda: hub.statistics().subscribers == 0)


async def test_what_a_client_published_before_it_left_is_published(kind: ServerKind) -> None:
    class Slow(MemoryBackend):
        began, go_on = asyncio.Event(), asyncio.Event()

        async def publish(self, targets: Any, data: bytes, kind: Any = "bytes") -> Any:
            self.began.set()
            await self.go_on.wait()
            return await super().publish(targets, data, kind)

    backend = Slow()
    hub = Channels(backend, **HUB)
    async with site(hub, kind, room(publish=str)) as running, following(running, "/room:1") as (other, _):
        async with following(running, "/room:1") as (caller, _):
            await caller.send({"type": "notify", "data": "last words"})
            await within(backend.began.wait())
        backend.go_on.set()
        assert (await other.receive())["data"] == "last words"
