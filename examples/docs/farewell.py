from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from telex import Telex, WebSocket, websocket_listener

LOG: list[str] = []


async def goodbye(socket: WebSocket, close_code: int, close_reason: str) -> None:
    LOG.append(f"left with {close_code} {close_reason!r}")


@websocket_listener("/hooks", on_disconnect=goodbye)
async def hooks(data: str) -> str:
    return data


@asynccontextmanager
async def around(socket: WebSocket) -> AsyncGenerator[None, None]:
    await socket.accept(subprotocols=["chat.v2", "chat.v1"], headers={"x-served-by": "telex"})
    LOG.append("entered")
    try:
        yield
    finally:
        LOG.append("left")


@websocket_listener("/lifespan", connection_lifespan=around)
async def lifespan(data: str) -> str:
    return data


app = Telex([hooks, lifespan])
