"""Compares the message that a test expects with the received event."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import UnionType
from typing import Any, Final, TypeAlias, get_origin

import msgspec

from telex.codecs import Reader, as_validation_error, reader, writer
from telex.exceptions import WebSocketDisconnect
from telex.types import Message, Mode

__all__ = ("Predicate", "describe", "disconnect_of", "expects_close", "match", "payload", "show")

Predicate: TypeAlias = Callable[[str | bytes], object]
"""A function of a message (text or bytes); a true result accepts the message."""

_KEYS: Final[dict[Mode, str]] = {"text": "text", "binary": "bytes"}
_LONGEST_SHOWN: Final = 500

_plain_json: Final = writer(object, "binary")


def payload(event: Message, mode: Mode) -> Any:
    """The text (``mode`` ``text``) or the bytes (``binary``) of a ``websocket.send`` event.

    :raises AssertionError: the message is of the other kind.
    """
    data = event.get(_KEYS[mode])
    if data is None:
        raise AssertionError(f"expected a {mode} message, got {show(event)}")
    return data


def match(expected: object, event: Message, mode: Mode) -> Any:
    """The content of ``event`` if it matches ``expected``; see ``AsyncWebSocketTestSession.expect``.

    :raises AssertionError: it does not match.
    """
    if expects_close(expected):
        return _match_close(event)
    if event["type"] == "websocket.close":
        raise _mismatch(expected, event)
    if isinstance(expected, str | bytes):
        return _match_raw(expected, event)
    if _is_type(expected):
        return _match_type(expected, event, mode)
    if callable(expected):
        return _match_predicate(expected, event)
    return _match_value(expected, event, mode)


def expects_close(expected: object) -> bool:
    """Whether the test expects the end of the connection."""
    return isinstance(expected, type) and issubclass(expected, WebSocketDisconnect)


def describe(expected: object) -> str:
    """The description of ``expected`` in error texts."""
    if isinstance(expected, str):
        return f"text {_cut(repr(expected))}"
    if isinstance(expected, bytes):
        return f"binary {_cut(repr(expected))}"
    if isinstance(expected, type):
        return f"a {expected.__qualname__}"
    if _is_type(expected):
        return f"a {expected}"
    if callable(expected):
        return f"a message that satisfies {getattr(expected, '__qualname__', repr(expected))}"
    return f"JSON {_cut(repr(expected))}"


def show(event: Message) -> str:
    """The description of an app's event in error texts."""
    if event["type"] == "websocket.close":
        closed = disconnect_of(event)
        return f"a close with {closed.code} {closed.reason!r}"
    text = event.get("text")
    return f"text {_cut(repr(text))}" if text is not None else f"binary {_cut(repr(event['bytes']))}"


def disconnect_of(event: Message) -> WebSocketDisconnect:
    """The client's exception for a ``websocket.close`` event."""
    return WebSocketDisconnect(event.get("code", 1000), event.get("reason") or "")


def _match_close(event: Message) -> WebSocketDisconnect:
    if event["type"] != "websocket.close":
        raise AssertionError(f"expected a close, got {show(event)}")
    return disconnect_of(event)


def _match_raw(expected: str | bytes, event: Message) -> str | bytes:
    if event.get("text" if isinstance(expected, str) else "bytes") != expected:
        raise _mismatch(expected, event)
    return expected


def _match_type(expected: Any, event: Message, mode: Mode) -> Any:
    if expected is bytes:
        return payload(event, "binary")
    if expected is str:
        return payload(event, "text")
    data = payload(event, mode)
    try:
        return _reader(expected, mode)(data)
    except Exception as error:
        wrong = as_validation_error(error)
        if wrong is None:
            raise
        raise AssertionError(f"expected {describe(expected)}, got {show(event)}: {wrong.detail}") from error


def _match_predicate(expected: Predicate, event: Message) -> str | bytes:
    data: str | bytes = event["text"] if event.get("text") is not None else event["bytes"]
    if not expected(data):
        raise _mismatch(expected, event)
    return data


def _match_value(expected: object, event: Message, mode: Mode) -> object:
    try:
        got = msgspec.json.decode(payload(event, mode))
    except msgspec.DecodeError as error:
        raise _mismatch(expected, event) from error
    if not _same_json(got, msgspec.json.decode(_plain_json(expected))):
        raise _mismatch(expected, event)
    return expected


def _same_json(one: object, other: object) -> bool:
    """Whether two values are equal in JSON: ``true`` is not 1 (in Python it is); 1 is 1.0."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(_same_json(one[key], other[key]) for key in one)
        case list(), list():
            return len(one) == len(other) and all(map(_same_json, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _is_type(expected: object) -> bool:
    return isinstance(expected, type | UnionType) or get_origin(expected) is not None


@functools.cache
def _reader(expected: Any, mode: Mode) -> Reader:
    return reader(expected, mode)


def _mismatch(expected: object, event: Message) -> AssertionError:
    return AssertionError(f"expected {describe(expected)}, got {show(event)}")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text)} characters)"
