"""Test clients that call an ASGI app in process, over WebSockets and HTTP.

``TestClient`` is for synchronous tests, ``AsyncTestClient`` for tests that run on an event loop; ``create_test_client``
and ``create_async_test_client`` also build the app. Every wait has a timeout.
"""

from __future__ import annotations

from telex.testing import frames
from telex.testing.blocking import MultiplexTestSession, TestClient, WebSocketTestSession
from telex.testing.blocking_calls import Items, PendingCall
from telex.testing.calling import AsyncItems, AsyncPendingCall
from telex.testing.client import AsyncTestClient
from telex.testing.clock import TestClock
from telex.testing.create import create_async_test_client, create_test_client
from telex.testing.errors import ProtocolMisuse, WebSocketDenied
from telex.testing.multiplex import AsyncMultiplexTestSession
from telex.testing.session import AsyncWebSocketTestSession

__all__ = (
    "AsyncItems",
    "AsyncMultiplexTestSession",
    "AsyncPendingCall",
    "AsyncTestClient",
    "AsyncWebSocketTestSession",
    "Items",
    "MultiplexTestSession",
    "PendingCall",
    "ProtocolMisuse",
    "TestClient",
    "TestClock",
    "WebSocketDenied",
    "WebSocketTestSession",
    "create_async_test_client",
    "create_test_client",
    "frames",
)
