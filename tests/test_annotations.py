"""Annotations are honoured in every notation; an annotation that cannot be honoured is an error at build time."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import fractions
import ipaddress
import itertools
import json
import pathlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypeVar

import annotated_types
import attrs
import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typing_extensions import TypeAliasType, TypedDict

from telex import (
    Controller,
    FromQuery,
    ImproperlyConfiguredException,
    State,
    Telex,
    WebSocket,
    WebsocketListener,
    pydantic_codecs,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.annotation_parts import parts_of
from telex.annotations import expand, union_of
from telex.codecs import as_validation_error, reader
from tests.contract.servers import ServerKind
from tests.support.live import asked, asked_json, heard, talking

T = TypeVar("T")
alias: Any = TypeAliasType
new: Any = NewType
list_of: Any = list
dict_of: Any = dict
"""Type checkers cannot follow types that are created at run time."""
KINDS = [ServerKind("uvicorn-websockets"), ServerKind("telex")]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    found: ServerKind = request.param
    return found


def listener(annotation: Any, returns: Any = str) -> Any:
    async def listen(data: Any) -> Any:
        return repr(data)

    listen.__annotations__ = {"data": annotation, "return": returns}
    return websocket_listener("/")(listen)


# -- generated annotations: a value is accepted exactly when it fits, or the app does not build

Fits = Callable[[Any], bool]


@dataclass
class Node:
    """An annotation, a predicate for the values that fit it, and a strategy for values of similar shape."""

    annotation: Any
    fits: Fits
    values: st.SearchStrategy[Any]


SCALARS = st.sampled_from([-1, 5, 10**6, "", "on", "only", None])
"""All libraries treat these equally: no text is a number, and no number has a fraction."""


def is_int(value: Any) -> bool:
    return isinstance(value, int)


def is_str(value: Any) -> bool:
    return isinstance(value, str)


class Choice(enum.Enum):
    """msgspec does not read it: its values have two types."""

    FIVE = 5
    ON = "on"


LEAVES: list[tuple[Any, Fits]] = [
    (int, is_int),
    (str, is_str),
    (Choice, lambda value: value in {5, "on"} if isinstance(value, (int, str)) else False),
    *((Annotated[int, extra], lambda value: is_int(value) and value > 0) for extra in (
        msgspec.Meta(gt=0), pydantic.Field(gt=0), annotated_types.Gt(0), annotated_types.Interval(gt=0),
    )),
    *((Annotated[str, extra], lambda value: is_str(value) and len(value) <= 3) for extra in (
        msgspec.Meta(max_length=3), pydantic.Field(max_length=3), annotated_types.MaxLen(3),
        pydantic.StringConstraints(max_length=3),
    )),
    (Annotated[int, msgspec.Meta(description="said"), "note"], is_int),
]  # fmt: skip

names = itertools.count()


def name() -> str:
    return f"Made{next(names)}"


def listed(node: Node) -> Node:
    return Node(
        list_of[node.annotation],
        lambda value: isinstance(value, list) and all(map(node.fits, value)),
        st.lists(node.values, max_size=2) | SCALARS,
    )


def keyed(node: Node) -> Node:
    return Node(
        dict_of[str, node.annotation],
        lambda value: isinstance(value, dict) and all(map(node.fits, value.values())),
        st.dictionaries(st.sampled_from(["a", "b"]), node.values, max_size=2) | SCALARS,
    )


def optional(node: Node) -> Node:
    return Node(
        union_of(node.annotation, None), lambda value: value is None or node.fits(value), node.values | st.none()
    )


def either(node: Node) -> Node:
    # Not "| int": of two kinds of int in a union, msgspec by itself takes the constraint for both.
    return Node(
        union_of(node.annotation, Literal["on"]),
        lambda value: value == "on" or node.fits(value),
        node.values | SCALARS,
    )


def aliased(node: Node) -> Node:
    return dataclasses.replace(node, annotation=alias(name(), node.annotation))


def aliased_list(node: Node) -> Node:
    listing = alias(name(), list_of[T], type_params=(T,))
    return dataclasses.replace(listed(node), annotation=listing[node.annotation])


def new_type(node: Node) -> Node:
    return dataclasses.replace(node, annotation=new(name(), node.annotation))


def noted(node: Node) -> Node:
    return dataclasses.replace(node, annotation=Annotated[node.annotation, "note"])


def many(extra: object) -> Callable[[Node], Node]:
    def at_most_one(node: Node) -> Node:
        inner = listed(node)
        return Node(
            Annotated[inner.annotation, extra], lambda value: inner.fits(value) and len(value) <= 1, inner.values
        )

    return at_most_one


def modelled(make: Callable[[str, Any], Any]) -> Callable[[Node], Node]:
    def model(node: Node) -> Node:
        try:
            annotation = make(name(), node.annotation)
        except (pydantic.errors.PydanticUserError, TypeError):
            assume(False)  # the model itself cannot be made
        return Node(
            annotation,
            lambda value: isinstance(value, dict) and "x" in value and node.fits(value["x"]),
            st.fixed_dictionaries({"x": node.values}) | SCALARS,
        )

    return model


def one_of_two(node: Node) -> Node:
    """A union of dataclasses without tags. msgspec does not read it."""
    other = dataclasses.make_dataclass(name(), [("y", int)])
    first = dataclasses.make_dataclass(name(), [("x", node.annotation)])
    return Node(
        union_of(first, other),
        lambda value: isinstance(value, dict) and (("x" in value and node.fits(value["x"])) or "y" in value),
        st.fixed_dictionaries({"x": node.values}) | st.fixed_dictionaries({"y": st.just(1)}) | SCALARS,
    )


def in_array(node: Node) -> Node:
    return Node(
        NamedTuple(name(), [("x", node.annotation)]),
        lambda value: isinstance(value, list) and len(value) == 1 and node.fits(value[0]),
        st.tuples(node.values).map(list) | SCALARS,
    )


def generic(make: Any) -> Callable[[Node], Node]:
    return modelled(lambda _, annotation: make[annotation])


class BoxStruct(msgspec.Struct, Generic[T]):
    x: T


@dataclass
class BoxDataclass(Generic[T]):
    x: T


class BoxModel(pydantic.BaseModel, Generic[T]):
    x: T


WRAPPERS: list[Callable[[Node], Node]] = [
    listed,
    keyed,
    optional,
    either,
    aliased,
    aliased_list,
    new_type,
    noted,
    many(msgspec.Meta(max_length=1)),
    many(annotated_types.MaxLen(1)),
    many(pydantic.Field(max_length=1)),
    modelled(lambda named, x: msgspec.defstruct(named, [("x", x)])),
    modelled(lambda named, x: dataclasses.make_dataclass(named, [("x", x)])),
    modelled(lambda named, x: attrs.define(type(named, (), {"__annotations__": {"x": x}}))),
    modelled(lambda named, x: pydantic.create_model(named, x=(x, ...))),
    modelled(lambda named, x: TypedDict(named, {"x": x})),  # type: ignore[operator]
    in_array,
    one_of_two,
    generic(BoxStruct),
    generic(BoxDataclass),
    generic(BoxModel),
]


@pytest.mark.long
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_exactly_the_values_that_fit_are_accepted_or_the_app_does_not_build(data: st.DataObject) -> None:
    annotation, fits = data.draw(st.sampled_from(LEAVES))
    node = Node(annotation, fits, SCALARS)
    for wrap in data.draw(st.lists(st.sampled_from(WRAPPERS), max_size=4)):
        node = wrap(node)
    node = listed(node)  # text as the whole message is not JSON; see the tests of text and bytes below
    try:
        Telex([listener(node.annotation)])
    except ImproperlyConfiguredException as exc:
        assert "listen (tests/test_annotations.py:" in exc.detail  # noqa: PT017
        return
    read = reader(node.annotation)
    for value in data.draw(st.lists(node.values, min_size=1, max_size=5)):
        try:
            read(json.dumps(value))
        except Exception as exc:
            if as_validation_error(exc) is None:
                raise
            accepted = False
        else:
            accepted = True
        assert accepted == node.fits(value), (node.annotation, value)


def test_an_app_with_any_single_wrapper_is_built() -> None:
    """Guards the property above, which would also be true if no app were built."""
    for wrap in WRAPPERS:
        for annotation, fits in LEAVES[:2]:
            Telex([listener(wrap(Node(annotation, fits, SCALARS)).annotation)])


# -- text and bytes, over a socket

SHORT = [
    Annotated[str, msgspec.Meta(max_length=3)],
    Annotated[str, pydantic.Field(max_length=3)],
    Annotated[str, annotated_types.MaxLen(3)],
    pydantic.constr(max_length=3),
]
WAYS: list[Callable[[Any], Any]] = [
    lambda short: short,
    lambda short: short | None,
    lambda short: short | bytes,
    lambda short: new("Short", short),
    lambda short: alias("Short", short),
    lambda short: alias("Short", new("Inner", short) | None),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("short", SHORT)
async def test_a_constraint_on_text_applies_at_any_place(short: Any, way: Callable[[Any], Any]) -> None:
    async with talking(Telex([listener(way(short))])) as client:
        assert await asked(client, "abc") == "'abc'"
        assert "invalid_message" in str(await asked(client, "abcd"))
        assert await asked(client, "ab") == "'ab'"


# -- aliases

Text = TypeAliasType("Text", str)
Number = TypeAliasType("Number", int)
AppState = TypeAliasType("AppState", State)
Numbers = TypeAliasType("Numbers", AsyncGenerator[int, None])
Nothing = TypeAliasType("Nothing", None)
Tree = TypeAliasType("Tree", "dict[str, Tree] | int")
Later = TypeAliasType("Later", "list[Move]")


class Move(msgspec.Struct, tag="move"):
    x: int


async def test_an_alias_means_its_value(kind: ServerKind) -> None:
    @websocket_listener("/listen")
    async def listen(data: Text, state: AppState, n: Number = 1) -> Text:
        return f"{data} {state.a} {n!r}"

    @websocket_stream("/stream")
    async def stream() -> Numbers:
        yield 1

    @websocket("/raw")
    async def raw(socket: WebSocket) -> Nothing:
        await socket.send_text("sent")

    app = Telex([listen, stream, raw], state=State({"a": 1}))
    async with talking(app, "/listen?n=5", kind) as client:
        assert await asked(client, "hello") == "hello 1 5"
    async with talking(app, "/stream", kind) as client:
        assert await heard(client) == "1"
    async with talking(app, "/raw", kind) as client:
        assert await heard(client) == "sent"


def test_all_aliases_except_recursive_ones_are_expanded() -> None:
    assert expand(alias("A", "list[Move] | None")) == list[Move] | None
    assert expand(keyed(Node(new("N", Text), is_str, SCALARS)).annotation) == dict[str, str]
    assert expand(Tree) is Tree
    assert reader(Tree)('{"a": {"b": 1}}') == {"a": {"b": 1}}
    assert reader(Later)('[{"type": "move", "x": 1}]') == [Move(1)]


# -- type variables


class Echo(WebsocketListener, Generic[T]):
    path = "/"

    async def on_receive(self, data: T) -> str:
        return repr(data)


class EchoList(Echo[list[T]], Generic[T]):
    pass


class MoveEcho(EchoList[Move]):
    pass


class Grouped(Controller, Generic[T]):
    @websocket_listener("/")
    async def echo(self, data: list[T]) -> str:
        return repr(data)


class MoveGroup(Grouped[Move]):
    pass


@pytest.mark.parametrize("registered", [MoveEcho, MoveGroup])
async def test_the_subclass_gives_the_value_of_a_type_variable(registered: Any, kind: ServerKind) -> None:
    async with talking(Telex([registered]), kind=kind) as client:
        assert await asked(client, '[{"type": "move", "x": 1}]') == "[Move(x=1)]"
        assert "invalid_message" in str(await asked(client, '[{"type": "move", "x": "junk"}]'))


@pytest.mark.parametrize("registered", [Echo, Grouped, listener(T), listener(list_of[T])])
def test_an_open_type_variable_is_an_error(registered: Any) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"\(.*:\d+\): 'data': the type variable ~T has no value"):
        Telex([registered])


# -- types of neither library


@pytest.mark.parametrize(
    ("annotation", "sent", "value"),
    [
        (pathlib.Path, "somewhere", pathlib.Path("somewhere")),
        (ipaddress.IPv4Address, "127.0.0.1", ipaddress.IPv4Address("127.0.0.1")),
        (fractions.Fraction, "1/2", fractions.Fraction(1, 2)),
        (collections.deque[int], [1], collections.deque([1])),
        (collections.Counter[str], {"a": 1}, collections.Counter(a=1)),
        (msgspec.defstruct("Holder", [("x", pathlib.Path)]), {"x": "somewhere"}, None),
        (dataclasses.make_dataclass("Holding", [("x", pathlib.Path)]), {"x": "somewhere"}, None),
    ],
)
async def test_types_that_only_pydantic_reads_are_read_and_written(
    annotation: Any, sent: object, value: object
) -> None:
    async def echo(data: Any) -> Any:
        assert value is None or data == value
        return data

    echo.__annotations__ = {"data": annotation, "return": annotation}
    async with talking(Telex([websocket_listener("/")(echo)])) as client:
        assert await asked_json(client, sent) == sent


class Opaque:
    """A class that no library reads or writes."""


class HoldsOpaque(msgspec.Struct):
    inside: list[Opaque]


class WithField(msgspec.Struct):
    x: Annotated[int, pydantic.Field(gt=0)]


class WithMeta(pydantic.BaseModel):
    x: Annotated[int, msgspec.Meta(gt=0)]


async def queried(data: str, move: FromQuery[Move]) -> None: ...


async def queried_opaque(data: str, x: FromQuery[Opaque]) -> None: ...


async def queried_mapping(data: str, x: FromQuery[list[dict[str, int]]]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (listener(Opaque), r"'data': nothing reads Opaque: give type_decoders="),
        (listener(HoldsOpaque), r"'data': nothing reads Opaque \(field HoldsOpaque.inside\): give type_decoders="),
        (listener(str, Opaque), r"the reply: nothing writes Opaque: give type_encoders="),
        (
            listener(WithField),
            r"'data': only pydantic applies .*\(field WithField.x\), but WithField is",
        ),
        (listener(WithMeta), r"'data': .*\(field WithMeta.x\) belongs to msgspec, and pydantic ignores it"),
        (listener(Move | WithMeta), r"'data': .*pydantic ignores it"),
        (websocket_listener("/")(queried), r"'move' of queried \(.*Move.* cannot be read from text"),
        (websocket_listener("/")(queried_opaque), r"'x' of queried_opaque \(.*nothing reads Opaque"),
        (websocket_listener("/")(queried_mapping), r"'x' of queried_mapping \(.*cannot be read from text"),
    ],
)
def test_an_annotation_that_cannot_be_honoured_is_an_error_that_names_handler_and_type(handler: Any, says: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=says) as caught:
        Telex([handler])
    assert "test_annotations.py:" in caught.value.detail


def test_msgspec_and_pydantic_read_a_valid_mixture_together() -> None:
    class Model(pydantic.BaseModel):
        x: Annotated[int, pydantic.Field(gt=0)]

    mixed = msgspec.defstruct("Mixed", [("model", Model), ("short", Annotated[str, msgspec.Meta(max_length=3)])])
    assert [part.role for part in parts_of(mixed)] == ["msgspec", "pydantic", "msgspec constraint"]
    read = reader(mixed)
    assert read('{"model": {"x": 1}, "short": "abc"}').model == Model(x=1)
    for wrong in ('{"model": {"x": 0}, "short": "abc"}', '{"model": {"x": 1}, "short": "abcd"}'):
        with pytest.raises(msgspec.ValidationError):
            read(wrong)


# -- types that pydantic reads and msgspec does not


class Level(enum.Enum):
    LOW = 1
    HIGH = "high"


@dataclass
class Up:
    up: int


@dataclass
class Down:
    down: int


@dataclass
class Steps:
    steps: list[Up | Down | None]
    level: Level


class UpStruct(msgspec.Struct):
    level: Level


@dataclass
class Bounded:
    x: Annotated[int, msgspec.Meta(gt=0)]


@pytest.mark.parametrize(
    ("annotation", "sent", "wrong"),
    [
        (Level, "high", "low"),
        (Level, 1, 2),
        (dict[str, Level], {"a": 1}, {"a": 2}),
        (Up | Down, {"down": 1}, {"down": "x"}),
        (Steps, {"steps": [{"up": 1}, None, {"down": 2}], "level": "high"}, {"steps": [], "level": 0}),
    ],
)
async def test_enums_of_several_types_and_untagged_unions_are_read_with_pydantic(
    annotation: Any, sent: object, wrong: object, kind: ServerKind
) -> None:
    async def echo(data: Any) -> Any:
        return data

    echo.__annotations__ = {"data": annotation, "return": annotation}
    async with talking(Telex([websocket_listener("/")(echo)]), kind=kind) as client:
        assert await asked_json(client, sent) == sent
        assert "invalid_message" in str(await asked_json(client, wrong))


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (UpStruct, r"only pydantic reads Level \(field UpStruct.level\), but UpStruct is .* give its values one type"),
        (
            Up | Bounded,
            r"only pydantic reads .*Up \| .*Bounded, but msgspec.Meta.* give each member a tag",
        ),
        (Up | Move, "unions may not .*; give each member a tag"),
        (enum.Enum("Pairs", {"A": (1, 2)}), "Enums must contain either all str or all int values"),
    ],
)
def test_a_type_that_no_library_reads_is_an_error_that_names_the_way_out(annotation: Any, says: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=rf"listen \(.*:\d+\): 'data': .*{says}"):
        Telex([listener(annotation)])


def test_without_pydantic_the_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Any) -> Any:
        raise ImportError

    monkeypatch.setattr(pydantic_codecs, "adapter", missing)
    with pytest.raises(ImproperlyConfiguredException, match="pydantic is not installed: give each member a tag"):
        Telex([listener(Up | Down)])
    with pytest.raises(ImproperlyConfiguredException, match="pydantic is not installed: give its values one type"):
        Telex([listener(Level)])


def test_an_enum_of_several_types_is_no_parameter() -> None:
    async def listen(data: str, level: FromQuery[Level]) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"'level' of .*: Level cannot be read from text"):
        Telex([websocket_listener("/")(listen)])


# -- parameters


@pytest.mark.parametrize("route", ["/", "/{x:int}"])
@pytest.mark.parametrize(
    "annotation",
    [
        pydantic.PositiveInt,
        Annotated[int, annotated_types.Gt(0)],
        Annotated[int, pydantic.Field(gt=0)],
        Annotated[int, msgspec.Meta(gt=0)],
        new("Positive", Annotated[int, msgspec.Meta(gt=0)]),
        alias("Positive", pydantic.PositiveInt),
    ],
)
async def test_a_constraint_on_a_parameter_applies(annotation: Any, route: str) -> None:
    async def listen(data: str, x: Any) -> str:
        return repr(x)

    listen.__annotations__["x"] = annotation
    app = Telex([websocket_listener(route)(listen)])
    for value, status in ((5, None), (-5, 400)):
        path = f"/{value}" if "x" in route else f"/?x={value}"
        if status is None:
            async with talking(app, path) as client:
                assert await asked(client, "?") == str(value)
        else:
            async with asyncio.timeout(9):
                with pytest.raises(Exception, match=f"HTTP {status}"):
                    async with talking(app, path):
                        pass
