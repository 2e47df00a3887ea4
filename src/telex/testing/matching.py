"""Compares the message that a test expects with the received event."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import UnionType
from typing import Any, Final, TypeAlias, get_origin

import msgspec

from telex.codecs import Reader, as_validation_error, reader, writer
from telex.exceptions import WebSocketDisconnect
from telex.testing.frames import Frame, fields_of, is_frame_type, read_frame
from telex.types import Message, Mode

__all__ = ("Predicate", "describe", "disconnect_of", "expects_close", "is_type", "match", "payload", "show")

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


def match(expected: object, event: Message, mode: Mode, *, in_frames: bool = False) -> Any:
    """The content of ``event`` if it matches ``expected``; see ``AsyncWebSocketTestSession.expect``.

    ``in_frames``: the connection speaks ``telex.v1``.

    :raises AssertionError: it does not match.
    """
    if expects_close(expected):
        return _match_close(event)
    if event["type"] == "websocket.close":
        raise _mismatch(expected, event)
    if isinstance(expected, str | bytes):
        return _match_raw(expected, event)
    if in_frames and (is_frame_type(expected) or isinstance(expected, (Frame, dict))):
        return _match_frame(expected, event)
    if is_type(expected):
        return _match_type(expected, event, mode)
    if callable(expected):
        return _match_predicate(expected, event)
    return _match_value(expected, event, mode)


def expects_close(expected: object) -> bool:
    """Whether the test expects the end of the connection."""
    return isinstance(expected, type) and issubclass(expected, WebSocketDisconnect)


def is_type(expected: object) -> bool:
    """Whether ``expected`` is a type or union, not a value."""
    return isinstance(expected, type | UnionType) or get_origin(expected) is not None


def describe(expected: object) -> str:
    """The description of ``expected`` in error texts."""
    if isinstance(expected, str):
        return f"text {_cut(repr(expected))}"
    if isinstance(expected, bytes):
        return f"binary {_cut(repr(expected))}"
    if isinstance(expected, type):
        return f"a {expected.__qualname__}"
    if is_type(expected):
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
        raise _not_as(expected, event, error) from error


def _match_frame(expected: Any, event: Message) -> Any:
    if not isinstance(expected, (Frame, dict)):
        try:
            return read_frame(expected, event)
        except Exception as error:
            raise _not_as(expected, event, error) from error
    if not _same_json(fields_of(event), _plain_fields(expected)):
        raise _mismatch(expected, event)
    return expected


def _plain_fields(expected: Frame | dict[str, Any]) -> object:
    """The fields of a frame as JSON has them, except that ``data`` may be bytes."""
    if isinstance(expected, Frame):
        return fields_of(expected)
    is_binary = isinstance(expected.get("data"), bytes)
    rest = {name: value for name, value in expected.items() if name != "data"} if is_binary else expected
    plain = msgspec.json.decode(_plain_json(rest))
    return plain | {"data": expected["data"]} if is_binary else plain


def _not_as(expected: object, event: Message, error: Exception) -> AssertionError:
    """The failure for an event that cannot be read as a type.

    :raises Exception: ``error``, if it says something else.
    """
    wrong = as_validation_error(error)
    if wrong is None:
        raise error
    where = f" at {wrong.path}" if wrong.path else ""
    return AssertionError(f"expected {describe(expected)}, got {show(event)}: {wrong.detail}{where}")


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


@functools.cache
def _reader(expected: Any, mode: Mode) -> Reader:
    return reader(expected, mode)


def _mismatch(expected: object, event: Message) -> AssertionError:
    return AssertionError(f"expected {describe(expected)}, got {show(event)}")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text)} characters)"
