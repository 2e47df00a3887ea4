"""Generic, recursive, inherited and forward-referencing models; collections, optionals and unions of models."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NewType, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from telex.dto import DataclassDTO, DTOConfig, DTOData, MsgspecDTO, PydanticDTO, TypedDictDTO, dto_field
from tests.dto.support import misconfigured, reader, refused, writer

T = TypeVar("T")
K = TypeVar("K")
EVERY = DTOConfig(rename_strategy="upper", max_nested_depth=None)


@dataclass
class Box(Generic[T]):
    content: T
    more_content: list[T] = field(default_factory=list)


@dataclass
class Pair(Box[K], Generic[K, T]):
    other: T | None = None


@dataclass
class Numbers(Pair[int, str]):
    secret: Annotated[int, dto_field("private")] = 0


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


class Link(msgspec.Struct, Generic[T]):
    value: T
    next_link: Link[T] | None = None
    hidden: Annotated[int, dto_field("private")] = 0


@dataclass
class Folder:
    title: str
    owner: Person | None = None
    inner: list[Folder] = field(default_factory=list)


@dataclass
class Person:
    name: str
    home: Folder | None = None
    secret: Annotated[str, dto_field("private")] = ""


def round_trip(dto: Any, annotation: Any, wire: Any) -> Any:
    """The value that is read from ``wire``, after a check that writing it gives ``wire`` again."""
    value = reader(dto, annotation)(wire)
    assert writer(dto, annotation)(value) == wire
    return value


# -- generic and inherited


def test_a_generic_model_with_arguments() -> None:
    dto = DataclassDTO[Annotated[Box[Point], EVERY]]
    box = round_trip(dto, Box[Point], {"CONTENT": {"X": 1, "Y": 2}, "MORE_CONTENT": [{"X": 3, "Y": 4}]})
    assert box == Box(Point(1, 2), [Point(3, 4)])
    assert refused(reader(dto), {"CONTENT": {"X": "1"}}).path == "$.CONTENT.X"


def test_type_arguments_apply_to_inherited_fields() -> None:
    dto = DataclassDTO[Annotated[Numbers, EVERY]]
    numbers = round_trip(dto, Numbers, {"CONTENT": 1, "MORE_CONTENT": [2], "OTHER": "three"})
    assert numbers == Numbers(1, [2], "three")
    assert refused(reader(dto), {"CONTENT": "one"}).path == "$.CONTENT"
    assert refused(reader(dto), {"CONTENT": 1, "OTHER": 3}).path == "$.OTHER"


def test_a_generic_model_without_arguments_accepts_any_value() -> None:
    dto = DataclassDTO[Annotated[Box, EVERY]]  # type: ignore[type-arg]
    assert reader(dto)({"CONTENT": {"any": 1}}) == Box({"any": 1})
    assert reader(dto, Box[int])({"CONTENT": 1}) == Box(1)


def test_a_subclass_is_transferred_with_its_own_fields() -> None:
    @dataclass
    class Employee(Person):
        salary: Annotated[int, dto_field("private")] = 5
        desk: int = 7

    dto = DataclassDTO[Person]
    assert reader(dto, Employee)({"name": "Ada", "desk": 8, "salary": 9}) == Employee("Ada", salary=5, desk=8)
    assert writer(dto)(Employee("Ada")) == {"name": "Ada", "home": None}


# -- recursive and forward


def test_a_recursive_model_of_any_depth() -> None:
    dto = MsgspecDTO[Annotated[Link[Point], EVERY]]
    wire: Any = {"VALUE": {"X": 3, "Y": 0}, "NEXT_LINK": None}
    for number in range(2, -1, -1):
        wire = {"VALUE": {"X": number, "Y": 0}, "NEXT_LINK": wire}
    link = round_trip(dto, Link[Point], wire)
    assert link.next_link.next_link.next_link.value == Point(3)
    wire["NEXT_LINK"]["NEXT_LINK"]["VALUE"]["Y"] = "no"
    assert refused(reader(dto), wire).path == "$.NEXT_LINK.NEXT_LINK.VALUE.Y"


def test_models_that_refer_to_each_other() -> None:
    dto = DataclassDTO[Annotated[Folder, EVERY]]
    inner: Any = {"TITLE": "in", "OWNER": None, "INNER": []}
    wire: Any = {"TITLE": "out", "OWNER": {"NAME": "Ada", "HOME": inner}, "INNER": [inner, inner]}
    folder = round_trip(dto, Folder, wire)
    assert folder.owner == Person("Ada", Folder("in"))
    wire["OWNER"]["HOME"]["TITLE"] = 5
    assert refused(reader(dto), wire).path == "$.OWNER.HOME.TITLE"


def test_max_nested_depth_is_one_by_default() -> None:
    folder = Folder("out", Person("Ada", Folder("home")), [Folder("in", Person("Eve"))])
    assert writer(DataclassDTO[Folder])(folder) == {
        "title": "out",
        "owner": {"name": "Ada"},
        "inner": [{"title": "in"}],
    }
    assert writer(DataclassDTO[Annotated[Folder, DTOConfig(max_nested_depth=0)]])(folder) == {"title": "out"}
    two = writer(DataclassDTO[Annotated[Folder, DTOConfig(max_nested_depth=2)]])(folder)
    assert two["owner"] == {"name": "Ada", "home": {"title": "home"}}


def test_a_required_field_below_the_depth_is_an_error_at_construction() -> None:
    @dataclass
    class Outer:
        middle: Box[Point]

    text = misconfigured(lambda: reader(DataclassDTO[Outer]))
    assert "Box requires 'content'" in text
    assert "max_nested_depth=1" in text


def test_an_undefined_name_in_an_annotation_is_an_error_at_construction() -> None:
    @dataclass
    class Lost:
        other: Nowhere  # type: ignore[name-defined]  # noqa: F821

    text = misconfigured(lambda: reader(DataclassDTO[Lost]))
    assert "Nowhere" in text
    assert "Lost" in text


# -- collections


@pytest.mark.parametrize(
    ("annotation", "wire", "value"),
    [
        (list[Point], [{"X": 1, "Y": 2}], [Point(1, 2)]),
        (Sequence[Point], [{"X": 1, "Y": 2}], [Point(1, 2)]),
        (set[Point], [{"X": 1, "Y": 2}], {Point(1, 2)}),
        (frozenset[Point], [{"X": 1, "Y": 2}], frozenset({Point(1, 2)})),
        (tuple[Point, ...], [{"X": 1, "Y": 2}], (Point(1, 2),)),
        (tuple[str, Point], ["a", {"X": 1, "Y": 2}], ("a", Point(1, 2))),
        (collections.deque[Point], [{"X": 1, "Y": 2}], collections.deque([Point(1, 2)])),
        (dict[str, Point], {"a": {"X": 1, "Y": 2}}, {"a": Point(1, 2)}),
        (Mapping[int, list[Point | None]], {"1": [None, {"X": 1, "Y": 2}]}, {1: [None, Point(1, 2)]}),
        (list[list[Point]], [[], [{"X": 1, "Y": 2}]], [[], [Point(1, 2)]]),
        (Point | None, None, None),
        (Annotated[list[Point], msgspec.Meta(min_length=1)], [{"X": 1, "Y": 2}], [Point(1, 2)]),
    ],
)
def test_collections(annotation: Any, wire: Any, value: Any) -> None:
    dto = DataclassDTO[Annotated[Point, EVERY]]
    assert round_trip(dto, annotation, wire) == value
    holder: Any = dataclass(type("Holder", (), {"__annotations__": {"held": annotation}, "__module__": __name__}))
    assert round_trip(DataclassDTO[Annotated[holder, EVERY]], holder, {"HELD": wire}).held == value


def test_constraints_of_collections_and_new_types_apply() -> None:
    ids = NewType("ids", Annotated[int, msgspec.Meta(ge=1)])
    holder: Any = dataclass(
        type("Holder", (), {"__annotations__": {"few": Annotated[list[Point], msgspec.Meta(max_length=1)], "id": ids}})
    )
    read = reader(DataclassDTO[Annotated[holder, EVERY]])
    assert refused(read, {"FEW": [{"X": 1}, {"X": 1}], "ID": 1}).path == "$.FEW"
    assert refused(read, {"FEW": [], "ID": 0}).path == "$.ID"


def test_an_unsupported_collection_is_an_error_at_construction() -> None:
    holder: Any = dataclass(type("Holder", (), {"__annotations__": {"held": collections.ChainMap[str, Point]}}))
    text = misconfigured(lambda: reader(DataclassDTO[holder]))
    assert "held" in text
    assert "use list, tuple, set, dict or a union" in text


# -- unions


class Move(msgspec.Struct, tag="move"):
    to_x: int
    secret: Annotated[int, dto_field("private")] = 0


class Say(msgspec.Struct, tag="say"):
    some_text: str


@dataclass
class Cat:
    kind: Literal["cat"]
    lives_left: int
    secret: Annotated[int, dto_field("private")] = 0


@dataclass
class Dog:
    barks_at: str
    kind: Literal["dog"] = "dog"


class Bird(TypedDict):
    kind: Literal["bird"]
    can_fly: bool


class Fish(TypedDict):
    kind: Literal["fish"]
    in_sea: NotRequired[bool]


class Ant(pydantic.BaseModel):
    kind: Literal["ant"] = "ant"
    six_legs: int = pydantic.Field(le=6)


class Bee(pydantic.BaseModel):
    kind: Literal["bee"] = "bee"
    buzz_level: int


@pytest.mark.parametrize(
    ("dto", "annotation", "wire", "value"),
    [
        (MsgspecDTO[Annotated[Move | Say, EVERY]], Move | Say, {"type": "move", "TO_X": 1}, Move(1)),
        (MsgspecDTO[Annotated[Move | Say, EVERY]], Move | Say | None, {"type": "say", "SOME_TEXT": "a"}, Say("a")),
        (MsgspecDTO[Annotated[Move, EVERY]], Move | Say, {"type": "move", "TO_X": 1}, Move(1)),
        (MsgspecDTO[Annotated[Move, EVERY]], Move | Say, {"type": "say", "some_text": "a"}, Say("a")),
        (DataclassDTO[Annotated[Cat | Dog, EVERY]], Cat | Dog, {"KIND": "cat", "LIVES_LEFT": 9}, Cat("cat", 9)),
        (DataclassDTO[Annotated[Cat | Dog, EVERY]], list[Cat | Dog], [{"KIND": "dog", "BARKS_AT": "c"}], [Dog("c")]),
        (DataclassDTO[Annotated[Cat, EVERY]], Cat | int | list[str], ["a"], ["a"]),
        (DataclassDTO[Annotated[Cat, EVERY]], Cat | int, {"KIND": "cat", "LIVES_LEFT": 9}, Cat("cat", 9)),
        (DataclassDTO[Annotated[Point, EVERY]], Point | list[Point], [{"X": 1, "Y": 2}], [Point(1, 2)]),
        (DataclassDTO[Annotated[Point, EVERY]], Point | list[Point], {"X": 1, "Y": 2}, Point(1, 2)),
        (
            TypedDictDTO[Annotated[Bird | Fish, EVERY]],
            Bird | Fish,
            {"KIND": "bird", "CAN_FLY": True},
            {"kind": "bird", "can_fly": True},
        ),
        (TypedDictDTO[Annotated[Bird | Fish, EVERY]], Bird | Fish, {"KIND": "fish"}, {"kind": "fish"}),
        (PydanticDTO[Annotated[Ant | Bee, EVERY]], Ant | Bee, {"KIND": "bee", "BUZZ_LEVEL": 1}, Bee(buzz_level=1)),
    ],
)
def test_unions(dto: Any, annotation: Any, wire: Any, value: Any) -> None:
    assert round_trip(dto, annotation, wire) == value


def test_private_fields_of_a_union_are_not_transferred() -> None:
    structs = MsgspecDTO[Move | Say]
    assert reader(structs, Move | Say)({"type": "move", "to_x": 1, "secret": 9}) == Move(1, 0)
    assert writer(structs, Move | Say)(Move(1, 9)) == {"type": "move", "to_x": 1}
    pets = DataclassDTO[Cat | Dog]
    assert reader(pets, Cat | Dog)({"kind": "cat", "lives_left": 1, "secret": 9}) == Cat("cat", 1)
    assert writer(pets, Cat | Dog | None)(Cat("cat", 1, 9)) == {"kind": "cat", "lives_left": 1}


def test_an_error_in_a_union_has_its_path() -> None:
    holder: Any = dataclass(type("Zoo", (), {"__annotations__": {"pets": list[Cat | Dog], "ants": list[Ant | Bee]}}))
    read = reader(DataclassDTO[Annotated[holder, EVERY]])
    cat = {"KIND": "cat", "LIVES_LEFT": "many"}
    assert refused(read, {"PETS": [{"KIND": "dog", "BARKS_AT": "c"}, cat], "ANTS": []}).path == "$.PETS[1].LIVES_LEFT"
    assert refused(read, {"PETS": [{"KIND": "emu"}], "ANTS": []}).path == "$.PETS[0].KIND"
    ants = [{"KIND": "ant", "SIX_LEGS": 6}, {"KIND": "ant", "SIX_LEGS": 7}]
    assert refused(read, {"PETS": [], "ANTS": ants}).path == "$.ANTS[1].SIX_LEGS"


def test_paths_select_fields_of_the_members_of_a_union() -> None:
    holder: Any = dataclass(type("Zoo", (), {"__annotations__": {"pet": Cat | Dog}}))
    dto = DataclassDTO[Annotated[holder, DTOConfig(exclude={"pet.0.lives_left"})]]
    assert writer(dto)(holder(Cat("cat", 9))) == {"pet": {"kind": "cat"}}
    assert writer(dto)(holder(Dog("c"))) == {"pet": {"kind": "dog", "barks_at": "c"}}


def test_a_union_of_models_without_a_distinguishing_field_is_an_error_at_construction() -> None:
    text = misconfigured(lambda: reader(DataclassDTO[Point | Person], Point | Person))
    assert "a message cannot show which of Point, Person it is" in text
    assert "Literal" in text


def test_a_path_must_exist_in_at_least_one_model_of_a_union() -> None:
    dto = DataclassDTO[Annotated[Cat | Dog, DTOConfig(exclude={"lives_left"})]]
    assert writer(dto, Cat | Dog)(Cat("cat", 9)) == {"kind": "cat"}
    wrong = DataclassDTO[Annotated[Cat | Dog, DTOConfig(exclude={"lives"})]]
    assert "but Cat, Dog has no such field" in misconfigured(lambda: writer(wrong, Cat | Dog))


# -- models of several kinds


def test_nested_models_of_another_kind_are_transferred() -> None:
    @dataclass
    class Mixed:
        struct: Link[int]
        ant: Ant
        bird: Bird

    dto = DataclassDTO[Annotated[Mixed, DTOConfig(rename_strategy="camel", exclude={"struct.next_link"})]]
    wire = {"struct": {"value": 1}, "ant": {"kind": "ant", "sixLegs": 6}, "bird": {"kind": "bird", "canFly": True}}
    mixed = reader(dto)({**wire, "struct": {"value": 1, "hidden": 7}})
    assert mixed == Mixed(Link(1), Ant(six_legs=6), {"kind": "bird", "can_fly": True})
    mixed.struct.hidden = 7
    assert writer(dto)(mixed) == wire
    assert refused(reader(dto), {**wire, "ant": {"sixLegs": 8}}).path == "$.ant.sixLegs"


def test_dto_data_in_a_collection() -> None:
    dto = DataclassDTO[Annotated[Point, DTOConfig(exclude={"x"})]]
    several = reader(dto, list[DTOData[Point]])([{"y": 1}, {}])
    assert [each.create_instance(x=5) for each in several] == [Point(5, 1), Point(5, 0)]
