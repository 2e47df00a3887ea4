"""Every example of the reference page does what the page says: with ``TestClient``, and on uvicorn with ``websockets``.

The first two tests are the page's "how to test".
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any, Protocol

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from examples.websockets.stream_and_receive_listener import app as listener_app
from examples.websockets.stream_and_receive_raw import app as raw_app
from telex.exceptions import WebSocketDisconnect
from telex.testing import TestClient, TestClock
from tests.examples.websockets_app import APPS, names
from tests.support.programs import Program, program


def test_a_listener_that_streams_is_tested_like_any_other() -> None:
    with TestClient(listener_app) as client, client.websocket_connect("/") as session:
        session.expect(float)
        session.send_text("hello")
        session.expect("hello")
        session.expect(float)


def test_a_handler_that_streams_is_tested_like_any_other() -> None:
    with TestClient(raw_app) as client, client.websocket_connect("/") as session:
        session.expect(float)
        session.send_json(["hello"])
        session.expect({"received": ["hello"]})
        session.expect(float)


# -- one conversation for each example, held over two lines


class Line(Protocol):
    """A connection of either client."""

    headers: Mapping[str, str]

    def send(self, data: str | bytes) -> None:
        """A frame of the kind of ``data``."""

    def receive(self, timeout: float = 5) -> str | bytes:
        """The next frame; ``WebSocketDisconnect`` when it is a close, ``TimeoutError`` when none comes."""


Call = Callable[..., AbstractContextManager[Line]]
"""Connects, with ``headers``, and within ``limit`` seconds."""


class TestClientLine:
    __test__ = False

    def __init__(self, client: TestClient, session: Any) -> None:
        self.client = client
        self.session = session
        self.headers: Mapping[str, str] = {key.decode(): value.decode() for key, value in session.extra_headers}

    def send(self, data: str | bytes) -> None:
        self.session.send(data, "text" if isinstance(data, str) else "binary")

    def receive(self, timeout: float = 5) -> str | bytes:
        self.client.advance(0)
        try:
            event = self.session.receive(0)
        except TimeoutError:  # the next value of a stream comes after half a second
            self.client.advance(0.5)
            event = self.session.receive(timeout)
        data: str | bytes | None = event.get("text")
        return event["bytes"] if data is None else data


class WireLine:
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.headers: Mapping[str, str] = connection.response.headers

    def send(self, data: str | bytes) -> None:
        self.connection.send(data)

    def receive(self, timeout: float = 5) -> str | bytes:
        try:
            return self.connection.recv(timeout=timeout)  # type: ignore[no-any-return]
        except ConnectionClosed as closed:
            frame = closed.rcvd
            assert frame is not None, "it was lost, and not closed"
            raise WebSocketDisconnect(frame.code, frame.reason) from None


@pytest.fixture(scope="module")
def uvicorn() -> Iterator[Program]:
    options = ["--port", "0", "--ws", "websockets-sansio"]
    with program(sys.executable, "-m", "uvicorn", "tests.examples.websockets_app:app", *options) as running:
        running.accepts(("127.0.0.1", running.port))
        yield running
        running.stop()
        assert "Traceback" not in running.log, running.log


@pytest.fixture(params=["TestClient", pytest.param("uvicorn", marks=pytest.mark.program)])
def call(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Call]]:
    """Gives, for an example's name, what connects to it."""
    if request.param == "uvicorn":
        server: Program = request.getfixturevalue("uvicorn")

        def on_uvicorn(name: str) -> Call:
            @contextmanager
            def connecting(headers: Mapping[str, str] = MappingProxyType({}), limit: float = 5) -> Iterator[Line]:
                url = server.url(f"/{name}/")
                with connect(url, additional_headers=headers, open_timeout=limit) as connection:
                    yield WireLine(connection)

            return connecting

        yield on_uvicorn
        return
    clients = []

    def in_process(name: str) -> Call:
        client = TestClient(APPS[name], clock=TestClock())
        client.__enter__()
        clients.append(client)

        @contextmanager
        def connecting(headers: Mapping[str, str] = MappingProxyType({}), limit: float = 5) -> Iterator[Line]:
            with client.websocket_connect("/", headers=headers, timeout=limit) as session:
                yield TestClientLine(client, session)

        return connecting

    yield in_process
    for client in clients:
        client.__exit__(None, None, None)


def answer(name: str) -> Callable[[Callable[[Call], None]], Callable[[Call], None]]:
    """Registers the conversation of one example."""

    def register(conversation: Callable[[Call], None]) -> Callable[[Call], None]:
        assert name not in CONVERSATIONS
        CONVERSATIONS[name] = conversation
        return conversation

    return register


CONVERSATIONS: dict[str, Callable[[Call], None]] = {}


def exchanges(name: str, *pairs: tuple[str | bytes, str | bytes | None]) -> None:
    """Registers messages with the replies that they get, or with ``None`` for none."""

    @answer(name)
    def conversation(call: Call) -> None:
        with call() as line:
            for message, reply in pairs:
                line.send(message)
                if reply is not None:
                    assert line.receive() == reply


WRONG = '{"type":"error","error":{"code":"invalid_message","message":"Expected `int`, got `str`","path":"$[...]"}}'
HASH = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

