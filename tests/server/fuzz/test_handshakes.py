"""Opening handshakes, valid or not, in any chunking: one response each, the same however the packets fell."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.protocol import CONNECTING
from websockets.server import ServerProtocol

from tests.server.fuzz.harness import Keeper, connect, gone, run, settled
from tests.server.fuzz.streams import chunked
from tests.server.fuzz.test_frames import FEW
from tests.support.raw import TEXT, frame

MANY = settings(FEW, max_examples=500)
LINES = [
    *(
        b"GET %s HTTP/1.1" % target
        for target in (b"/", b"/a?b", b"http://h/", b"http://[/", b"*", b"/\xff", b"/%ff", b" /")
    ),
    b"GET / HTTP/1.0",
    b"POST / HTTP/1.1",
]
USUAL = [
    b"Host: a",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]
OTHERS = [
    *(b"Host: b", b"Host: a b", b"Connection: keep-alive", b"Connection: close", b"Upgrade: h2c"),
    *(b"X: \x00", b"X : y", b"X: a\r\n b", b"X: " + b"y" * 8300, b"Cookie: a=\x80", b"Expect: 100-continue"),
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5", b"Transfer-Encoding: chunked"),
    *(b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Key: !"),
    *(b"Sec-WebSocket-Protocol: a,,b", b"Sec-WebSocket-Protocol: a\xff"),
    b"Sec-WebSocket-Extensions: permessage-deflate; x=\xff",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=8",
]
LENIENT = re.compile(rb"Content-Length|GET  /|keep-alive|Connection: close|h2c|a,,b|=\xff|=\x80|yyyy|\r\n[ \t]")
"""What ``websockets`` refuses and RFC 9110 and 9112 allow: an empty body, headers that make a list, folded lines."""

BODY = re.compile(rb"Transfer-Encoding|Content-Length")
"""Requests with a body. uvicorn runs the application from the end of the head: when the body of a request that does not
upgrade is broken, the packets decide whether the application has answered before. The connection ends in any case."""

UPGRADE = re.compile(
    rb"(?=.*\r\nUpgrade: websocket\r\n)(?=.*\r\nConnection: Upgrade\r\n)(?!.*h2c)GET / HTTP/1.1\r\n", re.DOTALL
)
"""Requests that go to the WebSocket protocol at the end of the head, whatever body they declare."""


def _verdicts(statuses: list[int]) -> list[int]:
    """Statuses in which all refusals are one: of two faults in a request either may be reported."""
    return [min(status, 400) for status in statuses]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is usually almost right."""
    headers = [header for header in USUAL if draw(st.integers(0, 19))]
    headers += draw(st.lists(st.sampled_from(OTHERS), max_size=2, unique=True))
    line = draw(st.one_of(st.just(LINES[0]), st.sampled_from(LINES)))
    raw = bytearray(b"\r\n".join([line, *draw(st.permutations(headers)), b"", b""]))
    if draw(st.integers(0, 9)) == 0:
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    before = draw(st.sampled_from([b"", b"", b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"]))
    whole = before + draw(requests()) + draw(st.sampled_from([b"", frame(TEXT, b"early"), b"0\r\n\r\n", b"hello"]))
    return {"http": draw(st.sampled_from(["httptools", "h11"])), "chunks": draw(chunked(whole)), "before": bool(before)}


def check(case: dict[str, Any]) -> None:
    http, chunks = case["http"], case["chunks"]
    statuses, messages = run(lambda: _serve(http, chunks))
    statuses_at_once, messages_at_once = run(lambda: _serve(http, [b"".join(chunks)]))
    assert messages == messages_at_once
    assert (101 in statuses) == (101 in statuses_at_once)
    if UPGRADE.match(b"".join(chunks)) or not BODY.search(b"".join(chunks)):
        assert _verdicts(statuses) == _verdicts(statuses_at_once)
    # The frame after a request that upgrades nothing is read as another request. Nothing follows a 101.
    assert len(statuses) <= 2 + case["before"]
    assert 101 not in statuses[:-1]
    if statuses == [101] and not LENIENT.search(b"".join(chunks)):
        assert _by_websockets(b"".join(chunks)) == 101


async def _serve(http: str, chunks: list[bytes]) -> tuple[list[int], list[str | bytes]]:
    app = Keeper()
    pipe, state = connect(app, http, close_timeout=0.05, handshake_timeout=5.0)
    await settled(pipe, chunks)
    await asyncio.sleep(0)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", bytes(pipe.sent))]
    await gone(pipe, state)
    return statuses, app.messages


def _by_websockets(whole: bytes) -> int:
    protocol = ServerProtocol(state=CONNECTING)
    protocol.receive_data(whole)
    for event in protocol.events_received():
        if isinstance(event, Request):
            return protocol.accept(event).status_code
    return 0


@FEW
@given(cases())
def test_handshakes_have_one_response_in_any_packets(case: dict[str, Any]) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.timeout(600)
@MANY
@given(cases())
def test_many_handshakes_have_one_response_in_any_packets(case: dict[str, Any]) -> None:
    check(case)
