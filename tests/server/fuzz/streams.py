"""Strategies for what a client may send: good frames, bad frames, and good frames with flipped bits."""

from __future__ import annotations

import zlib

from hypothesis import strategies as st

from tests.server.fuzz.model import Deflate
from tests.support.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame

TEXTS = ["", "a", "hello", "€uro", "𝄞", "\0", "é" * 20, "x" * 125, "y" * 126, "w" * 200, "\ufeff", '{"a":1}']
NOT_UTF8 = [b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe2\x82", b"\xf4\x90\x80\x80", b"\x80", b"\xf0\x9f\x98"]
CODES = [0, 1, 999, 1000, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65_535]


def payloads(limit: int) -> st.SearchStrategy[bytes]:
    sizes = st.sampled_from([limit - 1, limit, limit + 1, limit // 2, 125, 126, 127])
    return st.one_of(
        st.sampled_from(TEXTS).map(str.encode),
        st.sampled_from(NOT_UTF8),
        st.binary(max_size=140),
        sizes.map(lambda size: b"q" * size),
    )


@st.composite
def compressed(draw: st.DrawFn, data: bytes, deflate: Deflate) -> bytes:
    """A message's compressed payload; each with a window of its own, which any receiver can read."""
    how = draw(st.sampled_from(["sync"] * 6 + ["full", "final", "empty", "junk", "tail"]))
    packer = zlib.compressobj(draw(st.sampled_from([1, 6, 9])), zlib.DEFLATED, -max(deflate.bits, 9))
    packed = packer.compress(data)
    if how == "final":
        return packed + packer.flush() + draw(st.sampled_from([b"", b"\0", b"junk", b"\0\0\0\xff\xff"]))
    if how == "empty":
        return b"\0\0\0\xff\xff" * draw(st.integers(0, 3)) + b"\0"
    if how == "junk":
        return draw(st.binary(max_size=50))
    packed += packer.flush(zlib.Z_FULL_FLUSH if how == "full" else zlib.Z_SYNC_FLUSH)
    return packed if how == "tail" else packed[:-4]


@st.composite
def messages(draw: st.DrawFn, limit: int, deflate: Deflate | None) -> bytes:
    """One message, perhaps in fragments with control frames between."""
    opcode, data, reserved = draw(st.sampled_from([TEXT, BINARY])), draw(payloads(limit)), 0
    if deflate is not None and draw(st.booleans()):
        data, reserved = draw(compressed(data, deflate)), 4
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    frames = []
    for index, part in enumerate(parts):
        first, last = index == 0, index == len(parts) - 1
        frames.append(frame(opcode if first else CONTINUATION, part, fin=last, rsv=reserved if first else 0))
        if not last and draw(st.integers(0, 4)) == 0:
            frames.append(draw(controls()))
    return b"".join(frames)


def controls() -> st.SearchStrategy[bytes]:
    return st.builds(frame, st.sampled_from([PING, PONG]), st.sampled_from([b"", b"p", b"p" * 124, b"p" * 125]))


def oddities(limit: int) -> st.SearchStrategy[bytes]:
    """Single frames of which most are against the RFC."""
    return st.one_of(
        st.builds(lambda opcode: frame(opcode, b"x"), st.integers(0, 15)),
        st.builds(lambda opcode, rsv: frame(opcode, b"x", rsv=rsv), st.integers(0, 10), st.integers(1, 7)),
        st.builds(lambda opcode: frame(opcode, b"x", mask=None), st.sampled_from([TEXT, PING])),
        st.just(frame(PING, b"x" * 126)),
        st.builds(lambda opcode: frame(opcode, fin=False), st.sampled_from([PING, PONG, CLOSE])),
        st.builds(
            lambda claims: frame(BINARY, b"zzz", claims=claims, length_bytes=8),
            st.sampled_from([1 << 40, 1 << 63, (1 << 64) - 1, limit + 1, 65_536]),
        ),
        st.builds(
            lambda size, extended: frame(BINARY, b"x" * size, length_bytes=extended),
            st.sampled_from([0, 5, 125]),
            st.sampled_from([2, 8]),
        ),
        st.builds(close_frame, st.sampled_from(CODES), st.sampled_from([b"", b"bye", b"\xff", b"x" * 123, b"\xe2"])),
        st.builds(lambda payload: frame(CLOSE, payload), st.sampled_from([b"", b"\x03", b"\x03\xe8" + b"x" * 124])),
        st.binary(max_size=20),
    )


@st.composite
def streams(draw: st.DrawFn, limit: int, deflate: Deflate | None) -> bytes:
    """All that one client sends."""
    usual = messages(limit, deflate)
    one = st.one_of(usual, usual, usual, controls(), oddities(limit))
    whole = bytearray(b"".join(draw(st.lists(one, min_size=1, max_size=8))))
    if whole and draw(st.integers(0, 6)) == 0:
        whole[draw(st.integers(0, len(whole) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(whole)


@st.composite
def chunked(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The same bytes in some packets."""
    size = draw(st.sampled_from([1, 2, 3, 7, 13, 100, 1000, 100_000]))
    return [whole[start : start + size] for start in range(0, len(whole), size)]
