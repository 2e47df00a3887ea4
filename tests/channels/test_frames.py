"""Channel listeners on connections that speak telex.v1, over real sockets and real brokers."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from telex.channels import Channels, Keep, MemoryBackend
from telex.channels.delivery import encoding
from tests.channels.conftest import KEEP, Engine, until, within
from tests.channels.framed import HUB, TELEX, following, on, room, site
from tests.contract.servers import ServerKind
from tests.support.live import connected, denied


@pytest.fixture(params=["uvicorn-websockets", "telex"])
def kind(request: pytest.FixtureRequest) -> ServerKind:
    return ServerKind(request.param)


# -- positions


async def test_a_client_of_a_quiet_channel_comes_back_to_what_it_missed(engine: Engine, name: str) -> None:
    hub = on(engine)
    async with site(hub, TELEX, room()) as running:
        async with following(running, f"/{name}") as (_, begin):
            assert set(begin) == {"type", "position"}
        await hub.publish(name, {"n": 1})
        await hub.publish(name, {"n": 2})
        async with following(running, f"/{name}?since={begin['position']}") as (caller, again):
            assert again == begin | {"recovered": True}
            events = [await caller.receive() for _ in range(2)]
            assert [each["data"] for each in events] == [{"n": 1}, {"n": 2}]
        async with following(running, f"/{name}?since={events[0]['position']}") as (caller, again):
            assert again["position"] == events[0]["position"]
            assert await caller.receive() == events[1]
        async with following(running, f"/{name}?since=elsewhere:3") as (caller, again):
            assert again["recovered"] is False
            gap = await caller.receive()
            assert (gap["type"], gap["position"]) == ("gap", again["position"])
            assert gap["reason"]
            await hub.publish(name, {"n": 3})
            assert (await caller.receive())["data"] == {"n": 3}
        assert (await denied(running, f"/{name}?since=elsewhere:3")).status == 410


async def test_where_nothing_is_kept_no_frame_has_a_position(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    async with site(hub, kind, room(publish=str)) as running, following(running, "/live") as (caller, begin):
        assert begin == {"type": "subscribed"}
        call_id = await caller.begin("hi")
        answers = [await caller.receive() for _ in range(2)]
        assert {"type": "event", "data": "hi"} in answers
        assert {"type": "reply", "id": call_id, "data": {}} in answers


@pytest.mark.parametrize("read", [0, 1, 13])
async def test_a_line_cut_between_subscribed_and_the_end_of_the_replay_loses_nothing(
    engine: Engine, name: str, read: int
) -> None:
    hub, total, published = on(engine, history=Keep(1000, 60)), 40, 35
    async with site(hub, TELEX, room()) as running:
        async with following(running, f"/{name}") as (_, begin):
            stands = begin["position"]
        for number in range(published):
            await hub.publish(name, number)
        heard: list[int] = []
        while len(heard) < total:
            async with following(running, f"/{name}?since={stands}") as (caller, begin):
                assert begin == {"type": "subscribed", "recovered": True, "position": stands}
                for _ in range(min(read, published - len(heard))):
                    event = await caller.receive()
                    heard.append(event["data"])
                    stands = event["position"]
                caller.client.transport.abort()
            for number in range(published, total):
                await hub.publish(name, number)
            read, published = read or total, total
        assert heard == list(range(total))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_client_that_is_cut_off_again_and_again_while_others_publish_misses_nothing(
    engine: Engine, name: str, seed: int
) -> None:
    chance, total = random.Random(seed), 150
    hub, other = on(engine, history=Keep(1000, 60)), on(engine, history=Keep(1000, 60))

    async def publish() -> None:
        for number in range(total):
            await other.publish(name, number)
            await asyncio.sleep(0)

    async with other, site(hub, TELEX, room()) as running:
        async with following(running, f"/{name}") as (_, begin):
            stands = begin["position"]
        publishing, heard = asyncio.create_task(publish()), list[int]()
        while len(heard) < total:
            async with following(running, f"/{name}?since={stands}") as (caller, begin):
                assert (begin["recovered"], begin["position"]) == (True, stands)
                for _ in range(min(chance.randrange(25), total - len(heard))):
                    event = await caller.receive()
                    heard.append(event["data"])
                    stands = event["position"]
                caller.client.transport.abort()
        await within(publishing)
        assert heard == list(range(total))


async def test_history_is_replayed_first_and_subscribed_is_before_it(engine: Engine, name: str) -> None:
    hub = on(engine)
    async with site(hub, TELEX, room(history=2)) as running:
        for number in range(4):
            await hub.publish(name, number)
        async with following(running, f"/{name}") as (caller, begin):
            assert [(await caller.receive())["data"] for _ in range(2)] == [2, 3]
        async with following(running, f"/{name}?since={begin['position']}") as (caller, again):
            assert again["recovered"] is True
            assert [(await caller.receive())["data"] for _ in range(2)] == [2, 3]


# -- kinds


@pytest.mark.parametrize("kept", [True, False], ids=["history", "live"])
async def test_text_json_and_bytes_arrive_as_what_they_were(engine: Engine, name: str, kept: bool) -> None:
    hub, other = (on(engine, history=KEEP if kept else None) for _ in range(2))
    values: list[Any] = ["123", 123, b"123", {"n": None}, "", b"", None, "grüße"]
    expected = [{"bytes": value} if isinstance(value, bytes) else {"data": value} for value in values]
    async with other, site(hub, TELEX, room()) as running:
        async with following(running, f"/{name}") as (caller, begin):
            for value in values:
                await other.publish(name, value)
            events = [await caller.receive() for _ in values]
            assert [{key: event[key] for key in event if key in ("data", "bytes")} for event in events] == expected
            assert {event["type"] for event in events} == {"event"}
        if kept:
            async with following(running, f"/{name}?since={begin['position']}") as (caller, _):
                assert [await caller.receive() for _ in values] == events
            async with following(running, f"/{name}") as (caller, _):
                page = (await caller.call({"type": "history"}))["data"]["events"]
                assert [each.get("data", each.get("base64")) for each in page] == [
                    "MTIz" if value == b"123" else "" if value == b"" else value for value in values
                ]


@pytest.mark.parametrize("value", [b'"\xff"', b"[" * 200_000 + b"]" * 200_000, b'{"a":1}\xc3', b"plain", b"{}"])
async def test_a_value_of_no_kind_is_json_text_or_bytes(kind: ServerKind, value: bytes) -> None:
    backend = MemoryBackend()
    hub = Channels(backend, **HUB)
    handler = room(send_mode="binary")
    async with (
        site(hub, kind, handler) as running,
        following(running, "/room:1", max_size=None) as (caller, _),
        connected(running, "/room:1") as plain,
    ):
        await until(lambda: hub.statistics().subscribers == 2)
        await backend.publish([("room:1", Keep(10))], value, "json")
        await hub.publish("room:1", "after")
        assert [await within(plain.recv()) for _ in range(2)] == [value, b"after"]
        first, second = await caller.receive(), await caller.receive()
        assert second["data"] == "after"
        if value == b"{}":
            assert first["data"] == {}
        elif b"\xff" in value or b"\xc3" in value:
            assert first["bytes"] == value
        else:
            assert first["data"] == value.decode()


async def test_one_publish_writes_one_frame_for_all(kind: ServerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    write = encoding.as_frames._write

    def count(item: Any) -> str | bytes:
        written.append(item)
        return write(item)

    monkeypatch.setattr(encoding.as_frames, "_write", count)
    hub = Channels(MemoryBackend(), **HUB)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(site(hub, kind, room()))
        callers = [(await stack.enter_async_context(following(running, "/room:1")))[0] for _ in range(8)]
        plain = await stack.enter_async_context(connected(running, "/room:1"))
        for number in range(5):
            await hub.publish("room:1", number)
            for caller in callers:
                assert (await caller.receive())["data"] == number
            assert await within(plain.recv()) == str(number)
    assert len(written) == 5
