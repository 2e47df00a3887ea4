"""The kinds of handler: low-level, listener and stream."""

from telex.handlers.base import Handler
from telex.handlers.listener import ListenerHandler, ListenerOptions, WebsocketListener, websocket_listener
from telex.handlers.raw import WebsocketHandler, websocket
from telex.handlers.receivers import receives
from telex.handlers.stream import StreamHandler, StreamOptions, send_websocket_stream, websocket_stream

__all__ = (
    "Handler",
    "ListenerHandler",
    "ListenerOptions",
    "StreamHandler",
    "StreamOptions",
    "WebsocketHandler",
    "WebsocketListener",
    "receives",
    "send_websocket_stream",
    "websocket",
    "websocket_listener",
    "websocket_stream",
)
