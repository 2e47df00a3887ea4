"""The fast path: ``scope["extensions"]["telex.transport"]`` keeps :class:`telex.types.Transport`'s promises."""

from __future__ import annotations

import asyncio

import pytest
import websockets

from telex.exceptions import ConcurrencyError
from telex.server.settings import App
from telex.types import Receive, Scope, Send
from tests.server.apps import echo, ignore, transport_of
from tests.server.conftest import connected, echoes, running
from tests.support.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame


async def test_echoes_to_a_foreign_client(echo_app: App) -> None:
    async with (
        running(echo_app) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/", max_size=None) as client,
    ):
        for message in ("", "hello", "ü€😀" * 700, "x" * 2001, "y" * 200_000, b"", b"\x00\xff" * 40_000):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["in ", "three ", "pieces"])
        assert await client.recv() == "in three pieces"


async def test_replies_of_one_read_leave_in_one_write(echo_app: App) -> None:
    async with running(echo_app) as server, connected(server.port) as client:
        messages = [b"%d" % number for number in range(40)]
        await client.send(b"".join(frame(TEXT, message) for message in messages))
        # One system call, so one segment: the first read has all of them.
        first = await asyncio.get_running_loop().sock_recv(client.socket, 1 << 16)
        assert first == b"".join(frame(TEXT, message, mask=None) for message in messages)


async def test_control_frames_keep_their_place_between_replies(echo_app: App) -> None:
    async with running(echo_app) as server, connected(server.port) as client:
        await client.send(
            frame(TEXT, b"first") + frame(BINARY, b"second", fin=False) + frame(PING, b"!") + frame(CONTINUATION, b".")
        )
        got = [await client.read_frame() for _ in range(3)]
        assert sorted(one.opcode for one in got) == [TEXT, BINARY, PONG]
        assert [one.payload for one in got if one.opcode != PONG] == [b"first", b"second."]


async def test_the_answer_to_the_last_message_leaves_before_the_close(echo_app: App) -> None:
    async with running(echo_app) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"last words") + close_frame(1000))
        assert (await client.read_frame()).payload == b"last words"
        assert (await client.read_frame()).opcode == CLOSE


async def test_messages_that_wait_go_to_a_new_handler_first() -> None:
    handled: list[str | bytes] = []
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        await waiting.wait()
        transport = transport_of(scope)

        def handle(data: str | bytes) -> None:
            handled.append(data)
            if data == "enough":
                transport.set_message_handler(None)

        transport.set_message_handler(handle)
        while (data := await transport.receive()) is not None:
            handled.append(f"received {data!r}")
            ignore(transport.send("done"))

    async with running(app) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(PING))
        assert (await client.read_frame()).opcode == PONG  # so both messages are queued
        waiting.set()
        await client.send(frame(TEXT, b"enough") + frame(TEXT, b"three"))
        assert (await client.read_frame()).payload == b"done"
    assert handled == ["one", "two", "enough", "received 'three'"]


async def test_a_message_that_a_handler_hands_over_is_received_before_those_after_it() -> None:
    handled: list[str | bytes] = []
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        await waiting.wait()
        transport = transport_of(scope)

        def handle(data: str | bytes) -> None:
            if data in {"two", "four"}:
                transport.hand_over(data)
            else:
                handled.append(data)

        for _ in range(2):
            transport.set_message_handler(handle)
            handled.append(f"received {await transport.receive()!r}")
        handled.append(f"received {await transport.receive()!r}")
        ignore(transport.send("done"))

    async with running(app) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(PING))
        assert (await client.read_frame()).opcode == PONG  # so both messages wait in the queue
        waiting.set()
        await client.send(frame(TEXT, b"three") + frame(TEXT, b"four") + frame(TEXT, b"five"))
        assert (await client.read_frame()).payload == b"done"
    assert handled == ["one", "received 'two'", "three", "received 'four'", "received 'five'"]


async def test_a_handler_that_raises_closes_with_1011_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()

        def handle(data: str | bytes) -> None:
            raise ValueError("SECRET")

        transport_of(scope).set_message_handler(handle)
        await send({"type": "websocket.accept"})
        assert (await receive())["code"] == 1011

    async with running(app) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"x") * 3)
        got = await client.read_close()
        assert (got.code, got.reason) == (1011, "")
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


async def test_two_receivers_are_an_error() -> None:
    errors: list[BaseException | str | bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        transport = transport_of(scope)
        errors.extend(await asyncio.gather(transport.receive(), transport.receive(), return_exceptions=True))

    async with running(app) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"one"))
        await client.read_close()
    first, second = errors
    assert first == "one"
    assert isinstance(second, ConcurrencyError)


async def test_sends_after_the_end_raise_oserror() -> None:
    raised: list[type[BaseException]] = []
    finished = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        for again in range(2):
            try:
                await send({"type": "websocket.send", "text": f"too late {again}"})
            except OSError as error:
                raised.append(type(error))
        try:
            transport_of(scope).send("too late")
        except OSError as error:
            raised.append(type(error))
        await send({"type": "websocket.close"})  # harmless
        finished.set()

    async with running(app) as server:
        async with connected(server.port) as client:
            await client.send(close_frame(1000))
            await client.read_close()
        await asyncio.wait_for(finished.wait(), 9)
    assert len(raised) == 3


async def test_a_lone_surrogate_is_the_senders_error_and_harms_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        transport = transport_of(scope)
        for text in ("\ud800", "\ud800" * 3000):
            with pytest.raises(UnicodeEncodeError):
                transport.send(text)
        await echo_rest(scope, receive, send)

    async def echo_rest(scope: Scope, receive: Receive, send: Send) -> None:
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})

    async with running(app) as server, connected(server.port) as client:
        await echoes(client)
