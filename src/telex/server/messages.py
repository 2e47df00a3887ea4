"""Assembles messages from frames: joins fragments, limits sizes, validates text (RFC 6455 section 5.4)."""

from __future__ import annotations

import codecs
from typing import Final

from telex import status_codes
from telex.server.deflate import Inflater
from telex.server.frames import BINARY, CONTINUATION, TEXT, ProtocolViolation
from telex.server.limits import Limits

__all__ = ("Assembler", "not_utf8")

_new_utf8_decoder: Final = codecs.getincrementaldecoder("utf-8")


def not_utf8() -> ProtocolViolation:
    """The violation of a text message that is not UTF-8 (RFC 6455 section 8.1)."""
    return ProtocolViolation(status_codes.WS_1007_INVALID_FRAME_PAYLOAD_DATA, "text is not UTF-8")


class Assembler:
    """Assembles messages that are not one plain frame: fragmented and compressed messages.

    It holds one message at a time, in one growing buffer, so its memory depends on the bytes, not on the fragments.
    """

    __slots__ = ("_buffer", "_compressed", "_count", "_decoder", "_inflater", "_limits", "_opcode")

    def __init__(self, limits: Limits, inflater: Inflater | None) -> None:
        self._limits = limits
        self._inflater = inflater
        self._reset()

    def _reset(self) -> None:
        self._buffer = bytearray()
        self._count = 0
        self._opcode = CONTINUATION
        self._compressed = False
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def busy(self) -> bool:
        """Whether a message is incomplete."""
        return self._opcode != CONTINUATION

    def add(self, opcode: int, payload: bytes, *, fin: bool, compressed: bool) -> str | bytes | None:
        """Add a frame; return the whole message if the frame ends it, else ``None``.

        :raises ProtocolViolation: 1002 for frames out of order, 1007 for text that is not UTF-8 (at the first frame
            with an invalid byte), 1009 for a message over the limits.
        """
        self._begin(opcode, compressed)
        self._count += 1
        if self._count > self._limits.max_fragments:
            raise ProtocolViolation(status_codes.WS_1009_MESSAGE_TOO_BIG, "too many fragments")
        self._append(payload, fin)
        if not fin:
            return None
        whole: str | bytes = self._buffer.decode() if self._opcode == TEXT else bytes(self._buffer)
        self._reset()
        return whole

    def _begin(self, opcode: int, compressed: bool) -> None:
        if opcode == CONTINUATION:
            if not self.busy:
                raise ProtocolViolation(status_codes.WS_1002_PROTOCOL_ERROR, "a continuation frame outside a message")
            if compressed:
                # RFC 7692 section 6.1: the bit is for a message's first frame only.
                raise ProtocolViolation(status_codes.WS_1002_PROTOCOL_ERROR, "RSV1 on a continuation frame")
            return
        if self.busy:
            raise ProtocolViolation(status_codes.WS_1002_PROTOCOL_ERROR, "a new message inside a fragmented one")
        self._opcode = BINARY if opcode == BINARY else TEXT
        self._compressed = compressed
        if self._opcode == TEXT:
            self._decoder = _new_utf8_decoder()

    def _append(self, payload: bytes, fin: bool) -> None:
        room = self._limits.max_message_size - len(self._buffer)
        if self._compressed and self._inflater is not None:
            payload = self._inflater.inflate(payload, room, last=fin)
        elif len(payload) > room:
            raise ProtocolViolation(status_codes.WS_1009_MESSAGE_TOO_BIG, "the message is too big")
        self._buffer += payload
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, final=fin)
            except UnicodeDecodeError:
                raise not_utf8() from None
