"""WebSockets over HTTP/2 (RFC 8441): a Telex app on hypercorn, two of them on one TCP connection."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.settings
import msgspec

from telex import NotAuthorizedException, Telex, WebSocket, websocket_listener
from tests.contract.servers import HOST, ServerKind
from tests.support.raw import CLOSE, TEXT, close_frame, frame

HYPERCORN = ServerKind("hypercorn")
PATIENCE = 20.0


class Say(msgspec.Struct):
    text: str


@websocket_listener("/rooms/{room:str}")
async def say(data: Say, room: str, socket: WebSocket) -> str:
    return f"{room}: {data.text} by HTTP/{socket.scope['http_version']}"


def only_members(socket: WebSocket) -> None:
    raise NotAuthorizedException("members only")


@websocket_listener("/members", guards=[only_members])
async def members(data: str) -> str:
    return data


app = Telex([say, members])


class Http2Client:
    """One TCP connection that speaks HTTP/2 with prior knowledge; each WebSocket is a stream of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._data: dict[int, bytearray] = defaultdict(bytearray)
        self.status: dict[int, str] = {}
        self.ended: set[int] = set()

    async def start(self) -> Self:
        self._h2.initiate_connection()
        await self._flush()
        await self._until(lambda: self._h2.remote_settings.enable_connect_protocol == 1)
        return self

    async def connect(self, path: str) -> int:
        """Ask for a WebSocket by an extended CONNECT (RFC 8441 section 5); returns the stream."""
        stream: int = self._h2.get_next_available_stream_id()
        headers = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", HOST),
            (":path", path),
            ("sec-websocket-version", "13"),
            ("origin", f"http://{HOST}"),
        ]
        self._h2.send_headers(stream, headers)
        await self._flush()
        await self._until(lambda: stream in self.status)
        return stream

    async def send(self, stream: int, data: bytes) -> None:
        self._h2.send_data(stream, data)
        await self._flush()

    async def read_frame(self, stream: int) -> tuple[int, bytes]:
        """The next short frame of the server: opcode and payload."""
        await self._until(lambda: len(self._data[stream]) >= 2 and len(self._data[stream]) >= 2 + self._data[stream][1])
        got = self._data[stream]
        size = got[1]
        opcode, payload = got[0] & 0x0F, bytes(got[2 : 2 + size])
        del got[: 2 + size]
        return opcode, payload

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._note(self._h2.receive_data(await self._reader.read(65536)))
                await self._flush()

    def _note(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                self.status[event.stream_id] = dict(event.headers)[b":status"].decode()
            elif isinstance(event, h2.events.DataReceived):
                self._data[event.stream_id] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.ended.add(event.stream_id)

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[Http2Client]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield await Http2Client(reader, writer).start()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_two_websockets_share_one_http2_connection() -> None:
    async with HYPERCORN.loop(app) as running, client_of(running.port) as client:
        red, blue = await client.connect("/rooms/red"), await client.connect("/rooms/blue")
        assert client.status == {red: "200", blue: "200"}
        await client.send(blue, frame(TEXT, b'{"text":"hello"}'))
        await client.send(red, frame(TEXT, b'{"text":5}'))
        assert await client.read_frame(blue) == (TEXT, b"blue: hello by HTTP/2")
        opcode, error = await client.read_frame(red)
        assert (opcode, msgspec.json.decode(error)["error"]["path"]) == (TEXT, "$.text")
        await client.send(red, close_frame(1000))
        assert await client.read_frame(red) == (CLOSE, b"\x03\xe8")
        await client.send(blue, frame(TEXT, b'{"text":"still here"}'))
        assert await client.read_frame(blue) == (TEXT, b"blue: still here by HTTP/2")


async def test_a_denial_has_its_status_over_http2() -> None:
    async with HYPERCORN.loop(app) as running, client_of(running.port) as client:
        denied = await client.connect("/members")
        assert client.status[denied] == "401"
        missing = await client.connect("/nowhere")
        assert client.status[missing] == "404"
