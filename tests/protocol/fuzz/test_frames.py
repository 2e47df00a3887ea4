"""Any message is a frame, or is refused with a code; also the target of guided fuzzing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings

from telex.protocol import frames
from tests.protocol.fuzz.messages import JUNK, anything

CODES = {"bad_frame", "invalid_message", "unknown_type"}


def check(raw: str | bytes) -> None:
    found, payload = _read(raw)
    if isinstance(found, frames.BadFrame):
        assert found.code in CODES
        assert found.message
        assert found.id is None or 1 <= found.id <= frames.MAX_ID
        return
    header = raw if isinstance(raw, str) else raw[4 : 4 + int.from_bytes(raw[:4], "big")]
    pairs: list[tuple[str, Any]] = json.loads(header, object_pairs_hook=_Pairs)
    kinds = {value for name, value in pairs if name == "type"}
    assert kinds == {type(found).__struct_config__.tag}  # a doubled type is the same twice
    last = dict(pairs)
    if hasattr(found, "id") and found.id is not None:
        assert isinstance(found.id, int)
        assert found.id == last["id"]
        assert 1 <= found.id <= frames.MAX_ID
    if isinstance(raw, bytes):
        assert payload == raw[4 + len(header) :]
        assert not getattr(found, "data", b"")
    elif hasattr(found, "data"):
        assert payload is None
        assert ("data" in last) == bool(found.data)


def _read(raw: str | bytes) -> tuple[Any, bytes | None]:
    try:
        return frames.read(raw)
    except frames.BadFrame as bad:
        return bad, None


class _Pairs(list[Any]):
    """A JSON object, with what stands in it twice."""


@pytest.mark.long
@settings(max_examples=300)
@given(anything())
@example('{"type":"call","type":"call","id":1,"id":2,"data":1,"data":null}')
@example('{"type":"call","id":1,"data":"\\ud800"}')
def test_any_message_is_a_frame_or_is_refused(raw: str | bytes) -> None:
    check(raw)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=5000)
@given(anything())
def test_any_message_is_a_frame_or_is_refused_many_times(raw: str | bytes) -> None:
    check(raw)


@pytest.mark.parametrize("raw", JUNK)
def test_examples_of_junk(raw: str | bytes) -> None:
    check(raw)
