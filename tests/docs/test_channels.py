"""The examples of the pages on channels, run in memory: what their pages say of them holds."""

from __future__ import annotations

from typing import Any

import pytest

from examples.channels.shared import Progress
from examples.docs import (
    channels_basics,
    channels_dashboard,
    channels_health,
    channels_jobs,
    channels_rooms,
    channels_snapshot,
)
from telex.testing import AsyncTestClient, WebSocketDenied


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
        path, envelope = "/rooms/lobby", ["telex.channels.v1"]
        async with client.websocket_connect(path, cookies={"user": "ada"}) as ada:
            await ada.send_json({"text": ""})
            assert (await ada.receive_json())["error"]["code"] == "invalid_message"
            await ada.send_json({"text": "hello"})
            assert await ada.receive_json() == {"text": "hello"}
            async with client.websocket_connect(path, cookies={"user": "bo"}, subprotocols=envelope) as bo:
                told: dict[str, Any] = {}
                while not {"present", "event"} <= set(told):
                    message = await bo.receive_json()
                    told[message["type"]] = message
                assert "ada" in [member["key"] for member in told["present"]["members"]]
                assert told["event"]["data"] == {"text": "hello"}
                assert told["event"]["channel"] == "room:lobby"
                position = told["event"]["position"]
        async with client.websocket_connect(f"{path}?since={position}", cookies={"user": "ada"}) as ada:
            await ada.send_json({"text": "the next"})
            assert await ada.receive_json() == {"text": "the next"}


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
