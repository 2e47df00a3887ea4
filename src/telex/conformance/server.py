"""The scripted server: it decides nothing, the steps of a scenario do."""

from __future__ import annotations

import asyncio
import base64
import http
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from telex.protocol.frames import BadFrame, frame, split

__all__ = ("ScriptedHandshake", "ScriptedLine", "ScriptedServer")

BEARER: Final = "bearer."


class ScriptedHandshake:
    """The opening handshake of a client, which waits for the script's decision."""

    def __init__(self, request: Request, at: float) -> None:
        self.at: float = at
        self.query: Mapping[str, str] = dict(parse_qsl(urlsplit(request.path).query))
        self.token: str | None = _token(request, self.query)
        self.decision: asyncio.Future[tuple[str | None, http.HTTPStatus | None, str]] = (
            asyncio.get_running_loop().create_future()
        )
        self.line: asyncio.Future[ScriptedLine] = asyncio.get_running_loop().create_future()


class ScriptedLine:
    """An accepted connection."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.began: float = asyncio.get_running_loop().time()
        self.frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.ended: asyncio.Event = asyncio.Event()

    async def read(self) -> None:
        """Read frames until the connection ends."""
        try:
            async for message in self._connection:
                self.frames.put_nowait(_read(message))
        except ConnectionClosed:
            pass
        self.ended.set()

    async def send(self, fields: Mapping[str, Any]) -> None:
        """Send a frame."""
        head = {key: value for key, value in fields.items() if key != "data"}
        data = fields.get("data")
        text = msgspec.json.encode(head).decode()[:-1]
        if isinstance(data, dict) and "$bytes" in data:
            await self.send_raw(frame(text, base64.b64decode(data["$bytes"])))
        else:
            await self.send_raw(frame(text, msgspec.json.encode(data).decode() if "data" in fields else None))

    async def send_raw(self, message: str | bytes) -> None:
        """Send a message. A client that has left gets none."""
        try:
            await self._connection.send(message)
        except ConnectionClosed:
            self.ended.set()

    async def close(self, code: int, reason: str) -> None:
        """Close with a code."""
        await self._connection.close(code, reason)

    def cut(self) -> None:
        """End the connection without a close frame."""
        self._connection.transport.abort()


class ScriptedServer:
    """Listens on a free port; each connection waits for the script."""

    def __init__(self) -> None:
        self.handshakes: asyncio.Queue[ScriptedHandshake] = asyncio.Queue()
        self._waiting: dict[ServerConnection, ScriptedHandshake] = {}
        self._server: Server | None = None

    async def __aenter__(self) -> ScriptedServer:
        self._server = await serve(
            self._handle,
            "127.0.0.1",
            0,
            process_request=self._process_request,
            select_subprotocol=self._select_subprotocol,
            ping_interval=None,
            compression=None,
            close_timeout=1,
            open_timeout=60,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None  # noqa: S101
        for handshake in self._waiting.values():
            if not handshake.decision.done():
                handshake.decision.set_result((None, http.HTTPStatus.SERVICE_UNAVAILABLE, ""))
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The address."""
        assert self._server is not None  # noqa: S101
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/"

    async def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        handshake = self._waiting[connection] = ScriptedHandshake(request, asyncio.get_running_loop().time())
        self.handshakes.put_nowait(handshake)
        _, status, body = await handshake.decision
        return None if status is None else connection.respond(status, body)

    def _select_subprotocol(self, connection: ServerConnection, offered: Any) -> Subprotocol | None:
        selected, _, _ = self._waiting[connection].decision.result()
        return Subprotocol(selected) if selected is not None and selected in offered else None

    async def _handle(self, connection: ServerConnection) -> None:
        line = ScriptedLine(connection)
        self._waiting[connection].line.set_result(line)
        await line.read()


def _read(message: str | bytes) -> dict[str, Any]:
    """A frame of the client; bytes are ``{"$bytes": base64}``."""
    try:
        if isinstance(message, str):
            found = msgspec.json.decode(message)
        else:
            header, data = split(message)
            found = {**msgspec.json.decode(header), "data": {"$bytes": base64.b64encode(data).decode()}}
    except (msgspec.DecodeError, BadFrame):
        return {"type": "no frame", "message": repr(message)}
    return found if isinstance(found, dict) else {"type": "no frame", "message": repr(message)}


def _token(request: Request, query: Mapping[str, str]) -> str | None:
    offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    for each in offered:
        if each.startswith(BEARER):
            return each.removeprefix(BEARER)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else query.get("ticket")
