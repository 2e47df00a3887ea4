"""The opening handshake: the scope of the app and the answers of the app."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from telex.exceptions import SerializationException, WebSocketDisconnect
from telex.testing import AsyncTestClient, ProtocolMisuse, WebSocketDenied
from telex.types import Message, Receive, Scope, Send

from .apps import ACCEPT, Lifespanned, echo, fails_with, sends, silent, until_disconnect, websocket_app


class Recorder:
    """Accepts, and records the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            self.scopes.append(dict(scope))
            await silent(scope, receive, send)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.scopes[-1]["headers"]}


async def scope_of(url: str, base_url: str = "http://testserver", **options: Any) -> Scope:
    """The scope of a connection to ``url``; ``client_*`` options go to the client."""
    recorder = Recorder()
    client_options = {key[7:]: options.pop(key) for key in [*options] if key.startswith("client_")}
    async with (
        AsyncTestClient(recorder, base_url, **client_options) as client,
        client.websocket_connect(url, **options),
    ):
        pass
    return recorder.scopes[0]


async def test_the_scope_follows_asgi() -> None:
    scope = await scope_of("/a/b", subprotocols=["one", "two"])
    headers = dict(scope.pop("headers"))
    assert scope.pop("extensions")["websocket.http.response"] == {}
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/a/b",
        "raw_path": b"/a/b",
        "query_string": b"",
        "root_path": "",
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
        "subprotocols": ["one", "two"],
        "state": {},
    }
    assert len(base64.b64decode(headers.pop(b"sec-websocket-key"))) == 16
    assert headers == {
        b"host": b"testserver",
        b"user-agent": b"telex-testclient",
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
        b"sec-websocket-version": b"13",
        b"sec-websocket-protocol": b"one, two",
    }


async def test_the_scope_has_no_subprotocols_by_default() -> None:
    scope = await scope_of("/")
    assert scope["subprotocols"] == []
    assert b"sec-websocket-protocol" not in dict(scope["headers"])


@pytest.mark.parametrize(("base_url", "url", "scheme", "server", "host", "path"), [
    ("http://testserver", "/ws", "ws", ("testserver", 80), b"testserver", "/ws"),
    ("https://testserver", "/ws", "wss", ("testserver", 443), b"testserver", "/ws"),
    ("http://testserver:8000/api/", "/ws", "ws", ("testserver", 8000), b"testserver:8000", "/api/ws"),
    ("http://testserver", "ws", "ws", ("testserver", 80), b"testserver", "/ws"),
    ("http://testserver", "", "ws", ("testserver", 80), b"testserver", "/"),
    ("http://testserver", "wss://other:1/ws#part", "wss", ("other", 1), b"other:1", "/ws"),
    ("http://testserver", "ws://user:pw@other", "ws", ("other", 80), b"other", "/"),
    ("ws://[::1]:9", "/ws", "ws", ("::1", 9), b"[::1]:9", "/ws"),
])  # fmt: skip
async def test_urls_are_under_the_base_url_or_absolute(
    base_url: str, url: str, scheme: str, server: tuple[str, int], host: bytes, path: str
) -> None:
    scope = await scope_of(url, base_url)
    assert (scope["scheme"], scope["server"], scope["path"]) == (scheme, server, path)
    assert dict(scope["headers"])[b"host"] == host


@pytest.mark.parametrize(("url", "path", "raw_path"), [
    ("/räume/a b", "/räume/a b", b"/r%C3%A4ume/a%20b"),
    ("/r%C3%A4ume/a%2Fb", "/räume/a/b", b"/r%C3%A4ume/a%2Fb"),
])  # fmt: skip
async def test_paths_are_escaped_once(url: str, path: str, raw_path: bytes) -> None:
    scope = await scope_of(url)
    assert (scope["path"], scope["raw_path"]) == (path, raw_path)


@pytest.mark.parametrize(("url", "params", "query"), [
    ("/?a=1", None, b"a=1"),
    ("/?a=1", {"b": 2}, b"a=1&b=2"),
    ("/", {"b": True, "c": None, "d": ["x", "y"], "e": "ä&"}, b"b=true&c=&d=x&d=y&e=%C3%A4%26"),
    ("/", [("a", 1.5), ("a", False)], b"a=1.5&a=false"),
    ("/?q=ä b", {}, b"q=%C3%A4%20b"),
])  # fmt: skip
async def test_the_query_combines_the_url_and_the_params(url: str, params: Any, query: bytes) -> None:
    assert (await scope_of(url, params=params))["query_string"] == query


