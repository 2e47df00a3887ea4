"""What the server uses of picows beyond its ``__all__``: when a new release changes it, this fails first."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from telex.server.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, CloseReason
from telex.server.parser import feed, new_parser
from tests.support.raw import frame


class Listener(WSListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes, bool, bool]] = []
        self.lost = False

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = int(frame.msg_type)  # type: ignore[call-overload]
        self.frames.append((kind, frame.get_payload_as_bytes(), bool(frame.fin), bool(frame.last_in_buffer)))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.lost = True


def ended() -> None:
    """For parsers whose stream does not end."""


def test_the_release_is_one_that_was_read() -> None:
    assert version("picows").split(".")[:2] >= ["2", "3"]
    assert version("picows").split(".")[0] == "2"


def test_opcodes_are_the_wires() -> None:
    values = {int(kind) for kind in WSMsgType}  # type: ignore[call-overload]
    assert values == {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}


async def test_a_parser_is_past_its_handshake_and_says_nothing() -> None:
    listener, verdicts = Listener(), list[CloseReason]()
    parser = new_parser(listener, 1000, verdicts.append, ended)
    feed(parser, frame(TEXT, b"a") + frame(BINARY, b"b", fin=False) + frame(PING, b"c"))
    assert listener.frames == [(TEXT, b"a", True, False), (BINARY, b"b", False, False), (PING, b"c", True, True)]
    assert verdicts == []
    parser.connection_lost(None)
    assert listener.lost


async def test_a_verdict_comes_before_the_frame_before_it() -> None:
    listener, verdicts = Listener(), list[CloseReason]()
    parser = new_parser(listener, 1000, lambda close: verdicts.append(close) or listener.frames.clear(), ended)  # type: ignore[func-returns-value]
    feed(parser, frame(TEXT, b"a") + frame(TEXT, b"b" * 1001))
    assert [close.code for close in verdicts] == [1009]
    assert listener.frames == [(TEXT, b"a", True, True)]


async def test_feeding_more_than_the_buffer_grows_it() -> None:
    listener = Listener()
    parser = new_parser(listener, 1 << 20, lambda close: None, ended)
    empty = len(memoryview(parser.get_buffer(-1)))
    rest = frame(BINARY, b"x" * 100_000)
    while rest:
        rest = feed(parser, rest)
    assert listener.frames == [(BINARY, b"x" * 100_000, True, True)]
    assert len(memoryview(parser.get_buffer(-1))) > 100_000 > empty


async def test_errors_of_a_listener_are_a_verdict_too_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Listener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            raise ZeroDivisionError

    verdicts: list[CloseReason] = []
    feed(new_parser(Broken(), 1000, verdicts.append, ended), frame(TEXT, b"a"))
    assert [close.code for close in verdicts] == [1011]
    assert "ZeroDivisionError" in caplog.text


async def test_the_end_of_the_stream_is_told_and_closes_the_transport() -> None:
    told: list[str] = []
    parser = new_parser(Listener(), 1000, lambda close: None, lambda: told.append("end"))
    assert parser.eof_received() is False
    assert told == ["end"]
