"""Streams on connections that speak telex.v1: their values are notifies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from telex import Telex, WebSocket, send_websocket_stream, websocket, websocket_listener, websocket_stream
from tests.contract.servers import ServerKind
from tests.protocol.apps import Journal, Said
from tests.protocol.conftest import calling
from tests.support.live import connected, ending, heard, serving


def stream_app(journal: Journal, *, discard: bool = False) -> Telex:
    @websocket_stream("/ends")
    async def ends() -> AsyncGenerator[Said | str | bytes, None]:
        yield Said("one", 1)
        yield "123"
        yield b"\x00"

    @websocket_stream("/endless", allow_data_discard=discard)
    async def endless() -> AsyncGenerator[int, None]:
        journal.note("begin")
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            journal.note("closed")

    @websocket_stream("/answers")
    async def answers(socket: WebSocket) -> AsyncGenerator[str, None]:
        async for message in socket.incoming(str):
            await message.reply(len(message.data))
            yield message.data.upper()

    return Telex([ends, endless, answers])


async def test_values_are_notifies_and_the_end_closes(kind: ServerKind) -> None:
    async with calling(stream_app(Journal()), "/ends", kind) as caller:
        assert [await caller.receive() for _ in range(3)] == [
            {"type": "notify", "data": {"text": "one", "number": 1}},
            {"type": "notify", "data": "123"},
            {"type": "notify", "bytes": b"\x00"},
        ]
        assert (await ending(caller.client))[0] == 1000


@pytest.mark.parametrize("discard", [False, True])
async def test_a_call_to_a_stream_that_receives_nothing_is_answered(kind: ServerKind, discard: bool) -> None:
    journal = Journal()
    async with calling(stream_app(journal, discard=discard), "/endless", kind) as caller:
        assert await caller.receive() == {"type": "notify", "data": 1}
        for number in range(1, 101):
            answer = await caller.call("x")
            assert (answer["id"], answer["error"]["code"]) == (number, "not_found")
        await caller.quiet()
        await caller.send({"type": "notify", "data": "x"})
        if discard:
            await caller.quiet()
        else:
            assert (await ending(caller.client))[0] == 1003
    await journal.until("closed")


async def test_discarded_notifies_give_their_credit_back(kind: ServerKind) -> None:
    async with calling(stream_app(Journal(), discard=True), "/endless", kind) as caller:
        assert (await caller.receive())["data"] == 1
        for _ in range(200):
            await caller.send({"type": "notify", "data": "x"})
        frames = [await caller.receive() for _ in range(12)]
        assert frames == [{"type": "credit", "n": 16}] * 12


async def test_a_stream_that_takes_the_socket_answers_calls(kind: ServerKind) -> None:
    async with calling(stream_app(Journal()), "/answers", kind) as caller:
        await caller.begin("abc")
        assert await caller.receive() == {"type": "reply", "id": 1, "data": 3}
        assert await caller.receive() == {"type": "notify", "data": "ABC"}
        await caller.send({"type": "notify", "data": "d"})
        assert await caller.receive() == {"type": "notify", "data": "D"}


async def test_the_generator_is_closed_when_the_client_goes(kind: ServerKind) -> None:
    journal = Journal()
    app = stream_app(journal)
    async with calling(app, "/endless", kind) as caller:
        await journal.until("begin")
        caller.client.transport.abort()
        await journal.until("closed")


@pytest.mark.parametrize("listens", [False, True])
async def test_a_stream_that_a_handler_sends_is_in_frames(kind: ServerKind, listens: bool) -> None:
    async def values() -> AsyncGenerator[object, None]:
        yield {"a": 1}
        yield "text"

    @websocket("/", protocol="telex.v1")
    async def handler(socket: WebSocket) -> None:
        await send_websocket_stream(socket, values(), listen_for_disconnect=listens)

    async with calling(Telex([handler]), "/", kind) as caller:
        assert [(await caller.receive())["data"] for _ in range(2)] == [{"a": 1}, "text"]
        assert (await ending(caller.client))[0] == 1000


async def test_a_listener_answers_calls_beside_its_stream(kind: ServerKind) -> None:
    async def ticks() -> AsyncGenerator[int, None]:
        for number in itertools.count():
            yield number
            await asyncio.sleep(0.005)

    async def begin(socket: WebSocket) -> None:
        socket.start_stream(ticks())

    @websocket_listener("/", on_accept=begin)
    async def listener(data: str) -> str:
        return data.upper()

    async with calling(Telex([listener]), "/", kind) as caller:
        assert await caller.receive() == {"type": "notify", "data": 0}
        await caller.begin("a")
        while (found := await caller.receive())["type"] == "notify":
            pass
        assert found == {"type": "reply", "id": 1, "data": "A"}
        assert (await caller.receive())["type"] == "notify"


async def test_an_accept_hook_asks_the_client(kind: ServerKind) -> None:
    async def greet(socket: WebSocket) -> None:
        await socket.notify("hello " + await socket.call("who?", str, timeout=5))

    @websocket_listener("/", on_accept=greet)
    async def listener(data: str) -> str:
        return data.upper()

    async with calling(Telex([listener]), "/", kind) as caller:
        asked = await caller.receive()
        await caller.begin("early")  # waits until the hook has run
        await caller.send({"type": "reply", "id": asked["id"], "data": "ada"})
        assert await caller.receive() == {"type": "notify", "data": "hello ada"}
        assert await caller.receive() == {"type": "reply", "id": 1, "data": "EARLY"}


async def test_a_stream_without_the_subprotocol_is_plain(kind: ServerKind) -> None:
    async with serving(stream_app(Journal()), kind) as running, connected(running, "/ends") as client:
        assert [await heard(client) for _ in range(2)] == ['{"text":"one","number":1}', "123"]


async def test_an_exception_handler_asks_the_client(kind: ServerKind) -> None:
    async def ask(socket: WebSocket, _: Exception) -> str:
        return f"because {await socket.call('why?', str, timeout=5)}"

    @websocket_listener("/", exception_handlers={ValueError: ask})
    async def listener(data: str) -> str:
        raise ValueError(data)

    async with calling(Telex([listener]), "/", kind) as caller:
        for _ in range(2):
            call_id = await caller.begin("x")
            question = await caller.receive()
            await caller.send({"type": "reply", "id": question["id"], "data": "of that"})
            answer = await caller.receive()
            assert (answer["id"], answer["error"]["data"]) == (call_id, "because of that")


async def test_a_handler_that_waits_in_every_way_is_cancelled(kind: ServerKind) -> None:
    journal = Journal()

    @websocket_listener("/")
    async def listener(data: str) -> str:
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
                await asyncio.sleep(0)
                assert asyncio.current_task() is task
                if data == "wait":
                    journal.note("waits")
                    await asyncio.gather(asyncio.sleep(30), asyncio.Event().wait())
            return data
        finally:
            journal.note("ended")

    async with calling(Telex([listener]), "/", kind) as caller:
        for number in range(1, 4):
            assert (await caller.call("quick"))["data"] == "quick"
            call_id = await caller.begin("wait")
            await journal.until("waits", number)
            await caller.send({"type": "cancel", "id": call_id})
            assert (await caller.receive())["error"]["code"] == "cancelled"
        await caller.quiet()
    assert journal.entries.count("ended") == 6
