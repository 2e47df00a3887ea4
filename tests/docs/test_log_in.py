"""The three ways to log in of docs/how-to/log-in.md, with tokens that are forged, swapped, expired and used twice."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from itsdangerous import TimestampSigner

from examples.docs import log_in_jwt, log_in_session, log_in_ticket
from telex.testing import AsyncTestClient, WebSocketDenied
from tests.contract.servers import ServerKind
from tests.limits.conftest import kind
from tests.multiplex.conftest import sharing
from tests.protocol.conftest import calling
from tests.support.live import asked, connected, denied, ending, serving

__all__ = ("kind",)


def cookie(data: Any, secret: str = log_in_session.SECRET) -> dict[str, str]:
    """A session cookie as Starlette signs it."""
    signed = TimestampSigner(secret).sign(b64encode(json.dumps(data).encode()))
    return {"Cookie": f"session={signed.decode()}"}


async def test_who_logs_in_on_the_page_is_logged_in_here() -> None:
    async with AsyncTestClient(log_in_session.app, base_url="https://testserver") as client:
        with pytest.raises(WebSocketDenied) as refused:
            await client.websocket_connect("/me")
        assert refused.value.status_code == 401
        await client.post("/log-in", json={"name": "ada"})
        async with client.websocket_connect("/me") as session:
            await session.send_text("hello")
            await session.expect("ada: hello")


async def test_a_session_that_is_forged_old_or_nobody_s_is_refused(kind: ServerKind) -> None:
    ada = cookie({"user": "ada"})["Cookie"]
    async with serving(log_in_session.app, kind) as running:
        async with connected(running, "/me", headers={"Cookie": ada}) as client:
            assert await asked(client, "hello") == "ada: hello"
        payload, _, signature = ada.removeprefix("session=").partition(".")
        eve = b64encode(b'{"user": "eve"}').decode()
        for headers in (
            cookie({"user": "ada"}, "another secret"),
            {"Cookie": f"session={eve}.{signature}"},
            {"Cookie": f"session={payload}"},
            {"Cookie": "session="},
            cookie({}),
        ):
            assert (await denied(running, "/me", headers=headers)).status == 401, headers


async def test_a_session_expires_with_its_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    token = cookie({"user": "ada"})["Cookie"].removeprefix("session=")
    assert log_in_session.MAX_AGE - 60 < (log_in_session.who(token).expires_in or 0) <= log_in_session.MAX_AGE
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + log_in_session.MAX_AGE + 60)
    async with serving(log_in_session.app) as running:
        assert (await denied(running, "/me", headers={"Cookie": f"session={token}"})).status == 401


def token(user: str = "ada", *, key: str = log_in_jwt.KEY, algorithm: str = "HS256", **claims: Any) -> str:
    """A token that is valid for an hour, but for what is given otherwise; ``None`` leaves a claim out."""
    given = {"sub": user, "exp": time.time() + 3600, "aud": log_in_jwt.AUDIENCE, **claims}
    return jwt.encode({name: value for name, value in given.items() if value is not None}, key, algorithm)


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


async def test_programs_and_browsers_log_in_with_a_jwt(kind: ServerKind) -> None:
    async with serving(log_in_jwt.app, kind) as running:
        async with connected(running, "/me", headers=bearer(token())) as client:
            assert await asked(client, "hello") == "ada: hello"
        async with connected(running, "/me", subprotocols=["telex.v1", f"bearer.{token()}"]) as client:
            assert client.subprotocol == "telex.v1"


def forged() -> Iterator[tuple[str, str]]:
    head, claims, signature = token().split(".")
    yield "another key", token(key="k" * 40)
    yield "no key", jwt.encode({"sub": "ada", "aud": log_in_jwt.AUDIENCE, "exp": time.time() + 60}, "", "none")
    yield "another algorithm", token(key=log_in_jwt.KEY * 2, algorithm="HS512")
    yield "swapped claims", ".".join((head, token("eve").split(".")[1], signature))
    yield "no signature", f"{head}.{claims}."
    yield "expired", token(exp=time.time() - 60)
    yield "without an end", token(exp=None)
    yield "without a user", token(sub=None)
    yield "for another audience", token(aud="https://other.example.com")
    yield "not yet valid", token(nbf=time.time() + 600)
    yield "no token", "x"


@pytest.mark.parametrize(("how", "value"), list(forged()), ids=lambda each: each if " " in each else "")
async def test_a_jwt_that_is_forged_swapped_or_expired_is_refused(how: str, value: str) -> None:
    async with serving(log_in_jwt.app) as running:
        refused = await denied(running, "/me", headers=bearer(value))
    assert (refused.status, refused.json()["detail"]) == (401, "the token is not valid"), how


async def test_a_jwt_is_renewed_for_all_routes_and_guards_see_its_roles(kind: ServerKind) -> None:
    headers = bearer(token(roles=["admin"]))
    async with sharing(log_in_jwt.app, kind, headers=headers) as shared:
        assert 3500 < shared.hello["expires_in"] <= 3600
        me, shutdown = await shared.open("/me"), await shared.open("/shutdown")
        assert (await shutdown.call("node 3"))["data"] == "ada shuts down node 3"
        await shared.send({"type": "auth", "id": 1, "token": token(exp=time.time() + 7200)})
        assert (await shared.next_of(None))["data"]["expires_in"] > 7100
        assert (await shutdown.receive())["code"] == 4403
        assert (await me.call("hello"))["data"] == "ada: hello"
    async with calling(log_in_jwt.app, "/me", kind, headers=headers) as caller:
        assert (await caller.auth(token("eve")))["error"]["code"] == "permission_denied"
        assert (await ending(caller.client))[0] == 4403


async def test_a_ticket_serves_once_and_for_seconds(kind: ServerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncTestClient(log_in_ticket.app) as client:
        assert (await client.post("/tickets")).status_code == 401

        async def fresh() -> str:
            ticket: str = (await client.post("/tickets", headers={"x-user": "ada"})).json()["ticket"]
            return ticket

        async with serving(log_in_ticket.app, kind) as running:
            ticket = await fresh()
            async with connected(running, f"/me?ticket={ticket}") as socket:
                assert await asked(socket, "hello") == "ada: hello"
            assert (await denied(running, f"/me?ticket={ticket}")).status == 401
            assert (await denied(running, "/me")).status == 401
            ticket, now = await fresh(), time.monotonic()
            monkeypatch.setattr(time, "monotonic", lambda: now + log_in_ticket.VALID_FOR + 1)
            assert (await denied(running, f"/me?ticket={ticket}")).status == 401
            await fresh()
            await fresh()
            assert len(log_in_ticket.tickets) == 2  # those that nobody used are forgotten
    log_in_ticket.tickets.clear()


async def test_of_two_clients_with_one_ticket_one_gets_in(kind: ServerKind) -> None:
    log_in_ticket.tickets["one"] = "ada", time.monotonic() + 60
    async with serving(log_in_ticket.app, kind) as running:

        async def enters() -> bool:
            try:
                async with connected(running, "/me?ticket=one") as client:
                    return await asked(client, "hi") == "ada: hi"
            except Exception:
                return False

        assert sorted(await asyncio.gather(*(enters() for _ in range(4)))) == [False, False, False, True]
