"""picows without a framework, the fastest that Python has: what the speed of Telex's own server is measured against."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import ClassVar

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.certificate import Certificate
from benchmarks.messages import READY, Move, moved


def end(transport: WSTransport, frame: WSFrame) -> None:
    transport.send_close(frame.get_close_code(), frame.get_close_message())
    transport.disconnect()


class Echo(WSListener):
    """Sends a text message back as it came."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            end(transport, frame)


class Typed(WSListener):
    """The typed echo with msgspec by hand."""

    decode = staticmethod(msgspec.json.Decoder(Move).decode)
    encode = staticmethod(msgspec.json.Encoder().encode)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, self.encode(moved(self.decode(frame.get_payload_as_memoryview()))))
        elif frame.msg_type == WSMsgType.CLOSE:
            end(transport, frame)


class Subscriber(WSListener):
    """One of those that hear what is published."""

    everyone: ClassVar[set[WSTransport]] = set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.everyone.add(transport)
        transport.send(WSMsgType.TEXT, READY.encode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.everyone.discard(transport)


class Publisher(WSListener):
    """Sends each message to all subscribers."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            payload = frame.get_payload_as_bytes()
            for subscriber in Subscriber.everyone:
                subscriber.send(WSMsgType.TEXT, payload)
        elif frame.msg_type == WSMsgType.CLOSE:
            end(transport, frame)


def fanout(request: WSUpgradeRequest) -> WSListener:
    return Publisher() if request.path == b"/publish" else Subscriber()


APPS: dict[str, Callable[[WSUpgradeRequest], WSListener]] = {
    "text": lambda request: Echo(),
    "json": lambda request: Typed(),
    "fanout": fanout,
    "channels": fanout,
}


def serve(app: str, listening: socket.socket, certificate: Certificate | None) -> None:
    """Serves until the process is killed."""

    async def run() -> None:
        context = certificate.for_server() if certificate else None
        server = await ws_create_server(APPS[app], sock=listening, ssl=context)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
