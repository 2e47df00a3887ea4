"""Configurations, and their errors when the app is built."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import attrs
import msgspec
import pytest

import telex.dto
from telex.dto import (
    AbstractDTO,
    AttrsDTO,
    DataclassDTO,
    DTOConfig,
    DTOData,
    DTOFieldDefinition,
    MsgspecDTO,
    PydanticDTO,
    TypedDictDTO,
    dto_field,
)
from telex.exceptions import SerializationException, ValidationException
from tests.dto.support import WHERE, misconfigured, reader, refused, writer

T = TypeVar("T")


@dataclass
class Thing:
    long_name_here: str = ""
    Mixed_case: int = 0
    plain: int = field(init=False, default=3)


# -- names


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        (None, {"long_name_here", "Mixed_case", "plain"}),
        ("lower", {"long_name_here", "mixed_case", "plain"}),
        ("upper", {"LONG_NAME_HERE", "MIXED_CASE", "PLAIN"}),
        ("camel", {"longNameHere", "MixedCase", "plain"}),
        ("pascal", {"LongNameHere", "MixedCase", "Plain"}),
        ("kebab", {"long-name-here", "Mixed-case", "plain"}),
        (lambda name: f"{name}!", {"long_name_here!", "Mixed_case!", "plain!"}),
    ],
)
def test_strategies(strategy: Any, names: set[str]) -> None:
    dto = DataclassDTO[Annotated[Thing, DTOConfig(rename_strategy=strategy)]]
    assert writer(dto)(Thing()).keys() == names
    assert reader(dto)({next(name for name in names if name[0] in "lL"): "new"}).long_name_here == "new"


def test_a_struct_keeps_its_own_names_and_options() -> None:
    class Short(
        msgspec.Struct, rename="camel", tag="short", tag_field="$", omit_defaults=True, forbid_unknown_fields=True
    ):
        some_name: str
        some_number: int = 5
        hidden: Annotated[int, dto_field("private")] = 0

    own = MsgspecDTO[Short]
    assert writer(own)(Short("a")) == {"$": "short", "someName": "a"}
    assert writer(own)(Short("a", 6)) == {"$": "short", "someName": "a", "someNumber": 6}
    assert "hidden" in refused(reader(own), {"$": "short", "someName": "a", "hidden": 1}).detail
    renamed = MsgspecDTO[Annotated[Short, DTOConfig(rename_strategy="upper", rename_fields={"some_number": "n"})]]
    assert writer(renamed)(Short("a", 6)) == {"$": "short", "SOME_NAME": "a", "n": 6}


def test_a_struct_as_an_array() -> None:
    class Row(msgspec.Struct, array_like=True):
        x: int
        hidden: Annotated[int, dto_field("private")] = 0
        y: int = 2

    assert writer(MsgspecDTO[Row])(Row(1)) == [1, 2]
    assert reader(MsgspecDTO[Row])([1, 7]) == Row(1, 0, 7)


def test_two_fields_with_the_same_wire_name_are_an_error() -> None:
    text = misconfigured(
        lambda: writer(DataclassDTO[Annotated[Thing, DTOConfig(rename_fields={"plain": "Mixed_case"})]])
    )
    assert "Thing.Mixed_case and Thing.plain have the same name on the wire, 'Mixed_case'" in text


def test_names_that_json_must_escape_are_an_error() -> None:
    text = misconfigured(lambda: writer(DataclassDTO[Annotated[Thing, DTOConfig(rename_fields={"plain": 'a"b'})]]))
    assert "no wire type can be created for Thing" in text


# -- subclasses


class ThingDTO(DataclassDTO[Thing]):
    config = DTOConfig(include={"plain"})


def test_a_configuration_as_an_attribute() -> None:
    assert writer(ThingDTO)(Thing()) == {"plain": 3}


def test_a_field_that_the_constructor_does_not_take_is_read_only() -> None:
    assert reader(DataclassDTO[Thing])({"plain": 9}).plain == 3


# -- what is wrong


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: DTOConfig(include={"a"}, exclude={"b"}), "include and exclude are both given"),
    (lambda: DTOConfig(exclude="id"), "write exclude={'id'}"),
    (lambda: DTOConfig(rename_strategy="snake"), "one of 'lower', 'upper', 'camel', 'pascal', 'kebab', or a function"),  # type: ignore[arg-type]
    (lambda: DTOConfig(max_nested_depth=-1), "0 or more, or None"),
    (lambda: dto_field("hidden"), "'read-only', 'write-only', 'private'"),  # type: ignore[arg-type]
    (lambda: DataclassDTO[int], "int is not a model of the kind that DataclassDTO is for"),
    (lambda: MsgspecDTO[Thing], "Thing is not a model of the kind that MsgspecDTO is for"),
    (lambda: TypedDictDTO[Thing], "Thing is not a model of the kind"),
    (lambda: PydanticDTO[Thing], "Thing is not a model of the kind"),
    (lambda: AttrsDTO[Thing], "Thing is not a model of the kind"),
    (lambda: DataclassDTO[DTOData[Thing]], "give the model itself"),
    (lambda: reader(DataclassDTO, Thing), "write DataclassDTO[Model]"),
    (lambda: type("Wrong", (DataclassDTO,), {"config": {"include": ()}}), "write DTOConfig(...)"),
    (lambda: reader(DataclassDTO[Thing], list[int]), "data is annotated list[int]"),
    (lambda: writer(DataclassDTO[Thing], int), "set return_dto=None here"),
    (lambda: writer(DataclassDTO[Thing], DTOData[Thing]), "is for messages that are received"),
    (lambda: reader(DataclassDTO[Thing], DTOData[list[Thing]]), "write list[DTOData[...]]"),
    (
        lambda: writer(DataclassDTO[Annotated[Thing, DTOConfig(include={"plan"})]]),
        "include names 'plan', but Thing has no such field; did you mean 'plain'?",
    ),
    (
        lambda: writer(DataclassDTO[Annotated[Thing, DTOConfig(rename_fields={"zzz": "y"})]]),
        "rename_fields names 'zzz', but Thing has no such field; its fields are long_name_here, Mixed_case, plain",
    ),
    (
        lambda: writer(DataclassDTO[Annotated[Thing, DTOConfig(exclude={"plain.x"})]]),
        "exclude continues with 'x' after plain, which is <class 'int'>",
    ),
]


@pytest.mark.parametrize(("build", "text"), WRONG, ids=[text for _, text in WRONG])
def test_an_invalid_configuration_is_an_error_at_construction(build: Callable[[], object], text: str) -> None:
    assert text in misconfigured(build)


def test_the_error_for_an_unreadable_type_names_model_and_handler() -> None:
    @dataclass
    class Odd:
        both: list[int] | tuple[str, ...]

    text = misconfigured(lambda: reader(DataclassDTO[Annotated[Odd, DTOConfig(rename_strategy="upper")]]))
    assert WHERE in text
    assert "DataclassDTO[Odd] cannot read" in text


def test_writing_a_value_of_another_type_is_an_error() -> None:
    with pytest.raises(SerializationException, match=r"DataclassDTO\[Thing\].*Thing.*cannot be written from a dict"):
        writer(DataclassDTO[Thing])({"plain": 1})


def test_an_exception_of_a_models_constructor_is_a_validation_error() -> None:
    @dataclass
    class Even:
        number: int

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError(f"{self.number} is odd")

    dto = DataclassDTO[Annotated[Even, DTOConfig(rename_strategy="upper")]]
    error = refused(reader(dto, dict[str, list[Even]]), {"a": [{"NUMBER": 2}], "b": [{"NUMBER": 2}, {"NUMBER": 3}]})
    assert (error.detail, error.path) == ("3 is odd", "$.b[1]")
    data = reader(DataclassDTO[Annotated[Even, DTOConfig(exclude={"number"})]], DTOData[Even])({})
    with pytest.raises(ValidationException, match="5 is odd"):
        data.create_instance(number=5)
    with pytest.raises(TypeError, match="number"):
        data.create_instance()


def test_the_error_of_an_attrs_validator_names_its_field() -> None:
    @attrs.define
    class Checked:
        size_of_it: int = attrs.field(validator=attrs.validators.ge(3))
        text: object = attrs.field(default="", validator=attrs.validators.instance_of(str))
        twice: int = attrs.field(default=attrs.Factory(lambda self: 2 * self.size_of_it, takes_self=True))

    dto = AttrsDTO[Annotated[Checked, DTOConfig(rename_strategy="camel")]]
    assert reader(dto)({"sizeOfIt": 4}) == Checked(4, "", 8)
    error = refused(reader(dto, list[Checked]), [{"sizeOfIt": 4, "text": 5}])
    assert error.path == "$[0].text"
    assert "must be <class 'str'>" in error.detail
    assert "must be >= 3" in refused(reader(dto), {"sizeOfIt": 1}).detail


# -- one's own


class Record:
    """A kind of model that no built-in DTO supports."""

    fields: dict[str, type] = {"first_id": int, "title": str}  # noqa: RUF012 - a kind of model as users write them

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class RecordDTO(AbstractDTO[T]):
    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        return issubclass(model, Record)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        for name, kind in model.fields.items():
            yield DTOFieldDefinition(name=name, annotation=kind)


def test_a_dto_for_another_kind_of_model() -> None:
    dto = RecordDTO[Annotated[Record, DTOConfig(rename_strategy="camel")]]
    record = reader(dto)({"firstId": 1, "title": "a"})
    assert (record.first_id, record.title) == (1, "a")
    assert writer(dto, list[Record])([record]) == [{"firstId": 1, "title": "a"}]
    assert refused(reader(dto), {"firstId": "1", "title": "a"}).path == "$.firstId"
    assert misconfigured(lambda: RecordDTO[Thing])


def test_a_dto_without_the_required_methods_is_an_error() -> None:
    class Silent(AbstractDTO[T]):
        pass

    with pytest.raises(NotImplementedError, match=r"Silent\.detect_nested_field"):
        Silent[Thing]


# -- imports


@pytest.mark.program
def test_only_libraries_in_use_are_imported() -> None:
    code = (
        "import sys, telex, telex.dto\n"
        "from telex.dto import DataclassDTO, DTOConfig\n"
        "print([name for name in ('pydantic', 'attrs', 'sqlalchemy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.program
@pytest.mark.parametrize(
    ("name", "library"), [("PydanticDTO", "pydantic"), ("AttrsDTO", "attrs"), ("SQLAlchemyDTO", "sqlalchemy")]
)
def test_the_error_for_a_missing_library_names_it(name: str, library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None\nfrom telex.dto import {name}"
    if library == "attrs":
        code = f"import sys; sys.modules['attr'] = None; {code}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("telex.exceptions.MissingDependencyException")
    assert last.endswith(f"{library!r} is not installed: pip install 'telex[{library}]'")


def test_every_public_name_is_importable() -> None:
    assert dir(telex.dto) == sorted(telex.dto.__all__)
    for name in telex.dto.__all__:
        assert getattr(telex.dto, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'NoDTO'"):
        telex.dto.NoDTO  # noqa: B018
