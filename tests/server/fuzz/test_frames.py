"""Frames in any chunking, valid or not: messages, pongs and the end are those of the strict model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, TextMessage
from wsproto.utilities import RemoteProtocolError

from tests.server.fuzz.harness import Keeper, connect, frames_of, gone, run, settled
from tests.server.fuzz.model import Deflate, Model, Outcome
from tests.server.fuzz.streams import chunked, streams
from tests.server.test_pipelining import OPENING

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=1500)
OFFERS = {
    None: None,
    "permessage-deflate": Deflate(15, takeover=True),
    "permessage-deflate; client_max_window_bits": Deflate(12, takeover=True),
    "permessage-deflate; client_no_context_takeover": Deflate(15, takeover=False),
}


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    limit, offer = draw(st.sampled_from([125, 200, 70_000])), draw(st.sampled_from(list(OFFERS)))
    whole = draw(streams(limit, OFFERS[offer]))
    return {
        "limit": limit,
        "offer": offer,
        "chunks": draw(chunked(whole)),
        "how": draw(st.sampled_from(["events", "slow", "frame"])),
        "early": draw(st.booleans()),
    }


def check(case: dict[str, Any]) -> None:
    whole = b"".join(case["chunks"])
    expected = Model(case["limit"], OFFERS[case["offer"]]).read(whole)
    run(lambda: _serve(expected, **case))


async def _serve(expected: Outcome, limit: int, offer: str | None, chunks: list[bytes], how: str, early: bool) -> None:
    app = Keeper(how)
    bounds: dict[str, Any] = {"max_message_size": limit, "max_queued_bytes": 500, "max_queue": 4, "close_timeout": 0.05}
    pipe, state = connect(app, **bounds)
    extension = f"Sec-WebSocket-Extensions: {offer}\r\n".encode() if offer else b""
    opening = OPENING.replace(b"Host:", extension + b"Host:")
    if early:
        await settled(pipe, [opening + b"".join(chunks)])
    else:
        await settled(pipe, [opening])
        await settled(pipe, chunks)
    if expected.codes and expected.complete:
        await asyncio.wait_for(app.ended.wait(), 9)
    head, _, body = bytes(pipe.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"HTTP/1.1" not in body
    frames = frames_of(body)
    closes = [payload for opcode, payload, _ in frames if opcode == 8]
    assert app.messages == expected.messages
    assert [payload for opcode, payload, _ in frames if opcode == 10] == expected.pongs
    if not expected.codes:
        assert closes == []
    elif expected.complete or closes:
        assert len(closes) == 1
        assert (int.from_bytes(closes[0][:2], "big") if closes[0] else 1005) in expected.codes
        assert frames[-1][0] == 8
    assert app.most_kept <= 500 + limit
    await gone(pipe, state)


@FEW
@given(cases())
def test_frames_lead_to_what_the_model_says(case: dict[str, Any]) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.timeout(600)
@MANY
@given(cases())
def test_many_frames_lead_to_what_the_model_says(case: dict[str, Any]) -> None:
    check(case)


def agree(limit: int, whole: bytes) -> None:
    """Other libraries read what the model reads. They may be milder: ``websockets`` takes lengths in too many bytes."""
    expected = Model(limit).read(whole)
    for read in [_by_websockets(limit, whole)] + ([_by_wsproto(whole)] if 1009 not in expected.codes else []):
        assert read[: len(expected.messages)] == expected.messages
        assert expected.codes or read == expected.messages


def _by_websockets(limit: int, whole: bytes) -> list[str | bytes]:
    protocol = ServerProtocol(state=OPEN, max_size=limit)
    protocol.receive_data(whole)
    found: list[str | bytes] = []
    parts: list[bytes] = []
    text = False
    for event in protocol.events_received():
        if isinstance(event, Frame) and event.opcode < Opcode.CLOSE:
            text = event.opcode == Opcode.TEXT if event.opcode else text
            parts.append(bytes(event.data))
            if event.fin:
                joined = b"".join(parts)
                parts = []
                try:
                    found.append(joined.decode() if text else joined)
                except UnicodeDecodeError:
                    break  # the library leaves that to its connection class
    return found


def _by_wsproto(whole: bytes) -> list[str | bytes]:
    connection = WsprotoConnection(ConnectionType.SERVER)
    found: list[str | bytes] = []
    parts: list[Any] = []
    try:
        connection.receive_data(whole)
        for event in connection.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                parts.append(event.data)
                if event.message_finished:
                    found.append("".join(parts) if isinstance(event, TextMessage) else b"".join(parts))
                    parts = []
    except RemoteProtocolError:
        pass
    return found


@FEW
@given(streams(70_000, None))
def test_the_model_agrees_with_other_libraries(whole: bytes) -> None:
    agree(70_000, whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
@MANY
@given(streams(70_000, None))
def test_the_model_agrees_with_other_libraries_at_length(whole: bytes) -> None:
    agree(70_000, whole)
