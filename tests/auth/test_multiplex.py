"""One identity for a shared socket and all its routes: renewed for all, guarded for each, and expired for all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from telex import (
    Authenticate,
    Identity,
    ImproperlyConfiguredException,
    Multiplex,
    Router,
    State,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
)
from tests.auth.conftest import Skip, User, bearer, by_header
from tests.contract.servers import ServerKind
from tests.limits.kinds import Journal
from tests.multiplex.conftest import Shared, sharing
from tests.support.live import ending, soon

Socket = WebSocket[User, Any, State]
READER, ADMIN = frozenset({"reader"}), frozenset({"admin", "reader"})


class Site:
    """An app with a room for each role; tokens are ``name:role,role/seconds``."""

    def __init__(self, **options: Any) -> None:
        self.journal = Journal()
        self.asked: list[str | None] = []
        self.begun, self.released = asyncio.Event(), asyncio.Event()
        self.guarding, self.guarded = asyncio.Event(), asyncio.Event()
        self.guarded.set()
        room = websocket_listener(
            "/{role:str}",
            guards=[self.has_role],
            on_disconnect=lambda close_code: self.journal.note_end(close_code),
        )(self.room)
        plain = websocket("/plain")(self.plain)
        public = websocket_listener("/public", authenticate=None)(self.say)
        self.app = Telex(
            [room, plain, public, Multiplex("/socket", routes=Multiplex.ALL)],
            **{"authenticate": Authenticate(self.who, bearer=True), **options},
        )

    async def who(self, token: str) -> Identity[User]:
        self.asked.append(token)
        name, _, rest = token.partition(":")
        roles, _, seconds = rest.partition("/")
        return Identity(User(name, frozenset(roles.split(","))), float(seconds) if seconds else None)

    async def has_role(self, socket: Socket) -> bool:
        self.guarding.set()
        await self.guarded.wait()
        return socket.path_params["role"] in socket.user.roles

    async def room(self, data: str, socket: Socket) -> str:
        if data == "wait":
            self.begun.set()
            await self.released.wait()
        return self.say(data, socket)

    def say(self, data: str, socket: Socket) -> str:
        return f"{socket.user.id} {sorted(socket.user.roles)}: {data}"

    async def plain(self, socket: Socket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text())
        finally:
            self.journal.note("plain ended")


async def auth(shared: Shared, auth_id: int, token: str) -> Any:
    """The answer to a new token of the socket."""
    await shared.send({"type": "auth", "id": auth_id, "token": token})
    found = await shared.next_of(None)
    assert found["id"] == auth_id
    return found


async def test_the_provider_is_asked_once_and_all_routes_have_the_user(kind: ServerKind) -> None:
    site = Site()
    async with sharing(site.app, kind, headers=bearer("ada:admin,reader/3600")) as shared:
        assert 3500 < shared.hello["expires_in"] <= 3600
        one, two = await shared.open("/reader"), await shared.open("/admin")
        assert "expires_in" not in one.opened
        assert (await one.call("hi"))["data"] == (await two.call("hi"))["data"] == "ada ['admin', 'reader']: hi"
        assert (await shared.refused("/other"))["status"] == 403
        assert (await (await shared.open("/public")).call("hi"))["type"] == "reply"
    assert site.asked == ["ada:admin,reader/3600"]


async def test_a_new_token_closes_the_routes_whose_guards_refuse_and_is_that_of_later_ones(kind: ServerKind) -> None:
    site = Site()
    async with sharing(site.app, kind, headers=bearer("ada:admin,reader")) as shared:
        reader, admin = await shared.open("/reader"), await shared.open("/admin")
        answer = await auth(shared, 1, "ada:reader,writer/60")
        assert 50 < answer["data"]["expires_in"] <= 60
        closed = await admin.receive()
        assert (closed["type"], closed["code"]) == ("closed", 4403)
        assert (await reader.call("hi"))["data"] == "ada ['reader', 'writer']: hi"
        assert (await (await shared.open("/writer")).call("hi"))["data"] == "ada ['reader', 'writer']: hi"
        assert (await shared.refused("/admin"))["status"] == 403
        assert site.journal.ends == [4403]


async def test_a_route_that_opens_while_a_new_token_comes_is_guarded_for_it(kind: ServerKind) -> None:
    """Its guards have read the old user."""
    passed = asyncio.Event()

    async def slow(socket: Socket) -> bool:
        allowed = "admin" in socket.user.roles
        if not passed.is_set():
            passed.set()
            await released.wait()
        return allowed

    released = asyncio.Event()
    site = Site()
    room = websocket_listener("/slow", guards=[slow])(site.say)
    app = Telex([room, Multiplex("/socket", routes=[room])], authenticate=Authenticate(site.who, bearer=True))
    async with sharing(app, kind, headers=bearer("ada:admin")) as shared:
        route = await shared.ask_open("/slow")
        await soon(passed.wait())
        assert (await auth(shared, 1, "ada:reader"))["type"] == "reply"
        released.set()
        assert (await route.receive())["type"] == "opened"
        assert (await route.receive())["code"] == 4403


async def test_another_user_closes_the_socket_with_4403(kind: ServerKind) -> None:
    site = Site()
    async with sharing(site.app, kind, headers=bearer("ada:reader")) as shared:
        await shared.open("/reader")
        assert (await auth(shared, 1, "bob:reader"))["error"]["code"] == "permission_denied"
        assert (await ending(shared.client))[0] == 4403
        await site.journal.until(lambda: site.journal.ends == [4403])


async def test_frames_that_are_no_auth_of_the_socket_are_refused(kind: ServerKind) -> None:
    site = Site()
    async with sharing(site.app, kind, headers=bearer("ada:reader")) as shared:
        route = await shared.open("/reader")
        for frame in (
            {"type": "auth", "id": 1, "c": route.c, "token": "ada:reader"},
            {"type": "auth", "id": 1, "token": 7},
            {"type": "auth", "token": "ada:reader"},
        ):
            await shared.send(frame)
            assert (await shared.next_of(None))["error"]["code"] == "bad_frame"
        assert (await auth(shared, 5, "ada:reader"))["type"] == "reply"
        await shared.send({"type": "auth", "id": 5, "token": "ada:reader"})
        assert (await shared.next_of(None))["error"]["message"] == "the id 5 is not higher than the last"


async def test_at_the_expiry_nothing_new_is_taken_on_any_route_and_calls_in_work_are_answered(
    kind: ServerKind, skip: Skip
) -> None:
    site = Site()
    async with sharing(site.app, kind, headers=bearer("ada:reader,writer/5")) as shared:
        one, two, plain = await shared.open("/reader"), await shared.open("/writer"), await shared.open("/plain")
        await one.send({"type": "call", "id": 1, "data": "wait"})
        await soon(site.begun.wait())
        await skip(5.1)
        for route in (one, two):
            await route.send({"type": "call", "id": 2, "data": "late"})
            refused = await route.receive()
            assert (refused["id"], refused["error"]["code"]) == (2, "not_authorized")
        assert (await shared.refused("/reader"))["status"] == 401
        assert (await plain.receive())["code"] == 4401
        site.released.set()
        answer = await one.receive()
        assert (answer["id"], answer["data"]) == (1, "ada ['reader', 'writer']: wait")
        assert await ending(shared.client) == (4401, "the token has expired")
        await site.journal.until(lambda: site.journal.ends == [4401, 4401])
    assert len(site.app.connections) == 0


async def test_a_new_token_after_the_expiry_opens_all_routes_again(kind: ServerKind, skip: Skip) -> None:
    site = Site()
    async with sharing(site.app, kind, headers=bearer("ada:reader,writer/5")) as shared:
        one, two = await shared.open("/reader"), await shared.open("/writer")
        await one.send({"type": "call", "id": 1, "data": "wait"})
        await soon(site.begun.wait())
        await skip(5.1)
        assert (await shared.refused("/writer"))["status"] == 401
        assert (await auth(shared, 1, "ada:reader,writer"))["data"] == {"expires_in": None}
        assert (await two.call("hi"))["type"] == "reply"
        await shared.open("/writer")
        site.released.set()
        assert (await one.receive())["id"] == 1


async def test_without_an_identity_of_the_socket_each_route_reads_the_handshake_and_its_own_query(
    kind: ServerKind, skip: Skip
) -> None:
    site = Site()
    room = websocket_listener("/room", authenticate=Authenticate(site.who, bearer=True, query="ticket"))(site.say)
    async with sharing(Telex([room, Multiplex("/socket", routes=[room])]), kind) as shared:
        assert (await shared.refused("/room"))["status"] == 401
        one = await shared.open("/room", query="ticket=ada:a/5")
        two = await shared.open("/room", query="ticket=bob:b/3600")
        assert (await one.call("hi"))["data"] == "ada ['a']: hi"
        assert (await two.call("hi"))["data"] == "bob ['b']: hi"
        await shared.send({"type": "auth", "id": 1, "token": "ada:a"})
        assert (await shared.next_of(None))["error"]["code"] == "not_found"
        await skip(5.1)
        closed = await one.receive()
        assert (closed["type"], closed["code"]) == ("closed", 4401)
        assert (await two.call("hi"))["type"] == "reply"


async def say_alone(data: str) -> str:
    return data


def test_a_route_with_another_identity_is_an_error_when_the_app_is_built() -> None:
    room = websocket_listener("/room")(say_alone)
    own = Router("/", route_handlers=[room], authenticate=by_header(timeout=1))
    with pytest.raises(ImproperlyConfiguredException, match=r"say_alone .* has another authenticate= than the socket"):
        Telex([room, Multiplex("/socket", routes=[room], authenticate=by_header())])
    with pytest.raises(ImproperlyConfiguredException, match=r"say_alone .* has another authenticate= than the socket"):
        Telex([own, Multiplex("/socket", routes=[room])], authenticate=by_header())
    in_band = websocket_listener("/room", authenticate=Authenticate(Site().who, in_band=True))(say_alone)
    with pytest.raises(ImproperlyConfiguredException, match=r"say_alone .* in_band=True, which takes a token of the"):
        Telex([in_band, Multiplex("/socket", routes=[in_band])])
