"""What becomes of exceptions, apart from the servers: handlers first, then the table."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException as StarletteHTTPException

from telex import Telex, WebSocket, websocket
from telex.testing import AsyncTestClient, WebSocketDenied


async def test_exception_handlers_do_not_see_that_the_client_left() -> None:
    seen: list[Exception] = []

    @websocket("/", exception_handlers={Exception: lambda _, exc: seen.append(exc)})
    async def handler(socket: WebSocket) -> None:
        await socket.receive_text()

    async with AsyncTestClient(Telex([handler])) as client, client.websocket_connect("/"):
        pass
    assert seen == []


async def test_a_handler_for_starlettes_own_exception_is_found() -> None:
    @websocket("/", exception_handlers={StarletteHTTPException: lambda _, exc: {"seen": exc.detail}})
    async def handler(socket: WebSocket) -> None:
        raise StarletteHTTPException(418, "tea")

    async with AsyncTestClient(Telex([handler])) as client:
        with pytest.raises(WebSocketDenied) as denied:
            async with client.websocket_connect("/"):
                pass
    assert denied.value.status_code == 418
    assert denied.value.json() == {"seen": "tea"}
