"""Where a request ends, and what may follow it: other requests, bodies and frames in any packets."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from telex.types import Receive, Scope, Send
from tests.contract.servers import ServerKind
from tests.server.apps import answer_http, echo
from tests.server.conftest import attacked, echoes
from tests.support.live import serving
from tests.support.raw import TEXT, RawClient, frame

STOCK = ServerKind("telex")
PARSERS = pytest.mark.parametrize("http", ["httptools", "h11"])
OPENING = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GET = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n"
CHUNKED = b"POST /page HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
H2C = b"GET /page HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"


class Slow:
    """Echoes; answers HTTP once ``release`` is set."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await echo(scope, receive, send)
            return
        self.asked.set()
        await self.release.wait()
        with contextlib.suppress(OSError):
            await answer_http(send)
        self.over.set()


def pieces(whole: bytes, size: int) -> list[bytes]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


@PARSERS
@pytest.mark.parametrize("size", [1, 37, 100_000])
@pytest.mark.parametrize(
    ("before", "responses"),
    [(b"", 0), (b"\r\n\r\n", 0), (GET, 1), (GET + POST, 2), (CHUNKED + b"2\r\n\r\n\r\n0\r\nX: y\r\n\r\n", 1), (H2C, 1)],
)
async def test_the_verdict_does_not_depend_on_packets(http: str, size: int, before: bytes, responses: int) -> None:
    if http == "h11" and before.startswith(b"\r\n\r\n"):
        before = b""  # h11 refuses empty lines before a request, in any packets
    async with attacked(echo, http=http) as server, await RawClient.open(server.port) as client:
        for piece in pieces(before + OPENING + frame(TEXT, b"early"), size):
            await client.send(piece)
            await asyncio.sleep(0)
        for _ in range(responses):
            assert (await client.read_response()).status == 200
        assert (await client.read_response()).status == 101
        assert (await client.read_frame()).payload == b"early"
        await echoes(client)


@PARSERS
@pytest.mark.parametrize("header", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("size", [50, 100_000])
async def test_an_upgrade_with_a_body_is_refused(http: str, header: bytes, size: int) -> None:
    body = b"hello" if b"Length" in header else b"5\r\nhello\r\n0\r\n\r\n"
    request = OPENING.replace(b"Host: a", header + b"\r\nHost: a") + body + frame(TEXT, b"x")
    async with attacked(echo, http=http) as server, await RawClient.open(server.port) as client:
        with contextlib.suppress(ConnectionError):  # the refusal may come before the last packet
            for piece in pieces(request, size):
                await client.send(piece)
        assert (await client.read_response()).status == 400
        await client.read_to_end()


@PARSERS
async def test_an_upgrade_waits_for_the_response_before_it(http: str) -> None:
    app = Slow()
    async with attacked(app, http=http) as server, await RawClient.open(server.port) as client:
        await client.send(GET)
        await app.asked.wait()
        await client.send(OPENING)
        await client.send(frame(TEXT, b"early"))
        app.release.set()
        response = await client.read_response()
        assert (response.status, response.body) == (200, b"hello")
        assert (await client.read_response()).status == 101
        assert (await client.read_frame()).payload == b"early"
        await echoes(client)


@PARSERS
async def test_a_client_that_leaves_while_its_upgrade_waits(http: str) -> None:
    app = Slow()
    async with attacked(app, http=http) as server, await RawClient.open(server.port) as client:
        await client.send(GET + OPENING)
        await app.asked.wait()
        client.reset()
        app.release.set()


@pytest.mark.long
@PARSERS
async def test_frames_that_are_sent_while_an_upgrade_waits_are_bounded(http: str) -> None:
    app = Slow()
    async with attacked(app, http=http) as server, await RawClient.open(server.port, timeout=1) as client:
        await client.send(GET + OPENING)
        await app.asked.wait()
        with contextlib.suppress(ConnectionError, TimeoutError):  # reset or pushed back
            await client.send(frame(TEXT, b"x" * 1000) * 50_000)
            pytest.fail("50 MB were taken")
        app.release.set()


@PARSERS
@pytest.mark.parametrize(
    "endless", [b"X: " + b"y" * 1000, b"y" * 1000, b"X: y\r\n" * 100, b"1;" + b"x" * 998], ids=["a", "b", "c", "d"]
)
async def test_a_trailer_or_chunk_header_without_end_is_refused(http: str, endless: bytes) -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await echo(scope, receive, send)
            return
        while (await receive())["type"] != "http.disconnect":
            pass
        release.set()

    async with attacked(app, http=http) as server, await RawClient.open(server.port) as client:
        await client.send(CHUNKED + b"2\r\nab\r\n" + (b"" if endless.startswith(b"1;") else b"0\r\n"))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 4_000_000:
                await client.send(endless)
                sent += len(endless)
        assert sent < 4_000_000
        await asyncio.wait_for(release.wait(), 9)


@PARSERS
async def test_a_large_body_is_no_large_head(http: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await echo(scope, receive, send)
            return
        size = 0
        while (event := await receive()).get("more_body"):
            size += len(event["body"])
        await answer_http(send, body=str(size + len(event["body"])).encode())

    async with attacked(app, http=http) as server, await RawClient.open(server.port) as client:
        for head, body in (
            (b"Content-Length: 2000000", b"x" * 2_000_000),
            (b"Transfer-Encoding: chunked", (b"7d0\r\n" + b"x" * 2000 + b"\r\n") * 1000 + b"0\r\n\r\n"),
        ):
            await client.send(b"POST /page HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n\r\n" + body)
            assert (await client.read_response()).body == b"2000000"


async def test_under_stock_uvicorn_an_upgrade_before_the_response_ends_the_connection() -> None:
    """There it cannot wait: uvicorn has handed the connection over already."""
    app = Slow()
    async with serving(app, STOCK, http="httptools") as running, await RawClient.open(running.port) as client:
        await client.send(GET)
        await app.asked.wait()
        await client.send(OPENING)
        assert await client.read_to_end() == b""
        app.release.set()
        await app.over.wait()


@PARSERS
async def test_under_stock_uvicorn_http_1_0_is_refused_too(http: str) -> None:
    async with serving(echo, STOCK, http=http) as running, await RawClient.open(running.port) as client:
        assert (await client.handshake(version="HTTP/1.0")).status == 505


@PARSERS
@pytest.mark.parametrize("size", [1, 100_000])
async def test_what_cannot_be_read_is_refused_after_the_response_before_it(http: str, size: int) -> None:
    async with attacked(echo, http=http) as server, await RawClient.open(server.port) as client:
        for piece in pieces(GET + b"\x00ET / HTTP/1.1\r\n\r\n", size):
            with contextlib.suppress(ConnectionError):
                await client.send(piece)
        assert (await client.read_response()).status == 200
        assert (await client.read_response()).status == 400
        await client.read_to_end()
