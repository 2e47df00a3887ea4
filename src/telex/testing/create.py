"""An app and its test client in one call."""

from __future__ import annotations

from typing import Any

from telex.testing.blocking import TestClient
from telex.testing.client import AsyncTestClient
from telex.types import ASGIApp

__all__ = ("create_async_test_client", "create_test_client")


def create_test_client(
    route_handlers: Any,
    *,
    base_url: str = "http://testserver",
    timeout: float = 5.0,
    raise_server_exceptions: bool = True,
    **app_options: Any,
) -> TestClient:
    """A client of ``Telex(route_handlers, **app_options)``, to be entered."""
    app = _app(route_handlers, app_options)
    return TestClient(app, base_url, timeout=timeout, raise_server_exceptions=raise_server_exceptions)


def create_async_test_client(
    route_handlers: Any,
    *,
    base_url: str = "http://testserver",
    timeout: float = 5.0,
    raise_server_exceptions: bool = True,
    **app_options: Any,
) -> AsyncTestClient:
    """As :func:`create_test_client`, for tests that run on an event loop."""
    app = _app(route_handlers, app_options)
    return AsyncTestClient(app, base_url, timeout=timeout, raise_server_exceptions=raise_server_exceptions)


def _app(route_handlers: Any, options: dict[str, Any]) -> ASGIApp:
    from telex.application import Telex

    return Telex(route_handlers, **options)