async def test_headers_of_the_connection_replace_the_clients_and_the_handshakes() -> None:
    scope = await scope_of(
        "/",
        client_headers={"X-One": "client", "X-Two": "client", "Host": "client"},
        headers=[("x-two", "a"), ("X-Two", "b"), ("Origin", "http://testserver")],
    )
    pairs = [pair for pair in scope["headers"] if pair[0] in {b"host", b"x-one", b"x-two", b"origin"}]
    assert pairs == [
        (b"host", b"client"),
        (b"x-one", b"client"),
        (b"x-two", b"a"),
        (b"x-two", b"b"),
        (b"origin", b"http://testserver"),
    ]


async def test_cookies_of_the_connection_replace_the_clients() -> None:
    scope = await scope_of("/", client_cookies={"a": "1", "b": "2"}, cookies={"b": "3", "c": "4"})
    assert dict(scope["headers"])[b"cookie"] == b"a=1; b=3; c=4"


async def test_cookies_that_the_app_sets_are_sent_in_later_connections() -> None:
    recorder = Recorder()
    async with AsyncTestClient(recorder, cookies={"old": "1"}) as client:
        client.app = sends({**ACCEPT, "headers": [(b"set-cookie", b"new=2; Path=/in"), (b"set-cookie", b"all=3")]})
        async with client.websocket_connect("/in/side"):
            pass
        assert dict(client.cookies) == {"old": "1", "new": "2", "all": "3"}
        client.app = recorder
        async with client.websocket_connect("/in/again"):
            assert set(recorder.headers["cookie"].split("; ")) == {"new=2", "old=1", "all=3"}
        async with client.websocket_connect("/outside"):
            assert "new=2" not in recorder.headers["cookie"]
        del client.cookies["all"]
        assert (len(client.cookies), client.cookies["old"]) == (2, "1")
        with pytest.raises(KeyError, match="all"):
            del client.cookies["all"]


async def test_the_root_path_is_that_of_the_client() -> None:
    scope = await scope_of("/api/ws", client_root_path="/api")
    assert (scope["root_path"], scope["path"]) == ("/api", "/api/ws")


@pytest.mark.parametrize("url", ["ftp://host/", "ws:///path"])
async def test_an_invalid_url_is_an_error(url: str) -> None:
    async with AsyncTestClient(silent, "http:///" if url.startswith("ws") else "http://testserver") as client:
        with pytest.raises(ValueError, match="not a URL to connect to"):
            client.websocket_connect(url)


async def test_each_connection_has_a_copy_of_the_lifespans_state() -> None:
    app = Lifespanned()
    async with AsyncTestClient(app) as client:
        for _ in range(2):
            async with client.websocket_connect("/"):
                pass
    assert [state["count"] for state in app.states] == [2, 2]
    assert [state["shared"] for state in app.states] == [app, app]


async def test_the_session_has_the_subprotocol_and_headers_of_the_accept() -> None:
    headers = ((name, value) for name, value in [(b"x-a", b"1")])
    app = sends({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
    async with AsyncTestClient(app) as client, client.websocket_connect("/", ["one", "two"]) as session:
        assert session.accepted_subprotocol == "two"
        assert session.extra_headers == [(b"x-a", b"1")]
        assert session.scope["headers"][-1] == (b"x-a", b"1")
        assert session.scope["path"] == "/"


async def test_the_session_has_the_values_that_the_app_adds_to_the_scope() -> None:
    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = "somebody"
        await silent_conversation(scope, receive, send)

    async def silent_conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await until_disconnect(receive)

    async with AsyncTestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        assert session.scope["user"] == "somebody"


async def test_a_close_before_accept_refuses() -> None:
    seen: list[Message] = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 4401, "reason": "who are you"})
        seen.append(await receive())

    async with AsyncTestClient(websocket_app(conversation)) as client:
        with pytest.raises(WebSocketDisconnect) as caught:
            await client.websocket_connect("/")
    assert (caught.value.code, caught.value.reason) == (4401, "who are you")
    assert not isinstance(caught.value, WebSocketDenied)
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_a_denial_is_readable() -> None:
    app = sends(
        {"type": "websocket.http.response.start", "status": 403, "headers": [(b"content-type", b"application/json")]},
        {"type": "websocket.http.response.body", "body": b'{"detail":', "more_body": True},
        {"type": "websocket.http.response.body", "body": b'"no"}'},
    )
    async with AsyncTestClient(app) as client:
        with pytest.raises(WebSocketDenied) as caught:
            async with client.websocket_connect("/"):
                raise AssertionError("not reached")
    denied = caught.value
    assert (denied.status_code, denied.code) == (403, 1006)
    assert denied.headers == {"content-type": "application/json"}
    assert denied.content == b'{"detail":"no"}'
    assert denied.text == '{"detail":"no"}'
    assert denied.json() == {"detail": "no"}
    assert repr(denied) == """WebSocketDenied(403, b'{"detail":"no"}')"""


