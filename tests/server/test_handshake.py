"""The opening handshake under attack."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from telex.types import Receive, Scope, Send
from tests.server.apps import Recorder, answer_http, echo, lifespan
from tests.server.conftest import attacked, echoes, running
from tests.support.raw import TEXT, RawClient, frame

KEY = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
OPENING = (
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Version: 13\r\n{KEY[0]}: {KEY[1]}\r\n\r\n"
)


async def status_of(port: int, path: str = "/", headers: list[tuple[str, str]] | None = None, **how: object) -> int:
    """The status that a handshake gets, and that the connection ends with it unless it is 101."""
    async with await RawClient.open(port) as client:
        response = await client.handshake(path, headers or [], **how)  # type: ignore[arg-type]
        if response.status != 101:
            await client.read_to_end()
        return response.status


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_clients_that_do_not_complete_a_request_are_closed(http: str) -> None:
    async with attacked(echo, handshake_timeout=0.4, http=http) as server, contextlib.AsyncExitStack() as stack:
        silent, half, slow = [await stack.enter_async_context(await RawClient.open(server.port)) for _ in range(3)]
        await half.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        await slow.send(b"GET / HTTP/1.1\r\n")
        dribble = asyncio.create_task(dribble_headers(slow))
        for client in (silent, half, slow):
            assert (await client.read_to_end()).startswith(b"HTTP/1.1 408 ")
        dribble.cancel()  # it would take 50 s


async def dribble_headers(client: RawClient) -> None:
    with contextlib.suppress(ConnectionError):
        for number in range(1000):
            await client.send(b"X-%d: y\r\n" % number)
            await asyncio.sleep(0.05)


async def test_the_clock_runs_again_for_a_later_request() -> None:
    async with attacked(echo, handshake_timeout=0.4) as server, await RawClient.open(server.port) as client:
        await client.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.read_response()).status == 200
        await client.send(b"GET /page HTTP/1.1\r\n")
        assert (await client.read_response()).status == 408
        await client.read_to_end()


async def test_an_application_that_does_not_answer() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] == "/":
            await echo(scope, receive, send)
            return
        await receive()
        told.append((await receive())["type"])

    async with attacked(app, handshake_timeout=0.2) as server:
        assert await status_of(server.port, "/never") == 503
    assert told == ["websocket.disconnect"]


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_oversized_requests(http: str) -> None:
    async with attacked(echo, http=http) as server:
        for count in (200, 2000):
            headers = [(f"X-{number}", "y") for number in range(count)]
            assert await status_of(server.port, headers=headers) in {400, 431}
        assert await status_of(server.port, headers=[("X-Big", "y" * 65_536)]) in {400, 431}
        assert await status_of(server.port, "/" + "p" * 8192) in {400, 414}


@pytest.mark.parametrize(("count", "status"), [(123, 101), (124, 431)])
async def test_the_bound_on_headers_is_exact(count: int, status: int) -> None:
    async with running(echo) as server:
        headers = [(f"X-{number}", "y") for number in range(count)]  # beside the five that a handshake has
        assert await status_of(server.port, headers=headers) == status


@pytest.mark.parametrize(("size", "status"), [(8192 - len("X-Big:"), 101), (8193 - len("X-Big:"), 431)])
async def test_the_bound_on_a_header_is_exact(size: int, status: int) -> None:
    async with running(echo) as server:
        # The server counts the rebuilt line "x-big: ...", which has one space.
        assert await status_of(server.port, headers=[("X-Big", "y" * (size - 1))]) == status


async def test_headers_that_make_parsers_slow() -> None:
    async with attacked(echo) as server:
        for headers in (
            [("Sec-WebSocket-Protocol", "b" + " " * 8000 + "x")],
            [("Sec-WebSocket-Extensions", "a," * 3000)],
            [("Sec-WebSocket-Extensions", "permessage-deflate; " * 300)],
            [("X-Same", "again")] * 500,
        ):
            began = time.process_time()
            assert await status_of(server.port, headers=headers) in {101, 400, 431}
            assert time.process_time() - began < 0.25


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Sec-WebSocket-Protocol", "a\xff")], 400),
        ([("Sec-WebSocket-Protocol", "a,,b,")], 101),
        ([("Sec-WebSocket-Protocol", "")], 101),
        ([("Connection", "keep-alive"), ("Connection", "Upgrade"), ("Connection", "x")], 101),
        ([("Content-Length", "0")], 101),
        ([("Content-Length", "5")], 400),
        ([("Transfer-Encoding", "chunked")], 400),
        ([("Origin", "\xff")], 101),
        ([("X-Odd", "a\x0bb")], 400),
        ([("X-Odd", "a\x1cb")], 400),
        ([("X-Odd", "a\x85b")], 101),
        ([("X-Odd", "a\x00b")], 400),
    ],
)
async def test_odd_bytes_in_headers(headers: list[tuple[str, str]], status: int) -> None:
    async with running(echo) as server:
        assert await status_of(server.port, headers=headers) == status


@pytest.mark.parametrize(("path", "status"), [("/%ff", 101), ("/\xff", 400), ("/%00%0d%0a", 101), ("/../../etc", 101)])
async def test_odd_paths(path: str, status: int) -> None:
    app = Recorder()
    async with running(app) as server:
        assert await status_of(server.port, path) == status
    if status == 101:
        assert app.scopes[0]["raw_path"] == path.encode()


async def test_a_path_is_decoded_once() -> None:
    app = Recorder()
    async with running(app, root_path="/mounted") as server:
        assert await status_of(server.port, "/a%2520b/%C3%BC?q=%20") == 101
    (scope,) = app.scopes
    assert scope["path"] == "/mounted/a%20b/ü"
    assert scope["raw_path"] == b"/mounted/a%2520b/%C3%BC"
    assert scope["query_string"] == b"q=%20"


@pytest.mark.parametrize(
    ("how", "headers", "status"),
    [
        ({"without": ["Sec-WebSocket-Key"]}, [], 400),
        ({}, [("Sec-WebSocket-Key", "YWJj")], 400),
        ({}, [("Sec-WebSocket-Key", "!" * 24)], 400),
        ({}, [KEY, KEY], 400),
        ({}, [("Sec-WebSocket-Version", "8")], 426),
        ({}, [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")], 426),
        ({"without": ["Sec-WebSocket-Version"]}, [], 426),
        ({"method": "POST"}, [], 405),
        ({"version": "HTTP/1.0"}, [], 505),
        ({"without": ["Host"]}, [], 400),
        ({}, [("Host", "good/health?x=")], 400),
        ({}, [("Host", "a"), ("Host", "b")], 400),
        ({}, [("Connection", "keep-alive, Upgrade")], 101),
        ({}, [("Connection", "Upgrade"), ("Upgrade", "WebSocket")], 101),
    ],
)
async def test_what_a_request_must_say(how: dict[str, object], headers: list[tuple[str, str]], status: int) -> None:
    async with running(echo) as server:
        assert await status_of(server.port, "/", headers, **how) == status


async def test_a_refusal_names_the_version() -> None:
    async with running(echo) as server, await RawClient.open(server.port) as client:
        response = await client.handshake("/", [("Sec-WebSocket-Version", "8")])
        assert (response.status, response.header("sec-websocket-version")) == (426, "13")


async def test_a_request_without_upgrade_is_http() -> None:
    async with running(echo) as server, await RawClient.open(server.port) as client:
        response = await client.handshake("/", without=["Upgrade"])
        assert (response.status, response.body) == (200, b"hello")


async def test_targets_that_are_no_paths() -> None:
    app = Recorder()
    async with running(app) as server:
        assert await status_of(server.port, "@evil") == 400
        assert await status_of(server.port, "http://other/there?x=1") == 101
    assert (app.scopes[0]["path"], app.scopes[0]["query_string"]) == ("/there", b"x=1")


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize(
    "target", ["http://[/", "http://[::1/", "ws://a]b/", "http://u@h/", "http://a:b/", "http:///x", "//["]
)
async def test_targets_that_cannot_be_read_keep_no_slot(http: str, target: str) -> None:
    """Each was refused by ``urlsplit`` or reads as another host; ``http:///x`` and ``//[`` have a path."""
    async with attacked(echo, http=http, max_connections=4) as server:
        statuses = {await status_of(server.port, target) for _ in range(8)}
    assert statuses == ({101} if target in {"http:///x", "//["} else {400})


