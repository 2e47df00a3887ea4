"""The statements of the reference's tables and lists, tested."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from telex import (
    Controller,
    FromCookie,
    FromHeader,
    Router,
    Telex,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.exceptions import ConcurrencyError, ConnectionStateError, HTTPException
from telex.testing import AsyncTestClient, WebSocketDenied, create_async_test_client
from telex.types import ASGIApp, Receive, Scope, Send


async def denied(client: AsyncTestClient, path: str = "/", **options: Any) -> WebSocketDenied:
    with pytest.raises(WebSocketDenied) as refused:
        await client.websocket_connect(path, **options)
    return refused.value


# -- reference/close-codes.md


@websocket("/returns")
async def returns(socket: WebSocket) -> None:
    await socket.accept()


@websocket_stream("/stream-ends")
async def stream_ends() -> AsyncGenerator[str, None]:
    for _ in range(0):
        yield ""


@websocket_stream("/takes-none")
async def takes_none(socket: WebSocket) -> AsyncGenerator[str, None]:
    yield await socket.receive_text()


@websocket("/text")
async def text(socket: WebSocket) -> None:
    await socket.receive_text()


@websocket_listener("/small", max_message_size=8)
async def small(data: str) -> None: ...


@websocket_listener("/status")
async def status(data: int) -> None:
    raise HTTPException("no", status_code=data)


@websocket_listener("/own")
async def own(data: int, socket: WebSocket) -> str:
    await socket.close(data, "own")
    await socket.close()
    return "dropped"


@pytest.mark.parametrize(
    ("handler", "message", "code"),
    [
        (returns, None, 1000),
        (stream_ends, None, 1000),
        (text, b"binary", 1003),
        (small, "123456789", 1009),
        (status, "418", 4418),
        (own, "3000", 3000),
    ],
    ids=lambda value: "".join(getattr(value, "paths", ())) or str(value),
)
async def test_close_codes(handler: Any, message: str | bytes | None, code: int) -> None:
    client = create_async_test_client(handler, raise_server_exceptions=False)
    async with client, client.websocket_connect(handler.paths[0]) as session:
        if message is not None:
            await session.send(message, "text" if isinstance(message, str) else "binary")
        assert (await session.expect(WebSocketDisconnect)).code == code


async def test_close_code_of_the_unexpected() -> None:
    @websocket_listener("/")
    def divide(data: int) -> float:
        return 1 / data

    client = create_async_test_client(divide, raise_server_exceptions=False)
    async with client, client.websocket_connect("/") as session:
        await session.send_json(0)
        closed = await session.expect(WebSocketDisconnect)
    assert (closed.code, closed.reason) == (1011, "internal error")


async def test_close_code_of_a_drain() -> None:
    async with create_async_test_client(small) as client, client.websocket_connect("/small") as session:
        assert isinstance(client.app, Telex)
        assert await client.app.connections.drain() == 1
        assert (await session.expect(WebSocketDisconnect)).code == 1012


async def test_codes_that_may_be_sent() -> None:
    @websocket("/")
    async def try_codes(socket: WebSocket) -> None:
        for code in (999, 1004, 1005, 1006, 1015, 2999, 5000):
            with pytest.raises(ValueError, match=str(code)):
                await socket.close(code)
        await socket.send_text("tried")
        await socket.close()
        with pytest.raises(ConnectionStateError):
            await socket.send_text("too late")

    async with create_async_test_client(try_codes) as client, client.websocket_connect("/") as session:
        await session.expect("tried")


@pytest.mark.parametrize(
    ("error", "status_code"),
    [(WebSocketException(4000, "enough"), 403), (HTTPException(status_code=409), 409), (False, 403), (None, 403)],
    ids=repr,
)
async def test_denials(error: Exception | bool | None, status_code: int) -> None:
    def guard(_: WebSocket) -> bool | None:
        if isinstance(error, Exception):
            raise error
        return error

    @websocket("/", guards=[guard])
    async def never_accepts(socket: WebSocket) -> None: ...

    async with create_async_test_client(never_accepts) as client:
        assert (await denied(client)).status_code == status_code


async def test_denial_of_the_unexpected() -> None:
    @websocket("/")
    async def fails(socket: WebSocket) -> None:
        raise RuntimeError("secret")

    async with create_async_test_client(fails, raise_server_exceptions=False) as client:
        refused = await denied(client)
    assert refused.status_code == 500
    assert b"secret" not in refused.content


# -- reference/parameters.md and reference/dependencies.md


async def test_parameters() -> None:
    @websocket("/{name}")
    async def show(
        socket: WebSocket,
        name: str,
        tag: list[str],
        x_trace: FromHeader[str],
        token: FromCookie[int],
        day: dt.date,
        page: int | None,
    ) -> None:
        await socket.send_json([name, tag, x_trace, token, day, page])

    async with create_async_test_client(show) as client:
        given = {"headers": {"x-trace": "t"}, "cookies": {"token": "5"}}
        async with client.websocket_connect("/ada?tag=a&tag=b&day=2026-11-23", **given) as session:  # type: ignore[arg-type]
            await session.expect(["ada", ["a", "b"], "t", 5, "2026-11-23", None])
        refused = (await denied(client, "/ada?day=soon", headers={"x-trace": "t"})).json()
    assert isinstance(refused, dict)
    assert sorted(each["key"] for each in refused["extra"]) == ["day", "tag", "token"]


async def test_reserved_names() -> None:
    @websocket("/")
    async def show(
        socket: WebSocket, scope: Scope, headers: dict[str, str], cookies: dict[str, str], query: dict[str, str]
    ) -> None:
        await socket.send_json([scope["path"], headers["x-one"], cookies, query])

    async with create_async_test_client(show) as client:
        connecting = client.websocket_connect("/?a=1", headers={"x-one": "1"}, cookies={"c": "2"})
        async with connecting as session:
            await session.expect(["/", "1", {"c": "2"}, {"a": "1"}])


# -- reference/routing.md


@pytest.mark.parametrize(
    ("kind", "segment", "kind_of_value"),
    [
        ("str", "text", str),
        ("int", "-12", int),
        ("float", "1.5", float),
        ("decimal", "1.50", decimal.Decimal),
        ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", uuid.UUID),
        ("date", "2026-11-23", dt.date),
        ("datetime", "2026-11-23T01:25:00Z", dt.datetime),
        ("time", "01:25:00", dt.time),
        ("timedelta", "PT1H30M", dt.timedelta),
        ("path", "a/b", str),
    ],
)
async def test_kinds_of_path_parameters(kind: str, segment: str, kind_of_value: type) -> None:
    @websocket([f"/at/{{value:{kind}}}", "/nowhere"], name="show")
    async def show(socket: WebSocket) -> None:
        value = socket.path_params.get("value")
        await socket.send_json([type(value).__name__, value])

    async with create_async_test_client(show) as client:
        for path in (f"/at/{segment}", f"/at/{segment}/"):
            async with client.websocket_connect(path) as session:
                name, value = await session.receive_json()
                assert name == kind_of_value.__name__
                assert kind != "path" or value == path.removeprefix("/at").rstrip("/")


async def test_exact_paths_come_first() -> None:
    @websocket("/{name}")
    async def template(socket: WebSocket) -> None:
        await socket.send_text("template")

    @websocket("/{number:int}")
    async def number(socket: WebSocket) -> None:
        await socket.send_text("number")

    @websocket("/exact", name="exact")
    async def exact(socket: WebSocket) -> None:
        await socket.send_text(str(socket.url_for("exact")))

    async with create_async_test_client([template, number, exact]) as client:
        for path, said in (("/exact", "ws://testserver/exact"), ("/5", "number"), ("/other", "template")):
            async with client.websocket_connect(path) as session:
                await session.expect(said)


# -- how-to/write-middleware.md and topics/concurrency.md


async def test_middleware_goes_from_the_app_inwards() -> None:
    order: list[str] = []

    def noting(name: str) -> Any:
        def factory(app: ASGIApp) -> ASGIApp:
            async def noted(scope: Scope, receive: Receive, send: Send) -> None:
                order.append(name)
                await app(scope, receive, send)

            return noted

        return factory

    class Inner(Controller):
        middleware = (noting("controller"),)

        @websocket("/", middleware=[noting("handler")], guards=[lambda _: order.append("guard")])
        async def handler(self, socket: WebSocket) -> None:
            await socket.accept()

    router = Router("/", route_handlers=[Inner], middleware=[noting("router")])
    client = create_async_test_client(router, middleware=[noting("app")])
    async with client, client.websocket_connect("/"):
        pass
    assert order == ["app", "router", "controller", "handler", "guard"]


async def test_one_reader() -> None:
    refused: list[ConcurrencyError] = []

    @websocket("/")
    async def two_readers(socket: WebSocket) -> None:
        async def read() -> None:
            try:
                await socket.send_text(await socket.receive_text())
            except ConcurrencyError as error:
                refused.append(error)
                await socket.send_text("refused")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            tasks.create_task(read())

    async with create_async_test_client(two_readers) as client, client.websocket_connect("/") as session:
        await session.expect("refused")
        await session.send_text("hello")
        await session.expect("hello")
    assert len(refused) == 1
