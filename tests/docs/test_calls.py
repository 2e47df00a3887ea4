"""The conversations in frames that pages show, with the examples' handlers and a foreign client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from examples.docs import asking, calls, hello, incoming, many_rooms, payments, tokens
from scripts.docs_frames import SERVER_FRAMES
from telex import Multiplex, Telex, WebSocket, websocket_listener
from telex.exceptions import ClientException
from telex.testing import AsyncTestClient
from tests.contract.servers import KINDS, ServerKind
from tests.docs.pages import EXAMPLES
from tests.support.live import connected, denied, heard, serving

SERVERS = [kind for kind in KINDS if kind.name in {"uvicorn-websockets", "telex"}]

CONVERSATIONS: list[tuple[Callable[[], Telex], str, str]] = [
    (lambda: hello.app, "/hello", "hello_frames.txt"),
    (lambda: Telex([calls.Shop]), "/shop", "calls_frames.txt"),  # its stock is new for each test
    (lambda: Telex([payments.pay], on_startup=[payments.payments.clear]), "/payments", "payments_frames.txt"),
    (lambda: asking.app, "/files", "asking_frames.txt"),
    (lambda: incoming.app, "/jobs", "incoming_frames.txt"),
    (lambda: tokens.app, "/ask", "tokens_frames.txt"),
    (lambda: many_rooms.app, "/socket", "many_rooms_frames.txt"),
]


@contextlib.asynccontextmanager
async def calling(app: Telex, path: str, kind: ServerKind) -> AsyncIterator[ClientConnection]:
    """A client that has received ``hello``. The test client runs the app's lifespan, as its channels need it."""
    async with (
        AsyncTestClient(app),
        serving(app, kind) as running,
        connected(running, path, subprotocols=["telex.v1"]) as client,
    ):
        assert json.loads(await heard(client))["type"] == "hello"
        yield client


async def test_the_reference_has_every_field_of_hello() -> None:
    async with serving(hello.app) as running, connected(running, "/hello", subprotocols=["telex.v1"]) as client:
        received = json.loads(await heard(client))
    assert set(received) - {"type"} == set(re.findall(r"\w+", SERVER_FRAMES["hello"][0]))


def fits(shown: Any, received: Any) -> bool:
    """Whether a frame is the one of the page, on which ``…`` stands for any value, and as a key for further fields."""
    if isinstance(shown, dict) and isinstance(received, dict):
        named = shown.keys() - {"…"}
        is_whole = named == received.keys() if "…" not in shown else named <= received.keys()
        return is_whole and all(fits(shown[key], received[key]) for key in named)
    return shown in ("…", received)


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("app", "path", "file"), CONVERSATIONS, ids=[file for _, _, file in CONVERSATIONS])
async def test_a_conversation_goes_as_the_page_shows(
    app: Callable[[], Telex], path: str, file: str, kind: ServerKind
) -> None:
    lines = [line.split(" ", 1) for line in (EXAMPLES / file).read_text().splitlines()]
    async with calling(app(), path, kind) as client:
        for who, group in itertools.groupby(lines, lambda line: line[0]):
            texts = [text for _, text in group]
            if who == ">":
                for text in texts:
                    await client.send(text)
                continue
            received = [json.loads(await heard(client)) for _ in texts]
            for shown in map(json.loads, texts):  # between answers and events there is no order
                found = next((frame for frame in received if fits(shown, frame)), None)
                assert found is not None, f"{shown} is not among {received}"
                received.remove(found)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_model_stops_when_nobody_wants_its_tokens(leaves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = asyncio.Event()

    async def endless(_: str) -> AsyncIterator[str]:
        try:
            while True:
                yield "token "
                await asyncio.sleep(0)
        finally:
            stopped.set()

    monkeypatch.setattr(tokens, "model", endless)
    async with calling(tokens.app, "/ask", SERVERS[0]) as client:
        await client.send('{"type":"call","id":1,"data":{"text":"go on"}}')
        received = [json.loads(await heard(client))["type"] for _ in range(16)]
        assert received == ["item"] * 16  # the 17th waits for `more`
        if leaves:
            await client.close()
        else:
            await client.send('{"type":"cancel","id":1}')
            assert json.loads(await heard(client))["error"]["code"] == "cancelled"
        await asyncio.wait_for(stopped.wait(), 9)


async def test_a_plain_client_gets_the_tokens_as_messages() -> None:
    async with AsyncTestClient(tokens.app) as client, client.websocket_connect("/ask") as session:
        await session.send_json({"text": "hi"})
        for word in ("You ", "said: ", "hi "):
            await session.expect(word)


async def test_a_plain_client_cannot_be_asked() -> None:
    async with AsyncTestClient(asking.app) as client, client.websocket_connect("/files") as session:
        await session.send_json({"type": "delete", "names": []})
        with pytest.raises(Exception, match="needs a client that offers the subprotocol"):
            await session.receive_json()


@pytest.mark.parametrize("answer", ['{"choice":"perhaps"}', "null"])
async def test_an_answer_of_another_type_deletes_nothing(answer: str) -> None:
    async with calling(asking.app, "/files", SERVERS[0]) as client:
        await client.send('{"type":"call","id":1,"data":{"type":"delete","names":["a.txt"]}}')
        assert json.loads(await heard(client))["type"] == "call"
        await client.send(f'{{"type":"reply","id":1,"data":{answer}}}')
        assert json.loads(await heard(client)) == {"type": "reply", "id": 1, "data": 0}


async def test_a_client_whose_answer_is_late_gets_a_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = WebSocket.call

    async def soon(socket: WebSocket, data: object, answer: Any, *, timeout: float) -> Any:
        assert timeout == 60
        return await ask(socket, data, answer, timeout=0.01)

    monkeypatch.setattr(WebSocket, "call", soon)
    async with calling(asking.app, "/files", SERVERS[0]) as client:
        await client.send('{"type":"call","id":1,"data":{"type":"delete","names":["a.txt"]}}')
        assert json.loads(await heard(client))["type"] == "call"
        assert json.loads(await heard(client)) == {"type": "cancel", "id": 1}
        assert json.loads(await heard(client)) == {"type": "reply", "id": 1, "data": 0}


async def test_a_guard_refuses_plain_clients() -> None:
    def only_frames(socket: WebSocket, _: object) -> None:
        if "telex.v1" not in socket.scope["subprotocols"]:
            raise ClientException("offer telex.v1")

    app = Telex([hello.hello], guards=[only_frames])
    async with calling(app, "/hello", SERVERS[0]) as client:
        await client.send('{"type":"call","id":1,"data":{"name":"Ada"}}')
        assert json.loads(await heard(client))["data"] == "Hello, Ada!"
    async with serving(app) as running:
        assert (await denied(running, "/hello")).status == 400


async def test_the_next_message_of_a_plain_client_waits_for_the_end_of_a_generator() -> None:
    async with AsyncTestClient(tokens.app) as client, client.websocket_connect("/ask") as session:
        for word in ("one", "two"):
            await session.send_json({"text": word})
        for word in ("one", "two"):
            for expected in ("You ", "said: ", f"{word} "):
                await session.expect(expected)


async def test_the_socket_of_many_routes_takes_the_largest_message_of_its_routes() -> None:
    @websocket_listener("/large", max_message_size=5_000_000)
    async def large(data: str) -> int:
        return len(data)

    app = Telex([hello.hello, large, Multiplex("/socket", routes=Multiplex.ALL)])
    async with serving(app) as running, connected(running, "/socket", subprotocols=["telex.v1"]) as client:
        assert json.loads(await heard(client))["max"] == 5_000_000