async def test_what_fails_while_a_request_is_read_ends_that_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("not expected")

    async with attacked(echo, max_connections=4) as server:
        for where in ("protocol.read_request", "protocol.WebSocketProtocol.connection_made"):
            with monkeypatch.context() as patched:
                patched.setattr(f"telex.server.{where}", broken)
                for _ in range(5):
                    async with await RawClient.open(server.port) as client:
                        await client.send(OPENING.encode() + frame(TEXT, b"x"))
                        assert await client.read_to_end() == b"" or where == "protocol.read_request"
            assert await status_of(server.port) == 101
    assert {record.getMessage() for record in caplog.records if record.levelname == "ERROR"} == {
        "Exception while a WebSocket request was read",
        "Exception during the upgrade of a connection to WebSocket",
    }


ACCEPTS = [
    {"subprotocol": "b\r\nX-Evil: 1"},
    {"subprotocol": "not-offered"},
    {"headers": [(b"x-good", b"a\r\nx-evil: 1")]},
    {"headers": [(b"x-good", b"a\x00b")]},
    {"headers": [(b"x evil", b"a")]},
    {"headers": [(b"sec-websocket-accept", b"bogus")]},
    {"headers": [(b"Sec-WebSocket-Extensions", b"permessage-deflate")]},
    {"headers": [(b"connection", b"close")]},
    {"headers": [(b"upgrade", b"h2c")]},
]


