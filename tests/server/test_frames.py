"""Frames under attack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telex.server.settings import App
from telex.types import Receive, Scope, Send
from tests.server.apps import Recorder, echo
from tests.server.conftest import attacked, connected, echoes, running
from tests.support.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawClient, close_frame, frame

LIMIT = 4096

BROKEN: list[tuple[str, bytes, int]] = [
    ("unmasked", frame(TEXT, b"x", mask=None), 1002),
    *[(f"rsv {rsv} on {opcode}", frame(opcode, b"x", rsv=rsv), 1002) for rsv in (4, 2, 1) for opcode in (TEXT, PING)],
    ("rsv on a continuation", frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", rsv=2), 1002),
    *[(f"opcode {opcode}", frame(opcode, b"x"), 1002) for opcode in (3, 7, 11, 15)],
    ("ping of 126 bytes", frame(PING, b"x" * 126), 1002),
    ("fragmented ping", frame(PING, b"x", fin=False), 1002),
    ("fragmented close", frame(CLOSE, b"", fin=False), 1002),
    ("continuation of nothing", frame(CONTINUATION, b"x"), 1002),
    ("text in text", frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    ("claims 2^40", frame(BINARY, claims=1 << 40, length_bytes=8), 1009),
    ("claims 2^63", frame(BINARY, claims=1 << 63, length_bytes=8), 1002),
    ("claims the limit and one", frame(BINARY, claims=LIMIT + 1), 1009),
    ("length in two bytes without need", frame(BINARY, b"x" * 5, length_bytes=2), 1002),
    ("length in eight bytes without need", frame(BINARY, b"x" * 500, length_bytes=8), 1002),
    ("invalid byte", frame(TEXT, b"a\xff"), 1007),
    ("surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("overlong", frame(TEXT, b"\xc0\xaf"), 1007),
    ("truncated", frame(TEXT, b"\xe2\x82"), 1007),
    ("too high", frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    ("bad in the first of two fragments", frame(TEXT, b"\xf4\x90", fin=False), 1007),
    ("truncated at the end of fragments", frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xe2\x82"), 1007),
    ("close with one byte", frame(CLOSE, b"\x03"), 1002),
    *[
        (f"close with {code}", close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    ],
    ("close with a bad reason", close_frame(1000, b"\xff"), 1007),
]


@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
async def test_a_broken_frame_ends_the_connection(sent: bytes, code: int) -> None:
    app = Recorder()
    async with running(app, max_message_size=LIMIT) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"before") + sent + frame(TEXT, b"after"))
        assert (await client.read_frame()).payload == b"before"
        assert (await client.read_close()).code == code
        assert await client.read_to_end() == b""
        await asyncio.wait_for(app.disconnected.wait(), 9)
    assert app.end[0] == code
    assert [event.get("text") for event in app.events[1:-1]] == ["before"]


async def test_the_message_before_a_broken_frame_is_answered_first(echo_app: App) -> None:
    async with running(echo_app) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"before") + frame(3, b"broken"))
        assert (await client.read_frame()).payload == b"before"
        assert (await client.read_close()).code == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1014, 3000, 4999])
async def test_close_codes_are_echoed_and_told(code: int) -> None:
    app = Recorder()
    async with running(app) as server, connected(server.port) as client:
        await client.send(close_frame(code, "grüße".encode()))
        assert (await client.read_close()).code == code
        assert await client.read_to_end() == b""
    assert app.end == (code, "grüße")


async def test_an_empty_close_gets_an_empty_answer() -> None:
    app = Recorder()
    async with running(app) as server, connected(server.port) as client:
        await client.send(close_frame(None))
        assert (await client.read_frame()).payload == b""
    assert app.end == (1005, "")


async def test_text_that_is_unusual_but_right() -> None:
    async with running(echo) as server, connected(server.port) as client:
        for text in ("\0", "￿", "\U0010ffff", ""):
            await echoes(client, text.encode())
        euro = "€".encode()
        await client.send(frame(TEXT, euro[:1], fin=False) + frame(CONTINUATION, euro[1:2], fin=False))
        await client.send(frame(PING, b"?") + frame(CONTINUATION, euro[2:]))
        assert (await client.read_frame()).opcode == PONG
        assert (await client.read_frame()).payload == euro


def closing_with(code: int, reason: str) -> tuple[App, list[str]]:
    """An app that closes so, echoing on ``/``, and a list of what it raised."""
    errors: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await send({"type": "websocket.close", "code": code, "reason": reason})
        except ValueError as error:
            errors.append(str(error))

    return app, errors


@pytest.mark.parametrize("code", [0, 999, 1005, 1006, 1015, 5000, 70000])
async def test_codes_that_must_not_be_sent_raise_and_the_connection_still_ends(code: int) -> None:
    app, errors = closing_with(code, "")
    async with attacked(app) as server, connected(server.port, "/close") as client:
        assert (await client.read_close()).code == 1000
        await client.send(close_frame(1000))
        assert await client.read_to_end() == b""
    assert len(errors) == 1
    assert str(code) in errors[0]


@pytest.mark.parametrize("reason", ["x" * 123, "x" * 124, "€" * 41, "€" * 42, "x" + "€" * 41, "y" * 10_000])
async def test_long_reasons_are_cut_between_characters(reason: str) -> None:
    app, errors = closing_with(4000, reason)
    async with running(app) as server, connected(server.port, "/close") as client:
        got = await client.read_close()
        assert got.code == 4000
        assert reason.startswith(got.reason)
        assert 120 < len(got.reason.encode()) <= 123
    assert errors == []


@pytest.mark.parametrize("late", [frame(TEXT, b"x"), frame(PING), close_frame(1001), frame(3), b"\x81"])
async def test_what_follows_the_clients_close_is_ignored(late: bytes) -> None:
    app = Recorder()
    async with running(app) as server, connected(server.port) as client:
        await client.send(close_frame(1000) + late)
        assert (await client.read_close()).code == 1000
        assert await client.read_to_end() == b""
    assert app.end == (1000, "")


@pytest.mark.parametrize("late", [frame(TEXT, b"x"), frame(PING), frame(TEXT, b"\xff"), frame(TEXT, b"x", fin=False)])
async def test_what_follows_the_servers_close_is_ignored(late: bytes) -> None:
    app, _ = closing_with(4000, "enough")
    async with attacked(app) as server, connected(server.port, "/close") as client:
        assert (await client.read_close()).code == 4000
        await client.send(late * 3)
        await client.send(close_frame(4000))
        assert await client.read_to_end() == b""


Session = tuple[list[str | bytes], bytes]
"""Messages, and a client's frames that carry them: fragmented anywhere, pings between fragments."""


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    messages = draw(st.lists(st.text(max_size=200) | st.binary(max_size=200), max_size=6))
    wire = b""
    for message in messages:
        raw = message.encode() if isinstance(message, str) else message
        cuts = sorted(draw(st.sets(st.integers(0, len(raw)), max_size=3)))
        parts = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        for number, part in enumerate(parts):
            opcode = CONTINUATION if number else TEXT if isinstance(message, str) else BINARY
            wire += frame(opcode, part, fin=number == len(parts) - 1)
            if draw(st.booleans()):
                wire += frame(PING, b"between")
    return messages, wire + close_frame(4321, b"bye")


@pytest.mark.long
@given(session=sessions(), data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_a_session_is_the_same_however_it_is_cut(session: Session, data: st.DataObject) -> None:
    messages, wire = session
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=12), label="cuts"))
    app = Recorder()
    async with running(app) as server, connected(server.port) as client:
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            await client.send(wire[start:end])
            await asyncio.sleep(0)
        echoed = [each async for each in messages_until_close(client)]
        await asyncio.wait_for(app.disconnected.wait(), 9)
    received = [event.get("text", event.get("bytes")) for event in app.events[1:-1]]
    assert received == messages
    assert echoed == messages
    assert app.end == (4321, "bye")


async def messages_until_close(client: RawClient) -> AsyncIterator[str | bytes]:
    """What the server sends before it answers the close; a server does not fragment, and pongs do not count."""
    while (got := await client.read_frame()).opcode != CLOSE:
        if got.opcode != PONG:
            yield got.payload.decode() if got.opcode == TEXT else got.payload
