"""Telex: typed WebSockets for Python.

A listener is a function that takes a message; its annotations are the types of messages and replies. Handlers are
compiled when the app is built, and run on any ASGI server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telex.application import AppConfig, Plugin, Telex
from telex.auth.identity import Authenticate, Identity
from telex.channels.hub import Channels
from telex.connection import WebSocket
from telex.contract.serving import AsyncAPI
from telex.datastructures import State
from telex.di import Dependency, NamedDependency, Provide
from telex.exceptions import (
    CallError,
    CallTimeout,
    ImproperlyConfiguredException,
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
    ValidationException,
    WebSocketDisconnect,
    WebSocketException,
)
from telex.handlers import (
    Multiplex,
    WebsocketListener,
    channel_listener,
    receives,
    send_websocket_stream,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.middleware import DefineMiddleware
from telex.params import FromCookie, FromHeader, FromPath, FromQuery, Parameter
from telex.protocol.envelope import Incoming
from telex.renamed import litestars_names
from telex.routing import Controller, Router

__version__ = "0.1.0"

__all__ = (
    "AppConfig",
    "AsyncAPI",
    "Authenticate",
    "CallError",
    "CallTimeout",
    "Channels",
    "Controller",
    "DefineMiddleware",
    "Dependency",
    "FromCookie",
    "FromHeader",
    "FromPath",
    "FromQuery",
    "Identity",
    "ImproperlyConfiguredException",
    "Incoming",
    "Multiplex",
    "NamedDependency",
    "NotAuthorizedException",
    "NotFoundException",
    "Parameter",
    "PermissionDeniedException",
    "Plugin",
    "Provide",
    "Router",
    "State",
    "Telex",
    "ValidationException",
    "WebSocket",
    "WebSocketDisconnect",
    "WebSocketException",
    "WebsocketListener",
    "__version__",
    "channel_listener",
    "receives",
    "send_websocket_stream",
    "websocket",
    "websocket_listener",
    "websocket_stream",
)

if not TYPE_CHECKING:
    # With a visible __getattr__, type checkers would accept any name of this module.
    __getattr__ = litestars_names(__name__)