@pytest.mark.parametrize("accept", ACCEPTS, ids=lambda accept: repr(accept)[:40])
async def test_an_accept_that_would_break_the_response(
    accept: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[ValueError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        await receive()
        try:
            await send({"type": "websocket.accept", **accept})
        except ValueError as error:
            errors.append(error)
            raise

    async with running(app) as server, await RawClient.open(server.port) as client:
        response = await client.handshake("/", [("Sec-WebSocket-Protocol", "a, b")])
        assert response.status == 500
        assert response.body == b"Internal Server Error"
        assert response.header("x-evil") is None
    assert len(errors) == 1
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


async def test_an_accept_chooses_subprotocol_and_headers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await echo(scope, receive, send)
            return
        assert scope["subprotocols"] == ["a", "b"]
        await receive()
        headers = [(b"x-one", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": headers})

    async with running(app) as server, await RawClient.open(server.port) as client:
        response = await client.handshake("/", [("Sec-WebSocket-Protocol", "a, b")])
        assert response.header("sec-websocket-protocol") == "b"
        assert [value for name, value in response.headers if name == "set-cookie"] == ["a=b", "c=d"]
        assert (await client.read_close()).code == 1000  # the application returned


async def test_denials() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await receive()
        if scope["path"] == "/close":
            await send({"type": "websocket.close", "code": 4001, "reason": "not for clients"})
        else:
            headers = [(b"content-type", b"application/json"), (b"x-why", b"because")]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b'{"a":', "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"1}"})
        assert (await receive())["type"] == "websocket.disconnect"

    async with running(app) as server:
        async with await RawClient.open(server.port) as client:
            assert (await client.handshake("/close")).status == 403
            await client.read_to_end()
        async with await RawClient.open(server.port) as client:
            response = await client.handshake("/deny")
            assert (response.status, response.body, response.header("x-why")) == (401, b'{"a":1}', "because")


async def test_an_application_that_forgets_to_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "http":
            await answer_http(send)

    async with running(app) as server:
        assert await status_of(server.port) == 500
    assert "without accepting" in caplog.text


async def test_a_handshake_in_pieces() -> None:
    request = (
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\n{KEY[0]}: {KEY[1]}\r\n\r\n"
    ).encode()
    async with attacked(echo) as server, await RawClient.open(server.port) as client:
        for start in range(0, len(request), 7):
            await client.send(request[start : start + 7])
            await asyncio.sleep(0)
        assert (await client.read_response()).status == 101
        await echoes(client)


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_frames_before_the_answer(http: str) -> None:
    release = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and scope["path"] == "/slow":
            await release.wait()
        await echo(scope, receive, send)

    async with attacked(app, http=http) as server, await RawClient.open(server.port) as client:
        request = (
            "GET /slow HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\n{KEY[0]}: {KEY[1]}\r\n\r\n"
        ).encode()
        await client.send(request + frame(TEXT, b"in the same segment"))
        flood = asyncio.create_task(client.send(frame(TEXT, b"y" * (1 << 20))))
        await asyncio.sleep(0.05)
        release.set()
        assert (await client.read_response()).status == 101
        assert (await client.read_frame()).payload == b"in the same segment"
        assert len((await client.read_frame()).payload) == 1 << 20
        await flood


async def test_connections_over_the_limit_are_refused() -> None:
    async with running(echo, max_connections=2) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(await RawClient.open(server.port))
            assert (await client.handshake()).status == 101
        assert await status_of(server.port) == 503


async def test_a_forwarded_address_is_quoted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(echo) as server:
        assert await status_of(server.port, headers=[("X-Forwarded-For", "1.2.3.4 - \xff[31m" + "x" * 2000)]) == 101
    (line,) = [record.getMessage() for record in caplog.records if "[accepted]" in record.getMessage()]
    assert line.startswith("1.2.3.4%20-%20%C3%BF[31mxxx")
    assert len(line) < 700
