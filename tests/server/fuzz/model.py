"""A strict receiver of RFC 6455 and RFC 7692: the messages, pongs and end that a client's bytes must lead to."""

from __future__ import annotations

import codecs
import zlib
from dataclasses import dataclass, field

MAX_FRAGMENTS = 4096
_VALID_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


class Failed(Exception):
    """The connection fails with one of these codes."""

    def __init__(self, *codes: int) -> None:
        super().__init__(*codes)
        self.codes = set(codes)


@dataclass(frozen=True)
class Deflate:
    """What was agreed of permessage-deflate."""

    bits: int
    takeover: bool


@dataclass
class Outcome:
    """What must come of the bytes: ``codes`` are the close codes that may end the connection, none if it stays open."""

    messages: list[str | bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    codes: set[int] = field(default_factory=set)
    complete: bool = True
    """Whether the frame that ended it had come whole: a server may judge a header before its payload, or not."""


@dataclass
class _Message:
    opcode: int
    compressed: bool
    data: bytes = b""
    count: int = 0


class Model:
    """Reads one connection's bytes."""

    def __init__(self, limit: int, deflate: Deflate | None = None) -> None:
        self.limit = limit
        self.deflate = deflate
        self.outcome = Outcome()
        self._message: _Message | None = None
        self._inflater: zlib._Decompress | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def read(self, data: bytes) -> Outcome:
        """The outcome of all that the client sends."""
        try:
            while (size := self._frame(data)) is not None and not self.outcome.codes:
                data = data[size:]
        except Failed as failed:
            self.outcome.codes = failed.codes
        return self.outcome

    def _frame(self, data: bytes) -> int | None:
        if len(data) < 2:
            return None
        first, second = data[0], data[1]
        opcode, reserved, fin = first & 15, first >> 4 & 7, bool(first & 128)
        short = second & 127
        extended = {126: 2, 127: 8}.get(short, 0)
        if len(data) < 2 + extended:
            # The first two bytes may show a fault already; the length counts as the least that it can be.
            self.outcome.complete = False
            least = {126: 126, 127: 65_536}[short]
            self._check_header(opcode, reserved, fin, bool(second & 128), short, least)
            return None
        size = int.from_bytes(data[2 : 2 + extended], "big") if extended else short
        start = 2 + extended + 4
        self.outcome.complete = len(data) >= start + size
        mask = data[start - 4 : start]
        payload = bytes(byte ^ mask[index & 3] for index, byte in enumerate(data[start : start + size]))
        try:
            self._check_header(opcode, reserved, fin, bool(second & 128), short, size)
        except Failed as failed:
            if opcode == 8 and self.outcome.complete:  # of two faults either may be told
                failed.codes |= _faults_of_close(payload)
            raise
        if not self.outcome.complete:
            return None
        if opcode < 8:
            self._data(opcode, bool(reserved), fin, payload)
        elif opcode == 9:
            self.outcome.pongs.append(payload)
        elif opcode == 8:
            self.outcome.codes = {_close_code(payload)}
        return start + size

    def _check_header(self, opcode: int, reserved: int, fin: bool, masked: bool, short: int, size: int) -> None:
        control = opcode >= 8
        broken = (
            not masked
            or opcode in {3, 4, 5, 6, 7, 11, 12, 13, 14, 15}
            or (control and (not fin or short > 125))
            or bool(reserved & 3)
            or (bool(reserved) and (self.deflate is None or control or opcode == 0))
            or (not control and (opcode == 0) == (self._message is None))
            or (short == 126 and size < 126)
            or (short == 127 and (size < 65_536 or bool(size >> 63)))
        )
        codes = ([1002] if broken else []) + ([1009] if size > self.limit and not control else [])
        if codes:
            raise Failed(*codes)

    def _data(self, opcode: int, compressed: bool, fin: bool, payload: bytes) -> None:
        if opcode:
            self._message = _Message(opcode, compressed)
            self._utf8.reset()
        message = self._message
        assert message is not None
        message.count += 1
        if message.count > MAX_FRAGMENTS:
            raise Failed(1009)
        if message.compressed:
            payload = self._inflate(payload, self.limit - len(message.data), fin)
        message.data += payload
        if len(message.data) > self.limit:
            raise Failed(1009)
        if message.opcode == 1:
            try:
                self._utf8.decode(payload, fin)
            except UnicodeDecodeError:
                raise Failed(1007) from None
        if fin:
            self.outcome.messages.append(message.data.decode() if message.opcode == 1 else message.data)
            self._message = None

    def _inflate(self, payload: bytes, room: int, fin: bool) -> bytes:
        assert self.deflate is not None
        stream = self._inflater or zlib.decompressobj(-self.deflate.bits)
        self._inflater = stream
        try:
            plain = stream.decompress(payload, room + 1)
            if fin and len(plain) <= room and not stream.eof:
                plain += stream.decompress(b"\x00\x00\xff\xff", room + 1 - len(plain))
        except zlib.error:
            raise Failed(1007) from None
        if stream.unused_data not in (b"", b"\x00"):
            raise Failed(1007, *([1009] if len(plain) > room else []))
        if fin and (stream.eof or not self.deflate.takeover):
            self._inflater = None
        return plain


def _faults_of_close(payload: bytes) -> set[int]:
    try:
        _close_code(payload)
    except Failed as failed:
        return failed.codes
    return set()


def _close_code(payload: bytes) -> int:
    """The code that answers a close frame."""
    if not payload:
        return 1005
    code = int.from_bytes(payload[:2], "big")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Failed(1007, *([] if code in _VALID_CODES else [1002])) from None
    if len(payload) == 1 or code not in _VALID_CODES:
        raise Failed(1002)
    return code
