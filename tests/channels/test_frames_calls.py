"""Calls to channel listeners: to publish, and to read the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from telex import NotAuthorizedException, Provide, Telex, WebSocket, channel_listener
from telex.channels import Channels, Keep, MemoryBackend
from telex.dto import DTOConfig, MsgspecDTO
from telex.exceptions import ImproperlyConfiguredException, ValidationException
from telex.protocol.envelope import SUBPROTOCOL
from tests.channels.conftest import Engine, until, within
from tests.channels.framed import HUB, TELEX, following, on, room, site
from tests.contract.servers import ServerKind
from tests.support.live import connected, denied, ending


class Say(msgspec.Struct):
    text: str


class NoSuchRoom(Exception):
    """An error that callers may see."""


@pytest.fixture(params=["uvicorn-websockets", "telex"])
def kind(request: pytest.FixtureRequest) -> ServerKind:
    return ServerKind(request.param)


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
