"""The names that ``telex`` promises. A change here is a change for users: it belongs in CHANGELOG.md."""

from __future__ import annotations

import pytest

import telex
import telex.di

EXPECTED: tuple[str, ...] = (
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


def test_the_public_names_are_those_promised() -> None:
    assert tuple(getattr(telex, "__all__", ())) == EXPECTED


def test_the_public_names_are_sorted() -> None:
    assert list(EXPECTED) == sorted(EXPECTED)


def test_a_name_of_litestar_that_is_not_here_says_what_to_write() -> None:
    for module in (telex, telex.di):
        with pytest.raises(ImportError, match=r"SkipValidation is Litestar's; in Telex write NamedDependency\["):
            _ = module.SkipValidation
        with pytest.raises(AttributeError, match="has no attribute 'Novelty'"):
            _ = module.Novelty


def test_every_public_name_exists() -> None:
    missing = [name for name in EXPECTED if not hasattr(telex, name)]
    assert not missing
