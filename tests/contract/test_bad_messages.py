"""Invalid messages: the client gets an error, and no handler gets the message.

What JSON leaves open is tested here: the last of duplicate keys wins; integers are exact, and refused
where they have more digits than Python reads; fields that a type does not have are ignored, unless the type forbids
them; ``NaN``, infinities and numbers beyond a double are refused, for pydantic's models too.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.site import ON_BOTH_PATHS, Site, closing_of, said
from tests.support.raw import TEXT, frame

DEEP = 100_000
DIGITS = 1_000_000

# what is sent, and the start of the message and the path that the error frame has
NOT_JSON = {
    "empty": ("", "Input data was truncated"),
    "blank": ("  ", "Input data was truncated"),
    "cut": ('{"id": 1', "Input data was truncated"),
    "word": ("hello", "JSON is malformed: invalid character"),
    "single-quotes": ("{'id': 1}", "JSON is malformed: object keys must be strings"),
    "comma-at-end": ('{"id": 1,}', "JSON is malformed: trailing comma in object"),
    "comment": ('{"id": 1} // one', "JSON is malformed: trailing characters"),
    "two-values": ('{"id": 1}{"id": 2}', "JSON is malformed: trailing characters"),
    "nul-at-end": ('{"id": 1}\0', "JSON is malformed: trailing characters"),
    "control-character": ('{"name": "\x01"}', "JSON is malformed: invalid character"),
    "byte-order-mark": ('\ufeff{"id": 1}', "JSON is malformed: invalid character"),
    "lone-surrogate": (r'{"id": 1, "name": "\ud800"}', "Input data was truncated"),
    "surrogate-pair-broken": (r'{"id": 1, "name": "\ud800\u0041"}', "JSON is malformed: invalid utf-16 surrogate pair"),
    "surrogate-low-first": (r'{"id": 1, "name": "\udc00"}', "JSON is malformed: invalid utf-16 surrogate pair"),
    "nan": ('{"id": 1, "price": NaN}', "JSON is malformed: invalid character"),
    "infinity": ('{"id": 1, "price": Infinity}', "JSON is malformed: invalid character"),
    "minus-infinity": ('{"id": 1, "price": -Infinity}', "JSON is malformed: invalid character"),
}
DOES_NOT_FIT = {
    "array": ("[]", "Expected `object`, got `array`", ""),
    "string": ('"id"', "Expected `object`, got `str`", ""),
    "null": ("null", "Expected `object`, got `null`", ""),
    "number": ("1", "Expected `object`, got `int`", ""),
    "missing": ("{}", "Object missing required field `id`", ""),
    "text-as-number": ('{"id": "1"}', "Expected `int`, got `str`", "$.id"),
    "true-as-number": ('{"id": true}', "Expected `int`, got `bool`", "$.id"),
    "null-as-number": ('{"id": null}', "Expected `int`, got `null`", "$.id"),
    "fraction": ('{"id": 1.5}', "Expected `int`, got `float`", "$.id"),
    "number-as-text": ('{"id": 1, "name": 1}', "Expected `str`, got `int`", "$.name"),
    "deep-place": ('{"id": 1, "items": [1, 2, "x"]}', "Expected `int`, got `str`", "$.items[2]"),
    "field-that-is-not": ('{"id": 1, "admin": true}', "Object contains unknown field `admin`", ""),
    "beyond-a-double": ('{"id": 1, "price": 1e400}', "Number out of range", "$.price"),
    "5000-digits": ('{"id": %s}' % ("1" * 5000), "Integer value out of range", "$.id"),
    "a-million-digits": ('{"id": %s}' % ("1" * DIGITS), "Integer value out of range", "$.id"),
    "minus-a-million-digits": ('{"id": -%s}' % ("1" * DIGITS), "Integer value out of range", "$.id"),
    "deep-array": ("[" * DEEP + "]" * DEEP, "Expected `object`, got `array`", ""),
    "deep-in-a-field": ('{"id": ' + "[" * DEEP + "]" * DEEP + "}", "Expected `int`, got `array`", "$.id"),
}
VALID = '{"id": 7}'
VALID_REPLY = {"id": 7, "price": 0.0, "name": "", "items": []}


@ON_BOTH_PATHS
def invalid(message: str, path: str) -> dict[str, object]:
    """The answer; an error that is not at any place in the message has no path."""
    where = {"path": path} if path else {}
    return {"type": "error", "error": {"code": "invalid_message", "message": message} | where}


@pytest.mark.parametrize("row", NOT_JSON)
async def test_invalid_json_is_answered_and_the_connection_stays_open(site: Site, row: str) -> None:
    sent, message = NOT_JSON[row]
    async with site.connect("/messages/order") as client:
        error = json.loads(await said(client, sent))
        assert error == {
            "type": "error",
            "error": {"code": "invalid_message", "message": error["error"]["message"]},
        }
        assert error["error"]["message"].startswith(message)
        assert json.loads(await said(client, VALID)) == VALID_REPLY
    assert len(await site.notes()) == 1


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", DOES_NOT_FIT)
async def test_json_that_does_not_fit_is_answered_and_the_connection_stays_open(site: Site, row: str) -> None:
    sent, message, path = DOES_NOT_FIT[row]
    async with site.connect("/messages/order") as client:
        error = json.loads(await said(client, sent))
        assert error == invalid(message, path)
        assert json.loads(await said(client, VALID)) == VALID_REPLY
    assert len(await site.notes()) == 1


@ON_BOTH_PATHS
async def test_what_an_error_frame_repeats_of_a_message_is_cut(site: Site) -> None:
    async with site.connect("/messages/order") as client:
        error = json.loads(await said(client, json.dumps({"id": 1, "x" * 100_000: 1})))["error"]
        assert error["message"].startswith("Object contains unknown field `xxx")
        assert len(error["message"]) == 501
        assert json.loads(await said(client, VALID)) == VALID_REPLY


TOO_DEEP = {
    "field-that-takes-anything": ("/tagged", '{"type": "say", "text": "", "note": ' + "[" * DEEP + "]" * DEEP + "}"),
    "field-that-is-not": ("/tagged", '{"type": "move", "x": 1, "z": ' + "[" * DEEP + "]" * DEEP + "}"),
    "arrays": ("/any", "[" * DEEP + "]" * DEEP),
    "arrays-unclosed": ("/any", "[" * DEEP),
    "objects": ("/any", '{"a":' * DEEP + "1" + "}" * DEEP),
    "pydantic": ("/model", '{"id": 1, "note": ' + "[" * DEEP + "]" * DEEP + "}"),
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", TOO_DEEP)
async def test_deep_nesting_is_refused(site: Site, row: str) -> None:
    path, sent = TOO_DEEP[row]
    async with site.connect(f"/messages{path}") as client:
        error = json.loads(await said(client, sent))
        assert error["error"] == {
            "code": "invalid_message",
            "message": "the message is nested too deeply",
        }
        await said(client, '{"type": "say", "id": 1, "text": ""}')
    assert len(await site.notes()) == 1


UNTYPED = {
    "nan": "NaN",
    "nan-inside": '[{"a": NaN}]',
    "infinity": "Infinity",
    "beyond-a-double": "1e400",
    "a-million-digits": "1" * DIGITS,
    "5000-digits": '{"a": %s}' % ("9" * 5000),
    "lone-surrogate": r'"\ud800 "',
    "byte-order-mark": "\ufeff1",
    "trailing": "1 2",
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", UNTYPED)
@pytest.mark.parametrize(
    ("path", "form"), [("/any", "%s"), ("/model", '{"id": 1, "note": %s}')], ids=["any", "pydantic"]
)
async def test_hostile_json_is_refused_whatever_the_type(site: Site, path: str, form: str, row: str) -> None:
    async with site.connect(f"/messages{path}") as client:
        error = json.loads(await said(client, form % UNTYPED[row]))
        assert error["error"]["code"] == "invalid_message"
        await said(client, '{"id": 1}')
    assert len(await site.notes()) == 1


# what is sent, to which listener, and what arrives
DECIDED: dict[str, tuple[str, str, Any]] = {
    "the-last-of-duplicate-keys-wins": ("/order", '{"id": 1, "id": 2}', {**VALID_REPLY, "id": 2}),
    "also-where-nothing-is-typed": ("/any", '{"a": 1, "a": 2}', {"a": 2}),
    "also-in-pydantic": ("/model", '{"id": 1, "id": 2}', {"id": 2, "note": None}),
    "beyond-53-bits": ("/any", str(2**53 + 1), 2**53 + 1),
    "beyond-64-bits": ("/any", str(2**64 + 1), 2**64 + 1),
    "unknown-fields-are-ignored": ("/tagged", '{"type": "move", "x": 1, "admin": 1}', {"type": "move", "x": 1, "y": 0}),
    "surrogate-pairs-are-text": ("/any", r'"\ud83d\ude42"', "🙂"),
    "white-space-around": ("/order", f"\n\t {VALID} \r\n", VALID_REPLY),
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", DECIDED)
async def test_what_json_leaves_open_is_decided(site: Site, row: str) -> None:
    path, sent, arrives = DECIDED[row]
    async with site.connect(f"/messages{path}") as client:
        assert json.loads(await said(client, sent)) == arrives


WRONG_TAGS = {
    "unknown": ('{"type": "kill"}', "Invalid value 'kill'", "$.type"),
    "of-another-kind": ('{"type": 1}', "Expected `str`", "$.type"),
    "none": ('{"x": 1}', "Object missing required field `type`", ""),
    "fields-of-the-other": ('{"type": "say", "x": 1}', "Object missing required field `text`", ""),
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", WRONG_TAGS)
async def test_a_wrong_tag_is_refused(site: Site, row: str) -> None:
    sent, message, path = WRONG_TAGS[row]
    async with site.connect("/messages/tagged") as client:
        error = json.loads(await said(client, sent))
        assert error == invalid(message, path)
    assert await site.notes() == []


async def test_pydantic_says_where_it_does_not_fit(site: Site) -> None:
    async with site.connect("/messages/model") as client:
        error = json.loads(await said(client, '{"id": "x"}'))["error"]
        assert (error["code"], error["path"]) == ("invalid_message", "$.id")
        assert "x" not in error["message"].split()
        assert "input" not in error
    assert await site.notes() == []


@pytest.mark.parametrize(
    "sent", [b"\xff", VALID.encode("utf-16"), VALID.encode("utf-32"), b"\xef\xbb\xbf" + VALID.encode(), b"", b"\x00"]
)
async def test_bytes_that_are_no_utf_8_json_are_refused_in_the_mode_that_is_sent(site: Site, sent: bytes) -> None:
    async with site.connect("/messages/binary") as client:
        answer = await said(client, sent)
        assert isinstance(answer, bytes)
        assert json.loads(answer)["error"]["code"] == "invalid_message"
        assert json.loads(await said(client, VALID.encode())) == VALID_REPLY
    assert len(await site.notes()) == 1


async def test_bytes_that_are_no_utf_8_are_no_text(site: Site) -> None:
    async with site.connect("/messages/binary-text") as client:
        error = json.loads(await said(client, b"\xed\xa0\x80"))["error"]
        assert error == {"code": "invalid_message", "message": "the message is not valid UTF-8"}
        assert await said(client, "grüße".encode()) == "grüße"
    assert await site.notes() == ["entered 'grüße'"]


async def test_a_text_frame_that_is_no_utf_8_never_arrives(site: Site) -> None:
    async with site.raw("/messages/text") as client:
        await client.send(frame(TEXT, b"\xed\xa0\x80"))
        assert (await client.read_close()).code == CLOSES_INVALID_UTF_8[site.kind.name]
    await site.settled()
    assert await site.notes() == []
    for level, logger, _ in await site.records():
        assert (level, logger) == ("ERROR", "uvicorn.error")


CLOSES_INVALID_UTF_8 = {
    "uvicorn-websockets": 1007,
    "uvicorn-wsproto": 1006,  # drops the connection without a close frame
    "hypercorn": 1006,  # the same
    "granian": 1005,  # closes without a code
    "telex": 1007,
}
"""RFC 6455 section 8.1 asks for 1007; where a server does otherwise, the message is never delivered."""


# -- the other kind of frame


@pytest.mark.parametrize(
    ("path", "wrong", "right", "reply"),
    [
        ("/messages/text", b"bytes", "text", "text"),
        ("/messages/order", VALID.encode(), VALID, None),
        ("/messages/binary-text", "text", b"bytes", "bytes"),
    ],
)
async def test_the_other_kind_of_frame_is_ignored_and_warned_of_once(
    site: Site, path: str, wrong: str | bytes, right: str | bytes, reply: str | None
) -> None:
    async with site.connect(path) as client:
        await client.send(wrong)
        await client.send(wrong)
        answer = await said(client, right)
        assert answer == reply if reply is not None else json.loads(answer) == VALID_REPLY
    assert len(await site.notes()) == 1
    ((level, logger, text),) = await site.records()
    assert (level, logger) == ("WARNING", "telex")
    assert "ignores the other kind of message" in text


async def test_frames_of_the_other_kind_are_no_invalid_messages(site: Site) -> None:
    async with site.connect("/messages/three") as client:
        for _ in range(20):
            await client.send(b"{")
        assert json.loads(await said(client, VALID)) == VALID_REPLY
    assert len(await site.records()) == 1


# -- too many of them


async def test_ten_in_a_row_close_the_connection(site: Site) -> None:
    async with site.connect("/messages/order") as client:
        for _ in range(9):
            assert "error" in json.loads(await said(client, "{"))
        assert json.loads(await said(client, VALID)) == VALID_REPLY
        for _ in range(9):
            assert "error" in json.loads(await said(client, "{"))
        assert "error" in json.loads(await said(client, "{"))
        close = await closing_of(client)
    assert (close.code, close.reason) == (1007, "Input data was truncated")
    assert len(await site.notes()) == 1


async def test_the_number_may_be_set(site: Site) -> None:
    async with site.connect("/messages/three") as client:
        for _ in range(3):
            await client.send("[]")
        assert ["path" in json.loads(await client.recv())["error"] for _ in range(3)] == [False] * 3
        assert (await closing_of(client)).code == 1007


async def test_a_listener_may_close_at_the_first(site: Site) -> None:
    async with site.connect("/messages/closes") as client:
        assert json.loads(await said(client, VALID)) == VALID_REPLY
        await client.send('{"id": "x"}')
        close = await closing_of(client)
    assert (close.code, close.reason) == (1007, "Expected `int`, got `str`")
    assert len(await site.notes()) == 1


async def test_the_users_handler_comes_first(site: Site) -> None:
    async with site.connect("/messages/handled/reply") as client:
        for _ in range(3):
            assert json.loads(await said(client, '{"id": "x"}')) == {"refused": "$.id"}
        assert json.loads(await said(client, VALID)) == VALID_REPLY
    for path, code, reason in (("close", 4100, "at $.id"), ("raise", 4200, "raised at $.id")):
        async with site.connect(f"/messages/handled/{path}") as client:
            await client.send('{"id": "x"}')
            close = await closing_of(client)
        assert (close.code, close.reason) == (code, reason)
