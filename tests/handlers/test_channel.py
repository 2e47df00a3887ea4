"""The ready handlers over real sockets, talked to by the ``websockets`` library, on a stock server and on Telex's."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from telex import (
    NotAuthorizedException,
    PermissionDeniedException,
    Provide,
    Router,
    Telex,
    ValidationException,
    WebSocket,
    channel_listener,
    websocket,
)
from telex.channels import Channels, Heartbeat, Keep, MemoryBackend
from telex.dto import DTOConfig, MsgspecDTO
from telex.exceptions import ImproperlyConfiguredException
from tests.channels.conftest import until, within
from tests.contract.servers import Running, ServerKind
from tests.support.live import connected, denied, serving

HUB: dict[str, Any] = {"arbitrary_channels_allowed": True, "history": {"kept:*": Keep(10), "room:*": Keep(10)}}


class Say(msgspec.Struct):
    text: str


@pytest.fixture(params=["uvicorn-websockets", "telex"])
def kind(request: pytest.FixtureRequest) -> ServerKind:
    return ServerKind(request.param)


@asynccontextmanager
async def site(hub: Channels, kind: ServerKind, *handlers: Any) -> AsyncIterator[Running]:
    app = Telex(list(handlers), plugins=[hub], allowed_origins=["*"])
    async with app.lifespan(), serving(app, kind) as running:
        yield running


async def following(hub: Channels, count: int = 1) -> None:
    await until(lambda: hub.statistics().subscribers == count)


async def hear(client: ClientConnection) -> Any:
    return json.loads(await within(client.recv()))


async def ended(client: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as raised:
        await within(client.recv())
    frame = raised.value.rcvd
    assert frame is not None
    return frame.code, frame.reason


async def test_declared_channels_are_served_under_the_base_path(kind: ServerKind) -> None:
    hub = Channels(
        MemoryBackend(),
        channels=["news", "kept:1"],
        history={"kept:*": Keep(10)},
        create_ws_route_handlers=True,
        ws_handler_base_path="/channels",
    )
    async with site(hub, kind) as running, connected(running, "/channels/news") as one:
        async with connected(running, "/channels/news") as two:
            await following(hub, 2)
            for number in range(3):
                await hub.publish("news", {"n": number})
            assert [await hear(one) for _ in range(3)] == [await hear(two) for _ in range(3)]
            await one.send("ignored")
        await following(hub, 1)
        assert (await denied(running, "/channels/other")).status == 404
    assert hub.statistics().subscribers == 0


@pytest.mark.parametrize(("history", "expected"), [(2, [3, 4]), (-1, [0, 1, 2, 3, 4])])
async def test_any_channel_is_served_with_its_history(kind: ServerKind, history: int, expected: list[int]) -> None:
    hub = Channels(
        MemoryBackend(), **HUB, create_ws_route_handlers=True, ws_handler_send_history=history, ws_send_mode="binary"
    )
    async with site(hub, kind) as running:
        for number in range(5):
            await hub.publish("kept:x", {"n": number})
        async with connected(running, "/kept:x") as client:
            heard = [await within(client.recv()) for _ in expected]
            assert heard == [b'{"n":%d}' % number for number in expected]


async def test_generated_handlers_take_layered_options() -> None:
    async def refuse(socket: WebSocket) -> None:
        raise NotAuthorizedException("who are you?")

    hub = Channels("memory://", channels=["a"], create_ws_route_handlers=True, ws_handler_options={"guards": [refuse]})
    async with site(hub, ServerKind("telex")) as running:
        assert (await denied(running, "/a")).status == 401


async def test_a_room_sends_what_its_members_say(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    room = channel_listener("/rooms/{room:str}", channel="room:{room}", history=-1, publish=Say)
    async with site(hub, kind, room) as running, connected(running, "/rooms/1") as ann:
        await following(hub)
        await ann.send('{"text": "hi"}')
        assert await hear(ann) == {"text": "hi"}
        async with connected(running, "/rooms/1") as bob, connected(running, "/rooms/2") as eve:
            assert await hear(bob) == {"text": "hi"}
            await following(hub, 3)
            await bob.send('{"text": 1}')
            error = (await hear(bob))["error"]
            assert (error["code"], error["path"]) == ("invalid_message", "$.text")
            await bob.send(b'{"text": "the other kind of message is ignored"}')
            await bob.send('{"text": "hello"}')
            assert await hear(ann) == await hear(bob) == {"text": "hello"}
            await eve.send('{"text": "alone"}')
            assert await hear(eve) == {"text": "alone"}
            for _ in range(10):
                await eve.send("{")
            for _ in range(10):
                assert "error" in await hear(eve)
            assert (await ended(eve))[0] == 1007


async def test_who_may_not_join_is_refused(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), channels=["room:1"])

    async def known(socket: WebSocket) -> None:
        if "token" not in socket.query_params:
            raise NotAuthorizedException

    room = channel_listener("/rooms/{room:str}", channel="room:{room}", guards=[known])
    async with site(hub, kind, room) as running:
        assert (await denied(running, "/rooms/1")).status == 401
        assert (await denied(running, "/rooms/2?token=1")).status == 404
        assert (await denied(running, "/rooms/1:staff?token=1")).status == 404
        assert (await denied(running, "/rooms/1?token=1&since=nonsense")).status == 400
        async with connected(running, "/rooms/1?token=1"):
            await following(hub)


async def test_binary_data_ends_who_follows_as_text_and_nobody_else(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    text = channel_listener("/text", channel="room:1")
    binary = channel_listener("/binary", channel="room:1", send_mode="binary")
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(site(hub, kind, text, binary))
        one = await stack.enter_async_context(connected(running, "/text"))
        other = await stack.enter_async_context(connected(running, "/binary"))
        await following(hub, 2)
        for data in ("text", b"\xff", "more"):
            await hub.publish("room:1", data)
        assert await within(one.recv()) == "text"
        assert await ended(one) == (1003, "binary data in 'room:1': it needs send_mode='binary'")
        assert [await within(other.recv()) for _ in range(3)] == [b"text", b"\xff", b"more"]
    assert hub.statistics().reconnects == 0


@pytest.mark.long
async def test_a_slow_client_is_closed_with_1013_and_others_are_not(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB, subscriber_max_backlog=20)
    room = channel_listener("/rooms/{room:str}", channel="room:{room}")
    large = json.dumps(os.urandom(50_000).hex())
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(site(hub, kind, room))
        slow = await stack.enter_async_context(connected(running, "/rooms/1", max_queue=1))
        quick = await stack.enter_async_context(connected(running, "/rooms/1", max_queue=None))
        await following(hub, 2)
        for _ in range(1000):
            await hub.publish("room:1", large)
            assert await within(quick.recv()) == large
            if hub.statistics().dropped:
                break
        assert hub.statistics().dropped

        async def drain() -> int:
            try:
                while True:
                    await slow.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006

        assert await within(drain()) == 1013
        await following(hub, 1)


async def test_order_holds_when_the_transport_pushes_back() -> None:
    hub = Channels(MemoryBackend(), **HUB, subscriber_max_backlog=100_000)
    room = channel_listener("/rooms/{room:str}", channel="room:{room}")
    padding = os.urandom(5_000).hex()
    async with site(hub, ServerKind("telex"), room) as running, connected(running, "/rooms/1", max_queue=1) as client:
        await following(hub)
        for number in range(1500):
            await hub.publish("room:1", f"{number}:{padding}")
        for number in range(1500):
            assert str(await within(client.recv())).partition(":")[0] == str(number)
        assert hub.statistics().dropped == 0


async def test_the_hub_is_injected_into_any_handler(kind: ServerKind) -> None:
    @websocket("/say")
    async def say(socket: WebSocket, channels: Channels) -> None:
        async for text in socket.iter_text():
            await channels.publish("room:1", text)

    hub = Channels(MemoryBackend(), **HUB)
    room = channel_listener("/rooms/{room:str}", channel="room:{room}")
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(site(hub, kind, room, say))
        listener = await stack.enter_async_context(connected(running, "/rooms/1"))
        speaker = await stack.enter_async_context(connected(running, "/say"))
        await following(hub)
        await speaker.send("hello")
        assert await within(listener.recv()) == "hello"


def test_a_channel_takes_only_what_the_path_has() -> None:
    room = channel_listener("/rooms", channel="room:{room}")
    with pytest.raises(ImproperlyConfiguredException, match=r"the path '/rooms' has no \{room\}"):
        Telex([room], plugins=[Channels(MemoryBackend(), **HUB)])
    for wrong in ("room:{room:str}", "room:{}", "room:{room", "room}"):
        with pytest.raises(ImproperlyConfiguredException, match="braces may contain only the name of a parameter"):
            channel_listener("/rooms/{room:str}", channel=wrong)


async def test_a_routers_parameters_are_the_channels_too(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    room = channel_listener("/rooms/{room:int}", channel="{tenant}-{room}", publish=str)
    async with site(hub, kind, Router("/of/{tenant:str}", route_handlers=[room])) as running:
        async with connected(running, "/of/acme/rooms/7") as client:
            await following(hub)
            await hub.publish("acme-7", "hello")
            assert await within(client.recv()) == "hello"
        assert (await denied(running, "/of/a:b/rooms/7")).status == 404


async def test_what_is_not_kept_is_said_before_accept(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    async with site(hub, kind, channel_listener("/live/{room:str}", channel="live-{room}")) as running:
        refused = await denied(running, "/live/1?since=x:1")
        assert refused.status == 400
        assert refused.json()["detail"] == "channel 'live-1' keeps no history: omit ?since="
        assert (await denied(running, "/live/1?since=x:99999999999999999999")).status == 400
    options: dict[str, Any] = {"create_ws_route_handlers": True, "ws_handler_send_history": 3}
    with pytest.raises(ImproperlyConfiguredException, match=r"ws_handler_send_history needs history=Keep"):
        Channels(MemoryBackend(), arbitrary_channels_allowed=True, **options)
    with pytest.raises(ImproperlyConfiguredException, match="ws_handler_send_history needs a history of 'a'"):
        Channels(MemoryBackend(), channels=["a"], history={"b": Keep(1)}, **options)
    with pytest.raises(ImproperlyConfiguredException, match="is not a ChannelsBackend: pass one, or a URL"):
        Channels(object(), channels=["a"])  # type: ignore[arg-type]


class Said(msgspec.Struct):
    text: str
    author: str


async def test_what_clients_publish_may_be_stamped_or_left_out(kind: ServerKind) -> None:
    async def stamp(data: Say, socket: WebSocket) -> Said | None:
        if data.text == "leave":
            raise PermissionDeniedException("enough")
        return None if data.text == "spam" else Said(data.text, socket.query_params["as"])

    hub = Channels(MemoryBackend(), **HUB)
    room = channel_listener("/rooms/{room:str}", channel="room:{room}", publish=Say, on_publish=stamp)
    async with site(hub, kind, room) as running, connected(running, "/rooms/1?as=ann") as ann:
        await following(hub)
        for text in ("spam", "hello"):
            await ann.send(json.dumps({"text": text}))
        assert await hear(ann) == {"text": "hello", "author": "ann"}
        await ann.send('{"text": "leave"}')
        assert await ended(ann) == (4403, "enough")
    with pytest.raises(ImproperlyConfiguredException, match="on_publish= without publish="):
        channel_listener("/", channel="c", on_publish=stamp)


@pytest.mark.long
async def test_sockets_leave_no_task(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    room = channel_listener("/rooms/{room:str}", channel="room:{room}")
    async with site(hub, kind, room) as running:
        async with connected(running, "/rooms/1"):
            await following(hub)
        await following(hub, 0)
        tasks = len(asyncio.all_tasks())
        for _ in range(20):
            async with connected(running, "/rooms/1"):
                await following(hub)
            await following(hub, 0)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert hub.statistics().channels == 0


# -- a handler kind like the others


class User(msgspec.Struct):
    name: str


async def user_of(socket: WebSocket) -> User:
    return User(socket.query_params["as"])


async def test_name_presence_and_on_publish_take_dependencies_and_parameters(kind: ServerKind) -> None:
    made: list[str] = []

    def session() -> Iterator[str]:
        made.append("opened")
        yield "db"
        made.append("closed")

    async def named(user: User) -> str:
        return f"room:{user.name}"

    def who(user: User, color: str) -> tuple[str, object]:
        return user.name, {"color": color}

    def stamp(data: Say, user: User, db: str) -> Said:
        return Said(f"{data.text} by {db}", user.name)

    hub = Channels(MemoryBackend(), **HUB, presence=Heartbeat())
    room = channel_listener(
        "/",
        channel=named,
        publish=Say,
        on_publish=stamp,
        presence=who,
        dependencies={"user": user_of, "db": Provide(session, scope="message")},
    )
    async with site(hub, kind, room) as running, connected(running, "/?as=ann&color=red") as ann:
        await until(lambda: len(hub.presence.members("room:ann")) == 1)
        assert hub.presence.members("room:ann")[0].meta == {"color": "red"}
        await ann.send('{"text": "hi"}')
        assert await hear(ann) == {"text": "hi by db", "author": "ann"}
        await until(lambda: made == ["opened", "closed"])
        assert (await denied(running, "/?as=ann")).status == 400


async def test_a_lambda_names_the_channel(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), channels=["of:ann"])
    mine = channel_listener("/", channel=lambda socket: f"of:{socket.query_params['as']}")
    async with site(hub, kind, mine) as running, connected(running, "/?as=ann") as ann:
        await hub.publish("of:ann", "hello")
        assert await within(ann.recv()) == "hello"
        assert (await denied(running, "/?as=bob")).status == 404


class SayDTO(MsgspecDTO[Say]):
    config = DTOConfig(rename_fields={"text": "words"})


async def test_what_clients_publish_is_read_and_written_as_by_a_listener(kind: ServerKind) -> None:
    class Point:
        def __init__(self, text: str) -> None:
            self.x, self.y = map(int, text.split(","))

    hub = Channels(MemoryBackend(), arbitrary_channels_allowed=True)
    said = channel_listener("/said", channel="said", publish=Say, dto=SayDTO, return_dto=None)
    point = channel_listener(
        "/point",
        channel="point",
        publish=Point,
        type_decoders=[(lambda kind: kind is Point, lambda kind, value: kind(value))],
        type_encoders={Point: lambda point: {"x": point.x, "y": point.y}},
    )
    async with (
        site(hub, kind, said, point) as running,
        connected(running, "/said") as one,
        connected(running, "/point") as other,
    ):
        await following(hub, 2)
        await one.send('{"words": "hi"}')
        assert await hear(one) == {"text": "hi"}
        await other.send('"3,4"')
        assert await hear(other) == {"x": 3, "y": 4}


async def test_the_hubs_encoders_hold_where_the_layers_have_none(kind: ServerKind) -> None:
    class Color:
        pass

    def paint(data: str) -> list[object]:
        return [Color(), data]

    hub = Channels(MemoryBackend(), channels=["c"], type_encoders={Color: lambda _: "red"})
    room = channel_listener("/", channel="c", publish=str, on_publish=paint)
    async with site(hub, kind, room) as running, connected(running, "/") as client:
        await following(hub)
        await client.send("x")
        assert await hear(client) == ["red", "x"]


async def test_invalid_messages_and_exceptions_follow_the_layers(kind: ServerKind) -> None:
    def refuse(data: Say) -> Say:
        if data.text == "bad":
            raise KeyError
        return data

    hub = Channels(MemoryBackend(), channels=["c"])
    closing = channel_listener("/closing", channel="c", publish=Say, on_invalid_message="close")
    replying = channel_listener(
        "/replying",
        channel="c",
        publish=Say,
        on_publish=refuse,
        max_invalid_messages=2,
        exception_handlers={
            ValidationException: lambda socket, error: {"wrong": error.path},
            KeyError: lambda socket, error: "not that",
        },
    )
    limited = channel_listener("/limited", channel="c", publish=str, max_message_size=100)
    async with site(hub, kind, closing, replying, limited) as running:
        async with connected(running, "/closing") as client:
            await client.send("{}")
            assert (await ended(client))[0] == 1007
        async with connected(running, "/replying") as client:
            await client.send('{"text": "bad"}')
            assert await within(client.recv()) == "not that"
            for _ in range(2):
                await client.send('{"text": 1}')
                assert await hear(client) == {"wrong": "$.text"}
            assert (await ended(client))[0] == 1007
        async with connected(running, "/limited") as client:
            await client.send("x" * 101)
            assert (await ended(client))[0] == 1009


@pytest.mark.parametrize("receive_mode", ["text", "binary"])
async def test_no_clients_message_ends_another_connection(kind: ServerKind, receive_mode: Any) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    room = channel_listener("/", channel="room:1", publish=str | bytes, receive_mode=receive_mode, history=-1)
    async with site(hub, kind, room) as running, connected(running, "/") as victim, connected(running, "/") as evil:
        await following(hub, 2)
        await evil.send(b"\xff")
        await evil.send("text" if receive_mode == "text" else b"text")
        assert await within(victim.recv()) == "text"
        async with connected(running, "/") as newcomer:
            assert await within(newcomer.recv()) == "text"


async def test_bytes_that_on_publish_gives_end_its_own_client_alone(kind: ServerKind) -> None:
    def convert(data: str) -> bytes:
        return b"\xff" if data == "broken" else data.encode()

    hub = Channels(MemoryBackend(), channels=["c"])
    room = channel_listener("/", channel="c", publish=str, on_publish=convert)
    async with site(hub, kind, room) as running, connected(running, "/") as other, connected(running, "/") as client:
        await following(hub, 2)
        await client.send("good")
        assert await within(client.recv()) == "good"
        await client.send("broken")
        assert (await ended(client))[0] == 1011
        await other.send("still here")
        assert [await within(other.recv()) for _ in range(2)] == ["good", "still here"]


async def test_a_parameter_of_any_kind_is_part_of_a_name(kind: ServerKind) -> None:
    hub = Channels(MemoryBackend(), **HUB)
    slot = channel_listener("/slots/{at:datetime}", channel="slot:{at}")
    async with site(hub, kind, slot) as running, connected(running, "/slots/2026-01-02T10:00:00") as client:
        await following(hub)
        await hub.publish(f"slot:{dt.datetime(2026, 1, 2, 10)}", "free")
        assert await within(client.recv()) == "free"


HERE = r"\(handlers/test_channel\.py:\d+\)"


def takes_a_number(data: int) -> int:
    return data


def yields(data: str) -> Iterator[str]:
    yield data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel": 5}, "channel= is a function, not 5"),
        ({"presence": "ann"}, "presence= is a function, not 'ann'"),
        ({"publish": str, "on_publish": "say"}, "on_publish= is a function, not 'say'"),
        ({"publish": str, "on_publish": yields}, r"on_publish= yields \(.*\) yields: return the value"),
        ({"history": "3"}, "history= is a number of events, not '3'"),
    ],
)
def test_an_option_of_the_wrong_kind_is_an_error_where_it_is_written(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=rf"channel_listener\(channel=.* {HERE}: {message}"):
        channel_listener("/", **{"channel": "c", **options})


async def test_a_function_that_gives_no_name_is_the_apps_error(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Channels(MemoryBackend(), presence=Heartbeat(), **HUB)
    nameless = channel_listener("/nameless", channel=lambda: None)
    faceless = channel_listener("/faceless", channel="c", presence=lambda: ("ann", 1, 2))
    async with site(hub, kind, nameless, faceless) as running:
        assert (await denied(running, "/nameless")).status == 500
        assert (await denied(running, "/faceless")).status == 500
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert len(errors) == 2
    assert re.search(r"channel= .*test_channel.py:\d+\) returned None, which is no channel's name", errors[0])
    assert re.search(r"presence= .*test_channel.py:\d+\) returned \('ann', 1, 2\): return a text, or", errors[1])


@pytest.mark.parametrize(
    ("options", "hub", "message"),
    [
        ({"channel": "other"}, {"channels": ["c"]}, r"no such channel: declare it in Channels\(channels="),
        ({"history": 3}, {"channels": ["c"]}, r"history=3 needs a history.*history=Keep"),
        ({"history": 3}, {"channels": ["c"], "history": {"d*": Keep()}}, "history=3 needs a history"),
        (
            {"channel": "live-{room}", "history": 3},
            {"arbitrary_channels_allowed": True, "history": {"room:*": Keep()}},
            "history=3 needs a history",
        ),
        ({"presence": lambda: "me"}, {"channels": ["c"]}, r"presence= needs Channels\(\.\.\., presence=Heartbeat"),
        ({"dto": SayDTO}, {"channels": ["c"]}, "dto= has no effect: without publish="),
        ({"on_invalid_message": "close"}, {"channels": ["c"]}, "on_invalid_message= has no effect"),
        ({"channel": "x-{nope}"}, {"arbitrary_channels_allowed": True}, r"'/\{room:str\}' has no \{nope\}"),
        ({"publish": str, "on_publish": lambda said: said}, {"channels": ["c"]}, "takes no 'data'"),
        ({"publish": str, "on_publish": takes_a_number}, {"channels": ["c"]}, "takes data: int, but publish= is str"),
        ({"max_backlog": 0}, {"channels": ["c"]}, "an integer of at least 1, not 0"),
        ({"backlog_strategy": "drop"}, {"channels": ["c"]}, "'drop'"),
        ({"on_gap": "ignore"}, {"channels": ["c"]}, "on_gap='ignore'"),
        ({"dependencies": {"user": user_of}}, {"channels": ["c"]}, "no function has a parameter 'user'"),
        ({"dependencies": {"channels": lambda: None}}, {"channels": ["c"]}, "hides the app's plugin"),
    ],
)
def test_a_description_that_cannot_work_is_an_error_when_the_app_is_built(
    options: dict[str, Any], hub: dict[str, Any], message: str
) -> None:
    room = channel_listener("/{room:str}", **{"channel": "c", **options})
    with pytest.raises(ImproperlyConfiguredException, match=rf"channel_listener\(channel=.* {HERE}: .*{message}"):
        Telex([room], plugins=[Channels(MemoryBackend(), **hub)])


@pytest.mark.parametrize(
    "options", [{"on_publish": lambda data: data}, {"receive_mode": "binary"}, {"max_invalid_messages": 3}]
)
def test_options_for_messages_need_publish(options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=rf"channel='c'\) {HERE}: {next(iter(options))}= without"):
        channel_listener("/", channel="c", **options)


def test_without_channels_the_app_is_not_built() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=rf"{HERE}: there are no channels: add plugins="):
        Telex([channel_listener("/", channel="c")])


def test_plans_name_the_users_call_the_channel_and_what_is_published() -> None:
    hub = Channels(MemoryBackend(), channels=["news"], create_ws_route_handlers=True)
    room = channel_listener("/say", channel="news", publish=Say)
    generated, plan = sorted(Telex([room], plugins=[hub]).plans, key=lambda plan: plan.path)
    assert (plan.kind, plan.path, [shape.annotation for shape in plan.receives]) == ("channel", "/say", [Say])
    assert re.fullmatch(rf"channel_listener\(channel='news'\) {HERE}", plan.where)
    assert re.fullmatch(rf"channel_listener\(channel='news'\) {HERE}", generated.where)


def test_the_plan_of_a_route_for_any_channel_shows_its_parameter() -> None:
    hub = Channels(MemoryBackend(), arbitrary_channels_allowed=True, create_ws_route_handlers=True)
    (plan,) = Telex([], plugins=[hub]).plans
    assert re.fullmatch(rf"channel_listener\(channel='{{channel_name}}'\) {HERE}", plan.where)


async def test_a_second_hub_serves_its_own_generated_routes(kind: ServerKind) -> None:
    one = Channels(MemoryBackend(), channels=["one"], create_ws_route_handlers=True)
    two = Channels(MemoryBackend(), channels=["two"], create_ws_route_handlers=True)
    app = Telex([], plugins=[one, two], allowed_origins=["*"])
    async with app.lifespan(), serving(app, kind) as running, connected(running, "/two") as client:
        await following(two)
        await two.publish("two", "hello")
        assert await within(client.recv()) == "hello"


@pytest.mark.parametrize("fails", [False, True])
async def test_the_cleanup_after_a_published_message_is_not_interrupted(kind: ServerKind, fails: bool) -> None:
    steps: list[str] = []
    left = asyncio.Event()

    async def each() -> AsyncIterator[None]:
        try:
            yield
        finally:
            steps.append("cleaning")
            await left.wait()
            await asyncio.sleep(0.2)  # long enough for an interrupt to come
            steps.append("cleaned")

    async def say(data: str, each: None) -> str:
        if fails:
            raise NotAuthorizedException("no")
        return data

    room = channel_listener(
        "/", channel="c", publish=str, on_publish=say, dependencies={"each": Provide(each, scope="message")}
    )
    hub = Channels(MemoryBackend(), channels=["c"])
    async with site(hub, kind, room) as running, connected(running) as client:
        await client.send("x")
        await until(lambda: steps == ["cleaning"])
        client.transport.abort()
        left.set()
        await until(lambda: steps == ["cleaning", "cleaned"])
