"""Plain messages on a route whose handler does not speak telex.v1: each is the data of a notify."""

from __future__ import annotations

import msgspec

from telex.multiplex.frames import Sent
from telex.protocol.frames import BadFrame, CallFrame, Encoded, NotifyFrame, frame, read

__all__ = ("as_notify", "read_message")

_HEAD = '{"type":"notify"'


def as_notify(message: str | bytes) -> tuple[Encoded, Sent]:
    """The frame of a message that the handler sends: text is a JSON string in it."""
    if isinstance(message, str):
        return frame(_HEAD, msgspec.json.encode(message).decode()), Sent("notify", len(_HEAD))
    return frame(_HEAD, message), Sent("notify", 4 + len(_HEAD))


def read_message(raw: str | bytes) -> str | bytes:
    """The message of a client's notify: bytes, the string that is its data, or other JSON as it is written.

    :raises BadFrame: it is another frame, or has no data.
    """
    found, payload = read(raw)
    if not isinstance(found, NotifyFrame):
        call_id = found.id if isinstance(found, CallFrame) else None
        raise BadFrame("bad_frame", "this route takes plain messages: send 'notify'", call_id=call_id)
    if payload is not None:
        return payload
    text = bytes(found.data).decode()
    if not text:
        raise BadFrame("bad_frame", "Object missing required field `data`")
    if not text.startswith('"'):
        return text
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.MsgspecError as exc:
        raise BadFrame("bad_frame", str(exc), "$.data") from None
