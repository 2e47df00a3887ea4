"""``websocket``: the low-level handler."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from telex import ImproperlyConfiguredException, Telex, WebSocket, WebSocketDisconnect, websocket
from telex.dto import MsgspecDTO
from telex.handlers import WebsocketHandler
from tests.support.live import asked_json, connected, denied, ending, serving, soon, talking


class Say(msgspec.Struct):
    text: str


async def test_it_accepts_receives_sends_and_closes_itself() -> None:
    @websocket("/{room:str}")
    async def handle(socket: WebSocket, room: str) -> None:
        await socket.accept(headers={"x-room": room})
        async for value in socket.iter_json():
            if value is None:
                await socket.close(4000, "done")
                return
            await socket.send_json({"room": room, "value": value})

    async with talking(Telex([handle]), "/blue") as client:
        assert await asked_json(client, [1]) == {"room": "blue", "value": [1]}
        await client.send("null")
        assert await ending(client) == (4000, "done")


async def test_several_paths_and_the_default_one() -> None:
    @websocket(["/a", "/b/{x:int}"])
    async def several(socket: WebSocket) -> None:
        await socket.send_text(socket.url.path)

    @websocket()
    async def root(socket: WebSocket) -> None:
        await socket.send_text("root")

    async with serving(Telex([several, root])) as running:
        for path, text in (("/a", "/a"), ("/b/5", "/b/5"), ("/", "root")):
            async with connected(running, path) as client:
                assert await soon(client.recv()) == text
        assert (await denied(running, "/b/x")).status == 404


async def test_a_client_that_leaves_cancels_the_handler() -> None:
    ends: list[Any] = []
    ended = asyncio.Event()

    @websocket("/")
    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await asyncio.Event().wait()
        except BaseException as exc:
            ends.append(type(exc))
            raise
        finally:
            ended.set()

    async with talking(Telex([handle])) as client:
        await client.close()
        await soon(ended.wait())
    assert ends == [asyncio.CancelledError]


async def test_child_tasks_may_do_the_reading() -> None:
    @websocket("/")
    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        received: asyncio.Queue[str | None] = asyncio.Queue()

        async def read() -> None:
            async for text in socket.iter_text():
                await received.put(text)
            await received.put(None)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            while (text := await received.get()) is not None:
                await asyncio.sleep(0.03)  # long enough to be watched
                await socket.send_text(text.upper())

    async with talking(Telex([handle])) as client:
        for text in ("a", "b", "c"):
            await client.send(text)
        assert [await soon(client.recv()) for _ in range(3)] == ["A", "B", "C"]


async def test_a_disconnect_says_how_the_client_left() -> None:
    left: list[tuple[int, str]] = []
    ended = asyncio.Event()

    @websocket("/")
    async def handle(socket: WebSocket) -> None:
        await socket.accept()
        try:
            await socket.receive_text()
        except WebSocketDisconnect as exc:
            left.append((exc.code, exc.reason))
            await socket.close()
        ended.set()

    async with serving(Telex([handle])) as running:
        async with connected(running) as client:
            await client.close(4567, "bye")
        await soon(ended.wait())
        ended.clear()
        async with connected(running) as client:
            client.transport.abort()
            await soon(ended.wait())
    assert left[0] == (4567, "bye")
    assert left[1] in {(1006, ""), (1005, "")}  # uvicorn says 1005 for a connection that was lost


def build(fn: Any) -> Telex:
    return Telex([websocket("/")(fn)])


async def returns_something(socket: WebSocket) -> int:
    return 1


async def returns_unannotated(socket: WebSocket):  # type: ignore[no-untyped-def]
    return None


def sync(socket: WebSocket) -> None: ...


async def no_socket() -> None: ...


async def takes_data(socket: WebSocket, data: str) -> None: ...


async def takes_request(socket: WebSocket, request: Any) -> None: ...


async def takes_body(socket: WebSocket, body: bytes) -> None: ...


async def unannotated(socket) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("fn", "complaint"),
    [
        (returns_something, "a websocket handler returns nothing: annotate '-> None', not <class 'int'>"),
        (returns_unannotated, "a websocket handler returns nothing: annotate '-> None'"),
        (sync, "a websocket handler is asynchronous: write async def"),
        (no_socket, "a websocket handler takes 'socket': add the parameter socket: WebSocket"),
        (takes_data, "'data' is not available in a websocket handler: read from 'socket'"),
        (takes_request, "'request' is not available in a websocket handler"),
        (takes_body, "'body' is not available in a websocket handler"),
        (unannotated, "parameter 'socket' of unannotated .* has no annotation: write its type, or Any"),
    ],
)
def test_a_wrong_function_is_an_error_at_construction(fn: Any, complaint: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=complaint) as caught:
        build(fn)
    assert f"{fn.__name__} (handlers/test_raw.py:{fn.__code__.co_firstlineno})" in str(caught.value)


def test_a_handler_is_a_frozen_description() -> None:
    handler = websocket("/a", name="n", opt={"x": 1})(sync)  # type: ignore[arg-type]
    assert isinstance(handler, WebsocketHandler)
    assert (handler.fn, handler.paths, handler.name, handler.opt, handler.kind) == (
        sync,
        ("/a",),
        "n",
        {"x": 1},
        "websocket",
    )
    with pytest.raises(AttributeError):
        handler.name = "other"  # type: ignore[misc]
    assert websocket([])(sync).paths == ("/",)  # type: ignore[arg-type]


def test_what_cannot_be_decorated() -> None:
    handler = websocket("/")(no_socket)
    with pytest.raises(ImproperlyConfiguredException, match=r"no_socket \(.*\) is a handler already: decorate it once"):
        websocket("/")(handler)  # type: ignore[arg-type]
    with pytest.raises(ImproperlyConfiguredException, match="@websocket is given 5: it decorates a function"):
        websocket("/")(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"dto": MsgspecDTO[Say]}, {"on_invalid_message": "close"}])
def test_an_option_without_effect_is_an_error(options: dict[str, Any]) -> None:
    @websocket("/", **options)
    async def handle(socket: WebSocket) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=rf"handle .*: {next(iter(options))}= has no effect"):
        Telex([handle])

    @websocket("/")
    async def below(socket: WebSocket) -> None: ...

    Telex([below], **options)  # an option of a layer is for those handlers that have a use for it
