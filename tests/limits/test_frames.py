"""Limits of messages on connections that speak telex.v1, and on sockets that carry many routes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from telex import (
    ImproperlyConfiguredException,
    Multiplex,
    Telex,
    websocket_listener,
)
from telex.limits import Limit
from tests.contract.servers import ServerKind
from tests.limits.kinds import THREE, Journal
from tests.multiplex.conftest import sharing
from tests.protocol.conftest import calling
from tests.support.leaks import no_leaks
from tests.support.live import ending, soon


async def test_telex_v1_calls_are_refused_with_their_ids(kind: ServerKind) -> None:
    @websocket_listener("/", message_limit=Limit(1, per=3600, burst=2, on_exceed="reply"))
    async def echo(data: str) -> str:
        return data

    async with calling(Telex([echo]), "/", kind) as caller:
        assert await caller.call("a") == {"type": "reply", "id": 1, "data": "a"}
        assert await caller.call("b") == {"type": "reply", "id": 2, "data": "b"}
        refused = await caller.call("c")
        assert (refused["type"], refused["id"], refused["error"]["code"]) == ("error", 3, "rate_limited")
        assert 3590 < refused["error"]["retry_after"] <= 3600.1
        await caller.send({"type": "notify", "data": "d"})
        refused = await caller.receive()
        assert (refused["about"], refused["error"]["code"]) == ("notify", "rate_limited")
        await caller.quiet()  # what is neither a call nor a notify passes
        await caller.send({"type": "call", "id": 3, "data": "again"})
        assert (await caller.receive())["error"]["code"] == "bad_frame"


async def test_refused_notifies_give_their_credit_back(kind: ServerKind) -> None:
    @websocket_listener("/", max_calls=4, message_limit=Limit(1, per=3600, burst=1, on_exceed="reply"))
    async def take(data: str) -> None: ...

    async with calling(Telex([take]), "/", kind) as caller:
        for _ in range(9):
            await caller.send({"type": "notify", "data": "x"})
        frames = [await caller.receive() for _ in range(8 + 4)]
    assert sum(frame.get("n", 0) for frame in frames if frame["type"] == "credit") == 8
    assert sum(frame["type"] == "error" for frame in frames) == 8


@pytest.mark.parametrize("is_sync", [True, False])
async def test_telex_v1_frames_wait(kind: ServerKind, is_sync: bool) -> None:
    def plain(data: int) -> int:
        return data

    async def listen(data: int) -> int:
        return data

    handler = websocket_listener("/", message_limit=Limit(100, burst=10))(plain if is_sync else listen)
    async with calling(Telex([handler]), "/", kind) as caller:
        start = asyncio.get_running_loop().time()
        for number in range(30):
            await caller.begin(number)
        assert [(await caller.receive())["data"] for _ in range(30)] == list(range(30))
        assert asyncio.get_running_loop().time() - start >= 20 / 100 - 0.01


@pytest.mark.parametrize("is_sync", [True, False])
async def test_telex_v1_closes_and_notices_ends(kind: ServerKind, is_sync: bool) -> None:
    journal = Journal()

    def plain(data: str) -> None:
        journal.note(data)

    async def listen(data: str) -> None:
        journal.note(data)

    def on_disconnect(close_code: int) -> None:
        journal.note_end(close_code)

    def handler(path: str, **options: Any) -> Any:
        return websocket_listener(path, on_disconnect=on_disconnect, **options)(plain if is_sync else listen)

    closing = handler("/close", message_limit=Limit(1, per=3600, burst=3, on_exceed="close"))
    app = Telex([closing, handler("/wait", **THREE)])
    async with calling(app, "/close", kind) as caller:
        for _ in range(5):
            await caller.send({"type": "notify", "data": "x"})
        assert (await ending(caller.client))[0] == 4429
        await journal.until(lambda: journal.ends == [4429])
    journal.got.clear()
    async with no_leaks(), calling(app, "/wait", kind) as caller:
        for _ in range(5):
            await caller.send({"type": "notify", "data": "x"})
        await journal.until(lambda: len(journal.got) == 3)
        await soon(caller.client.close(4001))
        await journal.until(lambda: journal.ends == [4429, 4001])


async def test_each_route_of_a_shared_socket_has_its_limits_and_the_socket_its_own(kind: ServerKind) -> None:
    journal = Journal()

    @websocket_listener("/refusing", message_limit=Limit(1, per=3600, burst=2, on_exceed="reply"))
    async def refusing(data: str) -> str:
        return data

    @websocket_listener("/waiting", **THREE)
    async def waiting(data: str) -> None:
        journal.note(data)

    @websocket_listener("/free")
    def free(data: str) -> str:
        return data

    routes = [refusing, waiting, free]
    app = Telex(
        [*routes, Multiplex("/socket", routes=routes, message_limit=Limit(1, per=3600, burst=40, on_exceed="close"))]
    )
    async with sharing(app, kind) as shared:
        one = await shared.open("/refusing")
        answers = [await one.call("x") for _ in range(3)]
        assert [answer["type"] for answer in answers] == ["reply", "reply", "error"]
        assert answers[2]["error"]["code"] == "rate_limited"
        two = await shared.open("/waiting")
        for number in range(5):
            await two.send({"type": "notify", "data": str(number)})
        await journal.until(lambda: len(journal.got) == 3)
        three = await shared.open("/free")
        for _ in range(20):  # a route that waits does not delay the others
            assert (await three.call("x"))["data"] == "x"
        assert (await two.close(4001))["type"] == "closed"
        for _ in range(40):
            await three.send({"type": "notify", "data": "x"})
        assert (await ending(shared.client))[0] == 4429


def test_a_shared_socket_cannot_reply() -> None:
    limit = Limit(5, on_exceed="reply")
    with pytest.raises(ImproperlyConfiguredException, match="message_limit= cannot reply on a shared socket"):
        Telex([Multiplex("/socket", routes=Multiplex.ALL, message_limit=limit)])
