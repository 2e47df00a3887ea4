"""Messages of a client that left before its busy handler could take them: one log line says how many."""

from __future__ import annotations

import asyncio
import logging

import pytest

from telex import Telex, WebSocket, websocket_listener
from tests.contract.servers import ServerKind
from tests.support.live import PATIENCE, serving
from tests.support.raw import TEXT, RawClient, close_frame, frame

KINDS = ["telex", "uvicorn-websockets"]


@pytest.mark.parametrize("middleware", [False, True], ids=["plain", "behind middleware"])
@pytest.mark.parametrize("sent", [4, 18, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
async def test_one_warning_counts_the_messages_that_a_busy_handler_did_not_take(
    kind: str, sent: int, middleware: bool, caplog: pytest.LogCaptureFixture
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def told() -> None:
        ended.set()

    @websocket_listener("/busy", on_disconnect=told)
    async def busy(data: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    app = Telex([busy], middleware=[lambda app: app] if middleware else [])
    caplog.set_level(logging.INFO)
    async with (
        serving(app, ServerKind(kind)) as server,
        await RawClient.open(server.port, timeout=PATIENCE) as client,
    ):
        await client.handshake("/busy")
        await client.send(frame(TEXT, b"first"))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        await client.send(frame(TEXT, b"unread") * sent + close_frame(1000))
        await asyncio.wait_for(ended.wait(), PATIENCE)
    [record] = [each for each in caplog.records if "messages were not handled" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert "busy" in record.getMessage().partition(": the connection")[0]
    assert "the connection of 127.0.0.1:" in record.getMessage()
    assert f" to /busy ended with 1000, and {sent} of its messages were not handled" in record.getMessage()


@pytest.mark.parametrize("kind", KINDS)
async def test_messages_behind_a_close_by_the_handler_are_no_warning(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    closes = asyncio.Event()

    @websocket_listener("/closer")
    async def closer(data: str, socket: WebSocket) -> None:
        while not socket.event_reader.unread:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await socket.close(4000)
        closes.set()

    caplog.set_level(logging.INFO)
    async with (
        serving(Telex([closer]), ServerKind(kind)) as server,
        await RawClient.open(server.port, timeout=PATIENCE) as client,
    ):
        await client.handshake("/closer")
        await client.send(frame(TEXT, b"first") + frame(TEXT, b"unread"))
        await asyncio.wait_for(closes.wait(), PATIENCE)
    [record] = [each for each in caplog.records if "messages were not handled" in each.getMessage()]
    assert record.levelname == "INFO"
