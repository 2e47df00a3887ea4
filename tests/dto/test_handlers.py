"""DTOs on every layer and kind of handler, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from telex import Controller, Router, Telex, WebsocketListener, receives, websocket_listener, websocket_stream
from telex.dto import DataclassDTO, DTOConfig, DTOData, dto_field
from tests.contract.servers import ServerKind
from tests.dto.support import misconfigured
from tests.support.live import UVICORN, asked_json, connected, ending, heard, heard_json, serving, talking


@dataclass
class User:
    user_name: str
    password: Annotated[str, dto_field("write-only")] = "pw"


@dataclass
class Report:
    lines_read: int


Camel = DataclassDTO[Annotated[User, DTOConfig(rename_strategy="camel")]]
Upper = DataclassDTO[Annotated[User, DTOConfig(rename_strategy="upper")]]
Kebab = DataclassDTO[Annotated[User, DTOConfig(rename_strategy="kebab")]]


@pytest.fixture(params=[UVICORN, ServerKind("telex")], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server with its fast path."""
    found: ServerKind = request.param
    return found


async def test_dto_without_return_dto_applies_to_messages_and_replies(kind: ServerKind) -> None:
    @websocket_listener("/async", dto=Camel)
    async def listen(data: User) -> User:
        assert data.password == "new"
        return data

    @websocket_listener("/sync", dto=Camel)
    def listen_inline(data: User) -> User:
        assert data.password == "new"
        return data

    async with serving(Telex([listen, listen_inline]), kind) as running:
        for path in ("/async", "/sync"):
            async with connected(running, path) as client:
                assert await asked_json(client, {"userName": "Ada", "password": "new"}) == {"userName": "Ada"}


async def test_dto_without_return_dto_does_not_apply_to_replies_of_other_types() -> None:
    @websocket_listener("/", dto=Camel)
    def report(data: list[User]) -> Report:
        return Report(len(data))

    async with talking(Telex([report])) as client:
        assert await asked_json(client, [{"userName": "Ada"}]) == {"lines_read": 1}


async def test_return_dto_none_disables_dto_for_replies() -> None:
    @websocket_listener("/", dto=Camel, return_dto=None)
    def echo(data: User) -> User:
        return data

    async with talking(Telex([echo])) as client:
        assert await asked_json(client, {"userName": "Ada"}) == {"user_name": "Ada", "password": "pw"}


async def test_return_dto_without_dto_applies_to_replies_only() -> None:
    @websocket_listener("/", return_dto=Camel)
    def echo(data: User) -> User:
        return data

    async with talking(Telex([echo])) as client:
        assert await asked_json(client, {"user_name": "Ada"}) == {"userName": "Ada"}


async def test_the_nearest_layer_decides() -> None:
    @websocket_listener("/handler", dto=Kebab)
    def of_handler(data: User) -> User:
        return data

    @websocket_listener("/outer")
    def of_outer(data: User) -> User:
        return data

    @websocket_listener("/off", dto=None)
    def off(data: User) -> User:
        return data

    class Inner(Controller):
        path = "/inner"
        dto = Upper

        @websocket_listener("/")
        def of_controller(self, data: User) -> User:
            return data

    app = Telex([Router("/r", route_handlers=[of_handler, of_outer, off, Inner], dto=Camel), of_outer], dto=Upper)
    names = {
        "/r/handler": "user-name",
        "/r/outer": "userName",
        "/r/off": "user_name",
        "/r/inner": "USER_NAME",
        "/outer": "USER_NAME",
    }
    async with serving(app) as running:
        for path, name in names.items():
            async with connected(running, path) as client:
                assert (await asked_json(client, {name: "Ada"}))[name] == "Ada", path


async def test_a_class_listener_and_its_receivers() -> None:
    class Listener(WebsocketListener):
        path = "/"
        dto = Camel
        return_dto = Camel

        async def on_receive(self, data: User) -> User:
            return data

    class Several(WebsocketListener):
        path = "/several"
        dto = Camel

        @receives
        def user(self, data: User) -> User:
            return data

        @receives
        def number(self, data: int) -> int:
            return data + 1

    async with serving(Telex([Listener, Several])) as running:
        async with connected(running, "/") as client:
            assert await asked_json(client, {"userName": "Ada"}) == {"userName": "Ada"}
        async with connected(running, "/several") as client:
            assert await asked_json(client, {"userName": "Ada"}) == {"userName": "Ada"}
            assert await asked_json(client, 1) == 2


