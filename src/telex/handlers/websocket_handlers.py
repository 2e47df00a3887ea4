"""The names that code written for Litestar imports from a module with this name."""

from telex.handlers.listener import WebsocketListener, websocket_listener
from telex.handlers.raw import websocket
from telex.handlers.stream import send_websocket_stream, websocket_stream

__all__ = ("WebsocketListener", "send_websocket_stream", "websocket", "websocket_listener", "websocket_stream")
