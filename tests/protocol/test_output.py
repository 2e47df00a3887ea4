"""The order of frames, and that none is lost, where a send may have to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from telex.connection import Socket
from telex.exceptions import WebSocketDisconnect
from telex.protocol.output import FrameOutput
from tests.support.live import soon


class SlowSocket:
    """A connection whose server takes no frame until ``gate`` is open."""

    is_open = True
    transport: FullTransport | None = None

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.sent: list[Any] = []
        self.on_sent: Callable[[str], None] = lambda _: None
        self.event_reader = self
        self.disconnect = None

    def lost(self) -> WebSocketDisconnect:
        return WebSocketDisconnect(1006)

    async def send(self, event: Any) -> None:
        await self.gate.wait()
        self.sent.append(event["text"])
        self.on_sent(event["text"])

    asgi_send = send


class FullTransport:
    """A transport that is full until its connection ends."""

    def send(self, _: str) -> bool:
        return False

    async def drain(self) -> None:
        raise ConnectionResetError


@pytest.mark.parametrize("way", ["answer", "send"])
async def test_an_end_while_the_transport_is_full_is_a_disconnect(way: str) -> None:
    socket = SlowSocket()
    socket.transport = FullTransport()
    sending = getattr(FrameOutput(cast("Socket", socket)), way)("x")
    with pytest.raises(WebSocketDisconnect):
        await soon(sending)


async def test_a_cancelled_send_loses_only_its_own_frame() -> None:
    socket = SlowSocket()
    output = FrameOutput(cast("Socket", socket))
    cancelled = asyncio.create_task(output.send("mine"))
    output.write("of another call")
    await asyncio.sleep(0)
    cancelled.cancel()
    await soon(asyncio.wait([cancelled]))
    later = asyncio.create_task(output.send("later"))
    await asyncio.sleep(0)
    socket.gate.set()
    await soon(later)
    await output.aclose()
    assert socket.sent == ["of another call", "later"]


async def test_sends_keep_their_order_behind_what_was_written() -> None:
    socket = SlowSocket()
    socket.gate.set()
    output = FrameOutput(cast("Socket", socket))
    first = asyncio.create_task(output.send("first"))
    output.write("written")
    for _ in range(10):
        if socket.sent:
            break
        await asyncio.sleep(0)
    await soon(output.send("second"))
    await soon(first)
    await output.aclose()
    assert socket.sent == ["written", "first", "second"]


async def test_none_overtakes_those_that_wait_in_line() -> None:
    socket = SlowSocket()
    output = FrameOutput(cast("Socket", socket))
    sending = [asyncio.create_task(output.send(text)) for text in ("first", "second")]
    output.write("written")
    await asyncio.sleep(0)

    def send_a_third(text: str) -> None:
        if text == "first":  # its task runs after the first has ended, and before the second goes on
            sending.append(asyncio.create_task(output.send("third")))

    socket.on_sent = send_a_third
    socket.gate.set()
    await soon(asyncio.gather(*sending))
    await soon(asyncio.gather(*sending))
    await output.aclose()
    assert socket.sent == ["written", "first", "second", "third"]
