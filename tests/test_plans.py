"""What a handler becomes when the app is built: its session, its limits, and its data transfer objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from telex import (
    ImproperlyConfiguredException,
    PermissionDeniedException,
    Router,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.annotations import read_hints
from telex.dto import DataclassDTO, DTOConfig, DTOData
from tests.support.live import asked, asked_json, connected, denied, heard, serving, soon, talking
from tests.support.peer import Peer, scope

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class User:
    name: str
    password: str


class Public(DataclassDTO[User]):
    config = DTOConfig(exclude={"password"})


class Renamed(DataclassDTO[User]):
    config = DTOConfig(rename_fields={"name": "userName"})


async def test_data_transfer_objects_are_layered_and_may_be_switched_off() -> None:
    async def listen(data: User) -> User:
        return data

    app = Telex(
        [
            websocket_listener("/public", return_dto=Public)(listen),
            websocket_listener("/own")(listen),
            websocket_listener("/off", return_dto=None)(listen),
        ],
        dto=Renamed,
    )
    sent = {"userName": "ann", "password": "x"}
    expected = {"/public": {"name": "ann"}, "/own": sent, "/off": {"name": "ann", "password": "x"}}
    async with serving(app) as running:
        for path, answer in expected.items():
            async with connected(running, path) as client:
                assert await asked_json(client, sent) == answer


async def test_a_stream_writes_with_its_dto_and_leaves_text_alone() -> None:
    @websocket_stream("/", return_dto=Public)
    async def stream() -> AsyncGenerator[User, None]:
        yield User("ann", "x")
        yield "as it is"  # type: ignore[misc]

    async with talking(Telex([stream])) as client:
        assert [await heard(client), await heard(client)] == ['{"name":"ann"}', "as it is"]


def test_data_of_a_dto_needs_one() -> None:
    @websocket_listener("/")
    async def listen(data: DTOData[User]) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"listen \(.*\): 'data' is DTOData, which needs a dto"):
        Telex([listen])


def test_hints_that_are_not_there_at_run_time_name_the_class() -> None:
    class Model:
        price: Decimal

    with pytest.raises(ImproperlyConfiguredException, match=r"Model \(.*\) cannot be resolved: name 'Decimal'"):
        read_hints(Model)


async def test_a_session_runs_origin_guards_parameters_and_dependencies_in_this_order() -> None:
    log: list[str] = []

    def guard(socket: WebSocket) -> None:
        log.append("guard")
        if "stop" in socket.headers:
            raise PermissionDeniedException

    def dependency(page: int) -> int:
        log.append("dependency")
        return page

    @websocket("/", guards=[guard], dependencies={"dependency": dependency})
    async def handle(socket: WebSocket, dependency: int) -> None:
        log.append("handler")
        await socket.accept()

    async with serving(Telex([handle])) as running:
        assert (await denied(running, "/?page=x", origin="https://evil.example")).status == 403
        assert log == []
        assert (await denied(running, "/?page=x", headers={"stop": "1"})).status == 403
        assert log == ["guard"]
        assert (await denied(running, "/?page=x")).status == 400
        assert log == ["guard", "guard"]
        async with connected(running, "/?page=1"):
            pass
    assert log == ["guard", "guard", "guard", "dependency", "handler"]


async def test_limits_are_layered() -> None:
    async def listen(data: str, socket: WebSocket) -> list[int]:
        return [socket.options.max_message_size, socket.options.max_queued_messages]

    own = websocket_listener("/own", max_message_size=50)(listen)
    usual = websocket_listener("/usual")(listen)
    app = Telex([Router(route_handlers=[own, usual], max_queued_messages=3), websocket_listener("/default")(listen)])
    expected = {"/own": [50, 3], "/usual": [1024 * 1024, 3], "/default": [1024 * 1024, 16]}
    async with serving(app) as running:
        for path, limits in expected.items():
            async with connected(running, path) as client:
                assert await asked_json(client, "x") == limits


async def test_a_handler_without_anything_to_resolve_is_served_plainly() -> None:
    @websocket_listener("/")
    def echo(data: str) -> str:
        return data

    async with talking(Telex([echo])) as client:
        assert await asked(client, "x") == "x"


async def test_two_sessions_of_one_plan_share_nothing() -> None:
    seen: list[Any] = []

    @websocket_listener("/{name:str}")
    async def listen(data: str, name: str, socket: WebSocket) -> None:
        seen.append((name, socket.state.dict(), data))
        socket.state.name = name

    app = Telex([listen])
    for name in ("a", "b"):
        peer = Peer()
        peer.tell("1", "2")
        peer.leave()
        await soon(app(scope(f"/{name}"), peer.receive, peer.send))
    assert seen == [("a", {}, "1"), ("a", {"name": "a"}, "2"), ("b", {}, "1"), ("b", {"name": "b"}, "2")]
