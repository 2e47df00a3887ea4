"""The server's own 503: in the socket for pages of its own host that offer telex.v1, by HTTP for everybody else."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from telex import Telex, WebSocket, websocket, websocket_listener
from telex.server import Server
from tests.server.conftest import connected, running
from tests.support.raw import TEXT, Close, RawClient, Response


def headers(server: Server, *, origin: str | None = None) -> list[tuple[str, str]]:
    own = f"http://127.0.0.1:{server.port}"
    return [("Sec-WebSocket-Protocol", "chat, telex.v1"), ("Origin", origin or own)]


async def told(client: RawClient, response: Response) -> tuple[object, Close]:
    """The error frame and the close of a refused page; then the connection has ended."""
    assert (response.status, response.header("sec-websocket-protocol")) == (101, "telex.v1")
    frame = await client.read_frame()
    assert frame.opcode == TEXT
    close = await client.read_close()
    assert await client.read_to_end() == b""
    return json.loads(frame.payload), close


def unavailable(message: str) -> tuple[object, Close]:
    error = {"code": "unavailable", "message": message}
    return {"type": "error", "about": "connection", "error": error}, Close(4503, message)


@websocket_listener("/")
async def echo(data: str) -> str:
    return data


OTHERS = [
    [],
    [("Sec-WebSocket-Protocol", "telex.v1")],
    [("Sec-WebSocket-Protocol", "telex.v1"), ("Origin", "https://evil.com")],
    [("Sec-WebSocket-Protocol", "telex.v1"), ("Origin", "null")],
]
"""Programs, and pages of other hosts."""


async def test_a_full_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(Telex([echo]), max_connections=1) as server, connected(server.port):
        async with await RawClient.open(server.port) as client:
            response = await client.handshake("/", headers(server))
            assert await told(client, response) == unavailable("The server has reached its limit of connections.")
        for given in OTHERS:
            async with await RawClient.open(server.port) as client:
                assert (await client.handshake("/", given)).status == 503
    assert '"WebSocket /" 503' in caplog.text


async def test_a_drain_while_the_handshake_waits() -> None:
    arrived = asyncio.Semaphore(0)

    @websocket("/")
    async def slow(socket: WebSocket) -> None:
        arrived.release()
        await asyncio.Event().wait()

    async with (
        running(Telex([slow]), drain_timeout=5.0) as server,
        await RawClient.open(server.port) as page,
        await RawClient.open(server.port) as program,
    ):
        answers = asyncio.gather(page.handshake("/", headers(server)), program.handshake("/", OTHERS[1]))
        for _ in range(2):
            await asyncio.wait_for(arrived.acquire(), 9)
        server.stop()
        response, refused = await answers
        assert refused.status == 503
        assert await told(page, response) == unavailable("The server is shutting down.")


async def test_an_app_that_does_not_answer_in_time() -> None:
    @websocket("/")
    async def silent(socket: WebSocket) -> None:
        await asyncio.Event().wait()

    async with running(Telex([silent]), handshake_timeout=0.1) as server, await RawClient.open(server.port) as client:
        response = await client.handshake("/", headers(server))
        assert await told(client, response) == unavailable("The application did not answer in time.")


@pytest.mark.long
async def test_a_refusal_of_the_app_has_its_status_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(Telex([echo])) as server, await RawClient.open(server.port) as client:
        response = await client.handshake("/nowhere", headers(server))
        assert (await told(client, response))[1] == Close(4404, "Not Found")
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
    assert [line.rpartition('"')[2].strip() for line in lines if "WebSocket /nowhere" in line] == ["404"]