async def test_a_denial_may_have_no_headers_and_no_body() -> None:
    app = sends({"type": "websocket.http.response.start", "status": 404}, {"type": "websocket.http.response.body"})
    async with AsyncTestClient(app) as client:
        with pytest.raises(WebSocketDenied) as caught:
            await client.websocket_connect("/")
    assert (caught.value.headers, caught.value.content) == ({}, b"")
    with pytest.raises(SerializationException, match="not JSON"):
        caught.value.json()


async def test_without_the_extension_a_denial_is_misuse() -> None:
    app = sends({"type": "websocket.http.response.start", "status": 404})
    async with AsyncTestClient(app) as client:
        with pytest.raises(ProtocolMisuse, match="does not offer it: close instead"):
            await client.websocket_connect("/", extensions={})


async def test_an_app_that_sends_after_its_refusal_misuses_the_protocol() -> None:
    app = sends({"type": "websocket.close"}, {"type": "websocket.close"})
    async with AsyncTestClient(app) as client:
        with pytest.raises(ProtocolMisuse, match="after its close: nothing may follow"):
            await client.websocket_connect("/")


async def test_an_exception_before_the_answer_is_raised_in_the_test() -> None:
    async with AsyncTestClient(fails_with(LookupError("boom"))) as client:
        with pytest.raises(LookupError, match="boom"):
            await client.websocket_connect("/")


async def test_an_exception_after_the_refusal_is_raised_in_the_test() -> None:
    async with AsyncTestClient(fails_with(LookupError("boom"), {"type": "websocket.close", "code": 4000})) as client:
        with pytest.raises(LookupError, match="boom") as caught:
            await client.websocket_connect("/")
    assert isinstance(caught.value.__context__, WebSocketDisconnect)


async def test_without_raise_server_exceptions_an_exception_is_a_500() -> None:
    async with AsyncTestClient(fails_with(LookupError("boom")), raise_server_exceptions=False) as client:
        with pytest.raises(WebSocketDenied) as caught:
            await client.websocket_connect("/")
    assert (caught.value.status_code, caught.value.text) == (500, "Internal Server Error")


async def test_an_app_that_ends_without_an_answer_misuses_the_protocol() -> None:
    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async with AsyncTestClient(websocket_app(conversation)) as client:
        with pytest.raises(ProtocolMisuse, match=r"ended without an answer to websocket\.connect"):
            await client.websocket_connect("/")


async def test_an_app_that_never_answers_is_cancelled_and_named() -> None:
    cancelled = []

    async def never_answers(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with AsyncTestClient(websocket_app(never_answers)) as client:
        with pytest.raises(TimeoutError, match=r"no answer to websocket\.connect came from .*never_answers"):
            await client.websocket_connect("/", timeout=0.05)
        assert cancelled == [True]


async def test_an_app_that_never_ends_its_denial_is_cancelled() -> None:
    app = sends({"type": "websocket.http.response.start", "status": 404})
    async with AsyncTestClient(app) as client:
        with pytest.raises(TimeoutError, match=r"no end of the denial came from .* within 0\.05 s"):
            await client.websocket_connect("/", timeout=0.05)


async def test_cancelling_the_test_in_the_handshake_cancels_the_app() -> None:
    started = asyncio.Event()

    async def never_answers(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await asyncio.Event().wait()

    async with AsyncTestClient(websocket_app(never_answers)) as client:
        session = client.websocket_connect("/")
        connecting = asyncio.create_task(session.connect())
        await started.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("test session")]


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
async def test_a_timeout_limits_the_whole_wait(timeout: float) -> None:
    with pytest.raises(ValueError, match="positive, finite"):
        AsyncTestClient(echo, timeout=timeout)
    async with AsyncTestClient(echo) as client:
        with pytest.raises(ValueError, match="positive, finite"):
            client.websocket_connect("/", timeout=timeout)