exchanges("first", ("hello", "hello"), ("", ""))
exchanges(
    "receive_json",
    ('{"Ada": 7, "Bo": 9}', "2 scores, the best is 9"),
    ('{"Ada": "seven"}', WRONG),
    ("{}", "0 scores, the best is 0"),
)
exchanges("receive_str", ("héllo", "HÉLLO"))
exchanges("receive_bytes", ("hello", HASH))
exchanges("sending_str", ("hello", "you said 'hello'"))
exchanges("sending_bytes", ("héllo", "héllo"))
exchanges("sending_json_dict", ("hello", '{"message":"hello","length":5}'))
exchanges("mode_receive_text", (b"not for me", None), ("hello", "hello"))
exchanges("mode_receive_binary", ("not for me", None), (b"hello", "hello"))
exchanges("mode_send_text", ("hello", "hello"))
exchanges("mode_send_binary", ("hello", b"hello"))
exchanges("dependency_injection_simple", ("Ada", "Welcome, Ada!"), ("Bo", "Welcome, Bo!"))


@answer("sending_json_dataclass")
def dataclass_as_json(call: Call) -> None:
    with call() as line:
        line.send("hello")
        message = json.loads(line.receive())
    assert message["content"] == "hello"
    assert message["received_at"].endswith("Z")


@answer("dependency_injection_yield")
def dependency_that_yields(call: Call) -> None:
    with call() as first:
        first.send("a")
        assert first.receive() == "a from connection 1, 1 open"
        with call() as second:
            second.send("b")
            assert second.receive() == "b from connection 2, 2 open"
            first.send("c")
            assert first.receive() == "c from connection 1, 2 open"
        wait_until(lambda: said(first, "d") == "d from connection 1, 1 open")


@answer("socket_access")
def socket_in_a_listener(call: Call) -> None:
    with call() as line:
        assert said(line, "hello") == "hello"
        line.send("goodbye")
        assert closed(line) == (1000, "it was a pleasure")


@answer("setting_custom_connection_headers")
def headers_of_the_accept(call: Call) -> None:
    with call() as line:
        assert line.headers["x-served-by"] == "telex"
        assert said(line, "hello") == "hello"


@answer("listener_class_based")
def class_with_sync_hooks(call: Call) -> None:
    with call() as first, call() as second:
        assert said(first, "a") == "a, one of 2"
        assert said(second, "b") == "b, one of 2"
    with call() as third:
        wait_until(lambda: said(third, "c") == "c, one of 1")


@answer("listener_class_based_async")
def class_with_async_hooks(call: Call) -> None:
    with call() as first:
        assert said(first, "hello") == "hello"
        with call() as second:
            assert first.receive() == "somebody came"
            assert said(second, "hi") == "hi"
        assert first.receive() == "somebody left"


@answer("custom_websocket")
def websocket_of_another_class(call: Call) -> None:
    with call(headers={"accept-language": "fr"}) as line:
        assert said(line, "HELLO") == "hello (fr)"
        assert said(line, "Again") == "again (fr)"


@answer("stream_basic")
@answer("stream_di_hog_fix")
def stream_of_times(call: Call) -> None:
    with call() as first, call() as second:
        for line in (first, second):
            before, after = float(line.receive()), float(line.receive())
            assert abs(before - time.time()) < 30
            assert (0.4 if isinstance(line, WireLine) else 0) < after - before < 5  # in process, a clock is advanced


@answer("stream_di_hog")
def stream_that_holds_a_lock(call: Call) -> None:
    with call() as first:
        float(first.receive())
        # A connection waits for its dependencies before it is accepted.
        with pytest.raises(TimeoutError), call(limit=0.5):
            pass
    with call() as third:
        float(third.receive())


@answer("stream_socket_access")
def socket_in_a_stream(call: Call) -> None:
    with call() as line:
        tick = json.loads(line.receive())
    assert tick["client"] in {"127.0.0.1", "testclient"}
    assert abs(tick["time"] - time.time()) < 30


@answer("stream_and_receive_listener")
@answer("stream_and_receive_socket")
def stream_and_listener(call: Call) -> None:
    with call() as line:
        first = float(line.receive())
        line.send("hello")
        assert until_no_number(line) == "hello"
        assert float(line.receive()) > first


@answer("stream_and_receive_raw")
def stream_and_handler(call: Call) -> None:
    with call() as line:
        first = float(line.receive())
        line.send('{"a": 1}')
        assert until_no_number(line) == '{"received":{"a":1}}'
        assert float(line.receive()) > first


def said(line: Line, text: str) -> str | bytes:
    line.send(text)
    return line.receive()


def closed(line: Line) -> tuple[int, str]:
    with pytest.raises(WebSocketDisconnect) as left:
        line.receive()
    return left.value.code, left.value.reason


def until_no_number(line: Line) -> str | bytes:
    while (message := line.receive()).replace(".", "").isdigit():  # type: ignore[arg-type]
        pass
    return message


def wait_until(holds: Callable[[], bool], within: float = 5) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline


def test_every_example_has_a_conversation() -> None:
    assert sorted(CONVERSATIONS) == names()


@pytest.mark.parametrize("name", names())
def test_an_example_does_what_the_page_says(name: str, call: Callable[[str], Call]) -> None:
    CONVERSATIONS[name](call(name))
