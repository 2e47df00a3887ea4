"""``authenticate``: where a token comes from, what the provider gets and says, and how a client is refused."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from telex import (
    Authenticate,
    Controller,
    FromHeader,
    Identity,
    ImproperlyConfiguredException,
    NotAuthorizedException,
    PermissionDeniedException,
    Provide,
    Router,
    State,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
)
from telex.auth.identity import check_token
from telex.defaults import MAX_TOKEN
from telex.limits import Limit, user
from tests.auth.conftest import User, bearer, by_header, name_of, who
from tests.contract.servers import ServerKind
from tests.support.live import asked, connected, denied, ending, heard_json, serving, soon, talking
from tests.support.peer import Peer, scope

QUOTE = {"Cookie": "session=ada-1"}


async def say(data: str, socket: WebSocket[User, Any, State]) -> str:
    return f"{socket.user.id}: {data}"


def app_with(option: Authenticate | None, **options: Any) -> Telex:
    return Telex([websocket_listener("/")(say)], authenticate=option, **options)


@pytest.mark.parametrize(
    ("path", "headers", "subprotocols"),
    [
        ("/", QUOTE, ()),
        ("/", bearer("ada-1"), ()),
        ("/", {"Authorization": "bearer   ada-1 "}, ()),
        ("/?ticket=ada-1", {}, ()),
        ("/", {}, ("telex.v1", "bearer.ada-1")),
        ("/?ticket=bob-1", bearer("bob-1") | QUOTE, ()),
        ("/?ticket=bob-1", bearer("ada-1"), ()),
        ("/?ticket=&other=1", {"Cookie": "session=", "Authorization": "Bearer ada-1"}, ()),
        ("/", {"Authorization": "Basic ada-1", "Cookie": "other=bob-1; session=ada-1"}, ()),
    ],
)
async def test_the_token_comes_from_the_first_source_that_has_one(
    kind: ServerKind, path: str, headers: dict[str, str], subprotocols: tuple[str, ...]
) -> None:
    app = app_with(Authenticate(who, cookie="session", bearer=True, query="ticket", subprotocol=True))
    async with talking(app, path, kind, headers=headers, subprotocols=subprotocols) as client:
        if subprotocols:
            assert (client.subprotocol, (await heard_json(client))["type"]) == ("telex.v1", "hello")
            await client.send('{"type":"call","id":1,"data":"hi"}')
            assert (await heard_json(client))["data"] == "ada: hi"
        else:
            assert await asked(client, "hi") == "ada: hi"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic ada-1"}, {"Authorization": "Bearer"}, bearer("eve")])
async def test_who_has_no_token_or_a_forged_one_is_refused_with_401(kind: ServerKind, headers: dict[str, str]) -> None:
    async with serving(app_with(by_header()), kind) as running:
        refused = await denied(running, headers=headers)
    assert (refused.status, refused.json()) == (401, {"status_code": 401, "detail": "log in first"})


async def test_a_page_reads_that_it_must_log_in(kind: ServerKind) -> None:
    app = app_with(by_header(), allowed_origins=["*"])
    async with talking(app, kind=kind, headers={"Origin": "https://example.com"}, subprotocols=["telex.v1"]) as client:
        error = (await heard_json(client))["error"]
        assert (error["code"], error["message"]) == ("not_authorized", "log in first")
        assert (await ending(client))[0] == 4401


@pytest.mark.parametrize("token", ["ada-1/0", "ada-1/-1"])
async def test_an_expired_token_is_refused_with_401(kind: ServerKind, token: str) -> None:
    async with serving(app_with(by_header()), kind) as running:
        refused = await denied(running, headers=bearer(token))
    assert (refused.status, refused.json()["detail"]) == (401, "the token has expired")


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        (bearer("a" * (MAX_TOKEN + 1)), f"the token has more than {MAX_TOKEN} characters"),
        ({"Cookie": "session=\xe4da"}, "the token has characters that no token has"),
        ({"Cookie": 'session="a\\001b"'}, "the token has characters that no token has"),
        ({}, "there are several tokens in one place"),
    ],
)
async def test_no_provider_gets_what_is_no_token(headers: dict[str, str], detail: str) -> None:
    asked_for: list[str | None] = []

    def provider(token: str | None) -> Identity[str]:
        asked_for.append(token)
        return Identity("ada")

    app = Telex(
        [websocket("/")(accepts)], authenticate=Authenticate(provider, cookie="session", bearer=True, query="ticket")
    )
    peer = Peer()
    await app(scope("/", headers=headers, query_string=b"ticket=a&ticket=b"), peer.receive, peer.send)
    assert peer.sent[0]["status"] == 401
    assert detail.encode() in peer.sent[1]["body"]
    assert asked_for == []


async def accepts(socket: WebSocket) -> None:
    await socket.accept()


async def test_no_handler_can_select_the_subprotocol_of_a_token(kind: ServerKind) -> None:
    @websocket("/")
    async def echoing(socket: WebSocket) -> None:
        offered = socket.scope["subprotocols"]
        await socket.accept(offered)
        await socket.send_json(offered)

    app = Telex([echoing], authenticate=Authenticate(who, cookie="session", subprotocol=True))
    for headers in ({}, QUOTE):
        async with talking(app, kind=kind, headers=headers, subprotocols=["bearer.ada-1", "chat"]) as client:
            assert client.subprotocol == "chat"
            assert await heard_json(client) == ["chat"]


async def test_the_provider_takes_the_socket_dependencies_and_parameters_and_its_own_live_as_long_as_it_runs(
    kind: ServerKind,
) -> None:
    journal: list[str] = []

    async def session() -> AsyncGenerator[str, None]:
        journal.append("opened")
        yield "session"
        journal.append("closed")

    def provider(
        token: str, socket: WebSocket, session: str, room: str, x_tenant: FromHeader[str], cached: object
    ) -> Identity[User]:
        journal.append(f"{token} {session} {room} {x_tenant} {socket.url.path}")
        return Identity(User("ada"))

    @websocket_listener("/{room:str}")
    async def listen(data: str, socket: WebSocket) -> str:
        journal.append("handled")
        return name_of(socket)

    app = Telex(
        [listen],
        authenticate=Authenticate(provider, bearer=True),
        dependencies={"session": Provide(session, scope="message"), "cached": Provide(object, use_cache=True)},
    )
    async with talking(app, "/7", kind, headers=bearer("t") | {"X-Tenant": "blue"}) as client:
        assert await asked(client, "hi") == "ada"
    assert journal == ["opened", "t session 7 blue /7", "closed", "handled"]


async def test_a_sync_provider_may_run_in_a_thread(kind: ServerKind) -> None:
    def provider(token: str | None) -> Identity[User]:
        return Identity(User(str(threading.current_thread() is threading.main_thread())))

    for in_thread, name in ((True, "False"), (False, "True")):
        app = app_with(Authenticate(provider, bearer=True, sync_to_thread=in_thread))
        async with talking(app, kind=kind) as client:
            assert await asked(client, "hi") == f"{name}: hi"


async def test_who_has_no_token_is_refused_before_a_provider_that_requires_one(kind: ServerKind) -> None:
    async def provider(token: str) -> Identity[User]:
        return Identity(User(token))

    async with serving(app_with(Authenticate(provider, bearer=True)), kind) as running:
        refused = await denied(running)
        assert (refused.status, refused.json()["detail"]) == (401, "a token is required")
        async with connected(running, headers=bearer("eve")) as client:
            assert await asked(client, "hi") == "eve: hi"


async def test_the_user_is_known_to_guards_dependencies_and_limits(kind: ServerKind) -> None:
    def is_ada(socket: WebSocket[User, Any, State]) -> bool:
        return socket.user.id == "ada"

    async def listen(data: str, name: str) -> str:
        return name

    app = Telex(
        [websocket_listener("/")(listen)],
        authenticate=by_header(),
        guards=[is_ada],
        dependencies={"name": name_of},
        connect_limit=Limit(1, per=3600, burst=1, key=user),
    )
    async with serving(app, kind) as running:
        async with connected(running, headers=bearer("ada-1")) as client:
            assert await asked(client, "hi") == "ada"
        assert (await denied(running, headers=bearer("ada-2"))).status == 429
        assert (await denied(running, headers=bearer("bob-1"))).status == 403


async def test_the_layer_nearest_to_the_handler_says_how(kind: ServerKind) -> None:
    class Cookies(Controller):
        path = "/cookies"
        authenticate = Authenticate(who, cookie="session")

        @websocket_listener("/")
        async def listen(self, data: str, socket: WebSocket) -> str:
            return name_of(socket)

        @websocket_listener("/open", authenticate=None)
        async def open(self, data: str, socket: WebSocket) -> str:
            return str("user" in socket.scope)

    app = Telex([Router("", route_handlers=[Cookies])], authenticate=by_header())
    async with serving(app, kind) as running:
        assert (await denied(running, "/cookies", headers=bearer("ada-1"))).status == 401
        async with connected(running, "/cookies", headers=QUOTE) as client:
            assert await asked(client, "hi") == "ada"
        async with connected(running, "/cookies/open") as client:
            assert await asked(client, "hi") == "False"


async def test_tickets_are_in_no_log_and_in_no_scope_of_a_handler(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    @websocket_listener("/")
    async def listen(data: str, socket: WebSocket) -> str:
        return f"{socket.url.query} {'ada-1' in str(socket.scope)}"

    app = Telex(
        [listen, websocket_listener("/open", authenticate=None)(say_query)],
        authenticate=Authenticate(who, query="ticket"),
    )
    caplog.set_level(logging.INFO)
    async with serving(app, kind) as running:
        async with connected(running, "/?room=7&%74icket=ada-1&x") as client:
            assert await asked(client, "hi") == "room=7&%74icket=***&x False"
        assert (await denied(running, "/?ticket=eve-secret")).status == 401
        assert (await denied(running, "/nowhere?ticket=ada-1")).status == 404
        async with connected(running, "/open?ticket=mine") as client:
            assert await asked(client, "hi") == "ticket=mine"
    lines = [record.getMessage() for record in caplog.records if "WebSocket /" in record.getMessage()]
    assert len(lines) == 4
    assert "ada-1" not in caplog.text
    assert "eve-secret" not in caplog.text


async def say_query(data: str, socket: WebSocket) -> str:
    return socket.url.query


# -- providers that fail


async def raises_what_it_should_not(token: str | None) -> Identity[str]:
    raise ConnectionError("the database is away")


def returns_a_user(token: str | None) -> Any:
    return User("ada")


def returns_nothing(token: str | None) -> Any:
    return None


def says_nonsense(token: str | None) -> Identity[str]:
    return Identity("ada", expires_in="soon")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("provider", "logged"),
    [
        (raises_what_it_should_not, "the database is away"),
        (returns_a_user, "returned User: return Identity(user, expires_in=...), or raise"),
        (returns_nothing, "returned NoneType: return Identity(user, expires_in=...), or raise"),
        (says_nonsense, "expires_in is a number of seconds, or None, not 'soon'"),
    ],
)
async def test_a_provider_that_fails_refuses_with_500_and_is_logged(
    kind: ServerKind, provider: Callable[..., Any], logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app_with(Authenticate(provider, bearer=True)), kind) as running:
        refused = await denied(running, headers=bearer("ada-1"))
    assert (refused.status, refused.json()) == (500, {"status_code": 500, "detail": "Internal Server Error"})
    assert logged in caplog.text


async def test_a_provider_that_hangs_refuses_with_503_and_its_dependencies_are_closed(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    closed = asyncio.Event()

    async def session() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            closed.set()

    async def provider(token: str | None, session: None) -> Identity[str]:
        await asyncio.get_running_loop().create_future()
        return Identity("never")

    app = app_with(Authenticate(provider, bearer=True, timeout=0.1), dependencies={"session": session})
    async with serving(app, kind) as running:
        refused = await denied(running)
        await soon(closed.wait())
    assert (refused.status, refused.json()["detail"]) == (503, "authentication takes too long")
    assert "provider" in caplog.text
    assert "has not said who a client is within 0.1 s" in caplog.text


async def test_a_timeout_of_the_provider_s_own_is_an_error_of_the_provider(caplog: pytest.LogCaptureFixture) -> None:
    async def provider(token: str | None) -> Identity[str]:
        raise TimeoutError("the directory")

    async with serving(app_with(Authenticate(provider, bearer=True))) as running:
        assert (await denied(running)).status == 500
    assert "the directory" in caplog.text


async def test_a_provider_may_refuse_with_any_status(kind: ServerKind) -> None:
    async def provider(token: str | None) -> Identity[str]:
        raise PermissionDeniedException("this account is suspended")

    async with serving(app_with(Authenticate(provider, bearer=True)), kind) as running:
        assert (await denied(running)).status == 403


async def test_a_client_that_leaves_while_the_provider_runs_leaves_nothing(kind: ServerKind) -> None:
    asked_for, ended = asyncio.Event(), asyncio.Event()

    async def provider(token: str | None) -> Identity[User]:
        asked_for.set()
        try:
            await asyncio.sleep(0.2)
            return Identity(User("ada"))
        finally:
            ended.set()

    app = app_with(Authenticate(provider, bearer=True))
    async with serving(app, kind) as running:
        connecting = asyncio.create_task(connected(running).__aenter__())
        await soon(asked_for.wait())
        connecting.cancel()
        await asyncio.wait((connecting,))
        await soon(ended.wait())
    assert len(app.connections) == 0


async def test_a_connection_that_has_ended_is_in_no_reference_cycle() -> None:
    kept: list[weakref.ref[WebSocket]] = []

    @websocket("/")
    async def remembered(socket: WebSocket) -> None:
        kept.append(weakref.ref(socket))
        await socket.accept()

    app, peer = Telex([remembered], authenticate=by_header()), Peer()
    gc.disable()
    try:
        await app(scope("/", headers=bearer("ada-1/3600")), peer.receive, peer.send)
        await asyncio.sleep(0)
        assert [each() for each in kept] == [None]
    finally:
        gc.enable()


# -- errors when the app is built


async def takes_no_token(socket: WebSocket) -> Identity[str]:
    return Identity("ada")


async def takes_a_number(token: int) -> Identity[str]:
    return Identity("ada")


async def generates(token: str | None) -> AsyncGenerator[Identity[str], None]:
    yield Identity("ada")


async def gives_a_user(token: str | None) -> User:
    return User("ada")


async def needs_more(token: str | None, database: object) -> Identity[str]:
    return Identity("ada")


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        (takes_no_token, "the provider takes no 'token': write def provider(token: str | None, socket: WebSocket)"),
        (takes_a_number, "'token' is text"),
        (generates, "the provider is a generator"),
        (gives_a_user, "the provider returns Identity(user, expires_in=...), not"),
        (needs_more, "nothing provides parameter 'database'"),
    ],
)
def test_a_provider_that_cannot_work_is_an_error_when_the_app_is_built(provider: Any, problem: str) -> None:
    with pytest.raises(ImproperlyConfiguredException) as caught:
        app_with(Authenticate(provider, bearer=True))
    assert problem in str(caught.value)
    assert f"{provider.__name__} (" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "no token can come"),
        ({"cookie": ""}, "cookie= is a name, not ''"),
        ({"query": True}, "query= is a name, not True"),
        ({"bearer": "yes"}, "bearer= is True or False, not 'yes'"),
        ({"bearer": True, "in_band": True}, "remove bearer="),
        ({"bearer": True, "timeout": 0}, "timeout= is a number of seconds above 0, not 0"),
        ({"bearer": True, "timeout": None}, "timeout= is a number of seconds above 0, not None"),
    ],
)
def test_an_option_that_cannot_work_is_an_error(options: Any, problem: str) -> None:
    with pytest.raises(ImproperlyConfiguredException) as caught:
        Authenticate(who, **options)
    assert problem in str(caught.value)
    assert "who (" in str(caught.value)


def test_what_is_no_option_is_an_error() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="the provider is a function"):
        Authenticate("who", bearer=True)  # type: ignore[arg-type]
    with pytest.raises(ImproperlyConfiguredException, match=r"Telex.*: authenticate= is Authenticate"):
        app_with(who)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", ["3600", True, float("nan"), float("inf")])
def test_an_identity_expires_in_seconds(seconds: Any) -> None:
    with pytest.raises(ValueError, match="expires_in is a number of seconds"):
        Identity("ada", expires_in=seconds)


# -- any input

TOKENS = st.one_of(st.text(max_size=40), st.text(alphabet=st.characters(max_codepoint=127), max_size=40))


@given(token=TOKENS)
@example("a" * MAX_TOKEN)
@example("a" * (MAX_TOKEN + 1))
@example("\ud800")
def test_a_token_is_printable_ascii_of_a_limited_length_or_refused(token: str) -> None:
    is_token = len(token) <= MAX_TOKEN and all(" " <= each <= "~" for each in token)
    try:
        assert check_token(token) == token
    except NotAuthorizedException:
        assert not is_token
    else:
        assert is_token


@given(
    cookie=st.binary(max_size=40),
    authorization=st.lists(st.binary(max_size=40), max_size=3),
    query=st.binary(max_size=60),
    offered=st.lists(st.text(st.characters(max_codepoint=255), max_size=20), max_size=3),
)
@example(cookie=b"", authorization=[], query=b"ticket=%00", offered=[])
@example(cookie=b"session=\xff", authorization=[], query=b"", offered=["bearer.x"])
@example(cookie=b"", authorization=[b"Bearer a", b"Bearer b"], query=b"", offered=[])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_handshake_has_the_provider_gets_a_token_or_the_client_401(
    cookie: bytes, authorization: list[bytes], query: bytes, offered: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[str | None] = []

    def provider(token: str | None) -> Identity[str]:
        tokens.append(token)
        return Identity("ada")

    option = Authenticate(provider, cookie="session", bearer=True, query="ticket", subprotocol=True)
    app, peer = Telex([websocket("/")(accepts)], authenticate=option), Peer()
    headers = [(b"cookie", cookie), *((b"authorization", each) for each in authorization)]
    handshake = {**scope("/", query_string=query, subprotocols=offered), "headers": headers}
    with caplog.at_level(logging.ERROR):
        asyncio.run(app(handshake, peer.receive, peer.send))
    assert not caplog.records
    if tokens:
        assert peer.sent[0]["type"] == "websocket.accept"
        assert all(token is None or check_token(token) for token in tokens)
    else:
        assert peer.sent[0]["status"] == 401
    assert not [each for each in handshake["subprotocols"] if each.startswith("bearer.")]
