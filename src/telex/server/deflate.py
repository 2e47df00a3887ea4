"""permessage-deflate (RFC 7692): negotiation, compression, and bounded decompression.

Memory of a connection that uses it: the compressor holds ``2 ** (window_bits + 2) + 16 KiB`` (32 KiB with the default
12 bits) from the first compressed message on; without context takeover it holds this only while it compresses. The
decompressor holds about ``2 ** window_bits + 7 KiB``; if the client does not offer ``client_max_window_bits``, the
client chooses the window (at most 32 KiB). The output is never larger than the message limit plus one byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from telex import status_codes
from telex.server.frames import ProtocolViolation
from telex.server.limits import Limits

__all__ = ("Agreement", "Deflater", "Inflater", "negotiate")

_NAME: Final = "permessage-deflate"
_TAIL: Final = b"\x00\x00\xff\xff"
"""The empty block that ends each flushed message and is not sent (RFC 7692 section 7.2.1)."""

_AFTER_END: Final = (b"", b"\x00")
"""What may follow a final block: nothing, or the first byte of an empty block (RFC 7692 section 7.2.3.4)."""

_MAX_OFFERS: Final = 16
"""Offers that are parsed; the rest are ignored. A real client sends only a few."""

_MEMORY_LEVEL: Final = 5
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Agreement:
    """The parameters that both ends agreed on (RFC 7692 section 7.1)."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_bits: int
    client_bits: int | None
    """``None``: the client did not offer ``client_max_window_bits``, so its window may have 15 bits."""

    @property
    def header(self) -> bytes:
        """The value of the response's ``Sec-WebSocket-Extensions``."""
        parts = [_NAME]
        if self.server_no_context_takeover:
            parts.append("server_no_context_takeover")
        if self.client_no_context_takeover:
            parts.append("client_no_context_takeover")
        if self.server_bits < zlib.MAX_WBITS:
            parts.append(f"server_max_window_bits={self.server_bits}")
        if self.client_bits is not None:
            parts.append(f"client_max_window_bits={self.client_bits}")
        return "; ".join(parts).encode()


def negotiate(offers: Iterable[bytes], limits: Limits) -> Agreement | None:
    """The first offer in the request's ``Sec-WebSocket-Extensions`` headers that the server supports, or ``None``."""
    if not limits.deflate:
        return None
    elements = b",".join(offers).split(b",", _MAX_OFFERS)[:_MAX_OFFERS]
    for element in elements:
        name, *parameters = (part.strip().decode("latin-1") for part in element.split(b";"))
        if name.lower() != _NAME:
            continue
        agreement = _agree(parameters, limits)
        if agreement is not None:
            return agreement
    return None


def _agree(parameters: list[str], limits: Limits) -> Agreement | None:
    given: dict[str, str | None] = {}
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        key = key.strip().lower()
        if key in given or not _is_valid(key, value.strip().strip('"') if equals else None):
            return None
        given[key] = value.strip().strip('"') if equals else None
    server_bits = int(given.get("server_max_window_bits") or zlib.MAX_WBITS)
    if server_bits < 9:
        return None  # zlib's compression with a window of 256 bytes is broken: try the next offer
    client_bits = None
    if "client_max_window_bits" in given:
        client_bits = min(int(given["client_max_window_bits"] or zlib.MAX_WBITS), limits.deflate_window_bits)
    return Agreement(
        server_no_context_takeover="server_no_context_takeover" in given or not limits.deflate_context_takeover,
        client_no_context_takeover="client_no_context_takeover" in given,
        server_bits=min(server_bits, limits.deflate_window_bits),
        client_bits=client_bits,
    )


def _is_valid(key: str, value: str | None) -> bool:
    """Whether RFC 7692 section 7.1 allows this parameter with this value in an offer."""
    match key:
        case "server_no_context_takeover" | "client_no_context_takeover":
            return value is None
        case "server_max_window_bits":
            return value in _BITS
        case "client_max_window_bits":
            return value is None or value in _BITS
        case _:
            return False


_BITS: Final = frozenset(str(bits) for bits in range(8, 16))


class Deflater:
    """Compresses the messages of one connection."""

    __slots__ = ("_agreement", "_compressor")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._compressor: zlib._Compress | None = None

    def deflate(self, payload: bytes) -> bytes:
        """Compress ``payload`` for a frame; the caller sets RSV1 in its header."""
        compressor = self._compressor or zlib.compressobj(
            _LEVEL, zlib.DEFLATED, -self._agreement.server_bits, _MEMORY_LEVEL
        )
        if not self._agreement.server_no_context_takeover:
            self._compressor = compressor
        return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


def _broken() -> ProtocolViolation:
    return ProtocolViolation(status_codes.WS_1007_INVALID_FRAME_PAYLOAD_DATA, "the compressed message is invalid")


class Inflater:
    """Decompresses the messages of one connection, up to a given size."""

    __slots__ = ("_agreement", "_decompressor")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._decompressor: zlib._Decompress | None = None

    def inflate(self, payload: bytes, room: int, *, last: bool) -> bytes:
        """Decompress one frame into at most ``room`` bytes; ``last``: the frame ends its message.

        :raises ProtocolViolation: 1009 if the output is larger, 1007 if the payload is not a deflate stream or has data
            after the stream's end (zlib would keep all of it).
        """
        decompressor = self._decompressor or zlib.decompressobj(-(self._agreement.client_bits or zlib.MAX_WBITS))
        self._decompressor = decompressor
        try:
            plain = decompressor.decompress(payload, room + 1)
            if last and len(plain) <= room and not decompressor.eof:
                plain += decompressor.decompress(_TAIL, room + 1 - len(plain))
        except zlib.error:
            raise _broken() from None
        if decompressor.unused_data not in _AFTER_END:
            raise _broken()
        if len(plain) > room:
            raise ProtocolViolation(status_codes.WS_1009_MESSAGE_TOO_BIG, "the message is too big")
        if last and (self._agreement.client_no_context_takeover or decompressor.eof):
            # A final block (allowed by RFC 7692 section 7.2.3.4) ends the stream: the next message starts a new one.
            self._decompressor = None
        return plain
