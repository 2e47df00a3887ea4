"""The message path over plain ASGI: what a real client cannot time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from telex import Telex, WebSocket, websocket_listener
from telex.types import TypeDecoder
from tests.contract.servers import ServerKind
from tests.support.live import connected, heard, serving, soon
from tests.support.peer import Peer, scope


class Other:
    pass


def failing(kind: type, value: object) -> object:
    raise KeyError("the decoder's own fault")


BROKEN_DECODER: tuple[TypeDecoder, ...] = ((lambda kind: kind is Other, failing),)


class Custom(WebSocket):
    async def receive_data(self, mode: Any) -> Any:
        return await super().receive_data(mode)


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}, {"websocket_class": Custom}], ids=str)
@pytest.mark.parametrize("awaits", [False, True])
async def test_a_connection_that_is_lost_while_answering(options: Any, awaits: bool) -> None:
    codes: list[int] = []

    def on_disconnect(close_code: int) -> None:
        codes.append(close_code)

    def listen(data: str) -> str:
        return data

    async def listen_async(data: str) -> str:
        return data

    peer = Peer(broken=True, broken_after=1)
    peer.tell("a")
    handler = websocket_listener("/", on_disconnect=on_disconnect, **options)(listen_async if awaits else listen)
    await soon(Telex([handler])(scope(), peer.receive, peer.send))
    assert codes == [1006]
    assert peer.kinds == ["websocket.accept"]


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=str)
async def test_a_decoder_that_fails_by_itself_is_no_invalid_message(
    options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket_listener("/", type_decoders=BROKEN_DECODER, **options)
    async def listen(data: Other) -> None: ...

    peer = Peer()
    peer.tell("1")
    await soon(Telex([listen])(scope(), peer.receive, peer.send))
    assert peer.sent[-1]["code"] == 1011
    assert "the decoder's own fault" in caplog.text


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}, {"websocket_class": Custom}], ids=str)
async def test_messages_that_come_after_ones_own_close_are_not_handled(options: Any) -> None:
    handled: list[str] = []

    @websocket_listener("/", **options)
    async def listen(data: str, socket: WebSocket) -> str:
        handled.append(data)
        await socket.close(4000)
        return "dropped"

    peer = Peer()
    peer.tell("a", "b", "c")
    peer.leave()
    await soon(Telex([listen])(scope(), peer.receive, peer.send))
    assert handled[0] == "a"
    assert peer.kinds == ["websocket.accept", "websocket.close"]
    if "max_concurrency" not in options:
        assert handled == ["a"]


async def test_a_server_that_fails_while_a_handler_works() -> None:
    @websocket_listener("/")
    async def listen(data: str) -> None:
        await asyncio.Event().wait()

    peer = Peer()
    peer.tell("a")
    peer.fail(OSError("the server's own"))
    await soon(Telex([listen])(scope(), peer.receive, peer.send))
    assert peer.sent[-1]["code"] == 1011


@pytest.mark.parametrize("kind", ["telex", "uvicorn-websockets"])
@pytest.mark.parametrize("awaits", [False, True])
async def test_messages_that_arrive_while_a_hook_is_busy_come_first(kind: str, awaits: bool) -> None:
    """They are read ahead, to notice that the client leaves."""
    may_go_on = asyncio.Event()

    async def on_accept() -> None:
        await may_go_on.wait()

    def listen(data: str) -> str:
        return data

    async def listen_async(data: str) -> str:
        return data

    app = Telex([websocket_listener("/", on_accept=on_accept)(listen_async if awaits else listen)])
    async with serving(app, ServerKind(kind)) as running, connected(running) as client:
        for number in range(30):
            await client.send(str(number))
        (socket,) = app.connections
        async with asyncio.timeout(5):
            while not socket.event_reader.unread:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.005)
        may_go_on.set()
        assert [await heard(client) for _ in range(30)] == [str(number) for number in range(30)]
