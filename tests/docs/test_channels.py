"""The examples of the pages on channels, run in memory: what their pages say of them holds."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct

from examples.channels.shared import Progress
from examples.docs import (
    channels_authors,
    channels_basics,
    channels_dashboard,
    channels_health,
    channels_jobs,
    channels_rooms,
    channels_snapshot,
)
from telex import WebSocket, WebsocketListener, receives
from telex.channels import Channels, Heartbeat, Joined, Left
from telex.testing import AsyncTestClient, WebSocketDenied, create_async_test_client
from tests.channels.conftest import until


async def test_basics() -> None:
    async with AsyncTestClient(channels_basics.app) as client, client.websocket_connect("/goals") as goals:
        async with client.websocket_connect("/score") as session:
            while not channels_basics.channels.statistics().subscribers:
                await session.send_json({"team": "north"})
                assert "error" in await session.receive_json()
            await session.send_json({"team": "north", "minute": 5})
            assert await goals.receive_json() == {"team": "north", "minute": 5}
        await client.post("/score", content='{"team": "south", "minute": 9}')
        assert await goals.receive_json() == {"team": "south", "minute": 9}


async def test_snapshot() -> None:
    async with AsyncTestClient(channels_snapshot.app) as client, client.websocket_connect("/stock") as stock:
        assert await stock.receive_json() == {"tea": 5}
        async with client.websocket_connect("/sell") as session:
            await session.send_text("tea")
            assert await stock.receive_json() == {"tea": 4}
            await session.send_text("tea")
            assert await stock.receive_json() == {"tea": 3}


async def test_rooms() -> None:
    async with AsyncTestClient(channels_rooms.app) as client:
        for cookies, status in (({}, 401), ({"user": "bo"}, 403)):
            with pytest.raises(WebSocketDenied) as refused:
                await client.websocket_connect("/rooms/staff", cookies=cookies)
            assert refused.value.status_code == status
        path, frames = "/rooms/lobby", ["telex.v1"]
        async with client.websocket_connect(path, cookies={"user": "ada"}) as ada:
            await ada.send_json({"text": ""})
            assert (await ada.receive_json())["error"]["code"] == "invalid_message"
            await ada.send_json({"text": "hello"})
            assert await ada.receive_json() == {"text": "hello"}
            async with client.websocket_connect(path, cookies={"user": "bo"}, subprotocols=frames) as bo:
                told: dict[str, Any] = {}
                while not {"present", "event"} <= set(told):
                    message = await bo.receive_json()
                    told[message["type"]] = message
                assert "ada" in [member["key"] for member in told["present"]["members"]]
                assert told["event"]["data"] == {"text": "hello"}
                position = told["event"]["position"]
        async with client.websocket_connect(f"{path}?since={position}", cookies={"user": "ada"}) as ada:
            await ada.send_json({"text": "the next"})
            assert await ada.receive_json() == {"text": "the next"}
        async with client.websocket_connect(path, cookies={"user": "bo"}, subprotocols=frames) as bo:
            await bo.send_json({"type": "call", "id": 1, "data": {"text": "third"}})
            await bo.send_json({"type": "call", "id": 2, "data": {"type": "history", "limit": 2}})
            found: dict[int, Any] = {}
            while len(found) < 2:
                message = await bo.receive_json()
                if message["type"] == "reply":
                    found[message["id"]] = message["data"]
            assert [event["data"]["text"] for event in found[2]["events"]] == ["the next", "third"]
            assert found[2]["events"][1]["position"] == found[1]["position"]
            assert found[2]["more"] is True


async def test_authors() -> None:
    path, frames = "/rooms/lobby", ["telex.v1"]
    async with (
        AsyncTestClient(channels_authors.app) as client,
        client.websocket_connect(path, cookies={"user": "ada"}) as ada,
        client.websocket_connect(path, cookies={"user": "bo"}, subprotocols=frames) as bo,
    ):
        assert (await bo.receive_json())["type"] == "subscribed"
        members = (await bo.receive_json())["members"]
        while len(members) < 2:
            members.append((await bo.receive_json())["member"])
        faces = {member["key"]: member["meta"] for member in members}
        assert faces == {"ada": {"colour": "teal"}, "bo": {"colour": "plum"}}
        for text in (" ", "hello "):
            await ada.send_json({"text": text, "author": "bo"})
        assert await ada.receive_json() == {"author": "ada", "text": "hello"}
        event = await bo.receive_json()
        assert (event["type"], event["data"]) == ("event", {"author": "ada", "text": "hello"})


async def test_dashboard() -> None:
    async with (
        AsyncTestClient(channels_dashboard.app) as client,
        client.websocket_connect("/dashboard") as dashboard,
        client.websocket_connect("/report") as machine,
    ):
        while not channels_dashboard.channels.statistics().subscribers:
            await machine.send_json({"machine": 5, "load": 1})
            assert "error" in await machine.receive_json()
        await machine.send_json({"machine": "north", "load": 0.5})
        assert await dashboard.receive_json() == {"machine": "north", "load": 0.5}


async def test_jobs() -> None:
    async with AsyncTestClient(channels_jobs.app) as client:
        await channels_jobs.channels.publish("job:nightly", Progress("nightly", 0, 5))
        async with client.websocket_connect("/jobs/nightly") as watching:
            assert await watching.receive_json() == {"job": "nightly", "done": 0, "steps": 5}


async def test_health() -> None:
    async with AsyncTestClient(channels_health.app) as client:
        assert (await client.get("/ready")).status_code == 200
        async with client.websocket_connect("/news"):
            figures = (await client.get("/channels")).json()
    assert (figures["connected"], figures["subscribers"], figures["gaps"]) == (True, 1, 0)
    assert not channels_health.channels.is_ready


# -- topics/from-socketio-or-phoenix.md


class Enter(Struct, tag="enter"):
    room: str


class Leave(Struct, tag="leave"):
    room: str


class Tell(Struct, tag="tell"):
    room: str
    text: str


class Rooms(WebsocketListener):
    """Socket.IO's calls, as the table has them."""

    path = "/"

    async def on_accept(self, socket: WebSocket, channels: Channels) -> None:
        socket.state.rooms = {}
        await self.follow("all", socket, channels)

    @receives
    async def enter(self, data: Enter, socket: WebSocket, channels: Channels) -> None:
        await self.follow(data.room, socket, channels)

    @receives
    async def leave(self, data: Leave, socket: WebSocket, channels: Channels) -> None:
        await channels.unsubscribe(socket.state.rooms.pop(data.room))

    @receives
    async def tell(self, data: Tell, channels: Channels) -> None:
        await channels.publish(data.room, data.text)

    async def follow(self, room: str, socket: WebSocket, channels: Channels) -> None:
        events = await channels.subscribe(room, socket=socket)
        socket.start_stream(events.iter_events())
        socket.state.rooms[room] = events


