"""Wraps an app in ASGI middleware."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from starlette.middleware.base import BaseHTTPMiddleware

from telex.exceptions import ImproperlyConfiguredException
from telex.types import ASGIApp, Middleware, Scope

__all__ = ("DefineMiddleware", "without_fast_path", "wrap_in_middleware")


class DefineMiddleware:
    """An ASGI middleware class or factory, and the arguments that it takes in addition to the app."""

    __slots__ = ("args", "kwargs", "middleware")

    def __init__(self, middleware: Callable[..., ASGIApp], *args: Any, **kwargs: Any) -> None:
        self.middleware: Callable[..., ASGIApp] = middleware
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs

    def __call__(self, app: ASGIApp) -> ASGIApp:
        """Wrap ``app``."""
        return self.middleware(app, *self.args, **self.kwargs)


def wrap_in_middleware(app: ASGIApp, middleware: Sequence[Any], where: str) -> ASGIApp:
    """``app`` inside ``middleware``, the first outermost.

    :raises ImproperlyConfiguredException: a middleware ignores WebSockets, or is no factory.
    """
    return reduce(lambda inner, factory: factory(inner), reversed([_factory(each, where) for each in middleware]), app)


def _factory(given: Any, where: str) -> Middleware:
    kind = getattr(given, "middleware", None) or getattr(given, "cls", None) or given
    if isinstance(kind, type) and issubclass(kind, BaseHTTPMiddleware):
        raise ImproperlyConfiguredException(
            f"{where}: {kind.__qualname__} is a BaseHTTPMiddleware, which ignores WebSockets:"
            " write a plain ASGI middleware, or a guard"
        )
    if isinstance(given, DefineMiddleware):
        return given
    if hasattr(given, "cls") and hasattr(given, "kwargs"):
        return DefineMiddleware(given.cls, *given.args, **given.kwargs)
    if not callable(given):
        raise ImproperlyConfiguredException(
            f"{where}: middleware {given!r} is not callable: pass a function of the app, or DefineMiddleware(cls, ...)"
        )
    return given  # type: ignore[no-any-return]


def without_fast_path(scope: Scope) -> None:
    """Remove the server's fast path from ``scope``: it bypasses middleware that wraps ``receive`` and ``send``."""
    extensions = scope.get("extensions") or {}
    if "telex.transport" in extensions:
        scope["extensions"] = {name: value for name, value in extensions.items() if name != "telex.transport"}
