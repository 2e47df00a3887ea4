"""What an application sees of the server, and what becomes of its errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from telex.exceptions import ConnectionStateError
from telex.types import Receive, Scope, Send
from tests.server.apps import Recorder, echo
from tests.server.conftest import attacked, connected, echoes, running
from tests.support.raw import BINARY, TEXT, RawClient, close_frame, frame


def answering(scope_path: str, exception: BaseException, *, accept: bool) -> object:
    """An app that raises on one path, before or after accept, and echoes on the others."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] != scope_path:
            await echo(scope, receive, send)
            return
        await receive()
        if accept:
            await send({"type": "websocket.accept"})
        raise exception

    return app


async def test_the_scope() -> None:
    app = Recorder()
    async with running(app, root_path="/root") as server, await RawClient.open(server.port) as client:
        headers = [("X-One", "1"), ("Cookie", "a=b"), ("Sec-WebSocket-Protocol", "x, y")]
        assert (await client.handshake("/a?b=c", headers)).status == 101
        local, peer = client.socket.getpeername(), client.socket.getsockname()
    (scope,) = app.scopes
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "ws", "1.1")
    assert (scope["root_path"], scope["path"], scope["query_string"]) == ("/root", "/root/a", b"b=c")
    assert (scope["server"], scope["client"]) == (local, peer)
    assert scope["subprotocols"] == ["x", "y"]
    assert (b"x-one", b"1") in scope["headers"]
    assert "websocket.http.response" in scope["extensions"]
    assert scope["state"]["telex.server"] is server.status


async def test_trusted_proxies_tell_the_client_and_the_scheme() -> None:
    app = Recorder()
    forwarded = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]
    for trusted in ("127.0.0.1", "192.0.2.1"):
        async with running(app, forwarded_allow_ips=trusted) as server, await RawClient.open(server.port) as client:
            await client.handshake("/", forwarded)
    told, untold = app.scopes
    assert (told["client"], told["scheme"]) == (("203.0.113.7", 0), "wss")
    assert (untold["client"][0], untold["scheme"]) == ("127.0.0.1", "ws")


@pytest.mark.parametrize("accept", [False, True])
async def test_an_error_of_the_app_is_not_sent_to_the_client(accept: bool, caplog: pytest.LogCaptureFixture) -> None:
    app = answering("/boom", ValueError("SECRET"), accept=accept)
    async with attacked(app) as server, await RawClient.open(server.port) as client:  # type: ignore[arg-type]
        response = await client.handshake("/boom")
        if accept:
            got = await client.read_close()
            assert (got.code, got.reason) == (1011, "")
            await client.send(close_frame(1011))
        else:
            assert (response.status, response.body) == (500, b"Internal Server Error")
        assert await client.read_to_end() == b""
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "SECRET" in caplog.text
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("event", "raised"),
    [
        ({"type": "websocket.send", "text": "x"}, ConnectionStateError),
        ({"type": "websocket.http.response.body", "body": b"x"}, ConnectionStateError),
        ({"type": "websocket.http.response.start", "status": 99, "headers": []}, ValueError),
        ({"type": "websocket.http.response.start", "status": 403, "headers": [(b"a\n", b"b")]}, ValueError),
        ({"type": "http.response.start"}, ConnectionStateError),
    ],
)
async def test_events_out_of_order_before_accept(event: Mapping[str, object], raised: type[Exception]) -> None:
    errors: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            try:
                await send(dict(event))
            except Exception as error:
                errors.append(error)
            await send({"type": "websocket.close"})
        else:
            await echo(scope, receive, send)

    async with running(app) as server, await RawClient.open(server.port) as client:
        assert (await client.handshake()).status == 403
    assert [isinstance(error, raised) for error in errors] == [True]


async def test_events_out_of_order_after_accept() -> None:
    errors: list[type[Exception]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        for event in ({"type": "websocket.accept"}, {"type": "websocket.nonsense"}, {"type": "websocket.send"}):
            try:
                await send(event)
            except (ConnectionStateError, KeyError) as error:
                errors.append(type(error))
        await receive()
        try:
            await receive()
        except ConnectionStateError as error:
            errors.append(type(error))

    async with running(app) as server, connected(server.port) as client:
        await client.send(close_frame(1000))
        assert await client.read_close()
    assert errors == [ConnectionStateError, ConnectionStateError, KeyError, ConnectionStateError]


async def test_clients_cannot_forge_or_flood_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with attacked(echo) as server:
        async with await RawClient.open(server.port) as client:
            await client.handshake("/%0aERROR%20forged%1b[31m" + "p" * 5000)
        before = len(caplog.records)
        for number in range(200):
            async with connected(server.port) as client:
                await client.send(frame(TEXT, b"\xff") if number % 2 else frame(3) + frame(BINARY, b"x"))
                await client.read_close()
                await client.read_to_end()
        assert len(caplog.records) - before == 200  # the lines that say "accepted", and none for the errors
    for record in caplog.records:
        line = record.getMessage()
        assert len(line) < 2000
        assert line.isprintable()


async def test_every_accept_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with running(echo) as server, connected(server.port, "/somewhere?a=1") as client:
        port = client.socket.getsockname()[1]
    lines = [record.getMessage() for record in caplog.records if "WebSocket /" in record.getMessage()]
    assert lines == [f'127.0.0.1:{port} - "WebSocket /somewhere?a=1" [accepted]']


async def test_http_is_served_beside() -> None:
    async with running(echo) as server, connected(server.port) as socket, await RawClient.open(server.port) as client:
        for _ in range(2):  # keep-alive
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.read_response()).body == b"hello"
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345")
        assert (await client.read_response()).status == 200
        await echoes(socket)