async def test_rooms_as_in_socketio() -> None:
    hub = Channels("memory://", arbitrary_channels_allowed=True)
    async with create_async_test_client(Rooms, plugins=[hub]) as client:
        async with client.websocket_connect("/") as one, client.websocket_connect("/") as two:
            for session in (one, two):
                await session.send_json({"type": "enter", "room": "red"})
                await session.send_json({"type": "tell", "room": "mine", "text": "nobody"})
            await until(lambda: hub.statistics().subscribers == 4)
            await one.send_json({"type": "tell", "room": "red", "text": "hello"})
            for session in (one, two):
                await session.expect("hello")
            await two.send_json({"type": "leave", "room": "red"})
            await until(lambda: hub.statistics().subscribers == 3)
            await one.send_json({"type": "tell", "room": "red", "text": "again"})
            await one.expect("again")
            await hub.publish("all", "everybody")
            await two.expect("everybody")
        await until(lambda: hub.statistics().subscribers == 0)


async def test_presence_as_in_phoenix() -> None:
    async with (
        Channels("memory://", arbitrary_channels_allowed=True, presence=Heartbeat()) as hub,
        hub.presence.watch("topic") as watch,
    ):
        async with hub.presence.track("topic", "ada", {"colour": "teal"}), hub.subscribe(["topic", "other"]) as events:
            (member,) = hub.presence.members("topic")
            assert (member.key, member.meta, await anext(watch)) == ("ada", {"colour": "teal"}, Joined(member))
            await hub.publish(["other", "topic"], "both")
            assert {item.channel for item in [await anext(events), await anext(events)]} == {"other", "topic"}
        assert await anext(watch) == Left(member)
