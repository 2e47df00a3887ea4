"""What a client may send on a connection that speaks telex.v1: frames, frames with an error in them, anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from telex.protocol.frames import MAX_ID

ODD_IDS: tuple[Any, ...] = (
    0, -1, 2**53, 2**63, 2**64, -(2**64), 10**40, 1.5, True, False, None, "1", "", [], {}, MAX_ID, 1e300,
)  # fmt: skip
TYPES = ("call", "notify", "reply", "item", "end", "more", "error", "cancel", "ping", "pong")
UNKNOWN_TYPES = ("hello", "event", "open", "credit", "auth", "Call", "", "x" * 5000, "\x00", "ä")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@dataclass(frozen=True)
class Sent:
    """A message. ``call`` is the id of a call that must have one final frame; ``is_junk``: an error must answer it."""

    raw: str | bytes
    call: int = 0
    is_junk: bool = False


def binary(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A binary message; ``length`` lies about its header."""
    head = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return (len(head) if length is None else length).to_bytes(4, "big") + head + data


def text(**fields: Any) -> str:
    """A frame as text."""
    return json.dumps(fields)


@st.composite
def odd_frames(draw: st.DrawFn) -> str:
    """A frame whose fields have any values, some of them twice."""
    kind = draw(st.sampled_from(TYPES) | st.sampled_from(UNKNOWN_TYPES) | VALUES)
    ids = st.integers(-2, 40) | st.sampled_from(ODD_IDS)
    pairs: list[tuple[str, Any]] = [("type", kind)]
    optional = {
        "id": ids,
        "data": VALUES | st.sampled_from(["echo", "raise", "declared"]),
        "n": st.sampled_from([-1, 0, 1, 16, 65_536, 65_537, 2**63, "1", None]),
        "timeout": st.sampled_from([-1, 0, 1e-9, 5, 1e300, None, "5", True]),
        "key": st.sampled_from(["k", "x" * 64, "x" * 65, "", None, 5]),
        "meta": st.sampled_from([{}, None, "x" * 2000, "x" * 3000, {"a": [1]}]),
        "error": st.sampled_from(
            [{"code": "no"}, {"code": "x" * 65}, {"code": 5}, {}, None, {"code": "a", "data": [1]}]
        ),
        "c": ids,
        "about": VALUES,
    }
    names = draw(st.lists(st.sampled_from(sorted(optional)), max_size=6))  # one may come twice
    pairs.extend((name, draw(optional[name])) for name in names)
    if draw(st.booleans()):
        pairs.append(("type", draw(st.sampled_from([kind, *TYPES]))))
    if draw(st.booleans()):
        pairs = draw(st.permutations(pairs))
    return "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}"


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A frame with some characters removed, doubled or replaced."""
    whole = draw(odd_frames())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole)))
        piece = draw(st.sampled_from(['"', "{", "}", ",", ":", "\\", "\\ud800", "1", "\x00", "type", "null", "é"]))
        cut = draw(st.integers(0, 3))
        whole = whole[:at] + piece + whole[at + cut :]
    return whole


def anything() -> st.SearchStrategy[str | bytes]:
    """Any message: of frames with errors, of JSON, of text and of bytes."""
    frames = odd_frames() | mutated()
    headers = st.builds(
        binary,
        frames | st.binary(max_size=40),
        st.binary(max_size=40),
        st.none() | st.sampled_from([0, 1, 5, 4095, 4096, 4097, 2**31, 2**32 - 1]),
    )
    utf8 = st.characters(codec="utf-8")
    return frames | frames | headers | VALUES.map(json.dumps) | st.text(utf8, max_size=40) | st.binary(max_size=40)


JUNK: tuple[str | bytes, ...] = (
    "", "nonsense", "[]", "null", '"text"', "{}", '{"type":5}', '{"type":"call"', '{"id":1}', "\x00", "[" * 5000,
    '{"type":"call","data":' + "[" * 5000, '{"type":"hello"}', '{"type":"open","c":1}', '{"type":"call"}',
    '{"type":"call","id":0,"data":"echo"}', '{"type":"call","id":-1,"data":"echo"}',
    '{"type":"call","id":9007199254740992,"data":"echo"}', '{"type":"call","id":1.5,"data":"echo"}',
    '{"type":"call","type":"notify","id":1,"data":"echo"}', '{"type":"notify","type":"ping","data":"echo"}',
    '{"type":"notify"}', '{"type":"notify","data":null}', '{"type":"notify","data":{}}',
    '{"type":"cancel","id":9007199254740991}', '{"type":"more","id":9007199254740991,"n":1}',
    '{"type":"more","id":1,"n":-1}', '{"type":"more","id":1,"n":0}', '{"type":"more","id":1}',
    '{"type":"reply","id":7,"data":1}', '{"type":"reply","id":7}', '{"type":"error","id":7,"error":{"code":"no"}}',
    '{"type":"error"}', '{"type":"item","id":7,"data":1}', '{"type":"end","id":7}', '{"type":"reply"}',
    b"", b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff{}",
    b"\x00\x00\x00\x03{}", b"\x00\x00\x10\x01" + b" " * 5000, b"\x00\x00\x00\x02{}data",
    binary('{"type":"notify"}', b"bytes"), binary('{"type":"notify","data":"echo"}', b"bytes"),
    binary('{"type":"notify"}', b"bytes", 17 + 6), binary('{"type":"notify"}', b"bytes", 16), binary(b"\xff\xfe{}"),
)  # fmt: skip
"""Messages that are no frames, or none that a client may send on a handler of ``str``."""


@st.composite
def conversations(draw: st.DrawFn) -> list[Sent]:
    """Messages in order; the ids of valid calls rise."""
    last, steps = 0, []
    kinds = st.sampled_from(["call", "call", "again", "junk", "any", "any", "notify", "cancel", "ping", "answer"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=25)):
        match kind:
            case "call":
                last += draw(st.integers(1, 5))
                data: Any = draw(st.sampled_from(["echo", "raise", "declared", "slow", "x" * 3000, None, 5, ["echo"]]))
                frame = {"type": "call", "id": last, "data": data}
                if draw(st.booleans()):
                    frame["timeout"] = draw(st.sampled_from([0.001, 5, 1e9]))
                steps.append(Sent(json.dumps(frame), call=last))
            case "again":
                steps.append(Sent(text(type="call", id=draw(st.integers(1, max(last, 1))), data="echo")))
            case "junk":
                steps.append(Sent(draw(st.sampled_from(JUNK)), is_junk=True))
            case "any":
                steps.append(Sent(draw(anything())))
            case "notify":
                steps.append(Sent(text(type="notify", data=draw(st.sampled_from(["echo", "raise", "slow"])))))
            case "cancel":
                steps.append(Sent(text(type="cancel", id=draw(st.integers(1, max(last, 1))))))
            case "ping":
                steps.append(Sent(text(type="ping")))
            case "answer":
                steps.append(Sent(text(type="reply", id=draw(st.integers(1, 3)), data="echo")))
    return steps
