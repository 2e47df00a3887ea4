"""The frames of ``telex.v1``, for ``session.expect`` and ``session.send``.

``session.expect(Notify[Joined])`` reads the data of a notify as ``Joined``; ``session.expect(Notify(Joined("ada")))``
wants exactly this frame, and ``session.expect({"type": "notify", "data": {"name": "ada"}})`` the same. Data that is
``bytes`` travels in a binary message.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, get_args, get_origin

import msgspec

from telex.codecs import frame_reader, frame_writer
from telex.exceptions import ValidationException
from telex.protocol.asking import read_data
from telex.protocol.frames import NOTHING, BadFrame, Encoded, ErrorBody, frame, split
from telex.types import Message

__all__ = (
    "AnswerPart",
    "ServerCall",
    "Cancel",
    "End",
    "Error",
    "ErrorBody",
    "Frame",
    "FrameHead",
    "Notify",
    "Reply",
    "encode",
    "fields_of",
    "head_of",
    "is_frame_type",
    "payload_of",
    "read_frame",
)

T = TypeVar("T")

_ABSENT: Final = cast("Any", msgspec.UNSET)


class Frame(msgspec.Struct, tag_field="type", frozen=True, omit_defaults=True):
    """A frame; ``data`` that is not given is absent, which is not ``null``."""


class ServerCall(Frame, Generic[T], tag="call", frozen=True):
    """A call of the server, which wants an answer."""

    id: int
    data: T = _ABSENT
    timeout: float | None = None
    key: str | None = None


class Notify(Frame, Generic[T], tag="notify", frozen=True):
    """Wants no answer."""

    data: T = _ABSENT


class Reply(Frame, Generic[T], tag="reply", frozen=True):
    """The answer to a call."""

    id: int
    data: T = _ABSENT


class AnswerPart(Frame, Generic[T], tag="item", frozen=True):
    """One part of an answer."""

    id: int
    data: T = _ABSENT


class End(Frame, tag="end", frozen=True):
    """The end of an answer in parts."""

    id: int


class Error(Frame, tag="error", frozen=True):
    """A call failed; without ``id`` the error is about a ``notify`` or the ``connection``."""

    error: ErrorBody
    id: int | None = None
    about: str | None = None


class Cancel(Frame, tag="cancel", frozen=True):
    """The caller wants no answer any more."""

    id: int


class FrameHead(msgspec.Struct):
    """What the test client needs to know of a frame of the app."""

    type: str
    id: int | None = None
    c: int | None = None
    n: int = 0
    error: ErrorBody | None = None
    data: msgspec.Raw = NOTHING
    payload: bytes | None = None
    """The bytes of a binary message."""


_decode_head: Final = msgspec.json.Decoder(FrameHead).decode
_write: Final = frame_writer(Any)
_Fields: TypeAlias = dict[str, Any]


def head_of(event: Message) -> FrameHead | None:
    """The head of the frame in a ``websocket.send`` event; ``None`` if it is no frame."""
    try:
        header, payload = _parts(event)
        head = _decode_head(header)
    except (msgspec.DecodeError, BadFrame):
        return None
    head.payload = payload
    return head


def encode(value: Frame) -> Encoded:
    """The message of a frame."""
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    data = fields.pop("data", msgspec.UNSET)
    head: dict[str, object] = {"type": value.__struct_config__.tag}
    head |= {name: each for name, each in fields.items() if each is not None}
    text = msgspec.json.encode(head).decode()[:-1]
    return frame(text, None if data is msgspec.UNSET else _write(data))


def fields_of(event: Message | Frame | Mapping[str, Any]) -> _Fields | None:
    """A frame as a dict, in which the bytes of a binary message are the ``data``; ``None`` if it is no frame."""
    if isinstance(event, Frame):
        raw = encode(event)
        event = {"text" if isinstance(raw, str) else "bytes": raw}
    try:
        header, payload = _parts(event)
        found = msgspec.json.decode(header)
    except (msgspec.DecodeError, BadFrame):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        return None
    return found if payload is None else found | {"data": payload}


def is_frame_type(expected: object) -> bool:
    """Whether ``expected`` is a class of this module, with or without the type of its data."""
    kind = get_origin(expected) or expected
    return isinstance(kind, type) and issubclass(kind, Frame)


def read_frame(expected: Any, event: Message) -> Frame:
    """The frame of ``event`` as the type ``expected``, such as ``Notify[Joined]``.

    :raises Exception: it is another; :func:`telex.codecs.as_validation_error` knows it.
    """
    decode, read_json, read_bytes = _reader(expected)
    try:
        header, payload = _parts(event)
    except BadFrame as bad:
        raise ValidationException(bad.message) from bad
    found: Frame = decode(header)
    if read_json is None and read_bytes is None:
        return found
    raw: msgspec.Raw = getattr(found, "data", NOTHING)
    if not raw and payload is None:
        if get_args(expected):
            raise ValidationException("Object missing required field `data`")
        data: Any = msgspec.UNSET
    else:
        data = read_data(raw, payload, read_json, read_bytes)
    return msgspec.structs.replace(found, data=data)


@functools.cache
def _reader(expected: Any) -> tuple[Any, Any, Any]:
    kind = get_origin(expected) or expected
    if "data" not in kind.__struct_fields__:
        return msgspec.json.Decoder(kind).decode, None, None
    (annotation,) = get_args(expected) or (Any,)
    return msgspec.json.Decoder(kind[msgspec.Raw]).decode, *frame_reader(annotation)


def payload_of(event: Message) -> str | bytes:
    """The text or the bytes of a message."""
    text: str | None = event.get("text")
    return text if text is not None else event["bytes"]


def _parts(event: Message | Mapping[str, Any]) -> tuple[str | bytes, bytes | None]:
    text = event.get("text")
    return (text, None) if text is not None else split(event["bytes"])
