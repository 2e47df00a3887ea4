"""The synchronous client and session."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncGenerator, Iterator

import pytest

from telex.exceptions import ConnectionStateError, WebSocketDisconnect
from telex.testing import ProtocolMisuse, TestClient, WebSocketDenied, WebSocketTestSession
from telex.types import Receive, Scope, Send

from .apps import (
    ACCEPT,
    SENT,
    Lifespanned,
    cancels_itself,
    echo,
    echo_unless_lifespan,
    fails_with,
    says,
    sends,
    silent,
    stubborn,
    until_disconnect,
    websocket_app,
)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_each_kind_of_message_is_sent_and_received() -> None:
    with TestClient(echo) as client, client.websocket_connect("/") as session:
        session.send("a")
        assert session.receive() == {"type": "websocket.send", "text": "a"}
        session.send_text("b")
        assert session.receive_text() == "b"
        session.send_bytes(b"c")
        assert session.receive_bytes() == b"c"
        session.send_json({"d": 1})
        assert session.receive_json() == {"d": 1}
        session.send_msgpack({"e": 1})
        assert session.receive_msgpack() == {"e": 1}
        session.send_raw({"type": "websocket.receive", "text": "f"})
        assert session.expect("f") == "f"
        session.refute(timeout=0.01)


def test_the_session_has_the_values_of_the_handshake() -> None:
    app = sends({"type": "websocket.accept", "subprotocol": "one", "headers": [(b"x-a", b"1")]})
    with TestClient(app, "https://example.org", headers={"x-b": "2"}, root_path="/root") as client:
        assert client.app is app
        client.cookies["c"] = "3"
        with client.websocket_connect("/ws", ["one"], {"q": 1}, {"x-d": "4"}, {"e": "5"}, timeout=1) as session:
            assert session.accepted_subprotocol == "one"
            assert session.extra_headers == [(b"x-a", b"1")]
            scope = session.scope
    headers = dict(scope["headers"])
    assert (scope["scheme"], scope["path"], scope["query_string"]) == ("wss", "/ws", b"q=1")
    assert (scope["root_path"], scope["server"]) == ("/root", ("example.org", 443))
    assert (headers[b"x-b"], headers[b"x-d"], headers[b"cookie"]) == (b"2", b"4", b"c=3; e=5")


def test_iteration_ends_at_the_close() -> None:
    app = sends(dict(ACCEPT), {"type": "websocket.send", "text": ""}, {"type": "websocket.close"})
    with TestClient(app) as client, client.websocket_connect("/") as session:
        assert list(session) == [""]


def test_a_close_reaches_the_app() -> None:
    seen = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        seen.append(await receive())

    with TestClient(websocket_app(conversation)) as client, client.websocket_connect("/") as session:
        session.close(4000, "done")
    assert seen == [{"type": "websocket.disconnect", "code": 4000, "reason": "done"}]


def test_the_end_of_the_with_block_waits_for_the_app() -> None:
    seen = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        seen.append(await until_disconnect(receive))

    with TestClient(websocket_app(conversation)) as client:
        with client.websocket_connect("/"):
            pass
        assert len(seen) == 1


def test_denials_and_closes_are_raised() -> None:
    denial = sends({"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.http.response.body"})
    with TestClient(denial) as client, pytest.raises(WebSocketDenied), client.websocket_connect("/"):
        pass
    with (
        TestClient(denial) as client,
        pytest.raises(ProtocolMisuse),
        client.websocket_connect("/", extensions={}),
    ):
        pass
    closing = sends({"type": "websocket.close", "code": 4000})
    with TestClient(closing) as client, pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


def test_exceptions_of_the_app_are_raised() -> None:
    app = fails_with(LookupError("boom"), dict(ACCEPT))
    with TestClient(app) as client:
        with client.websocket_connect("/") as session, pytest.raises(LookupError, match="boom"):
            session.receive()
        with pytest.raises(LookupError, match="boom"), client.websocket_connect("/"):
            pass
    with TestClient(app, raise_server_exceptions=False) as client, client.websocket_connect("/") as session:
        assert session.expect(WebSocketDisconnect, timeout=1).code == 1006


def test_an_exception_of_the_test_takes_precedence() -> None:
    client = TestClient(fails_with(LookupError("boom"), dict(ACCEPT)))
    with client, pytest.raises(ZeroDivisionError) as caught, client.websocket_connect("/"):
        raise ZeroDivisionError
    assert "LookupError: boom" in caught.value.__notes__[0]


def test_the_client_works_after_the_app_raised_system_exit() -> None:
    with TestClient(fails_with(SystemExit(3), dict(ACCEPT))) as client:
        for _ in range(2):
            with client.websocket_connect("/") as session, pytest.raises(SystemExit):
                session.receive()


def test_every_wait_has_a_timeout() -> None:
    with TestClient(silent, timeout=0.05) as client, client.websocket_connect("/") as session:
        for wait in (session.receive, session.receive_text, session.receive_bytes, session.receive_msgpack):
            with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
                wait()
            with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
                wait(timeout=0.01)
            with pytest.raises(TimeoutError, match="within 0 s"):
                wait(block=False)
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            session.receive_json(timeout=0.01)
    with (
        TestClient(stubborn) as client,
        pytest.raises(TimeoutError, match="_stubborn"),
        client.websocket_connect("/", timeout=0.05),
    ):
        pass


def test_the_lifespan_runs_around_the_test() -> None:
    app = Lifespanned()
    with TestClient(app) as client:
        assert app.diary == ["startup"]
        with client.websocket_connect("/") as session:
            session.send_text("a")
            session.expect("a")
    assert app.diary == ["startup", "shutdown"]


def test_no_thread_remains_after_a_failed_startup() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError("no database")

    with pytest.raises(LookupError), TestClient(app):
        pass


def test_the_app_runs_in_the_context_of_the_test() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await send({"type": "websocket.send", "text": variable.get()})

    with TestClient(websocket_app(conversation)) as client:
        variable.set("set")
        with client.websocket_connect("/") as session:
            session.expect("set")


def test_tasks_that_the_app_does_not_end_are_cancelled() -> None:
    ended = []

    async def lingers() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def generates() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            ended.append("generator")

    kept: list[object] = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(asyncio.create_task(lingers()))
        generator = generates()
        kept.append(generator)
        await anext(generator)
        await send(dict(ACCEPT))
        await asyncio.to_thread(time.sleep, 0)  # a worker thread, which must end too

    with TestClient(websocket_app(conversation)) as client, client.websocket_connect("/"):
        pass
    assert ended == ["task", "generator"]


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("blocking", "lifespan", "portal", "tasks"):
        monkeypatch.setattr(f"telex.testing.{module}.GRACE", 0.1)


def talk(session: WebSocketTestSession) -> None:
    """Both texts are possible: the loop may be blocked before or after the first answer."""
    session.send_text("block")
    session.receive()


@pytest.mark.usefixtures("short_grace")
def test_the_error_for_a_blocked_loop_names_the_blocking_function() -> None:
    freed = threading.Event()

    async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        await receive()
        freed.wait()

    with TestClient(websocket_app(blocks), timeout=0.05) as client, client.websocket_connect("/") as session:
        with pytest.raises(TimeoutError, match=r"blocks its event loop for more than 0\.6 s in .*\(.*threading.py:\d+"):
            talk(session)
        freed.set()


@pytest.mark.long
@pytest.mark.usefixtures("short_grace")
def test_a_thread_that_cannot_be_joined_is_an_error() -> None:
    freed = threading.Event()

    async def blocks_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            asyncio.get_running_loop().call_later(0, freed.wait)

    threads = set(threading.enumerate())
    with pytest.raises(TimeoutError, match="the thread is left behind in"), TestClient(blocks_at_the_end, timeout=0.2):
        [thread] = set(threading.enumerate()) - threads
    freed.set()
    thread.join(5)


@pytest.mark.usefixtures("short_grace")
def test_a_worker_that_cannot_be_joined_is_an_error() -> None:
    threads = set(threading.enumerate())
    freed = threading.Event()
    kept: list[object] = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(ACCEPT))
        kept.append(asyncio.get_running_loop().run_in_executor(None, freed.wait))

    with (
        pytest.raises(TimeoutError, match="a function in a worker thread, which is left behind"),
        TestClient(websocket_app(conversation)) as client,
        client.websocket_connect("/"),
    ):
        pass
    left = set(threading.enumerate()) - threads
    assert any(thread.name.startswith("telex-testing-worker") for thread in left)
    freed.set()
    for thread in left:
        thread.join(5)


def test_a_session_needs_its_with_block_and_an_open_client() -> None:
    client = TestClient(silent)
    session = client.websocket_connect("/")
    with pytest.raises(ConnectionStateError, match="the session is not entered"):
        session.send_text("too early")
    with client:
        session = client.websocket_connect("/")
    with pytest.raises(ConnectionStateError, match="the client has been left"):
        session.send_text("too late")


def test_without_with_the_app_serves_and_its_lifespan_does_not_run() -> None:
    app = Lifespanned()
    client = TestClient(echo_unless_lifespan(app))
    for _ in range(2):
        with client.websocket_connect("/") as session:
            session.send("a")
            session.expect("a")
    assert app.diary == []
    with client, client.websocket_connect("/") as session:
        session.send("b")
        session.expect("b")
    assert app.diary == ["startup", "shutdown"]
    with client.websocket_connect("/") as session:
        session.send("c")
        session.expect("c")


def test_without_with_sessions_that_are_open_at_once_share_an_event_loop() -> None:
    loops = []

    async def conversation(scope: Scope, receive: Receive, send: Send) -> None:
        loops.append(asyncio.get_running_loop())
        await send(dict(ACCEPT))
        await until_disconnect(receive)

    client = TestClient(websocket_app(conversation))
    with client.websocket_connect("/"), client.websocket_connect("/"):
        pass
    with client.websocket_connect("/"):
        pass
    first, second, third = loops
    assert first is second
    assert third is not first


def test_without_with_no_thread_remains_after_a_refused_handshake() -> None:
    closing = sends({"type": "websocket.close", "code": 4000})
    with pytest.raises(WebSocketDisconnect), TestClient(closing).websocket_connect("/"):
        pass


def test_send_chooses_the_frame_by_the_value() -> None:
    with TestClient(echo).websocket_connect("/") as session:
        for value, event in SENT:
            session.send(value)
            assert session.receive() == {"type": "websocket.send", **event}
        session.send({"a": 1}, mode="binary")
        assert session.receive_bytes() == b'{"a":1}'


def test_a_cancelled_error_that_the_app_raises_is_raised() -> None:
    with TestClient(cancels_itself).websocket_connect("/") as session, pytest.raises(asyncio.CancelledError):
        session.receive()
    with pytest.raises(asyncio.CancelledError), TestClient(cancels_itself) as client, client.websocket_connect("/"):
        pass


def test_a_predicate_gets_the_message() -> None:
    with TestClient(says("abc")) as client, client.websocket_connect("/") as session:
        assert session.expect(lambda message: "b" in message) == "abc"
