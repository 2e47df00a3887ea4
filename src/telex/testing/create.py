"""An app and its test client in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from telex.application import Hook, Lifespan, Plugin, Telex
from telex.datastructures import State
from telex.layers import LayerOptions
from telex.routing import RouteHandler
from telex.testing.blocking import TestClient
from telex.testing.client import AsyncTestClient
from telex.testing.clock import TestClock
from telex.types import ASGIApp

__all__ = ("AppOptions", "create_async_test_client", "create_test_client")


class AppOptions(LayerOptions, total=False):
    """The options of :class:`telex.Telex`; a test compares the two."""

    http: ASGIApp | None
    lifespan: Sequence[Lifespan] | Lifespan
    on_startup: Sequence[Hook]
    on_shutdown: Sequence[Hook]
    state: State | Mapping[str, Any] | None
    plugins: Sequence[Plugin]
    debug: bool


def create_test_client(
    route_handlers: RouteHandler | Iterable[RouteHandler],
    *,
    base_url: str = "http://testserver",
    timeout: float = 5.0,
    raise_server_exceptions: bool = True,
    clock: TestClock | None = None,
    **app_options: Unpack[AppOptions],
) -> TestClient:
    """A client of ``Telex(route_handlers, **app_options)``; ``route_handlers`` may be a single handler."""
    app = Telex(_listed(route_handlers), **app_options)
    return TestClient(app, base_url, timeout=timeout, raise_server_exceptions=raise_server_exceptions, clock=clock)


def create_async_test_client(
    route_handlers: RouteHandler | Iterable[RouteHandler],
    *,
    base_url: str = "http://testserver",
    timeout: float = 5.0,
    raise_server_exceptions: bool = True,
    clock: TestClock | None = None,
    **app_options: Unpack[AppOptions],
) -> AsyncTestClient:
    """As :func:`create_test_client`, for tests that run on an event loop."""
    app = Telex(_listed(route_handlers), **app_options)
    return AsyncTestClient(app, base_url, timeout=timeout, raise_server_exceptions=raise_server_exceptions, clock=clock)


def _listed(route_handlers: RouteHandler | Iterable[RouteHandler]) -> Iterable[RouteHandler]:
    return route_handlers if isinstance(route_handlers, Iterable) else [route_handlers]
