"""``websocket_stream`` and ``send_websocket_stream``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from telex import (
    ImproperlyConfiguredException,
    Provide,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    send_websocket_stream,
    websocket,
    websocket_listener,
    websocket_stream,
)
from tests.support.live import asked, connected, denied, ending, heard, serving, soon, talking


@dataclass
class Point:
    x: int


async def test_what_it_yields_is_sent_and_its_end_closes_with_1000() -> None:
    @websocket_stream("/")
    async def stream() -> AsyncGenerator[Any, None]:
        for value in ("text", b"bytes", {"a": 1}, Point(1), 5, None):
            yield value

    async with talking(Telex([stream])) as client:
        got = [await heard(client) for _ in range(6)]
        assert await ending(client) == (1000, "")
    assert got == ["text", "bytes", '{"a":1}', '{"x":1}', "5", "null"]


async def test_binary_mode() -> None:
    @websocket_stream("/", mode="binary")
    async def stream() -> AsyncGenerator[Point | str, None]:
        yield Point(1)
        yield "ü"

    async with talking(Telex([stream])) as client:
        assert [await heard(client), await heard(client)] == [b'{"x":1}', "ü".encode()]


async def test_an_empty_stream_is_accepted_and_closed() -> None:
    for listen in (True, False):

        @websocket_stream("/", listen_for_disconnect=listen)
        async def stream() -> AsyncGenerator[int, None]:
            return
            yield

        async with talking(Telex([stream])) as client:
            assert await ending(client) == (1000, "")


async def test_dependencies_parameters_and_the_socket() -> None:
    @websocket_stream("/{room:str}", dependencies={"base": Provide(lambda: 10)})
    async def stream(base: int, room: str, socket: WebSocket, step: int = 1) -> AsyncGenerator[Any, None]:
        yield [base, room, step, socket.connection_state]

    async with talking(Telex([stream]), "/blue?step=3") as client:
        assert await heard(client) == '[10,"blue",3,"receive"]'


async def test_a_plain_function_that_gives_a_generator() -> None:
    async def numbers(count: int) -> AsyncGenerator[int, None]:
        for number in range(count):
            yield number

    @websocket_stream("/")
    def stream(count: int) -> AsyncGenerator[int, None]:
        return numbers(count)

    async with talking(Telex([stream]), "/?count=2") as client:
        assert [await heard(client), await heard(client)] == ["0", "1"]


@pytest.mark.parametrize("waiting", ["for itself", "in a send"])
async def test_a_client_that_leaves_closes_the_generator(waiting: str) -> None:
    ends: list[str] = []
    ended = asyncio.Event()

    @websocket_stream("/")
    async def stream() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "x" * (1 if waiting == "for itself" else 1_000_000)
                if waiting == "for itself":
                    await asyncio.Event().wait()
        except BaseException as exc:
            ends.append(type(exc).__name__)
            raise
        finally:
            ended.set()

    async with serving(Telex([stream])) as running, connected(running, max_size=None, compression=None) as client:
        await heard(client)
        client.transport.abort()
        await soon(ended.wait())
    assert ends == ["CancelledError" if waiting == "for itself" else "GeneratorExit"]


async def test_what_a_stream_raises_before_its_first_value() -> None:
    exc: Exception | None = WebSocketException(4009, "at once")

    @websocket_stream("/")
    async def stream() -> AsyncGenerator[str, None]:
        if exc is not None:
            raise exc
        yield ""

    async with talking(Telex([stream])) as client:
        assert await ending(client) == (4009, "at once")


@pytest.mark.parametrize("how", [{}, {"allow_data_discard": True}, {"listen_for_disconnect": False}])
async def test_data_from_the_client(how: Any, caplog: pytest.LogCaptureFixture) -> None:
    proceed = asyncio.Event()

    @websocket_stream("/", **how)
    async def stream() -> AsyncGenerator[str, None]:
        yield "one"
        await proceed.wait()
        yield "two"

    async with talking(Telex([stream])) as client:
        assert await heard(client) == "one"
        await client.send("data")
        if not how:
            assert await ending(client) == (1003, "this stream takes no data")
            assert "stream (handlers/test_stream.py:" in caplog.text
            return
        await soon(await client.ping())
        proceed.set()
        assert await heard(client) == "two"


@pytest.mark.parametrize(
    ("returns", "complaint"),
    [
        (
            AsyncIterator[int],
            r"'-> AsyncGenerator\[T, None\]' with the type that it yields, not .*AsyncIterator\[int\]",
        ),
        (AsyncGenerator, "not <class 'collections.abc.AsyncGenerator'>"),
        (Any, "not typing.Any"),
        (None, "not <class 'NoneType'>"),
    ],
)
def test_a_stream_is_annotated_with_what_it_yields(returns: Any, complaint: str) -> None:
    async def stream() -> Any:
        yield 1

    stream.__annotations__["return"] = returns
    with pytest.raises(ImproperlyConfiguredException, match=complaint):
        Telex([websocket_stream("/")(stream)])


@pytest.mark.parametrize("name", ["data", "request", "body"])
def test_a_stream_takes_no_message(name: str) -> None:
    async def stream(**kwargs: Any) -> AsyncGenerator[int, None]:
        yield 1

    import inspect

    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Any)
    stream.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    stream.__annotations__[name] = Any
    with pytest.raises(
        ImproperlyConfiguredException, match=f"'{name}' is not available in a stream: receive from 'sock"
    ):
        Telex([websocket_stream("/")(stream)])


def test_unknown_options_and_modes() -> None:
    async def stream() -> AsyncGenerator[int, None]:
        yield 1

    with pytest.raises(ImproperlyConfiguredException, match="unknown option 'listen_for_disconnects'"):
        websocket_stream("/", listen_for_disconnects=True)(stream)  # type: ignore[call-arg]
    with pytest.raises(ImproperlyConfiguredException, match="mode is 'text' or 'binary', not 'json'"):
        websocket_stream("/", mode="json")(stream)  # type: ignore[arg-type]
    with pytest.raises(ImproperlyConfiguredException, match="is given 3: it decorates a function"):
        websocket_stream("/")(3)  # type: ignore[arg-type]


# -- send_websocket_stream


async def numbers(count: int, closed: list[bool] | None = None) -> AsyncGenerator[int, None]:
    try:
        for number in range(count):
            yield number
    finally:
        if closed is not None:
            closed.append(True)


def raw(fn: Callable[[WebSocket], Any], **options: Any) -> Telex:
    @websocket("/", **options)
    async def handle(socket: WebSocket) -> None:
        await fn(socket)

    return Telex([handle])


async def test_it_accepts_sends_and_closes() -> None:
    async with talking(raw(lambda socket: send_websocket_stream(socket, numbers(2)))) as client:
        assert [await heard(client), await heard(client)] == ["0", "1"]
        assert await ending(client) == (1000, "")


async def test_it_may_leave_the_connection_open() -> None:
    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        await send_websocket_stream(socket, numbers(1), close=False, mode="binary")
        await socket.send_text(await socket.receive_text())

    async with talking(raw(handle)) as client:
        assert await heard(client) == b"0"
        assert await asked(client, "still open") == "still open"


async def test_any_async_iterator_will_do() -> None:
    class Countdown:
        left = 2

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    async with talking(raw(lambda socket: send_websocket_stream(socket, Countdown()))) as client:
        assert [await heard(client), await heard(client)] == ["1", "0"]


async def test_listening_stops_the_stream_when_the_client_leaves_and_returns() -> None:
    log: list[str] = []
    ended = asyncio.Event()

    async def endless() -> AsyncGenerator[str, None]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            log.append("closed")

    async def handle(socket: WebSocket) -> None:
        await send_websocket_stream(socket, endless(), listen_for_disconnect=True)
        log.append("returned")
        ended.set()

    async with talking(raw(handle)) as client:
        assert await heard(client) == "first"
        await client.close()
        await soon(ended.wait())
    assert log == ["closed", "returned"]


@pytest.mark.parametrize("discard", [True, False])
async def test_listening_meets_data(discard: bool, caplog: pytest.LogCaptureFixture) -> None:
    proceed = asyncio.Event()

    async def two() -> AsyncGenerator[str, None]:
        yield "one"
        await proceed.wait()
        yield "two"

    async def handle(socket: WebSocket) -> None:
        await send_websocket_stream(socket, two(), listen_for_disconnect=True, allow_data_discard=discard)

    async with talking(raw(handle)) as client:
        assert await heard(client) == "one"
        await client.send("data")
        if discard:
            await soon(await client.ping())
            proceed.set()
            assert await heard(client) == "two"
            assert await ending(client) == (1000, "")
        else:
            assert (await ending(client))[0] == 1003
            assert "send_websocket_stream" in caplog.text


async def test_what_the_stream_raises_passes_through() -> None:
    async def failing() -> AsyncGenerator[str, None]:
        yield "one"
        raise KeyError

    async def handle(socket: WebSocket) -> None:
        with pytest.raises(KeyError):
            await send_websocket_stream(socket, failing())
        await socket.send_text("caught")

    async with talking(raw(handle)) as client:
        assert [await heard(client), await heard(client)] == ["one", "caught"]


async def test_a_connection_that_was_closed_meanwhile_ends_the_stream_quietly() -> None:
    closed: list[bool] = []

    async def handle(socket: WebSocket) -> None:
        async def shout(socket: WebSocket, value: int) -> None:
            await socket.send_text(str(value))
            if value == 1:
                await socket.close(4000)

        await send_websocket_stream(socket, numbers(10, closed), send_handler=shout)

    async with talking(raw(handle)) as client:
        assert [await heard(client), await heard(client)] == ["0", "1"]
        assert (await ending(client))[0] == 4000
    assert closed == [True]


async def test_a_stream_and_a_listener_on_one_socket() -> None:
    @websocket_listener("/")
    async def listen(data: int, socket: WebSocket) -> str:
        await send_websocket_stream(socket, numbers(data), close=False)
        return "end"

    async with talking(Telex([listen])) as client:
        for count in (2, 0, 1):
            await client.send(str(count))
            assert [await heard(client) for _ in range(count + 1)] == [*map(str, range(count)), "end"]


async def test_a_stream_that_is_refused_before_accept() -> None:
    def refuse() -> None:
        raise WebSocketException(4000)

    @websocket_stream("/", dependencies={"refuse": refuse})
    async def stream(refuse: None) -> AsyncGenerator[int, None]:
        yield 1

    async with serving(Telex([stream])) as running:
        assert (await denied(running)).status == 403


async def test_a_disconnect_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    @websocket_stream("/")
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.Event().wait()

    async with talking(Telex([stream])) as client:
        assert await heard(client) == "1"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_disconnect_that_the_stream_raises_of_its_own_accord_passes() -> None:
    async def pretending() -> AsyncGenerator[str, None]:
        raise WebSocketDisconnect(4001, "as if")
        yield ""  # type: ignore[unreachable]

    async with talking(raw(lambda socket: send_websocket_stream(socket, pretending()))) as client:
        assert await ending(client) == (4001, "as if")


async def test_a_stream_on_a_connection_that_is_closed_already_ends_at_once() -> None:
    closed: list[bool] = []

    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(4000)
        await send_websocket_stream(socket, numbers(5, closed))

    async with talking(raw(handle)) as client:
        assert (await ending(client))[0] == 4000
    assert closed == [True]


def test_an_option_without_effect_is_an_error() -> None:
    @websocket_stream("/", on_invalid_message="close")
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1

    with pytest.raises(ImproperlyConfiguredException, match="on_invalid_message= has no effect: a stream takes no"):
        Telex([numbers])


class Unwritable:
    """A type whose encoder fails."""


@pytest.mark.parametrize("error", [StopAsyncIteration, StopIteration])
@pytest.mark.parametrize("how", ["handler", "beside", "function"])
async def test_an_encoder_that_raises_an_end_of_iteration_is_an_error(
    error: type[Exception], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(value: Unwritable) -> str:
        raise error

    async def values() -> AsyncGenerator[Any, None]:
        yield Unwritable()

    @websocket_stream("/handler")
    async def stream() -> AsyncGenerator[Any, None]:
        yield Unwritable()

    @websocket("/beside")
    async def beside(socket: WebSocket) -> None:
        await socket.accept()
        socket.start_stream(values())
        await socket.receive_text()

    @websocket("/function")
    async def function(socket: WebSocket) -> None:
        await send_websocket_stream(socket, values())

    app = Telex([stream, beside, function], type_encoders={Unwritable: encode})
    async with talking(app, f"/{how}") as client:
        assert (await ending(client))[0] == 1011
    assert error.__name__ in caplog.text
