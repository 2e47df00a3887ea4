"""``auth`` frames: a new token is checked beside the handler, one at a time, and then the guards run again."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from telex import (
    Authenticate,
    Identity,
    PermissionDeniedException,
    State,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
)
from telex.defaults import MAX_TOKEN
from telex.exceptions import ServiceUnavailableException
from tests.auth.conftest import Skip, User, bearer, by_header
from tests.contract.servers import ServerKind
from tests.protocol.conftest import calling
from tests.support.live import ending, soon

FIRST = bearer("first")


async def say(data: str, socket: WebSocket[User, Any, State]) -> str:
    return f"{socket.user.id} {sorted(socket.user.roles)}: {data}"


class Provider:
    """Says what the test has written."""

    def __init__(self, **identities: Identity[Any] | Exception) -> None:
        self.identities: dict[str, Identity[Any] | Exception] = {"first": Identity(User("ada"), 3600), **identities}
        self.tokens: list[str | None] = []
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.gate.set()

    async def __call__(self, token: str | None) -> Identity[Any]:
        self.tokens.append(token)
        self.asked.set()
        await self.gate.wait()
        found = self.identities[token or ""]
        if isinstance(found, Exception):
            raise found
        return found

    def app(self, **options: Any) -> Telex:
        return Telex([websocket_listener("/")(say)], authenticate=Authenticate(self.__call__, bearer=True), **options)


async def test_a_new_token_is_answered_and_the_user_is_that_of_the_newest(kind: ServerKind) -> None:
    admin = Identity(User("ada", frozenset({"admin"})), 60)
    async with calling(Provider(second=admin, endless=Identity(User("ada"))).app(), "/", kind, headers=FIRST) as caller:
        assert (await caller.call("hi"))["data"] == "ada []: hi"
        answer = await caller.auth("second")
        assert (answer["type"], answer["id"]) == ("reply", 2)
        assert 50 < answer["data"]["expires_in"] <= 60
        assert (await caller.call("hi"))["data"] == "ada ['admin']: hi"
        assert (await caller.auth("endless"))["data"] == {"expires_in": None}


async def test_a_new_token_in_time_keeps_the_connection(kind: ServerKind, skip: Skip) -> None:
    app = Telex([websocket_listener("/")(say)], authenticate=by_header())
    async with calling(app, "/", kind, headers=bearer("ada-1/5")) as caller:
        assert (await caller.auth("ada-2/3600"))["type"] == "reply"
        await skip(5.1)
        assert (await caller.call("hi"))["type"] == "reply"
        await caller.quiet()


async def test_a_new_token_after_the_expiry_is_taken_while_a_call_is_in_work(kind: ServerKind, skip: Skip) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def listen(data: str) -> str:
        if data == "wait":
            begun.set()
            await released.wait()
        return data

    app = Telex([websocket_listener("/", max_calls=1)(listen)], authenticate=by_header())
    async with calling(app, "/", kind, headers=bearer("ada-1/5")) as caller:
        waiting = await caller.begin("wait")
        await soon(begun.wait())
        await skip(5.1)
        assert (await caller.call("late"))["error"]["code"] == "not_authorized"
        assert (await caller.auth("ada-2/3600"))["type"] == "reply"
        assert (await caller.call("busy"))["error"]["code"] == "too_many_calls"
        released.set()
        assert (await caller.receive())["id"] == waiting
        assert (await caller.call("hi"))["data"] == "hi"


async def test_a_token_that_is_checked_when_the_old_one_expires_is_waited_for(kind: ServerKind, skip: Skip) -> None:
    provider = Provider(first=Identity(User("ada"), 5), second=Identity(User("ada"), 3600))
    async with calling(provider.app(), "/", kind, headers=FIRST) as caller:
        provider.gate.clear()
        provider.asked.clear()
        auth_id = await caller.begin_auth("second")
        await soon(provider.asked.wait())
        await skip(5.1)
        assert (await caller.call("hi"))["error"]["code"] == "not_authorized"
        provider.gate.set()
        assert (await caller.receive())["id"] == auth_id
        assert (await caller.call("hi"))["type"] == "reply"


async def test_the_handler_does_not_wait_for_a_token_nor_a_token_for_the_handler(kind: ServerKind) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def listen(data: str) -> str:
        begun.set()
        await released.wait()
        return data

    provider = Provider(second=Identity(User("ada"), 60))
    option = Authenticate(provider.__call__, bearer=True)
    async with calling(
        Telex([websocket_listener("/")(listen)], authenticate=option), "/", kind, headers=FIRST
    ) as caller:
        provider.gate.clear()
        provider.asked.clear()
        await caller.begin("hi")
        await soon(begun.wait())
        await caller.send({"type": "auth", "id": 2, "token": "second"})
        await soon(provider.asked.wait())
        released.set()
        assert (await caller.receive())["id"] == 1
        provider.gate.set()
        assert (await caller.receive())["id"] == 2


async def test_one_token_is_checked_at_a_time(kind: ServerKind) -> None:
    provider = Provider(second=Identity(User("ada"), 60))
    async with calling(provider.app(), "/", kind, headers=FIRST) as caller:
        provider.gate.clear()
        await caller.send({"type": "auth", "id": 1, "token": "second"})
        await caller.send({"type": "auth", "id": 2, "token": "third"})
        refused = await caller.receive()
        assert (refused["id"], refused["error"]["code"]) == (2, "too_many_calls")
        provider.gate.set()
        assert (await caller.receive())["type"] == "reply"
    assert provider.tokens == ["first", "second"]


async def test_another_user_is_refused_and_closed_with_4403(kind: ServerKind) -> None:
    app = Telex([websocket_listener("/")(say)], authenticate=by_header())
    async with calling(app, "/", kind, headers=bearer("ada-1/3600")) as caller:
        error = (await caller.auth("bob-1"))["error"]
        assert (error["code"], error["message"]) == ("permission_denied", "the token is another user's")
        assert await ending(caller.client) == (4403, "the token is another user's")


async def test_users_without_a_name_are_compared_by_the_app_s_own_rule(kind: ServerKind) -> None:
    @dataclasses.dataclass(frozen=True)
    class Nameless:
        number: int

    provider = Provider(first=Identity(Nameless(1)), second=Identity(Nameless(1)), third=Identity(Nameless(2)))
    app = Telex([websocket_listener("/")(echo)], authenticate=Authenticate(provider.__call__, bearer=True), guards=[])
    async with calling(app, "/", kind, headers=FIRST) as caller:
        assert (await caller.auth("second"))["type"] == "reply"
        assert (await caller.auth("third"))["error"]["code"] == "permission_denied"
        assert (await ending(caller.client))[0] == 4403


async def echo(data: str) -> str:
    return data


async def test_guards_run_again_and_a_refusal_closes_with_4403(kind: ServerKind) -> None:
    seen: list[frozenset[str]] = []

    async def is_admin(socket: WebSocket[User, Any, State], roles: frozenset[str]) -> None:
        seen.append(roles)
        if "admin" not in roles:
            raise PermissionDeniedException("this is for admins")

    async def roles(socket: WebSocket[User, Any, State]) -> frozenset[str]:
        return socket.user.roles

    admin, other = frozenset({"admin"}), frozenset({"reader"})
    provider = Provider(
        first=Identity(User("ada", admin)), second=Identity(User("ada", admin)), third=Identity(User("ada", other))
    )
    app = provider.app(guards=[is_admin], dependencies={"roles": roles})
    async with calling(app, "/", kind, headers=FIRST) as caller:
        assert (await caller.auth("second"))["type"] == "reply"
        error = (await caller.auth("third"))["error"]
        assert (error["code"], error["message"]) == ("permission_denied", "this is for admins")
        assert await ending(caller.client) == (4403, "this is for admins")
    assert seen == [admin, admin, other]


async def test_a_guard_that_fails_for_a_new_token_closes_with_1011(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails_later(socket: WebSocket[User, Any, State]) -> None:
        if socket.user.roles:
            raise ConnectionError("the directory is away")

    provider = Provider(second=Identity(User("ada", frozenset({"admin"}))))
    async with calling(provider.app(guards=[fails_later]), "/", kind, headers=FIRST) as caller:
        assert (await caller.auth("second"))["error"] == {"code": "internal", "message": "internal error"}
        assert await ending(caller.client) == (1011, "internal error")
    assert "the directory is away" in caplog.text


async def test_a_guard_that_hangs_for_a_new_token_closes_with_4503(kind: ServerKind) -> None:
    async def hangs_later(socket: WebSocket[User, Any, State]) -> None:
        if socket.user.roles:
            await asyncio.get_running_loop().create_future()

    provider = Provider(second=Identity(User("ada", frozenset({"admin"}))))
    option = Authenticate(provider.__call__, bearer=True, timeout=0.5)
    app = Telex([websocket_listener("/", guards=[hangs_later])(say)], authenticate=option)
    async with calling(app, "/", kind, headers=FIRST) as caller:
        assert (await caller.auth("second"))["error"]["code"] == "unavailable"
        assert (await ending(caller.client))[0] == 4503


async def test_a_refused_token_leaves_the_old_one_and_three_in_a_row_close_with_4401(kind: ServerKind) -> None:
    app = Telex([websocket_listener("/")(say)], authenticate=by_header())
    async with calling(app, "/", kind, headers=bearer("ada-1/3600")) as caller:
        for token in ("eve", "ada-1/-1"):
            assert (await caller.auth(token))["error"]["code"] == "not_authorized"
        assert (await caller.call("hi"))["type"] == "reply"
        assert (await caller.auth("ada-2"))["type"] == "reply"
        for token in ("eve", "\xe4", "eve"):
            assert (await caller.auth(token))["error"]["code"] == "not_authorized"
        assert (await ending(caller.client))[0] == 4401


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ConnectionError("the database is away"), "internal"),
        (ServiceUnavailableException("later"), "unavailable"),
    ],
)
async def test_a_provider_that_fails_leaves_the_old_token(
    kind: ServerKind, failure: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Provider(second=failure)
    async with calling(provider.app(), "/", kind, headers=FIRST) as caller:
        assert (await caller.auth("second"))["error"]["code"] == code
        assert (await caller.call("hi"))["type"] == "reply"
    assert ("the database is away" in caplog.text) == (code == "internal")


async def test_a_provider_that_returns_nonsense_or_hangs_leaves_the_old_token(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    async def provider(token: str | None) -> Any:
        if token == "hang":
            await asyncio.get_running_loop().create_future()
        if token == "cancelled":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        return "ada" if token == "nonsense" else Identity(User("ada"))

    app = Telex([websocket_listener("/")(say)], authenticate=Authenticate(provider, bearer=True, timeout=0.2))
    async with calling(app, "/", kind, headers=FIRST) as caller:
        assert (await caller.auth("nonsense"))["error"]["code"] == "internal"
        assert (await caller.auth("cancelled"))["error"]["code"] == "internal"
        assert (await caller.auth("hang"))["error"]["code"] == "unavailable"
        assert (await caller.call("hi"))["type"] == "reply"
    assert "returned str: return Identity" in caplog.text
    assert "cancelled, without being cancelled itself" in caplog.text


async def test_a_provider_that_suspends_a_user_closes_with_4403(kind: ServerKind) -> None:
    async with calling(
        Provider(second=PermissionDeniedException("suspended")).app(), "/", kind, headers=FIRST
    ) as caller:
        assert (await caller.auth("second"))["error"]["message"] == "suspended"
        assert await ending(caller.client) == (4403, "suspended")


async def test_no_provider_gets_an_enormous_token_or_what_is_no_text(kind: ServerKind) -> None:
    provider = Provider()
    async with calling(provider.app(), "/", kind, headers=FIRST) as caller:
        for token in ("a" * (MAX_TOKEN + 1), 7, None, ["first"]):
            assert (await caller.auth(token))["error"]["code"] == "bad_frame"
        await caller.send({"type": "auth", "token": "first"})
        assert (await caller.receive())["error"]["code"] == "bad_frame"
        await caller.send({"type": "auth", "id": 1, "token": "first"})
        assert (await caller.receive())["error"]["message"] == "the id 1 is not higher than the last"
        assert (await caller.call("hi"))["id"] == 5
    assert provider.tokens == ["first"]


async def test_a_handler_without_authenticate_takes_no_tokens(kind: ServerKind) -> None:
    async with calling(Telex([websocket_listener("/")(echo)]), "/", kind, headers=bearer("ada-1/3600")) as caller:
        assert (await caller.auth("ada-1"))["error"]["code"] == "not_found"
        assert (await caller.call("hi"))["data"] == "hi"


async def test_a_low_level_handler_is_renewed_too(kind: ServerKind) -> None:
    @websocket("/", protocol="telex.v1")
    async def raw(socket: WebSocket[User, Any, State]) -> None:
        async for message in socket.incoming(str):
            await message.reply(sorted(socket.user.roles))

    provider = Provider(second=Identity(User("ada", frozenset({"admin"}))))
    option = Authenticate(provider.__call__, bearer=True)
    async with calling(Telex([raw], authenticate=option), "/", kind, headers=FIRST) as caller:
        assert (await caller.call("hi"))["data"] == []
        assert (await caller.auth("second"))["type"] == "reply"
        assert (await caller.call("hi"))["data"] == ["admin"]


async def test_a_client_that_leaves_while_a_token_is_checked_leaves_nothing(kind: ServerKind) -> None:
    ended = asyncio.Event()

    async def provider(token: str | None) -> Identity[User]:
        if token == "second":
            asked.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()
        return Identity(User("ada"))

    asked = asyncio.Event()
    app = Telex([websocket_listener("/")(say)], authenticate=Authenticate(provider, bearer=True))
    async with calling(app, "/", kind, headers=FIRST) as caller:
        await caller.send({"type": "auth", "id": 1, "token": "second"})
        await soon(asked.wait())
    await soon(ended.wait())
    assert len(app.connections) == 0
