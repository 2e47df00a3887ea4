"""Sending and receiving over a connection."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import msgspec
import pytest

from telex.exceptions import ConnectionStateError, SerializationException, WebSocketDisconnect
from telex.testing import AsyncTestClient
from telex.types import Mode, Receive, Scope, Send

from .apps import (
    ACCEPT,
    SENT,
    Lifespanned,
    echo,
    echo_unless_lifespan,
    says,
    sends,
    silent,
    until_disconnect,
    websocket_app,
)


@dataclass
class Point:
    x: int
    y: int


async def test_each_kind_of_message_is_sent_and_received() -> None:
    async with AsyncTestClient(echo) as client, client.websocket_connect("/") as session:
        await session.send_text("grüße")
        assert await session.receive_text() == "grüße"
        await session.send_bytes(b"\x00\xff")
        assert await session.receive_bytes() == b"\x00\xff"
        await session.send_json(Point(1, 2))
        assert await session.receive_json() == {"x": 1, "y": 2}
        await session.send_json("plain", mode="binary")
        assert await session.receive_json(mode="binary") == "plain"
        await session.send_msgpack([1, b"two"])
        assert await session.receive_msgpack() == [1, b"two"]
        await session.send_raw({"type": "websocket.receive", "text": "raw", "bytes": None})
        assert await session.receive() == {"type": "websocket.send", "text": "raw", "bytes": None}


@pytest.mark.parametrize(("data", "mode", "key", "sent"), [
    ("a", "text", "text", "a"),
    (b"a", "text", "text", "a"),
    ("a", "binary", "bytes", b"a"),
    (b"a", "binary", "bytes", b"a"),
])  # fmt: skip
async def test_send_uses_the_kind_of_frame_that_the_mode_determines(
    data: str | bytes, mode: Mode, key: str, sent: object
) -> None:
    async with AsyncTestClient(echo) as client, client.websocket_connect("/") as session:
        await session.send(data, mode)
        assert await session.receive() == {"type": "websocket.send", key: sent}


async def test_send_chooses_the_frame_by_the_value() -> None:
    async with AsyncTestClient(echo).websocket_connect("/") as session:
        for value, event in SENT:
            await session.send(value)
            assert await session.receive() == {"type": "websocket.send", **event}
        await session.send({"a": 1}, mode="binary")
        assert await session.receive_bytes() == b'{"a":1}'
        await session.send_bytes(bytearray(b"b"))
        assert await session.receive_bytes() == b"b"


async def test_without_async_with_the_app_serves_and_its_lifespan_does_not_run() -> None:
    app = Lifespanned()
    client = AsyncTestClient(echo_unless_lifespan(app))
    async with client.websocket_connect("/") as session:
        await session.send("a")
        await session.expect("a")
    assert app.diary == []
    session = await client.websocket_connect("/")
    await session.aclose()
    async with client:
        assert app.diary == ["startup"]


async def test_models_of_pydantic_are_sent_as_json() -> None:
    from pydantic import BaseModel

    class Model(BaseModel):
        x: int

    async with AsyncTestClient(echo) as client, client.websocket_connect("/") as session:
        await session.send_json(Model(x=1))
        await session.expect(Model(x=1))
        await session.send_json(Model(x=1))
        assert await session.expect(Model) == Model(x=1)


async def test_the_error_for_a_frame_of_the_wrong_kind_names_both_kinds() -> None:
    async with AsyncTestClient(says("a", b"b", "c", b"d")) as client, client.websocket_connect("/") as session:
        with pytest.raises(AssertionError, match="expected a binary message, got text 'a'"):
            await session.receive_bytes()
        with pytest.raises(AssertionError, match="expected a text message, got binary b'b'"):
            await session.receive_text()
        with pytest.raises(AssertionError, match="expected a binary message, got text 'c'"):
            await session.receive_json(mode="binary")
        with pytest.raises(AssertionError, match="expected a text message, got binary b'd'"):
            await session.receive_json()


async def test_the_error_shows_a_message_that_cannot_be_decoded() -> None:
    async with AsyncTestClient(says("{", b"\xc1")) as client, client.websocket_connect("/") as session:
        with pytest.raises(SerializationException, match=r"'\{'"):
            await session.receive_json()
        with pytest.raises(SerializationException, match="xc1"):
            await session.receive_msgpack()


async def test_a_receive_without_a_message_times_out_and_names_the_line_where_the_app_waits() -> None:
    async with AsyncTestClient(silent) as client, client.websocket_connect("/", timeout=0.05) as session:
        with pytest.raises(
            TimeoutError, match=r"no message came from .*app within 0\.05 s; it waits in until_disconnect \(.*:\d+"
        ):
            await session.receive_text()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            await session.receive(timeout=0.01)
        with pytest.raises(TimeoutError, match="within 0 s"):
            await session.receive_json(block=False)
        assert time.monotonic() - started < 5


async def test_without_blocking_a_waiting_message_is_received() -> None:
    async with AsyncTestClient(says("a", "b")) as client, client.websocket_connect("/") as session:
        await session.receive_text()
        await session.refute("c", timeout=0.01)
        assert await session.receive_text(block=False) == "b"


async def test_each_call_after_a_close_by_the_app_raises_its_code_and_reason() -> None:
    app = sends(dict(ACCEPT), {"type": "websocket.close", "code": 4001, "reason": "bye"})
    async with AsyncTestClient(app) as client, client.websocket_connect("/") as session:
        for receive in (session.receive, session.receive_text, session.receive_json):
            with pytest.raises(WebSocketDisconnect) as caught:
                await receive()
            assert (caught.value.code, caught.value.reason) == (4001, "bye")
        with pytest.raises(WebSocketDisconnect):
            await session.send_text("too late")


async def test_a_close_without_code_and_reason_is_1000() -> None:
    app = sends(dict(ACCEPT), {"type": "websocket.close", "reason": None})
    async with AsyncTestClient(app) as client, client.websocket_connect("/") as session:
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive()
    assert (caught.value.code, caught.value.reason) == (1000, "")


async def test_iteration_ends_at_the_close() -> None:
    app = sends(
        dict(ACCEPT),
        {"type": "websocket.send", "text": "a"},
        {"type": "websocket.send", "bytes": b"b", "text": None},
        {"type": "websocket.close"},
    )
    async with AsyncTestClient(app) as client, client.websocket_connect("/") as session:
        assert [message async for message in session] == ["a", b"b"]


async def test_the_app_gets_the_code_and_the_reason_of_the_clients_close() -> None:
    seen = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        seen.append(await receive())

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        await session.close(4000, "done")
        await session.close()  # harmless
        with pytest.raises(ConnectionStateError, match="after close"):
            await session.send_text("too late")
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive()
        assert caught.value.code == 4000
    assert seen == [{"type": "websocket.disconnect", "code": 4000, "reason": "done"}]


@pytest.mark.parametrize(("code", "reason", "wrong"), [
    (1005, "", "the code 1005"),
    (1000, "x" * 124, "at most 123 bytes"),
    (True, "", "the code True"),
])  # fmt: skip
async def test_a_close_with_an_invalid_code_or_reason_is_an_error(code: int, reason: str, wrong: str) -> None:
    async with AsyncTestClient(silent) as client, client.websocket_connect("/") as session:
        with pytest.raises(ValueError, match=wrong):
            await session.close(code, reason)


async def test_a_raw_disconnect_event_ends_the_connection() -> None:
    seen: list[object] = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        seen.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "to nobody"})
        except OSError as error:
            seen.append(str(error))

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        await session.send_raw({"type": "websocket.disconnect", "code": 1006})
        with pytest.raises(WebSocketDisconnect) as caught:
            await session.receive()
        assert caught.value.code == 1006
    assert seen == [{"type": "websocket.disconnect", "code": 1006}, "the client has closed the connection"]


async def test_the_end_of_a_session_disconnects_with_1000_and_waits_for_the_app() -> None:
    seen = []
    go = asyncio.Event()

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        event = await until_disconnect(receive)
        asyncio.get_running_loop().call_soon(go.set)
        await go.wait()  # what it still has to do
        seen.append(event)

    async with AsyncTestClient(websocket_app(conversation)) as client:
        async with client.websocket_connect("/"):
            pass
        assert len(seen) == 1
    assert seen == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]


async def test_messages_sent_before_the_close_are_still_read() -> None:
    seen = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        seen.append((await receive())["text"])
        seen.append((await receive())["type"])

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        await session.send_text("last words")
        await session.close()
    assert seen == ["last words", "websocket.disconnect"]


async def test_the_app_receives_its_own_close_back() -> None:
    seen = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await send({"type": "websocket.close", "code": 3000, "reason": "mine"})
        seen.append(await receive())

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        await session.expect(WebSocketDisconnect)
    assert seen == [{"type": "websocket.disconnect", "code": 3000, "reason": "mine"}]


async def test_a_message_to_an_app_that_has_closed_is_dropped() -> None:
    app = sends(dict(ACCEPT), {"type": "websocket.close"})
    async with AsyncTestClient(app) as client, client.websocket_connect("/") as session:
        await session.refute(timeout=0.01)
        for _ in range(200):
            await session.send_text("into the void")
        with pytest.raises(WebSocketDisconnect):
            await session.receive()


async def test_the_sends_of_the_app_wait_if_the_test_does_not_receive() -> None:
    sent = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        for number in range(10):
            await send({"type": "websocket.send", "text": str(number)})
            sent.append(number)

    client = AsyncTestClient(websocket_app(conversation), max_queued=3)
    async with client, client.websocket_connect("/") as session:
        await session.refute("no such", timeout=0.05)
        assert len(sent) == 3
        await session.expect("0")
        await session.refute("no such", timeout=0.05)
        assert len(sent) == 4
        for number in range(1, 10):
            await session.expect(str(number))


async def test_a_blocked_send_of_the_app_raises_when_the_client_leaves() -> None:
    ended = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        try:
            while True:
                await send({"type": "websocket.send", "text": "more"})
        except OSError:
            ended.append(True)

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        await session.expect("more")
    assert ended == [True]


async def sent(send: Send, number: int) -> None:
    await send({"type": "websocket.send", "text": str(number)})


async def test_concurrent_sends_of_the_app_keep_their_order() -> None:
    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(sent(send, number))

    client = AsyncTestClient(websocket_app(conversation), max_queued=1)
    async with client, client.websocket_connect("/") as session:
        assert [await session.receive_text() for _ in range(20)] == [str(number) for number in range(20)]


async def test_a_send_waits_if_the_app_does_not_read_and_its_timeout_says_so() -> None:
    go = asyncio.Event()

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await go.wait()
        await until_disconnect(receive)

    client = AsyncTestClient(websocket_app(conversation), max_queued=2)
    async with client, client.websocket_connect("/", timeout=0.05) as session:
        await session.send_text("1")
        await session.send_text("2")
        with pytest.raises(
            TimeoutError, match=r"did not read one of its 2 waiting messages \(max_queued\).* in .*conversation"
        ):
            await session.send_text("3")
        go.set()
        await session.send_text("4")


async def test_two_receivers_get_a_message_each() -> None:
    async with AsyncTestClient(echo) as client, client.websocket_connect("/") as session:
        receivers = [asyncio.create_task(session.receive_text()) for _ in range(2)]
        await session.send_text("a")
        await session.send_text("b")
        assert sorted(await asyncio.gather(*receivers)) == ["a", "b"]


async def test_a_session_can_be_awaited_entered_or_both() -> None:
    async with AsyncTestClient(echo) as client:
        async with await client.websocket_connect("/") as session:
            await session.send_text("a")
            await session.expect("a")
        session = await client.websocket_connect("/")
        await session.send_text("b")
        await session.expect("b")
        await session.aclose()
        await session.aclose()  # harmless


async def test_nothing_is_sent_or_received_before_the_handshake() -> None:
    async with AsyncTestClient(echo) as client:
        session = client.websocket_connect("/")
        with pytest.raises(ConnectionStateError, match="not connected yet"):
            await session.send_text("a")
        with pytest.raises(ConnectionStateError, match="not connected yet"):
            await session.receive()
        await session.close()  # there is nothing to close
        await session.aclose()


async def test_structs_keep_their_tags() -> None:
    class Move(msgspec.Struct, tag="move"):
        x: int

    async with AsyncTestClient(echo) as client, client.websocket_connect("/") as session:
        await session.send_json(Move(1))
        assert await session.receive_json() == {"type": "move", "x": 1}
