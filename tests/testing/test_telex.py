"""The clients and Telex's own apps."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from telex import State, Telex, WebSocket, websocket, websocket_listener
from telex.exceptions import NotAuthorizedException, ServiceUnavailableException, WebSocketDisconnect
from telex.layers import LayerOptions
from telex.testing import AsyncTestClient, TestClient, WebSocketDenied, create_async_test_client, create_test_client
from telex.testing.create import AppOptions


@websocket_listener("/double")
async def double(data: int) -> int:
    return 2 * data


@websocket_listener("/fails")
async def fails(data: int) -> float:
    return data / 0


@websocket("/refuses/{status:int}")
async def refuses(socket: WebSocket, status: int) -> None:
    raise {401: NotAuthorizedException, 500: ZeroDivisionError, 503: ServiceUnavailableException}[status]("no")


@websocket("/hangs")
async def hangs(socket: WebSocket) -> None:
    await socket.accept()
    await asyncio.Event().wait()


def test_a_listener_is_tested_in_a_line() -> None:
    with create_test_client(double) as client, client.websocket_connect("/double") as session:
        session.send_json(21)
        assert session.expect(int) == 42


async def test_a_listener_is_tested_on_the_tests_own_loop() -> None:
    async with (
        create_async_test_client([double], state=State({"a": 1})) as client,
        client.websocket_connect("/double") as session,
    ):
        await session.send_json("not a number")
        error = await session.expect(dict[str, Any])
        assert error["error"]["code"] == "invalid_message"
        await session.send_json(1)
        await session.expect(2)


def test_an_exception_of_a_handler_is_raised_in_the_test(caplog: pytest.LogCaptureFixture) -> None:
    with create_test_client(fails) as client:
        with client.websocket_connect("/fails") as session:
            session.send_json(1)
            with pytest.raises(ZeroDivisionError):
                session.receive()
        with client.websocket_connect("/fails") as session:
            session.send_json(1)
            with pytest.raises(ZeroDivisionError):
                session.expect(WebSocketDisconnect)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_without_raise_server_exceptions_the_client_gets_the_close_of_the_app() -> None:
    with create_test_client([fails, refuses], raise_server_exceptions=False) as client:
        with client.websocket_connect("/fails") as session:
            session.send_json(1)
            assert session.expect(WebSocketDisconnect).code == 1011
        with pytest.raises(WebSocketDenied) as caught, client.websocket_connect("/refuses/500"):
            pass
        assert caught.value.status_code == 500


def test_an_exception_of_a_handler_before_accept_is_raised_in_the_test() -> None:
    with (
        create_test_client(refuses) as client,
        pytest.raises(ZeroDivisionError),
        client.websocket_connect("/refuses/500"),
    ):
        pass


@pytest.mark.parametrize("status", [401, 503])
def test_an_exception_with_a_status_is_a_denial(status: int) -> None:
    with (
        create_test_client(refuses) as client,
        pytest.raises(WebSocketDenied) as caught,
        client.websocket_connect(f"/refuses/{status}"),
    ):
        pass
    assert caught.value.status_code == status
    assert caught.value.json() == {"status_code": status, "detail": "no"}


def test_the_client_can_act_as_a_server_without_denials() -> None:
    with (
        create_test_client(refuses) as client,
        pytest.raises(WebSocketDisconnect) as caught,
        client.websocket_connect("/refuses/401", extensions={}),
    ):
        pass
    assert caught.value.code == 4401


async def test_the_text_of_a_timeout_names_the_waiting_handler() -> None:
    async with create_async_test_client(hangs) as client, client.websocket_connect("/hangs") as session:
        with pytest.raises(TimeoutError, match=r"from telex\.application\.Telex, handler hangs \(testing/test_telex"):
            await session.receive(timeout=0.05)


async def test_the_text_of_a_timeout_names_an_endpoint_of_starlette() -> None:
    async def endpoint(socket: StarletteWebSocket) -> None:
        await socket.accept()
        await socket.receive_text()

    app = Starlette(routes=[WebSocketRoute("/", endpoint), Mount("/telex", Telex([double]))])
    async with AsyncTestClient(app) as client:
        session = await client.websocket_connect("/")
        with pytest.raises(TimeoutError, match=r"Starlette, handler .*endpoint \(testing/test_telex"):
            await session.receive(timeout=0.05)
        await session.send_text("end")
        await session.aclose()
        async with client.websocket_connect("/telex/double") as session:
            await session.send_json(1)
            await session.expect(2)


def test_http_goes_to_the_app_for_http() -> None:
    with TestClient(Telex([double], http=PlainTextResponse("hello"))) as client:
        assert client.get("/").text == "hello"


def test_create_passes_its_options_to_the_app() -> None:
    parameters = inspect.signature(Telex).parameters
    own = {name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert set(AppOptions.__annotations__) - set(LayerOptions.__annotations__) == own


def test_without_with_the_lifespan_does_not_run() -> None:
    started = []
    client = create_test_client(double, on_startup=[lambda: started.append(True)])
    with client.websocket_connect("/double") as session:
        session.send(21)
        assert session.expect(int) == 42
    assert started == []
    with client, client.websocket_connect("/double") as session:
        session.send(21)
        session.expect(42)
    assert started == [True]
