"""``expect`` and ``refute``."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from telex.exceptions import ImproperlyConfiguredException, WebSocketDisconnect
from telex.testing import AsyncTestClient
from telex.types import Mode, Receive, Scope, Send

from .apps import ACCEPT, fails_with, says, sends, silent, until_disconnect, websocket_app


class Move(msgspec.Struct, tag="move"):
    x: int


class Say(msgspec.Struct, tag="say"):
    text: str


def is_short(message: str | bytes) -> bool:
    return len(message) < 3


@pytest.mark.parametrize(("message", "expected", "mode", "returned"), [
    ("hello", "hello", "text", "hello"),
    (b"hello", b"hello", "text", b"hello"),
    ("hello", str, "text", "hello"),
    (b"hello", bytes, "text", b"hello"),
    ("7", int, "text", 7),
    ('{"type":"say","text":"hi"}', Say, "text", Say("hi")),
    (b'{"type":"say","text":"hi"}', Say, "binary", Say("hi")),
    ('{"type":"move","x":1}', Move | Say, "text", Move(1)),
    ('{"a":[1]}', dict[str, list[int]], "text", {"a": [1]}),
    ("ab", is_short, "text", "ab"),
    (b"ab", is_short, "text", b"ab"),
    ('{"a": [1, true, null]}', {"a": [1, True, None]}, "text", {"a": [1, True, None]}),
    ("[1.0]", [1], "text", [1]),
    (b"[1]", [1], "binary", [1]),
    ("null", None, "text", None),
    ('{"type":"say","text":"hi"}', Say("hi"), "text", Say("hi")),
])  # fmt: skip
async def test_expect_returns_the_expected_message(
    message: str | bytes, expected: Any, mode: Mode, returned: object
) -> None:
    async with AsyncTestClient(says(message)) as client, client.websocket_connect("/") as session:
        assert await session.expect(expected, mode=mode) == returned


@pytest.mark.parametrize(("message", "expected", "text"), [
    ("hullo", "hello", "expected text 'hello', got text 'hullo'"),
    (b"hello", "hello", "expected text 'hello', got binary b'hello'"),
    ("hello", b"hello", "expected binary b'hello', got text 'hello'"),
    ("hello", bytes, "expected a binary message, got text 'hello'"),
    (b"hello", str, "expected a text message, got binary b'hello'"),
    ('"seven"', int, "expected a int, got text '\"seven\"': Expected `int`, got `str`"),
    ("{", Say, "expected a Say, got text '{': Input data was truncated"),
    ('{"type":"x"}', Move | Say, "expected a tests.testing.test_expect.Move | tests.testing.test_expect.Say, got text"),
    ("abc", is_short, "expected a message that satisfies is_short, got text 'abc'"),
    ('{"a": 2}', {"a": 1}, "expected JSON {'a': 1}, got text '{\"a\": 2}'"),
    ('{"a": 1, "b": 2}', {"a": 1}, "expected JSON {'a': 1}, got text"),
    ("[1]", [1, 2], "expected JSON [1, 2], got text '[1]'"),
    ("1", True, "expected JSON True, got text '1'"),
    ("not JSON", {"a": 1}, "expected JSON {'a': 1}, got text 'not JSON'"),
    (b"[1]", [1], "expected a text message, got binary b'[1]'"),
    ("hello", WebSocketDisconnect, "expected a close, got text 'hello'"),
    ("x" * 1000, "y", "... (1002 characters)"),
])  # fmt: skip
async def test_the_error_shows_the_message_that_came_instead(message: str | bytes, expected: Any, text: str) -> None:
    async with AsyncTestClient(says(message)) as client, client.websocket_connect("/") as session:
        with pytest.raises(AssertionError) as caught:
            await session.expect(expected)
        assert text in str(caught.value)


async def test_a_close_can_be_expected() -> None:
    app = sends(dict(ACCEPT), {"type": "websocket.close", "code": 4000, "reason": "why"})
    async with AsyncTestClient(app) as client, client.websocket_connect("/") as session:
        closed = await session.expect(WebSocketDisconnect)
        assert (closed.code, closed.reason) == (4000, "why")
        with pytest.raises(AssertionError, match=r"expected text 'a', but the connection is closed: .*4000, 'why'"):
            await session.expect("a")


async def test_the_error_shows_a_close_that_came_instead() -> None:
    app = sends(dict(ACCEPT), {"type": "websocket.close", "code": 4000, "reason": "why"})
    async with AsyncTestClient(app) as client, client.websocket_connect("/") as session:
        with pytest.raises(AssertionError, match="expected text 'a', got a close with 4000 'why'"):
            await session.expect("a")


async def test_the_text_of_a_timeout_has_the_expected_message() -> None:
    async with AsyncTestClient(silent) as client, client.websocket_connect("/") as session:
        with pytest.raises(TimeoutError, match=r"expected a Say, nothing came from .*app within 0\.01 s"):
            await session.expect(Say, timeout=0.01)


async def test_expecting_an_unreadable_type_is_a_configuration_error() -> None:
    async with AsyncTestClient(says("1")) as client, client.websocket_connect("/") as session:
        with pytest.raises(ImproperlyConfiguredException):
            await session.expect(dict[str, int] | dict[int, str] | Say)


async def test_an_exception_of_a_predicate_is_raised_unchanged() -> None:
    def broken(message: str | bytes) -> bool:
        raise LookupError(message)

    async with AsyncTestClient(says("1")) as client, client.websocket_connect("/") as session:
        with pytest.raises(LookupError):
            await session.expect(broken)


async def test_a_disconnect_exception_that_the_app_raises_is_not_a_close() -> None:
    async with AsyncTestClient(fails_with(WebSocketDisconnect(4444), dict(ACCEPT))) as client:
        async with client.websocket_connect("/") as session:
            with pytest.raises(WebSocketDisconnect, match=r"^$") as caught:
                await session.expect("a")
            assert caught.value.code == 4444
        async with client.websocket_connect("/") as session:
            with pytest.raises(WebSocketDisconnect):
                _ = [message async for message in session]


async def test_refute_returns_if_no_message_comes() -> None:
    async with AsyncTestClient(silent) as client, client.websocket_connect("/") as session:
        await session.refute(timeout=0.01)
        await session.refute("a", timeout=0.01)


async def test_refute_shows_the_message_and_keeps_it() -> None:
    async with AsyncTestClient(says("a", "b")) as client, client.websocket_connect("/") as session:
        with pytest.raises(AssertionError, match="expected no message, got text 'a'"):
            await session.refute()
        with pytest.raises(AssertionError, match="expected not to get text 'b', got text 'b'"):
            await session.refute("b")
        await session.refute("c", timeout=0.01)
        await session.expect("a")
        await session.expect("b")


async def test_refute_checks_messages_that_come_during_its_wait() -> None:
    go = asyncio.Event()

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await go.wait()
        await send({"type": "websocket.send", "text": "late"})
        await until_disconnect(receive)

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        asyncio.get_running_loop().call_later(0.01, go.set)
        with pytest.raises(AssertionError, match="got text 'late'"):
            await session.refute(timeout=5)


async def test_a_close_ends_refute_and_is_kept() -> None:
    app = sends(dict(ACCEPT), {"type": "websocket.close", "code": 4000})
    async with AsyncTestClient(app) as client, client.websocket_connect("/") as session:
        await session.refute(timeout=5)
        await session.expect(WebSocketDisconnect)
        await session.refute(timeout=5)


async def test_refute_raises_the_exception_of_the_app() -> None:
    async with (
        AsyncTestClient(fails_with(ZeroDivisionError("boom"), dict(ACCEPT))) as client,
        client.websocket_connect("/") as session,
    ):
        with pytest.raises(ZeroDivisionError):
            await session.refute(timeout=5)
