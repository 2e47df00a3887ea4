"""Handlers that take calls and notifies themselves, with ``socket.incoming``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from telex import ImproperlyConfiguredException, Telex, WebSocket, websocket, websocket_listener
from telex.handlers import WebsocketHandler
from tests.contract.servers import ServerKind
from tests.protocol.apps import Journal, Say
from tests.protocol.conftest import calling
from tests.support.leaks import no_leaks
from tests.support.live import asked, asked_json, connected, ending, heard, heard_json, serving


def raw_handler(journal: Journal, *, max_calls: int = 8) -> WebsocketHandler:
    @websocket("/", protocol="telex.v1", max_calls=max_calls)
    async def handler(socket: WebSocket) -> None:
        kept = []
        async for message in socket.incoming(Say):
            text = message.data.text
            journal.note(text)
            if text == "parts":
                await message.stream(numbers(journal))
            elif text == "ask":
                await message.reply(await socket.call("why?", str))
            elif text == "no":
                await message.error("no_such_thing", "there is none", {"n": 1})
            elif text == "badly":
                with pytest.raises(ValueError, match="code of an error is a word"):
                    await message.error("No such thing!")
                await message.error("no_such_thing")
            elif text == "keep":
                kept.append(message)
            elif text == "fail":
                await message.stream(failing())
            else:
                await message.reply(text.upper() if message.wants_answer else None)
                await message.reply("a second answer")
        journal.note(f"left {len([each for each in kept if each.is_answered])}")

    return handler


async def numbers(journal: Journal) -> AsyncGenerator[int, None]:
    try:
        for number in range(20):
            yield number
    finally:
        journal.note("closed")


async def failing() -> AsyncIterator[int]:
    yield 1
    raise ValueError("a secret")


async def test_a_handler_answers_the_calls_that_it_takes(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(Telex([raw_handler(journal)]), "/", kind) as caller:
        assert caller.hello["type"] == "hello"
        assert await caller.call(say("a")) == {"type": "reply", "id": 1, "data": "A"}
        await caller.send({"type": "notify", "data": say("b")})
        assert await caller.call(say("no")) == {
            "type": "error",
            "id": 2,
            "error": {"code": "no_such_thing", "message": "there is none", "data": {"n": 1}},
        }
        await caller.begin(say("ask"))
        asked_for = await caller.receive()
        assert asked_for == {"type": "call", "id": 1, "data": "why?"}
        await caller.send({"type": "reply", "id": 1, "data": "because"})
        assert await caller.receive() == {"type": "reply", "id": 3, "data": "because"}
    await journal.until("left 0")
    assert journal.entries == ["a", "b", "no", "ask", "left 0"]


async def test_a_code_of_another_form_is_not_sent(kind: ServerKind) -> None:
    async with calling(Telex([raw_handler(Journal())]), "/", kind) as caller:
        assert (await caller.call(say("badly")))["error"]["code"] == "no_such_thing"
    async with serving(Telex([raw_handler(Journal())]), kind) as running, connected(running) as client:
        assert json.loads(await asked(client, json.dumps(say("badly"))))["error"]["code"] == "no_such_thing"


async def test_data_of_another_type_is_answered_with_an_error(kind: ServerKind) -> None:
    async with calling(Telex([raw_handler(Journal())]), "/", kind) as caller:
        answer = await caller.call({"type": "say", "text": 5})
        assert (answer["error"]["code"], answer["error"]["path"]) == ("invalid_message", "$.text")
        assert (await caller.call(say("fine")))["data"] == "FINE"
        for _ in range(10):
            assert (await caller.call(1))["error"]["code"] == "invalid_message"
        assert (await ending(caller.client))[0] == 1007


async def test_parts_wait_for_credit_and_end_with_a_cancel(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(Telex([raw_handler(journal)]), "/", kind) as caller:
        call_id = await caller.begin(say("parts"))
        assert [(await caller.receive())["data"] for _ in range(16)] == list(range(16))
        await caller.send({"type": "more", "id": call_id, "n": 9})
        assert [(await caller.receive())["type"] for _ in range(5)] == ["item"] * 4 + ["end"]
        call_id = await caller.begin(say("parts"))
        for _ in range(16):
            await caller.receive()
        await caller.send({"type": "cancel", "id": call_id})
        assert (await caller.receive())["error"]["code"] == "cancelled"
        assert (await caller.call(say("on")))["data"] == "ON"
        failing = await caller.begin(say("fail"))
        assert (await caller.receive())["type"] == "item"
        assert (await caller.receive())["error"] == {"code": "internal", "message": "internal error"}
        assert failing == 4
        assert (await caller.call(say("on")))["data"] == "ON"
    assert journal.entries.count("closed") == 2


async def test_a_call_that_nobody_answers_is_cancelled_and_bounded(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(Telex([raw_handler(journal, max_calls=2)]), "/", kind) as caller:
        first, second = await caller.begin(say("keep")), await caller.begin(say("keep"), timeout=0.02)
        assert (await caller.receive())["error"]["code"] == "timeout"
        third, fourth = await caller.begin(say("keep")), await caller.begin(say("keep"))
        refused = await caller.receive()
        assert (refused["id"], refused["error"]["code"]) == (fourth, "too_many_calls")
        await caller.send({"type": "cancel", "id": first})
        assert (await caller.receive())["id"] == first
        assert (second, third) == (2, 3)
    await journal.until("left 2")


async def test_nothing_is_left_when_the_client_goes(kind: ServerKind) -> None:
    journal = Journal()
    app = Telex([raw_handler(journal)])
    async with serving(app, kind) as running:
        async with connected(running, "/", subprotocols=["telex.v1"]):
            pass
        await journal.until("left 0")
        for text in ("keep", "parts", "ask"):
            async with no_leaks(), connected(running, "/", subprotocols=["telex.v1"]) as client:
                await heard(client)
                await client.send(json.dumps({"type": "call", "id": 1, "data": say(text), "timeout": 60}))
                await journal.until(text)
                client.transport.abort()
        assert not tuple(app.connections)


async def test_the_same_handler_serves_plain_clients(kind: ServerKind) -> None:
    async with serving(Telex([raw_handler(Journal())]), kind) as running, connected(running, "/") as client:
        assert await asked(client, json.dumps(say("ask again"))) == "a second answer"
        assert await asked_json(client, say("no")) == {
            "type": "error",
            "error": {"code": "no_such_thing", "message": "there is none", "data": {"n": 1}},
        }
        await client.send(json.dumps(say("parts")))
        assert [await heard_json(client) for _ in range(20)] == list(range(20))
        for _ in range(9):
            assert (await asked_json(client, 1))["error"]["code"] == "invalid_message"
        await client.send("nonsense")
        assert (await heard_json(client))["error"]["code"] == "invalid_message"
        assert (await ending(client))[0] == 1007


async def test_plain_code_receives_the_data_of_frames(kind: ServerKind) -> None:
    @websocket("/", protocol="telex.v1")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        received = [await socket.receive_text(), await socket.receive_json(), await socket.receive_bytes()]
        await socket.send_json([str(each) for each in received])

    async with calling(Telex([handler]), "/", kind) as caller:
        await caller.send({"type": "notify", "data": "a"})
        assert await caller.call([1]) == {"type": "reply", "id": 1}
        header = b'{"type":"notify"}'
        await caller.client.send(len(header).to_bytes(4, "big") + header + b"\x00")
        assert await caller.receive() == {"type": "notify", "data": ["a", "[1]", "b'\\x00'"]}
        assert (await ending(caller.client))[0] == 1000


async def test_protocol_goes_before_the_subprotocols_that_a_handler_names(kind: ServerKind) -> None:
    async def accept(socket: WebSocket) -> None:
        await socket.accept(["chat"])

    @websocket_listener("/listener", protocol="telex.v1", connection_accept_handler=accept)
    async def listener(data: str) -> str:
        return data

    @websocket("/raw", protocol="telex.v1")
    async def raw(socket: WebSocket) -> None:
        await socket.accept("chat")
        await socket.notify(socket.envelope is not None)

    app = Telex([listener, raw])
    async with serving(app, kind) as running:
        for path in ("/listener", "/raw"):
            async with connected(running, path, subprotocols=["chat", "telex.v1"]) as client:
                assert client.subprotocol == "telex.v1"
                assert (await heard_json(client))["type"] == "hello"
            async with connected(running, path, subprotocols=["chat"]) as client:
                assert client.subprotocol == "chat"


async def test_a_raw_handler_without_protocol_stays_in_plain_mode(kind: ServerKind) -> None:
    @websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("plain")

    app = Telex([handler])
    async with serving(app, kind) as running, connected(running, "/", subprotocols=["telex.v1"]) as client:
        assert client.subprotocol is None
        assert await heard(client) == "plain"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"protocol": "chat"}, r"protocol= is 'telex.v1', not 'chat': pass other subprotocols to socket.accept"),
        ({"max_calls": 3}, r"max_calls= has no effect: this handler speaks no frames: add protocol='telex.v1'"),
        ({"protocol": "telex.v1", "dto": None, "return_dto": 1}, r"is no DTO"),
    ],
)
def test_what_a_raw_handler_cannot_honour_is_an_error(options: dict[str, object], problem: str) -> None:
    async def handler(socket: WebSocket) -> None:
        await asyncio.sleep(0)

    def build() -> Telex:
        return Telex([websocket("/", **options)(handler)])  # type: ignore[arg-type]

    with pytest.raises(ImproperlyConfiguredException, match=problem):
        build()


def say(text: str) -> dict[str, str]:
    return {"type": "say", "text": text}
