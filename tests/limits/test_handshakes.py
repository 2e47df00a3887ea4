"""Limits of handshakes and of open connections, over real sockets: by address, by user, and without being asked for."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from telex import (
    ImproperlyConfiguredException,
    Multiplex,
    NotAuthorizedException,
    Router,
    Telex,
    WebSocket,
    websocket_listener,
)
from telex.limits import Limit, client_ip, user
from telex.limits.handshakes import CONNECTIONS_PER_ADDRESS, HANDSHAKES_PER_ADDRESS
from telex.types import ASGIApp, Receive, Scope, Send
from tests.channels.conftest import until
from tests.contract.servers import Running, ServerKind
from tests.multiplex.conftest import joined
from tests.support.live import asked, connected, denied, ending, heard_json, serving, soon
from tests.support.peer import Peer, scope

ONE, OTHER = "8.8.8.8", "1.1.1.1"
"""Two addresses of the internet."""
TEXT: Any = "ip"
THREE = Limit(1, per=3600, burst=3, key=client_ip)


async def echo(data: str) -> str:
    return data


def from_address(address: str) -> dict[str, str]:
    """What a proxy says that the server trusts: uvicorn trusts its own host."""
    return {"X-Forwarded-For": address}


async def enters(running: Running, path: str = "/", address: str = ONE, **headers: str) -> bool:
    """Whether a handshake succeeds; one that is refused must say when to come back."""
    try:
        async with connected(running, path, headers=from_address(address) | headers) as client:
            assert await asked(client, "hi") == "hi"
            return True
    except Exception:
        answer = await denied(running, path, headers=from_address(address) | headers)
        assert answer.status == 429, answer
        assert int(answer.headers["retry-after"]) > 0
        return False


async def test_an_address_is_refused_with_429_and_retry_after(kind: ServerKind) -> None:
    app = Telex([websocket_listener("/", connect_limit=THREE)(echo)])
    async with serving(app, kind) as running:
        assert [await enters(running) for _ in range(5)] == [True] * 3 + [False] * 2
        refused = await denied(running, headers=from_address(ONE))
        assert 3590 <= int(refused.headers["retry-after"]) <= 3600
        assert refused.json() == {"status_code": 429, "detail": "Too Many Requests"}
        assert await enters(running, address=OTHER)


async def test_a_browser_that_offers_telex_v1_reads_when_to_come_back(kind: ServerKind) -> None:
    app = Telex([websocket_listener("/", connect_limit=THREE)(echo)], allowed_origins=["*"])
    async with serving(app, kind) as running:
        for _ in range(3):
            assert await enters(running)
        headers = from_address(ONE) | {"Origin": "https://example.com"}
        async with connected(running, headers=headers, subprotocols=["telex.v1"]) as client:
            error = (await heard_json(client))["error"]
            code, reason = await ending(client)
        assert (error["code"], code) == ("rate_limited", 4429)
        assert 3590 <= float(reason.removeprefix("retry-after=")) <= 3600


async def test_refused_handshakes_run_nothing(kind: ServerKind) -> None:
    ran: list[str] = []

    def middleware(app: ASGIApp) -> ASGIApp:
        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            ran.append("middleware")
            await app(scope, receive, send)

        return inner

    def guard(socket: WebSocket) -> None:
        ran.append("guard")
        raise NotAuthorizedException

    app = Telex([websocket_listener("/", middleware=[middleware], guards=[guard], connect_limit=THREE)(echo)])
    async with serving(app, kind) as running:
        # Guesses of a password count too.
        statuses = [(await denied(running, headers=from_address(ONE))).status for _ in range(5)]
    assert statuses == [401] * 3 + [429] * 2
    assert ran == ["middleware", "guard"] * 3


async def test_limits_of_all_layers_hold_and_are_shared_by_their_routes(kind: ServerKind) -> None:
    app = Telex(
        [
            websocket_listener("/one")(echo),
            websocket_listener("/two")(echo),
            Router(
                "/strict",
                route_handlers=[websocket_listener("/")(echo)],
                connect_limit=Limit(1, per=3600, burst=1, key=client_ip),
            ),
        ],
        connect_limit=THREE,
    )
    async with serving(app, kind) as running:
        assert await enters(running, "/one")
        assert await enters(running, "/strict")
        assert not await enters(running, "/strict")
        assert not await enters(running, "/two")  # the app's three are used up
    named = [Limit(1, per=3600, burst=1, key=client_ip, name=name) for name in ("a", "b", "b")]
    paths = ("/a", "/b", "/c")
    app = Telex([websocket_listener(path, connect_limit=limit)(echo) for path, limit in zip(paths, named, strict=True)])
    async with serving(app, kind) as running:
        assert [await enters(running, path) for path in paths] == [True, True, False]


async def test_ipv6_counts_by_network(kind: ServerKind) -> None:
    app = Telex([websocket_listener("/", connect_limit=THREE)(echo)])
    async with serving(app, kind) as running:
        addresses = [f"2606:4700:1:2::{number}" for number in range(1, 6)]
        assert [await enters(running, address=address) for address in addresses] == [True] * 3 + [False] * 2
        assert await enters(running, address="2606:4700:1:3::1")


@dataclass
class Person:
    username: str
    is_authenticated: bool = True


def logged_in(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope["headers"]).get(b"x-user", b"").decode()
        scope["user"] = Person(name, is_authenticated=bool(name))
        await app(scope, receive, send)

    return middleware


async def test_a_user_is_counted_whatever_the_address(kind: ServerKind) -> None:
    limit = Limit(1, per=3600, burst=2, key=user)
    app = Telex([websocket_listener("/", middleware=[logged_in], connect_limit=limit)(echo)])
    async with serving(app, kind) as running:
        ada: Any = {"X-User": "ada"}
        assert [await enters(running, address=address, **ada) for address in (ONE, OTHER, ONE)] == [True, True, False]
        bob: Any = {"X-User": "bob"}
        assert await enters(running, **bob)
        assert all([await enters(running) for _ in range(4)])  # nobody is not counted


async def test_a_user_is_known_after_the_guards(kind: ServerKind) -> None:
    def guard(socket: WebSocket) -> None:
        socket.scope["user"] = "ada"

    app = Telex([websocket_listener("/", guards=[guard], connect_limit=Limit(1, per=3600, burst=1, key=user))(echo)])
    async with serving(app, kind) as running:
        assert [await enters(running) for _ in range(2)] == [True, False]


async def test_without_authentication_a_limit_by_user_admits_nobody(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    app = Telex([websocket_listener("/", connect_limit=Limit(5, key=user))(echo)])
    async with serving(app, kind) as running:
        assert (await denied(running)).status == 500
    assert "socket.user is not set: it needs authenticate=, or an authentication middleware" in caplog.text


def _passes_on(app: ASGIApp) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return middleware


@pytest.mark.parametrize(
    ("who", "key"),
    [
        ("ada", "ada"),
        (7, 7),
        (Person("ada"), "ada"),
        (Person("ada", is_authenticated=False), None),
        (type("U", (), {"id": UUID(int=1)})(), str(UUID(int=1))),
        (None, None),
    ],
)
def test_the_key_of_a_user(who: object, key: object) -> None:
    socket: WebSocket = WebSocket({**scope(), "user": who})
    assert user(socket) == key


def test_a_user_without_a_name_cannot_be_counted() -> None:
    socket: WebSocket = WebSocket({**scope(), "user": object()})
    with pytest.raises(ImproperlyConfiguredException, match="cannot tell one object from another"):
        user(socket)


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("8.8.8.8", 5), "8.8.8.8"),
        (("::ffff:8.8.8.8", 5), "8.8.8.8"),
        (("2606:4700::1", 5), "2606:4700::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("/run/app.sock", None), None),
        (None, None),
        (("testclient", 5), None),
        (("not:an:address", 1), "not:an:address"),
    ],
)
def test_the_key_of_an_address(client: Any, key: object) -> None:
    assert client_ip(WebSocket({**scope(), "client": client})) == key


@pytest.mark.parametrize("middleware", [[], [_passes_on]])
async def test_open_connections_are_counted_until_they_end(kind: ServerKind, middleware: Any) -> None:
    app = Telex([websocket_listener("/", max_connections_per=(client_ip, 2), middleware=middleware)(echo)])
    async with serving(app, kind) as running:
        headers = from_address(ONE)
        async with connected(running, headers=headers) as first, connected(running, headers=headers) as second:
            assert await asked(second, "hi") == "hi"
            assert (await denied(running, headers=headers)).status == 429
            assert await enters(running, address=OTHER)
            await soon(first.close())
            await until(lambda: app._connect_limits._open[client_ip] == {ONE: 1})
            assert await enters(running)
        await until(lambda: not app._connect_limits._open[client_ip])


async def test_refused_and_failed_handshakes_keep_no_slot(kind: ServerKind) -> None:
    def guard(socket: WebSocket) -> None:
        if "x-fail" in socket.headers:
            raise RuntimeError
        raise NotAuthorizedException

    app = Telex([websocket_listener("/", guards=[guard], max_connections_per=(client_ip, 2))(echo)])
    async with serving(app, kind) as running:
        for _ in range(4):
            assert (await denied(running, headers=from_address(ONE))).status == 401
            assert (await denied(running, headers=from_address(ONE) | {"X-Fail": "1"})).status == 500
        await until(lambda: not app._connect_limits._open[client_ip])


async def test_connections_of_a_user_are_counted(kind: ServerKind) -> None:
    app = Telex([websocket_listener("/", middleware=[logged_in], max_connections_per=(user, 1))(echo)])
    async with serving(app, kind) as running:
        async with connected(running, headers={"X-User": "ada"}) as client:
            assert await asked(client, "hi") == "hi"
            assert (await denied(running, headers={"X-User": "ada"})).status == 429
            async with connected(running, headers={"X-User": "bob"}) as other:
                assert await asked(other, "hi") == "hi"
        await until(lambda: not app._connect_limits._open[user])


async def test_the_routes_of_a_shared_socket_come_with_its_handshake(kind: ServerKind) -> None:
    room = websocket_listener("/room")(echo)
    app = Telex([room, Multiplex("/socket", routes=[room])], connect_limit=THREE, max_connections_per=(client_ip, 1))
    async with serving(app, kind) as running, joined(running, headers=from_address(ONE)) as shared:
        for _ in range(5):
            assert (await (await shared.open("/room")).call("x"))["data"] == "x"


# -- without being asked for


async def handshake(app: Telex, address: Any, headers: Any = ()) -> int:
    """The status of one handshake in process, whose client then leaves; 101 if it was accepted."""
    peer = Peer()
    peer.leave()
    given: Scope = {**scope(), "client": address, "headers": list(headers)}
    given["extensions"] = {"websocket.http.response": {}}
    await app(given, peer.receive, peer.send)
    return 101 if peer.sent[0]["type"] == "websocket.accept" else int(peer.sent[0]["status"])


async def test_an_address_of_the_internet_has_generous_limits() -> None:
    app = Telex([websocket_listener("/")(echo)])
    statuses = [await handshake(app, (ONE, 1)) for _ in range(int(HANDSHAKES_PER_ADDRESS.most) + 200)]
    assert statuses[: int(HANDSHAKES_PER_ADDRESS.most)] == [101] * int(HANDSHAKES_PER_ADDRESS.most)
    assert 429 in statuses
    assert await handshake(app, (OTHER, 1)) == 101


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        (("127.0.0.1", 1), ()),  # a proxy on this host, or a developer
        (("10.1.2.3", 1), ()),  # a proxy in this network
        (("fd00::1", 1), ()),
        (None, ()),
        (("/run/socket", None), ()),
        ((ONE, 1), ((b"x-forwarded-for", b"9.9.9.9"),)),  # a proxy elsewhere that the server does not trust
        ((ONE, 1), ((b"forwarded", b"for=9.9.9.9"),)),
        ((ONE, 1), ((b"cf-connecting-ip", b"9.9.9.9"),)),
    ],
)
async def test_the_defaults_are_off_where_an_address_may_be_many_clients(address: Any, headers: Any) -> None:
    app = Telex([websocket_listener("/")(echo)])
    count = int(HANDSHAKES_PER_ADDRESS.most) + 200
    assert {await handshake(app, address, headers) for _ in range(count)} == {101}


async def test_the_defaults_hold_where_the_server_trusts_the_proxy() -> None:
    app = Telex([websocket_listener("/")(echo)])
    headers = ((b"x-forwarded-for", ONE.encode()),)
    count = int(HANDSHAKES_PER_ADDRESS.most) + 200
    assert {await handshake(app, (ONE, 0), headers) for _ in range(count)} == {101, 429}


async def test_none_lifts_the_defaults_and_a_limit_replaces_them() -> None:
    count = int(HANDSHAKES_PER_ADDRESS.most) + 200
    app = Telex([websocket_listener("/")(echo)], connect_limit=None)
    assert {await handshake(app, (ONE, 1)) for _ in range(count)} == {101}
    app = Telex([websocket_listener("/")(echo)], connect_limit=[Limit(10_000, key=client_ip)])
    assert {await handshake(app, (ONE, 1)) for _ in range(count)} == {101}


async def test_the_default_of_open_connections() -> None:
    app = Telex([websocket_listener("/")(echo)], connect_limit=None)
    async with AsyncExitStack() as stack:
        peers = [Peer() for _ in range(CONNECTIONS_PER_ADDRESS + 1)]
        tasks = [asyncio.ensure_future(app({**scope(), "client": (ONE, 1)}, peer.receive, peer.send)) for peer in peers]
        stack.push_async_callback(asyncio.wait, tasks)
        await until(lambda: all(peer.sent for peer in peers))
        assert [peer.sent[0]["type"] for peer in peers].count("websocket.accept") == CONNECTIONS_PER_ADDRESS
        for peer in peers:
            peer.leave()
    assert not any(app._connect_limits._open.values())


@pytest.mark.long
async def test_ten_thousand_addresses_do_not_affect_each_other() -> None:
    app = Telex([websocket_listener("/", connect_limit=Limit(1, per=3600, burst=1, key=client_ip))(echo)])
    addresses = [f"8.{number >> 8}.{number & 255}.1" for number in range(10_000)]
    for expected in (101, 429):
        assert {await handshake(app, (address, 1)) for address in addresses} == {expected}


async def test_refusals_are_logged_once_with_the_way_out(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    limit = Limit(1, per=3600, burst=1, key=client_ip)
    app = Telex([websocket_listener("/", connect_limit=limit)(echo)])
    with caplog.at_level(logging.WARNING, "telex"):
        for _ in range(5):
            await handshake(app, (ONE, 1), ((b"x-forwarded-for", b"9.9.9.9"),))
    lines = [each.getMessage() for each in caplog.records]
    assert len([line for line in lines if "handshakes refused" in line]) == 1
    (warned,) = [line for line in lines if "forwarded-allow-ips" in line]
    assert "counts the clients of a proxy as one" in warned
    assert "test_handshakes.py" in warned


# -- errors when the app is built


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"connect_limit": 5}, r"connect_limit takes \[Limit\(20, per=60, key=client_ip\)\], or None, not 5"),
        ({"connect_limit": [Limit(5)]}, "has no key=, so that one client could use it up for all: write key=client_ip"),
        ({"connect_limit": [Limit(5, key=client_ip, on_exceed="close")]}, "on_exceed='close' has no effect on handsh"),
        ({"connect_limit": [Limit(5, key=lambda: "x")]}, r"sync function of the socket.*write def key\(socket\)"),
        ({"connect_limit": [Limit(5, key=TEXT)]}, "sync function of the socket"),
        ({"connect_limit": [Limit(5, key=echo)]}, "sync function of the socket"),
        ({"max_connections_per": 50}, r"who is counted and how many, \(client_ip, 50\), or None, not 50"),
        ({"max_connections_per": (client_ip, 0)}, "lets nobody in: give a whole number from 1, or None"),
        ({"max_connections_per": (client_ip, 2.5)}, "lets nobody in"),
        ({"max_connections_per": ("ip", 2)}, "sync function of the socket"),
    ],
)
def test_a_limit_that_cannot_apply_is_an_error(options: Any, says: str) -> None:
    def listen(data: str) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=rf"listen.*test_handshakes\.py.*{says}"):
        websocket_listener("/", **options)(listen)
    with pytest.raises(ImproperlyConfiguredException, match=rf"Telex\(\.\.\.\): .*{says}"):
        Telex([], **options)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"store": "redis://localhost"}, "on_store_failure='open' admits all, 'closed' refuses them"),
        ({"store": "redis://localhost", "on_store_failure": "maybe"}, "on_store_failure='open' admits all"),
        ({"store": "memcached://localhost", "on_store_failure": "open"}, "store is the URL of a Redis server"),
        (
            {"store": "redis://localhost", "on_store_failure": "open", "key": lambda socket: "x"},
            "a lambda has none: write name='…', or def key",
        ),
        ({"on_store_failure": "open"}, "on_store_failure= has no effect without store=: remove it"),
    ],
)
def test_a_store_says_what_happens_without_it(arguments: Any, says: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=says):
        Limit(5, **{"key": client_ip} | arguments)
