"""Frames to values and back: every kind of annotation, text and bytes, constraints, and what does not fit."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import sys
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telex import Telex, WebSocket, send_websocket_stream, websocket, websocket_listener
from telex.codecs import as_validation_error, convert, encoder_hook, reader, value_writer, writer
from telex.exceptions import ImproperlyConfiguredException, SerializationException, ValidationException
from telex.types import Mode, TypeDecoder, TypeEncoder
from tests.contract.servers import ServerKind
from tests.support.live import asked, asked_json, talking


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Data:
    x: int
    when: dt.datetime | None = None


class Typed(TypedDict):
    x: int
    y: NotRequired[str]


class Named(NamedTuple):
    x: int


class Struct(msgspec.Struct):
    x: int


@attrs.define
class Attrs:
    x: int


class Model(pydantic.BaseModel):
    x: int


class Aliased(pydantic.BaseModel):
    x: int = pydantic.Field(alias="theX", ge=0)


class Move(msgspec.Struct, tag="move"):
    x: int


class Say(msgspec.Struct, tag="say"):
    text: str


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


ENCODERS: dict[type, TypeEncoder] = {Money: lambda money: money.cents}
DECODERS: tuple[TypeDecoder, ...] = ((lambda kind: kind is Money, lambda kind, value: kind(value)),)

SAMPLES: list[tuple[Any, Any, str]] = [
    (int, 1, "1"),
    (float, 1.5, "1.5"),
    (bool, True, "true"),
    (dict, {"a": 1}, '{"a":1}'),
    (dict[str, int], {"a": 1}, '{"a":1}'),
    (list[int], [1], "[1]"),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (set[int], {1}, "[1]"),
    (frozenset[int], frozenset({1}), "[1]"),
    (Colour, Colour.RED, '"red"'),
    (Literal["a"], "a", '"a"'),
    (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=dt.UTC), '"2026-01-02T00:00:00Z"'),
    (dt.date, dt.date(2026, 1, 2), '"2026-01-02"'),
    (dt.timedelta, dt.timedelta(seconds=1), '"PT1S"'),
    (uuid.UUID, uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (decimal.Decimal, decimal.Decimal("1.50"), '"1.50"'),
    (Data, Data(1), '{"x":1,"when":null}'),
    (Typed, {"x": 1}, '{"x":1}'),
    (Named, Named(1), "[1]"),
    (Struct, Struct(1), '{"x":1}'),
    (Attrs, Attrs(1), '{"x":1}'),
    (Move | Say, Say("hi"), '{"type":"say","text":"hi"}'),
    (Struct | None, None, "null"),
    (Annotated[int, msgspec.Meta(ge=1)], 1, "1"),
    (list[Struct], [Struct(1)], '[{"x":1}]'),
    (Any, {"a": [1, None]}, '{"a":[1,null]}'),
    (Model, Model(x=1), '{"x":1}'),
    (Aliased, Aliased(theX=1), '{"theX":1}'),
    (list[Model], [Model(x=1)], '[{"x":1}]'),
    (Model | None, None, "null"),
    (Annotated[int, pydantic.Field(ge=1)], 1, "1"),
]


@pytest.mark.parametrize(("annotation", "value", "raw"), SAMPLES, ids=lambda each: str(each)[:30])
def test_a_value_is_written_and_read_in_both_modes(annotation: Any, value: Any, raw: str) -> None:
    assert writer(annotation, "text")(value) == raw
    assert writer(annotation, "binary")(value) == raw.encode()
    assert reader(annotation, "text")(raw) == value
    assert reader(annotation, "binary")(raw.encode()) == value


@pytest.mark.parametrize(
    ("annotation", "raw", "path"),
    [
        (int, '"1"', ""),
        (int, "1.5", ""),
        (bool, "1", ""),
        (dict[str, int], '{"a":"b"}', "$[...]"),
        (list[int], '[1,"a"]', "$[1]"),
        (tuple[int, str], "[1]", ""),
        (Colour, '"blue"', ""),
        (dt.datetime, '"today"', ""),
        (uuid.UUID, '"1"', ""),
        (decimal.Decimal, '"x"', ""),
        (Data, '{"x":"a"}', "$.x"),
        (Data, "{}", ""),
        (Typed, "{}", ""),
        (Named, '["a"]', "$[0]"),
        (Struct, '{"x":null}', "$.x"),
        (Attrs, '{"x":null}', "$.x"),
        (Move | Say, '{"type":"jump"}', "$.type"),
        (Annotated[int, msgspec.Meta(ge=1)], "0", ""),
        (Annotated[int, pydantic.Field(ge=1)], "0", "$"),
        (Model, '{"x":"a"}', "$.x"),
        (list[Model], '[{"x":1},{"x":"a"}]', "$[1].x"),
        (Aliased, '{"theX":-1}', "$.theX"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_what_does_not_fit_is_refused_with_its_place(annotation: Any, raw: str, path: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 as each library has its own
        reader(annotation)(raw)
    invalid = as_validation_error(caught.value)
    assert invalid is not None
    assert invalid.path == path
    assert invalid.detail


@pytest.mark.parametrize("raw", ["", "{", "NaN", "1e400", "[1,]", "\x00", '"\ud800"'])
@pytest.mark.parametrize("annotation", [Any, Struct, Model])
def test_malformed_json_is_refused_by_every_library(annotation: Any, raw: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        reader(annotation)(raw)
    assert as_validation_error(caught.value) is not None


def test_what_is_not_about_the_message_is_no_validation_error() -> None:
    assert as_validation_error(KeyError("x")) is None
    given_one = ValidationException("x", path="$")
    assert as_validation_error(given_one) is given_one
    nested = as_validation_error(RecursionError())
    assert nested is not None
    assert nested.detail == "the message is nested too deeply"
    broken = as_validation_error(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"))
    assert broken is not None
    assert broken.detail == "the message is not valid UTF-8"


# -- text and bytes

Name = NewType("Name", str)


@pytest.mark.parametrize("annotation", [str, Name, str | None, Annotated[str, "x"], Annotated[Name, "x"] | None])
def test_text_from_both_kinds_of_frame(annotation: Any) -> None:
    assert reader(annotation, "text")("ü") == "ü"
    assert reader(annotation, "binary")("ü".encode()) == "ü"
    assert reader(annotation, "binary")("ü") == "ü"
    with pytest.raises(UnicodeDecodeError):
        reader(annotation, "binary")(b"\xff")


@pytest.mark.parametrize("annotation", [bytes, bytes | None])
def test_bytes_from_both_kinds_of_frame(annotation: Any) -> None:
    assert reader(annotation, "text")("ü") == "ü".encode()
    assert reader(annotation, "text")(b"x") == b"x"
    assert reader(annotation, "binary")(b"\xff") == b"\xff"


@given(text=st.text(), data=st.binary())
def test_text_or_bytes_come_as_the_frame_is(text: str, data: bytes) -> None:
    assert reader(str | bytes, "text")(text) is text
    assert reader(str | bytes, "binary")(data) is data


@pytest.mark.parametrize("annotation", [str, bytes, str | bytes | None])
def test_text_and_bytes_are_written_as_they_are(annotation: Any) -> None:
    assert writer(annotation, "text")("ü") == "ü"
    assert writer(annotation, "text")("ü".encode()) == "ü"
    assert writer(annotation, "binary")("ü") == "ü".encode()
    assert writer(annotation, "binary")(b"\xff") == b"\xff"
    for mode in ("text", "binary"):
        with pytest.raises(SerializationException, match="declared as text or bytes, but the value is int"):
            writer(annotation, mode)(1)


def test_text_may_be_constrained() -> None:
    read = reader(Annotated[str, msgspec.Meta(max_length=2)])
    assert read("ab") == "ab"
    with pytest.raises(msgspec.ValidationError, match="length <= 2"):
        read("abc")
    read_bytes = reader(Annotated[bytes, msgspec.Meta(min_length=2)], "binary")
    assert read_bytes(b"ab") == b"ab"
    with pytest.raises(msgspec.ValidationError, match="length >= 2"):
        read_bytes(b"a")


# -- the value decides


def test_by_value_text_and_bytes_pass_whatever_the_annotation_says() -> None:
    write, write_binary = value_writer(Any), value_writer(Any, "binary")
    assert [write("a"), write(b"b"), write({"c": 1}), write(None)] == ["a", "b", '{"c":1}', "null"]
    assert [write_binary("a"), write_binary(b"\xff"), write_binary([1])] == [b"a", b"\xff", b"[1]"]


# -- custom types


def test_type_encoders_and_decoders_are_for_what_json_has_not() -> None:
    assert writer(Money, "text", ENCODERS)(Money(5)) == "5"
    assert value_writer(Any, "text", ENCODERS)({"price": Money(5)}) == '{"price":5}'
    assert reader(Money, "text", DECODERS)("5") == Money(5)
    assert reader(dict[str, Money], "text", DECODERS)('{"a":5}') == {"a": Money(5)}
    assert convert(Money, DECODERS)("5") == Money("5")  # type: ignore[arg-type]


def test_an_encoder_serves_subclasses() -> None:
    class Tip(Money):
        pass

    assert writer(Tip, "text", ENCODERS)(Tip(7)) == "7"


def test_without_an_encoder_or_decoder_the_error_names_the_type() -> None:
    with pytest.raises(NotImplementedError, match="no type_encoders entry writes Money"):
        encoder_hook({})(Money(1))
    for compile_reader in (reader, convert):
        with pytest.raises(ImproperlyConfiguredException, match=r"nothing reads Money: give type_decoders="):
            compile_reader(Money)
    with pytest.raises(ImproperlyConfiguredException, match=r"nothing writes Money: give type_encoders={Money: "):
        writer(Money)


def test_pydantic_inside_of_other_types() -> None:
    class Envelope(msgspec.Struct):
        model: Any

    assert writer(Any, "text")(Envelope(Model(x=1))) == '{"model":{"x":1}}'
    holder = msgspec.defstruct("Holder", [("model", Model)])
    assert reader(holder)('{"model":{"x":1}}').model == Model(x=1)


def test_an_annotation_that_nothing_can_read_is_an_error() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"messages cannot be read as .*Struct"):
        reader(Struct | Data | dict[str, int])


def test_convert_is_lax_as_text_must_be() -> None:
    assert convert(int)("5") == 5
    assert convert(list[int])(["5", "6"]) == [5, 6]


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(), lambda inner: st.lists(inner))
)
def test_json_survives_the_way_there_and_back(value: Any) -> None:
    for mode in ("text", "binary"):
        assert reader(Any, mode)(writer(Any, mode)(value)) == value


# -- over a socket


@pytest.mark.parametrize(("annotation", "value", "raw"), SAMPLES, ids=lambda each: str(each)[:30])
async def test_every_sample_travels_over_a_socket(annotation: Any, value: Any, raw: str) -> None:
    async def listen(data: Any) -> Any:
        assert data == value
        return data

    listen.__annotations__ = {"data": annotation, "return": annotation}
    async with talking(Telex([websocket_listener("/")(listen)])) as client:
        if value is None:
            await client.send("not json")
            assert "error" in json.loads(await asked(client, raw))
        else:
            assert await asked(client, raw) == raw


async def test_layered_decoders_and_encoders_reach_the_messages() -> None:
    @websocket_listener("/", type_decoders=DECODERS)
    async def listen(data: Money) -> Money:
        return Money(data.cents + 1)

    async with talking(Telex([listen], type_encoders=ENCODERS)) as client:
        assert await asked_json(client, 5) == 6


def test_a_decoder_that_does_not_match_leaves_it_to_the_next() -> None:
    never: TypeDecoder = (lambda kind: False, lambda kind, value: None)
    assert reader(Money, "text", (never, *DECODERS))("5") == Money(5)


def test_pydantic_inside_of_other_types_is_validated_where_it_stands() -> None:
    holder = msgspec.defstruct("Holder", [("model", Model)])
    with pytest.raises(msgspec.ValidationError, match=r"valid integer.*\$.x.*at `\$.model`"):
        reader(holder)('{"model":{"x":"a"}}')


def test_a_validator_of_pydantic_that_fails_by_itself_is_no_validation_error() -> None:
    class Broken(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def check(cls, value: int) -> int:
            raise UnicodeDecodeError("utf-8", b"", 0, 1, "of its own") if value else ZeroDivisionError

    holder = msgspec.defstruct("Holder", [("model", Broken)])
    for annotation, raw in ((Broken, '{"x":0}'), (holder, '{"model":{"x":0}}')):
        with pytest.raises(ZeroDivisionError):
            reader(annotation)(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [('{"m":[{"x":1},{"x":"a"}]}', "$.m[1].x"), ('{"m":5}', "$.m"), ('{"n":1}', "$.m"), ("[]", "$")],
)
def test_paths_of_pydantic_name_places_in_the_message_only(raw: str, path: str) -> None:
    class Many(pydantic.BaseModel):
        m: list[Model | Aliased]

    with pytest.raises(ValidationException) as caught:
        reader(Many)(raw)
    assert caught.value.path == path


def test_without_pydantic_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pydantic", "pydantic_core"):
        monkeypatch.delitem(sys.modules, name)
    assert reader(Struct)('{"x":1}') == Struct(1)
    assert as_validation_error(KeyError()) is None


def test_an_error_of_pydantic_itself_is_a_validation_error() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate({"x": "a"})
    invalid = as_validation_error(caught.value)
    assert invalid is not None
    assert invalid.path == "$.x"


def test_a_long_list_of_wrong_items_makes_one_error() -> None:
    class Item(pydantic.BaseModel):
        number: int

    class Order(pydantic.BaseModel):
        items: list[Item]

    with pytest.raises(ValidationException) as caught:
        reader(Order)('{"items": [' + ",".join(["0"] * 200_000) + "]}")
    assert caught.value.path == "$.items[0]"
    assert isinstance(caught.value.extra, list)
    assert len(caught.value.extra) == 1


@pytest.mark.parametrize("message", ['{"%s": 1}', '{"a": {"%s": "x"}}'])
def test_an_error_reflects_little_of_what_a_client_sent(message: str) -> None:
    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        a: dict[str, int] = {}

    with pytest.raises(msgspec.ValidationError) as caught:
        reader(Strict)(message % ("x" * 1_000_000))
    error = as_validation_error(caught.value)
    assert error is not None
    assert len(error.detail) + len(error.path) < 1100


# -- subclasses of text and bytes


class Word(enum.StrEnum):
    HELLO = "hello"


class Blob(bytes):
    """A subclass, as libraries have them."""


SENT: list[tuple[Any, str | bytes]] = [
    (Word.HELLO, "hello"),
    (Blob(b"hello"), b"hello"),
    (bytearray(b"hello"), b"hello"),
    (memoryview(b"hello"), b"hello"),
]


def sender(way: str, value: Any) -> Any:
    """A handler that sends ``value`` for each message, in this way."""
    mode: Mode = "text" if isinstance(value, str) else "binary"
    annotation = str if mode == "text" else bytes

    async def listen(data: str, socket: WebSocket) -> Any:
        if way == "send_stream":
            await send_websocket_stream(socket, one(), mode=mode, close=False)
        return value if way == "async" else None

    def listen_inline(data: str) -> Any:
        return value

    async def one() -> AsyncGenerator[Any, None]:
        yield value

    async def raw(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            if way == "event":
                await socket.send({"type": "websocket.send", "text" if mode == "text" else "bytes": value})
            else:
                await (socket.send_text(value) if mode == "text" else socket.send_bytes(value))

    if way in {"event", "method"}:
        return websocket("/")(raw)
    fn = listen_inline if way == "inline" else listen
    fn.__annotations__["return"] = annotation if way != "any" else Any
    return websocket_listener("/", send_mode=mode)(fn)


WAYS = ("async", "inline", "method", "event", "send_stream")


def takes(kind: ServerKind, way: str, value: Any) -> bool:
    """Whether the value may go this way: uvicorn takes an event as it is, and no buffers in it."""
    return way != "event" or kind.name == "telex" or not isinstance(value, (bytearray, memoryview))


@pytest.mark.parametrize(
    ("kind", "way", "value", "received"),
    [
        pytest.param(kind, way, value, received, id=f"{kind.name}-{way}-{type(value).__name__}")
        for kind in (ServerKind("telex"), ServerKind("uvicorn-websockets"))
        for way in WAYS
        for value, received in SENT
        if takes(kind, way, value)
    ],
)
async def test_subclasses_and_buffers_go_out_as_what_they_are(
    kind: ServerKind, way: str, value: Any, received: str | bytes
) -> None:
    async with talking(Telex([sender(way, value)]), kind=kind) as client:
        # The transport's shortest way opens after some messages.
        assert {await asked(client, "x") for _ in range(40)} == {received}
