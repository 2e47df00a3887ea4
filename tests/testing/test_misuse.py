"""Events that the app must not send, and the errors for them."""

from __future__ import annotations

from typing import Any

import pytest

from telex.exceptions import WebSocketDisconnect
from telex.testing import AsyncTestClient, ProtocolMisuse
from telex.types import Message, Receive, Scope, Send

from .apps import ACCEPT, sends, until_disconnect, websocket_app

TEXT: Message = {"type": "websocket.send", "text": "a"}
CLOSE: Message = {"type": "websocket.close"}
START: Message = {"type": "websocket.http.response.start", "status": 403}
BODY: Message = {"type": "websocket.http.response.body"}


def accept(**fields: Any) -> Message:
    return {"type": "websocket.accept", **fields}


def message(**fields: Any) -> Message:
    return {"type": "websocket.send", **fields}


def close(**fields: Any) -> Message:
    return {"type": "websocket.close", **fields}


@pytest.mark.parametrize(("events", "text"), [
    ([TEXT], "sent 'websocket.send' before accept: allowed are websocket.accept, websocket.close, websocket.http"),
    ([BODY], "sent 'websocket.http.response.body' before accept"),
    ([accept(subprotocol="other")], "the subprotocol 'other'; the client offered one"),
    ([accept(subprotocol=1)], "'subprotocol' is a str or None"),
    ([accept(headers=1)], "'headers' is an iterable of pairs"),
    ([accept(headers=[("a", "b")])], "a header is a pair"),
    ([accept(headers=[(b"a",)])], "a header is a pair"),
    ([accept(headers=[(b"Upper", b"b")])], "a header is a pair (lower-case name, value) of bytes, not (b'Upper'"),
    ([accept(headers=[(b"a", b"b\r\nc: d")])], "a header is a pair"),
    ([accept(headers=[(b"", b"b")])], "a header is a pair"),
    ([accept(headers=[(b"sec-websocket-protocol", b"one")])], "goes into 'subprotocol'"),
    (["websocket.accept"], "an ASGI event is a dict with a 'type'"),
    ([{"kind": "websocket.accept"}], "an ASGI event is a dict with a 'type'"),
    ([{"type": "websocket.acept"}], "sent 'websocket.acept' before accept"),
    ([close(code=1005)], "cannot carry the code 1005"),
    ([{**START, "status": 101}], "'status' is an int from 200 to 599"),
    ([{**START, "status": "403"}], "'status' is an int from 200 to 599"),
    ([{**START, "headers": [("a", "b")]}], "a header is a pair"),
    ([START, {**BODY, "body": "text"}], "'body' is bytes"),
    ([START, {**BODY, "more_body": 1}], "'more_body' is a bool"),
    ([START, ACCEPT], "sent 'websocket.accept' in the middle of a denial response"),
])  # fmt: skip
async def test_misuse_in_the_handshake(events: list[Any], text: str) -> None:
    async with AsyncTestClient(sends(*events)) as client:
        with pytest.raises(ProtocolMisuse) as caught:
            await client.websocket_connect("/", subprotocols=["one"])
    assert text in str(caught.value)


@pytest.mark.parametrize(("event", "text"), [
    (ACCEPT, "sent 'websocket.accept' after accept: allowed are websocket.send, websocket.close"),
    (START, "sent 'websocket.http.response.start' after accept"),
    (message(), "one of 'text' and 'bytes' is given"),
    (message(text="a", bytes=b"a"), "one of 'text' and 'bytes' is given"),
    (message(text=b"a"), "'text' is a str, not bytes"),
    (message(bytes="a"), "'bytes' is bytes, not str"),
    (message(text="\ud800"), "cannot be written as UTF-8"),
    (close(code=1006), "cannot carry the code 1006"),
    (close(code=999), "cannot carry the code 999"),
    (close(code=5000), "cannot carry the code 5000"),
    (close(code="1000"), "cannot carry the code '1000'"),
    (close(reason="ä" * 62), "at most 123 bytes of UTF-8, this one has 124"),
    (close(reason=b"bytes"), "a close reason is text"),
    (close(reason="\ud800"), "cannot be written as UTF-8"),
])  # fmt: skip
async def test_misuse_after_accept(event: Message, text: str) -> None:
    async with AsyncTestClient(sends(dict(ACCEPT), event)) as client, client.websocket_connect("/") as session:
        with pytest.raises(ProtocolMisuse) as caught:
            await session.receive()
    assert text in str(caught.value)


async def test_the_longest_reason_is_allowed() -> None:
    client = AsyncTestClient(sends(dict(ACCEPT), close(reason="x" * 123)))
    async with client, client.websocket_connect("/") as session:
        assert (await session.expect(WebSocketDisconnect)).reason == "x" * 123


@pytest.mark.parametrize("event", [TEXT, CLOSE, ACCEPT])
async def test_misuse_after_the_close_is_raised_by_the_end_of_the_session(event: Message) -> None:
    async with AsyncTestClient(sends(dict(ACCEPT), dict(CLOSE), event)) as client:
        session = await client.websocket_connect("/")
        with pytest.raises(WebSocketDisconnect):
            await session.receive()
        with pytest.raises(ProtocolMisuse, match="after its close: nothing may follow"):
            await session.aclose()
        await session.aclose()  # the error is raised only once


async def test_misuse_is_raised_in_the_app_and_in_the_test() -> None:
    told = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        for _ in range(2):
            try:
                await send(dict(ACCEPT))
            except ProtocolMisuse as misuse:
                told.append(misuse)
        await send(dict(TEXT))  # is dropped
        await until_disconnect(receive)

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        with pytest.raises(ProtocolMisuse) as caught:
            await session.receive()
        with pytest.raises(ProtocolMisuse):
            await session.receive()
    assert len(told) == 2
    assert caught.value is told[0]


async def test_misuse_is_raised_with_and_without_raise_server_exceptions() -> None:
    app = sends(dict(ACCEPT), dict(ACCEPT))
    async with AsyncTestClient(app, raise_server_exceptions=False) as client:
        with pytest.raises(ProtocolMisuse):
            async with client.websocket_connect("/"):
                pass
