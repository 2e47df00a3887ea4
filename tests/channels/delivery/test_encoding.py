"""Frames of events: any value leaves as what it was."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from telex.channels import Event, Page, Position
from telex.channels.delivery.encoding import Encoding, as_frames, write_page
from telex.channels.events import DataKind, kind_of
from telex.channels.names import encoder

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | FINITE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PUBLISHED = VALUES | st.binary(max_size=40)
POSITIONS = st.none() | st.builds(Position, st.text('abc:"\\', min_size=1, max_size=6), st.integers(0, 10**17))
encode = encoder(None)
write = Encoding(as_frames._write)


def read(raw: str | bytes) -> Any:
    """A frame; the bytes behind it are under ``bytes``."""
    if isinstance(raw, str):
        return json.loads(raw)
    end = 4 + int.from_bytes(raw[:4], "big")
    return json.loads(raw[4:end]) | {"bytes": raw[end:]}


@given(PUBLISHED, POSITIONS)
def test_a_published_value_leaves_as_what_it_was(value: object, position: Position | None) -> None:
    frame = read(write(Event("c", encode(value), position, None, kind_of(value))))
    expected: dict[str, object] = {"type": "event", "bytes" if isinstance(value, bytes) else "data": value}
    assert frame == expected | ({} if position is None else {"position": str(position)})


@given(st.binary(max_size=60) | st.text(max_size=20).map(str.encode), st.sampled_from(["text", "json", "bytes"]))
def test_no_data_breaks_a_frame_whatever_kind_it_claims(data: bytes, kind: DataKind) -> None:
    event = Event("c", data, Position("e", 3), 2, kind)
    frame = read(write(event))
    assert frame["position"] == "e:3"
    assert ("bytes" in frame) is (kind == "bytes" or not _is_text(data))
    (shown,) = json.loads(write_page(Page((event,), more=True)))["events"]
    assert shown["position"] == "e:3"
    assert ("base64" in shown) is ("bytes" in frame)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
