"""Idle routes of a shared socket that need no task: they are renewed, guarded and expired as others are."""

from __future__ import annotations

from typing import Any

from telex import Authenticate, Identity, Multiplex, State, Telex, WebSocket, websocket_listener
from tests.auth.conftest import Skip, User, bearer
from tests.contract.servers import ServerKind
from tests.multiplex.conftest import sharing
from tests.support.live import ending


async def who(token: str) -> Identity[User]:
    roles, _, seconds = token.partition("/")
    return Identity(User("ada", frozenset(roles.split(","))), float(seconds) if seconds else None)


def is_admin(socket: WebSocket[User, Any, State]) -> bool:
    return "admin" in socket.user.roles


async def say(data: str) -> str:
    return data


def make_app() -> Telex:
    admins, readers = websocket_listener("/admins", guards=[is_admin])(say), websocket_listener("/readers")(say)
    return Telex(
        [admins, readers, Multiplex("/socket", routes=[admins, readers])],
        authenticate=Authenticate(who, bearer=True),
    )


async def test_a_new_token_is_guarded_for_idle_routes(kind: ServerKind) -> None:
    async with sharing(make_app(), kind, headers=bearer("admin")) as shared:
        admins, readers = await shared.open("/admins"), await shared.open("/readers")
        for route in (admins, readers):
            assert (await route.call("hi"))["data"] == "hi"
        await shared.settle()
        await shared.send({"type": "auth", "id": 1, "token": "reader"})
        assert (await shared.next_of(None))["type"] == "reply"
        assert (await admins.receive())["code"] == 4403
        assert (await readers.call("hi"))["data"] == "hi"
        assert (await shared.refused("/admins"))["status"] == 403


async def test_idle_routes_expire_with_their_socket(kind: ServerKind, skip: Skip) -> None:
    app = make_app()
    async with sharing(app, kind, headers=bearer("admin/5")) as shared:
        route = await shared.open("/readers")
        assert (await route.call("hi"))["data"] == "hi"
        await shared.settle()
        await skip(5.1)
        assert await ending(shared.client) == (4401, "the token has expired")
    assert len(app.connections) == 0
