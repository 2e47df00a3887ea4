"""``in_band=True``: the connection is accepted first, and takes nothing but a token until its client is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from telex import (
    Authenticate,
    Identity,
    ImproperlyConfiguredException,
    Multiplex,
    State,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
    websocket_stream,
)
from tests.auth.conftest import Skip, User, who
from tests.contract.servers import ServerKind
from tests.limits.kinds import Journal
from tests.multiplex.conftest import sharing
from tests.protocol.conftest import calling
from tests.support.live import denied, ending, serving, soon

Socket = WebSocket[User, Any, State]
IN_BAND = Authenticate(who, in_band=True)


class Site:
    """An app of each kind of handler; nothing of it runs before a token has come."""

    def __init__(self, option: Authenticate = IN_BAND) -> None:
        self.journal = Journal()
        self.app = Telex(
            [
                websocket_listener("/listener", on_disconnect=self.ended)(self.say),
                websocket_listener("/async", on_disconnect=self.ended)(self.say_later),
                websocket("/raw", protocol="telex.v1")(self.raw),
                websocket_stream("/stream")(self.stream),
                Multiplex("/socket", routes=Multiplex.ALL),
            ],
            authenticate=option,
            guards=[self.is_ada],
            dependencies={"name": self.name},
        )

    def ended(self, close_code: int) -> None:
        self.journal.note_end(close_code)

    def is_ada(self, socket: Socket) -> bool:
        self.journal.note(f"guard {socket.user.id}")
        return socket.user.id == "ada"

    def name(self, socket: Socket) -> str:
        return socket.user.id

    def say(self, data: str, name: str) -> str:
        return f"{name}: {data}"

    async def say_later(self, data: str, name: str) -> str:
        await asyncio.sleep(0)
        return f"{name}: {data}"

    async def raw(self, socket: Socket, name: str) -> None:
        await socket.accept()
        async for message in socket.incoming(str):
            await message.reply(f"{name}: {message.data}")

    async def stream(self, name: str) -> AsyncGenerator[str, None]:
        yield f"{name}: hi"
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("path", ["/listener", "/async", "/raw"])
async def test_the_first_frame_is_the_token_and_nothing_runs_before_it(kind: ServerKind, path: str) -> None:
    site = Site()
    async with calling(site.app, path, kind) as caller:
        assert caller.hello["auth"] == "required"
        assert "expires_in" not in caller.hello
        refused = await caller.call("hi")
        assert (refused["error"]["code"], refused["error"]["message"]) == ("not_authorized", "send a token first")
        await caller.send({"type": "notify", "data": "hi"})
        assert (await caller.receive())["error"]["code"] == "not_authorized"
        assert site.journal.got == []
        assert len(site.app.connections) == 0
        answer = await caller.auth("ada-1/60")
        assert answer["type"] == "reply"
        assert 50 < answer["data"]["expires_in"] <= 60
        assert site.journal.got == ["guard ada"]
        assert len(site.app.connections) == 1
        assert (await caller.call("hi"))["data"] == "ada: hi"
        assert (await caller.auth("ada-2"))["data"] == {"expires_in": None}
        assert (await caller.call("hi"))["data"] == "ada: hi"


async def test_a_stream_begins_after_the_token(kind: ServerKind) -> None:
    async with calling(Site().app, "/stream", kind) as caller:
        frames = [await caller.auth("ada-1"), await caller.receive()]
        assert [frame["type"] for frame in frames] == ["reply", "notify"]


@pytest.mark.parametrize(
    ("token", "code", "close"),
    [("eve", "not_authorized", 4401), ("ada-1/-1", "not_authorized", 4401), ("\xe4", "not_authorized", 4401)],
)
@pytest.mark.parametrize("path", ["/listener", "/socket"])
async def test_a_refused_token_closes_at_once(kind: ServerKind, path: str, token: str, code: str, close: int) -> None:
    site = Site()
    async with calling(site.app, path, kind) as caller:
        assert (await caller.auth(token))["error"]["code"] == code
        assert (await ending(caller.client))[0] == close
    assert (site.journal.got, site.journal.ends) == ([], [])


async def test_guards_run_after_the_token_and_refuse_with_4403(kind: ServerKind) -> None:
    site = Site()
    async with calling(site.app, "/listener", kind) as caller:
        await caller.begin_auth("bob-1")
        assert (await ending(caller.client))[0] == 4403
    assert (site.journal.got, site.journal.ends) == (["guard bob"], [])


async def test_without_a_token_in_time_it_closes_with_4401(kind: ServerKind, skip: Skip) -> None:
    site = Site()
    for path in ("/listener", "/socket"):
        async with calling(site.app, path, kind) as caller:
            for _ in range(2):  # in two steps, each shorter than the test's own patience
                await skip(5.1)
            assert await ending(caller.client) == (4401, "no token has come in time")
    assert site.journal.got == []


async def test_a_provider_that_fails_closes_and_tells_nothing(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    async def provider(token: str) -> Identity[str]:
        raise ConnectionError("the database is away")

    async with calling(Site(Authenticate(provider, in_band=True)).app, "/listener", kind) as caller:
        assert (await caller.auth("ada-1"))["error"] == {"code": "internal", "message": "internal error"}
        assert (await ending(caller.client))[0] == 1011
    assert "the database is away" in caplog.text


async def test_a_client_that_leaves_before_its_token_leaves_nothing(kind: ServerKind) -> None:
    site = Site()
    asked, ended = asyncio.Event(), asyncio.Event()

    async def provider(token: str) -> Identity[str]:
        asked.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        raise AssertionError

    async with calling(site.app, "/listener", kind):
        pass
    async with calling(Site(Authenticate(provider, in_band=True)).app, "/socket", kind) as caller:
        await caller.begin_auth("ada-1")
        await soon(asked.wait())
    await soon(ended.wait())
    assert site.journal.got == []


async def test_a_client_that_cannot_send_a_token_is_refused(kind: ServerKind) -> None:
    async with serving(Site().app, kind) as running:
        refused = await denied(running, "/listener")
    assert refused.status == 400
    assert "offer the subprotocol 'telex.v1'" in refused.json()["detail"]


async def test_a_shared_socket_opens_routes_after_the_token(kind: ServerKind) -> None:
    site = Site()
    async with sharing(site.app, kind) as shared:
        assert shared.hello["auth"] == "required"
        assert (await shared.refused("/listener"))["status"] == 401
        await shared.send({"type": "auth", "id": 1, "token": "ada-1/60"})
        answer = await shared.next_of(None)
        assert (answer["type"], answer["id"]) == ("reply", 1)
        route = await shared.open("/listener")
        assert "auth" not in route.opened
        assert (await route.call("hi"))["data"] == "ada: hi"
        raw = await shared.open("/raw")
        assert (await raw.call("hi"))["data"] == "ada: hi"
    await site.journal.until(lambda: site.journal.ends != [])
    assert site.journal.got == ["guard ada"] * 3


async def test_it_expires_as_others_do(kind: ServerKind, skip: Skip) -> None:
    async with calling(Site().app, "/listener", kind) as caller:
        await caller.auth("ada-1/5")
        await skip(5.1)
        assert await ending(caller.client) == (4401, "the token has expired")


async def test_tokens_that_come_at_once_are_checked_once(kind: ServerKind) -> None:
    gate = asyncio.Event()

    async def provider(token: str) -> Identity[User]:
        await gate.wait()
        return await who(token)

    async with calling(Site(Authenticate(provider, in_band=True)).app, "/listener", kind) as caller:
        first, second = await caller.begin_auth("ada-1"), await caller.begin_auth("bob-1")
        refused = await caller.receive()
        assert (refused["id"], refused["error"]["code"]) == (second, "too_many_calls")
        gate.set()
        assert (await caller.receive())["id"] == first
        assert (await caller.call("hi"))["data"] == "ada: hi"


async def listen(data: str) -> str:
    return data


async def take(socket: Socket) -> None:
    await socket.accept()


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (websocket("/")(take), "this handler speaks none: write protocol='telex.v1'"),
        (websocket_listener("/", connection_accept_handler=take)(listen), "connection_accept_handler has no effect"),
    ],
)
def test_what_cannot_work_is_an_error_when_the_app_is_built(handler: Any, problem: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=problem):
        Telex([handler], authenticate=IN_BAND)
