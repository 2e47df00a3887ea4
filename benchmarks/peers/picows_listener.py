"""picows without a framework, the fastest that Python has: what the speed of Telex's own server is measured against."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.messages import Move, moved


class Echo(WSListener):
    """Sends a text message back as it came."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class Typed(WSListener):
    """The typed echo with msgspec by hand."""

    decode = staticmethod(msgspec.json.Decoder(Move).decode)
    encode = staticmethod(msgspec.json.Encoder().encode)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, self.encode(moved(self.decode(frame.get_payload_as_memoryview()))))
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


APPS = {"text": Echo, "json": Typed}


def serve(app: str, listening: socket.socket) -> None:
    """Serves until the process is killed."""
    listener = APPS[app]

    def factory(request: WSUpgradeRequest) -> WSListener:
        return listener()

    async def run() -> None:
        server = await ws_create_server(factory, sock=listening)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
