"""The kinds of handler: low-level, listener, stream, channel and multiplex."""

from telex.handlers.base import Handler
from telex.handlers.channel import ChannelHandler, ChannelOptions, channel_listener
from telex.handlers.listener import ListenerHandler, ListenerOptions, WebsocketListener, websocket_listener
from telex.handlers.multiplex import Multiplex
from telex.handlers.raw import WebsocketHandler, websocket
from telex.handlers.receivers import receives
from telex.handlers.stream import StreamHandler, StreamOptions, send_websocket_stream, websocket_stream

__all__ = (
    "ChannelHandler",
    "ChannelOptions",
    "Handler",
    "ListenerHandler",
    "ListenerOptions",
    "Multiplex",
    "StreamHandler",
    "StreamOptions",
    "WebsocketHandler",
    "WebsocketListener",
    "channel_listener",
    "receives",
    "send_websocket_stream",
    "websocket",
    "websocket_listener",
    "websocket_stream",
)
