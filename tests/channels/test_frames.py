"""Channel listeners on connections that speak telex.v1, over real sockets and real brokers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from telex import NotAuthorizedException, Provide, Telex, WebSocket, channel_listener
from telex.channels import Channels, Heartbeat, Keep, MemoryBackend, Position
from telex.channels.delivery import encoding
from telex.dto import DTOConfig, MsgspecDTO
from telex.exceptions import ImproperlyConfiguredException, ValidationException
from telex.protocol.envelope import SUBPROTOCOL
from tests.channels.conftest import KEEP, Engine, until, within
from tests.contract.servers import Running, ServerKind
from tests.protocol.conftest import Caller
from tests.server.conftest import running as run_server
from tests.support.live import connected, denied, ending, serving

TELEX = ServerKind("telex")
HUB: dict[str, Any] = {"arbitrary_channels_allowed": True, "history": {"room:*": Keep(10)}}


class Say(msgspec.Struct):
    text: str


class NoSuchRoom(Exception):
    """An error that callers may see."""


@pytest.fixture(params=["uvicorn-websockets", "telex"])
def kind(request: pytest.FixtureRequest) -> ServerKind:
    return ServerKind(request.param)


@asynccontextmanager
async def site(hub: Channels, kind: ServerKind, *handlers: Any) -> AsyncIterator[Running]:
    app = Telex(list(handlers), plugins=[hub], allowed_origins=["*"])
    async with app.lifespan(), serving(app, kind) as running:
        yield running


@asynccontextmanager
async def following(running: Running, path: str = "/", **options: Any) -> AsyncIterator[tuple[Caller, Any]]:
    """A client that speaks telex.v1, and its ``subscribed`` frame."""
    async with connected(running, path, subprotocols=[SUBPROTOCOL], **options) as client:
        caller = Caller(client)
        assert (await caller.receive())["type"] == "hello"
        begin = await caller.receive()
        assert begin["type"] == "subscribed"
        yield caller, begin


async def rest(caller: Caller) -> tuple[list[Any], int]:
    """The frames until the server closes, and its code."""
    frames: list[Any] = []
    try:
        while True:
            frames.append(await caller.receive())
    except ConnectionClosed as closed:
        return frames, closed.rcvd.code if closed.rcvd else 1006


def on(engine: Engine, **options: Any) -> Channels:
    return Channels(engine.new_backend(), **{"arbitrary_channels_allowed": True, "history": KEEP, **options})


def room(**options: Any) -> Any:
    return channel_listener("/{name:str}", channel=lambda name: name, **options)


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


# -- calls


async def test_a_call_publishes_and_is_answered_with_the_position_of_the_event(engine: Engine, name: str) -> None:
    hub, other = on(engine), on(engine)
    handler = room(publish=Say)
    async with (
        site(hub, TELEX, handler) as running,
        site(other, TELEX, handler) as elsewhere,
        following(running, f"/{name}") as (ann, _),
        following(elsewhere, f"/{name}") as (bob, _),
    ):
        for text in ("one", "two"):
            call_id = await ann.begin({"text": text})
            event = await bob.receive()
            assert event["data"] == {"text": text}
            answers = [await ann.receive() for _ in range(2)]
            assert {"type": "reply", "id": call_id, "data": {"position": event["position"]}} in answers
            assert event in answers
        await bob.send({"type": "notify", "data": {"text": "three"}})
        assert (await ann.receive())["data"] == (await bob.receive())["data"] == {"text": "three"}


async def test_calls_are_handled_as_by_a_listener(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    steps: list[str] = []

    async def journal() -> AsyncIterator[list[str]]:
        steps.append("opened")
        yield steps
        steps.append("closed")

    async def say(data: Say, journal: list[str], socket: WebSocket) -> Say | None:
        journal.append(data.text)
        if data.text == "declared":
            raise NoSuchRoom("no such room")
        if data.text == "refused":
            raise NotAuthorizedException("who are you?")
        if data.text == "bug":
            raise ValueError("a secret")
        return None if data.text == "nothing" else Say(data.text.upper())

    handler = room(
        publish=Say,
        on_publish=say,
        errors=[NoSuchRoom],
        max_invalid_messages=3,
        max_message_size=1000,
        dependencies={"journal": Provide(journal, scope="message")},
    )
    hub = Channels(MemoryBackend(), **HUB)
    async with site(hub, kind, handler) as running, following(running, "/room:1") as (caller, _):
        call_id = await caller.begin({"text": "hi"})
        answers = {each["type"]: each for each in [await caller.receive(), await caller.receive()]}
        assert answers["event"]["data"] == {"text": "HI"}
        position = answers["event"]["position"]
        assert answers["reply"] == {"type": "reply", "id": call_id, "data": {"position": position}}
        await until(lambda: steps == ["opened", "hi", "closed"])
        assert (await caller.call({"text": "nothing"}))["data"] == {}
        codes = [(await caller.call({"text": text}))["error"]["code"] for text in ("declared", "refused", "bug")]
        assert codes == ["no_such_room", "not_authorized", "internal"]
        error = (await caller.call({"text": 1}))["error"]
        assert (error["code"], error["path"]) == ("invalid_message", "$.text")
        for _ in range(2):
            assert (await caller.call([]))["error"]["code"] == "invalid_message"
        assert (await ending(caller.client))[0] == 1007
    async with site(hub, kind, handler) as running, following(running, "/room:1") as (caller, _):
        await caller.begin({"text": "x" * 6000})
        assert (await ending(caller.client))[0] == 1009


class SayDTO(MsgspecDTO[Say]):
    config = DTOConfig(rename_fields={"text": "words"})


async def test_a_dto_reads_calls_and_exception_handlers_answer_them(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    handler = room(
        publish=Say,
        dto=SayDTO,
        return_dto=None,
        exception_handlers={ValidationException: lambda socket, error: {"wrong": error.path}},
    )
    async with site(hub, kind, handler) as running, following(running, "/room:1") as (caller, _):
        await caller.send({"type": "notify", "data": {"words": "hi"}})
        assert (await caller.receive())["data"] == {"text": "hi"}
        assert (await caller.call({"words": 1}))["error"]["data"] == {"wrong": "$.words"}


async def test_bytes_are_published_as_bytes_where_subscribers_take_them(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    options: dict[str, Any] = {"channel": "room:1", "publish": str | bytes}
    text, binary = channel_listener("/text", **options), channel_listener("/binary", **options, send_mode="binary")
    async with (
        site(hub, kind, text, binary) as running,
        connected(running, "/binary") as plain,
        following(running, "/binary") as (caller, _),
        following(running, "/text") as (other, _),
    ):
        await until(lambda: hub.statistics().subscribers == 3)
        header = b'{"type":"notify"}'
        await caller.client.send(len(header).to_bytes(4, "big") + header + b"\x00\xff")
        assert (await caller.receive())["bytes"] == (await other.receive())["bytes"] == b"\x00\xff"
        assert await within(plain.recv()) == b"\x00\xff"
        await other.client.send(len(header).to_bytes(4, "big") + header + b"\x00\xff")
        assert (await other.receive())["error"]["code"] == "invalid_message"


async def test_guards_and_origins_refuse_before_anything_is_sent(kind: ServerKind) -> None:
    async def refuse(socket: WebSocket) -> None:
        raise NotAuthorizedException("who are you?")

    hub = Channels(MemoryBackend(), **HUB)
    async with site(hub, kind, room(guards=[refuse])) as running:
        assert (await denied(running, "/room:1", subprotocols=[SUBPROTOCOL])).status == 401
        assert hub.statistics().subscribers == 0


# -- history by call


async def test_calls_read_the_history_in_pages_to_its_end(engine: Engine, name: str) -> None:
    hub = on(engine)
    async with site(hub, TELEX, room(publish=str)) as running, following(running, f"/{name}") as (caller, _):
        assert (await caller.call({"type": "history"}))["data"] == {"events": [], "more": False}
        for number in range(7):
            await hub.publish(name, {"n": number})
        live = [await caller.receive() for _ in range(7)]
        pages, before = [], None
        for _ in range(5):
            request = {"type": "history", "limit": 3} | ({"before": before} if before else {})
            page = (await caller.call(request))["data"]
            pages.append(page["events"])
            if not page["more"]:
                break
            before = page["events"][0]["position"]
        assert [len(each) for each in pages] == [3, 3, 1]
        assert [*pages[2], *pages[1], *pages[0]] == [{key: each[key] for key in ("data", "position")} for each in live]
        assert (await caller.call({"type": "history", "before": "elsewhere:3"}))["error"]["code"] == "not_found"


async def test_a_call_for_history_is_bounded_and_checked(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), arbitrary_channels_allowed=True, history={"room:*": Keep(500)})
    async with site(hub, kind, room(publish=str, max_invalid_messages=20)) as running:
        for number in range(300):
            await hub.publish("room:1", number)
        async with following(running, "/room:1", max_size=None) as (caller, _):
            assert len((await caller.call({"type": "history"}))["data"]["events"]) == 50
            assert len((await caller.call({"type": "history", "limit": 100}))["data"]["events"]) == 100
            for wrong, path in (
                ({"limit": 101}, "$.limit"),
                ({"limit": 0}, "$.limit"),
                ({"before": 3}, "$.before"),
                ({"before": "nonsense"}, "$.before"),
                ({"after": "x"}, ""),
            ):
                error = (await caller.call({"type": "history", **wrong}))["error"]
                assert (error["code"], error.get("path", "")) == ("invalid_message", path)
            assert (await caller.call({"type": "other"}))["error"]["code"] == "invalid_message"
            for _ in range(3):
                await hub.publish("room:1", "x" * 600_000)
                assert (await caller.receive())["type"] == "event"
            page = (await caller.call({"type": "history"}))["data"]
            assert (len(page["events"]), page["more"]) == (1, True)
        async with following(running, "/live") as (caller, _):
            assert (await caller.call({"type": "history"}))["error"]["code"] == "not_found"


async def test_without_history_a_message_of_that_type_is_published(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    async with site(hub, kind, room(publish=dict)) as running, following(running, "/live") as (caller, _):
        await caller.send({"type": "notify", "data": {"type": "history"}})
        assert await caller.receive() == {"type": "event", "data": {"type": "history"}}


def test_a_published_type_must_not_look_like_a_call_for_history() -> None:
    class History(msgspec.Struct, tag="history"):
        of: str

    with pytest.raises(ImproperlyConfiguredException, match="publish= has a type with the tag 'history'"):
        Telex([room(publish=History)], plugins=[Channels(MemoryBackend(), **HUB)])


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
    async with run_server(app, drain_interval=0.02, drain_timeout=8.0) as server:
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
