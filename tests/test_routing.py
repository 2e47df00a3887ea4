"""Routers, controllers, flattening, and paths by name."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from telex import (
    Controller,
    ImproperlyConfiguredException,
    Router,
    Telex,
    WebSocket,
    WebsocketListener,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.exceptions import NoRouteMatchFoundException
from telex.layers import Layer
from telex.routing import flatten
from tests.support.live import asked, asked_json, connected, denied, heard, serving, talking


@websocket_listener("/echo", name="echo")
async def echo(data: str) -> str:
    return data


class Lobby(Controller):
    path = "/lobby"
    opt = {"lobby": True}  # noqa: RUF012

    def __init__(self, owner: object) -> None:
        super().__init__(owner)
        self.visits = 0

    @websocket_listener("/count")
    def count(self, data: str) -> int:
        self.visits += 1
        return self.visits

    @websocket_stream("/stream")
    async def stream(self) -> AsyncGenerator[int, None]:
        yield self.visits

    @websocket("/raw/{name:str}", name="raw")
    async def raw(self, socket: WebSocket, name: str) -> None:
        await socket.send_text(f"{name} {self.visits}")

    class Inner(WebsocketListener):
        path = "/inner"

        async def on_receive(self, data: str) -> str:
            return type(self.owner).__name__


class Annex(Lobby):
    path = "/annex"
    annex_only = 5


async def test_a_controller_groups_handlers_of_every_kind_on_one_instance() -> None:
    app = Telex([Router("/v1", route_handlers=[Lobby, Annex])])
    assert [plan.path for plan in app.plans] == [
        f"/v1/{name}/{rest}" for name in ("lobby", "annex") for rest in ("count", "stream", "raw/{name:str}", "inner")
    ]
    async with serving(app) as running:
        async with connected(running, "/v1/lobby/count") as client:
            assert await asked_json(client, "x") == 1
        async with connected(running, "/v1/lobby/count") as client:
            assert await asked_json(client, "x") == 2
        async with connected(running, "/v1/annex/count") as client:
            assert await asked_json(client, "x") == 1
        async with connected(running, "/v1/lobby/stream") as client:
            assert await heard(client) == "2"
        async with connected(running, "/v1/lobby/raw/a") as client:
            assert await heard(client) == "a 2"
        async with connected(running, "/v1/annex/inner") as client:
            assert await asked(client, "x") == "Annex"


def test_names_of_a_controller_registered_twice_clash() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"/lobby/count.* can never be reached"):
        Telex([Lobby, Lobby])


async def test_one_router_in_two_apps_and_at_two_places() -> None:
    router = Router("/inner", route_handlers=[echo])
    one = Telex([Router("/a", route_handlers=[router]), Router("/b", route_handlers=[router])], opt={"app": 1})
    two = Telex([router])
    assert [plan.path for plan in one.plans] == ["/a/inner/echo", "/b/inner/echo"]
    assert [plan.path for plan in two.plans] == ["/inner/echo"]
    assert one.plans[0].layer.opt == {"app": 1}
    assert two.plans[0].layer.opt == {}
    assert one.route_reverse("echo") == "/a/inner/echo"
    async with serving(one) as running:
        for path in ("/a/inner/echo", "/b/inner/echo", "/b/inner/echo/"):
            async with connected(running, path) as client:
                assert await asked(client, path) == path
        assert (await denied(running, "/inner/echo")).status == 404


def test_a_router_takes_more_handlers_until_it_is_given_to_an_app() -> None:
    router = Router("/r")
    router.register(echo)
    assert [row.path for row in flatten([router], Layer(), None)] == ["/r/echo"]


def test_flattening_is_pure() -> None:
    router = Router("/r", route_handlers=[echo], opt={"r": 1})
    first, second = (list(flatten([router], Layer(), None)) for _ in range(2))
    assert first == second
    assert echo.layer.opt == {}
    assert router.layer.opt == {"r": 1}


@pytest.mark.parametrize(
    ("prefix", "path", "whole"),
    [
        ("/", "/", "/"),
        ("a", "b", "/a/b"),
        ("/a/", "/b/", "/a/b"),
        ("", "/x", "/x"),
        ("/a", "/", "/a"),
        ("/{x}", "", "/{x}"),
    ],
)
def test_paths_are_joined_with_one_slash(prefix: str, path: str, whole: str) -> None:
    handler = websocket_listener(path)(echo.fn)
    assert [row.path for row in flatten([Router(prefix, route_handlers=[handler])], Layer(), None)] == [whole]


async def undecorated(data: str) -> None: ...


class Listener(WebsocketListener):
    path = "/"

    async def on_receive(self, data: str) -> None: ...


class Nothing(WebsocketListener):
    path = "/"

    async def helper(self, data: str) -> None: ...


class WithoutData(WebsocketListener):
    path = "/"

    async def on_receive(self, text: str) -> None: ...


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (undecorated, r"undecorated \(tests/test_routing.py:\d+\), which is not decorated: add @websocket_listener"),
        (Listener(None), "an instance of Listener: register the class itself"),
        (Lobby(None), "an instance of Lobby: register the class itself"),
        (websocket_listener("/"), "which is not decorated"),
        (5, "route_handlers has 5: it takes handlers, routers, controllers and listener classes"),
        (Nothing, r"Nothing \(tests/test_routing.py:\d+\) receives nothing: write async def on_receive"),
        (WithoutData, r"WithoutData.on_receive .* takes no 'data'"),
    ],
)
def test_what_is_no_handler_is_an_error(given: Any, complaint: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=complaint):
        Telex([Router("/x", route_handlers=[given])])


def test_names_are_unique() -> None:
    other = websocket_listener("/other", name="echo")(undecorated)
    with pytest.raises(
        ImproperlyConfiguredException, match=r"undecorated .* and echo .* are both named 'echo': rename one of them"
    ):
        Telex([echo, other])


def test_reversing_names_the_paths_that_there_are() -> None:
    app = Telex([Lobby])
    assert app.route_reverse("raw", name="a b") == "/lobby/raw/a%20b"
    assert str(app.url_path_for("raw", name="x")) == "/lobby/raw/x"
    assert app.route_reverse(Lobby.raw, name="x") == "/lobby/raw/x"
    assert app.route_reverse(Lobby.Inner) == "/lobby/inner"
    with pytest.raises(
        NoRouteMatchFoundException, match=r"'raw' does not take \{\}: its paths are /lobby/raw/\{name:str\}"
    ):
        app.route_reverse("raw")
    with pytest.raises(NoRouteMatchFoundException, match="no handler is named 'nobody'"):
        app.route_reverse("nobody")
    with pytest.raises(NoRouteMatchFoundException, match=r"no handler is named 'undecorated \("):
        app.route_reverse(undecorated)


async def test_building_a_controller_runs_no_property_and_binds_no_static_handler() -> None:
    class Quiet(Controller):
        @property
        def loud(self) -> str:
            raise AssertionError("a property ran")

        @functools.cached_property
        def costly(self) -> str:
            raise AssertionError("a cached property ran")

        @staticmethod
        @websocket_listener("/outside")
        async def outside(data: str) -> str:
            return f"outside {data}"

        @websocket_listener("/inside")
        @staticmethod
        async def inside(data: str) -> str:
            return f"inside {data}"

        def helper(self, data: str, digits):  # type: ignore[no-untyped-def]
            return data

    app = Telex([Quiet])
    for path in ("/outside", "/inside"):
        async with talking(app, path) as client:
            assert await asked(client, "x") == f"{path[1:]} x"