@pytest.mark.parametrize("option", ["dto", "return_dto"])
async def test_a_stream_writes_through_its_dto(option: str) -> None:
    async def stream() -> AsyncGenerator[User | str, None]:
        yield User("Ada")
        yield "as it is"

    options: Any = {option: Camel}
    async with talking(Telex([websocket_stream("/", **options)(stream)])) as client:
        assert await heard_json(client) == {"userName": "Ada"}
        assert await heard(client) == "as it is"


async def test_the_error_frame_has_the_path_on_the_wire(kind: ServerKind) -> None:
    @websocket_listener("/", dto=Camel)
    def echo(data: list[User]) -> list[User]:
        return data

    async with talking(Telex([echo]), kind=kind) as client:
        error = (await asked_json(client, [{"userName": "Ada"}, {"userName": 3}]))["error"]
        assert error == {"code": "invalid_message", "message": "Expected `str`, got `int`", "path": "$[1].userName"}
        assert await asked_json(client, [{"userName": "Ada"}]) == [{"userName": "Ada"}]


async def test_binary_frames() -> None:
    @websocket_listener("/", dto=Camel, receive_mode="binary", send_mode="binary")
    def echo(data: User) -> User:
        return data

    async with talking(Telex([echo])) as client:
        await client.send(b'{"userName":"Ada"}')
        assert await heard(client) == b'{"userName":"Ada"}'


async def test_none_sends_nothing_and_a_reply_of_another_type_ends_the_connection() -> None:
    @websocket_listener("/", dto=Camel)
    async def echo(data: User) -> User | None:
        return data if data.user_name != "Nobody" else None

    @websocket_listener("/wrong", dto=Camel)
    async def wrong(data: User) -> User:
        return {"user_name": "not a User"}  # type: ignore[return-value]

    async with serving(Telex([echo, wrong])) as running:
        async with connected(running, "/") as client:
            await client.send('{"userName":"Nobody"}')
            assert await asked_json(client, {"userName": "Ada"}) == {"userName": "Ada"}
        async with connected(running, "/wrong") as client:
            await client.send('{"userName":"Ada"}')
            assert (await ending(client))[0] == 1011


async def test_the_handler_applies_dto_data_to_an_instance() -> None:
    stored = User("Ada", "old")

    @websocket_listener("/", dto=DataclassDTO[Annotated[User, DTOConfig(partial=True)]])
    def patch(data: DTOData[User]) -> User:
        return data.update_instance(stored)

    async with talking(Telex([patch])) as client:
        assert await asked_json(client, {"password": "new"}) == {"user_name": "Ada"}
        assert await asked_json(client, {"user_name": "Grace"}) == {"user_name": "Grace"}
    assert stored == User("Grace", "new")


def test_an_annotation_that_does_not_fit_is_an_error_when_the_app_is_built() -> None:
    @websocket_listener("/", dto=Camel)
    def text(data: str) -> str:
        return data

    @websocket_listener("/", return_dto=Camel)
    def number(data: int) -> int:
        return data

    @websocket_listener("/")
    def data_without(data: DTOData[User]) -> None: ...

    error = misconfigured(lambda: Telex([text]))
    assert "text (dto/test_handlers.py:" in error
    assert "data is annotated <class 'str'>, and DataclassDTO[User] is for User" in error
    assert "dto=None" in error
    error = misconfigured(lambda: Telex([number]))
    assert "the reply is annotated <class 'int'>" in error
    assert "return_dto=None" in error
    assert "which needs a dto" in misconfigured(lambda: Telex([data_without]))
    not_a_dto: Any = User
    error = misconfigured(lambda: websocket_listener("/", dto=not_a_dto)(lambda data: data))
    assert "write DataclassDTO[Model]" in error
