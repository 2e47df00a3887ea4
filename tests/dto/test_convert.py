"""What ``msgspec.convert`` cannot do, which is why DTOs generate code (docs/architecture.md).

A test that fails here with a newer msgspec says that a reason has gone.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Wire = msgspec.defstruct("Wire", [("a", int)], rename="upper")
MaybeWire = msgspec.defstruct("MaybeWire", [("a", int | msgspec.UnsetType, msgspec.UNSET)])


class Keys(TypedDict):
    a: int


class Model(pydantic.BaseModel):
    a: int


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "row"

    a: Mapped[int] = mapped_column(primary_key=True)


@dataclass
class OwnInit:
    a: int

    def __init__(self, a: int) -> None:
        self.a = 2 * a


def _twice(value: int) -> int:
    return 2 * value


@attrs.define
class Converted:
    a: int = attrs.field(converter=_twice)


@dataclass
class Unset:
    a: int = field(init=False, default=3)


@dataclass
class Defaulted:
    a: int = 5


@dataclass
class Initialised:
    a: int
    b: InitVar[int] = 3


@dataclass
class Cat:
    kind: Literal["cat"]


@dataclass
class Dog:
    kind: Literal["dog"]


def convert(value: Any, target: Any) -> Any:
    return msgspec.convert(value, target, from_attributes=True)


@pytest.mark.parametrize("target", [Keys, Model, Row])
def test_convert_does_not_create_such_models_from_objects(target: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        convert(Wire(1), target)


@pytest.mark.parametrize("target", [OwnInit, Converted])
def test_convert_does_not_call_constructors(target: Any) -> None:
    assert convert(Wire(1), target).a == 1
    assert target(1).a == 2


def test_convert_sets_fields_that_the_constructor_does_not_take() -> None:
    assert convert(Wire(1), Unset).a == 1


def test_convert_does_not_use_the_default_for_an_unset_field() -> None:
    with pytest.raises(msgspec.ValidationError, match="UnsetType"):
        convert(MaybeWire(), Defaulted)


@pytest.mark.parametrize("target", [Initialised, Cat | Dog])
def test_convert_refuses_such_types(target: Any) -> None:
    with pytest.raises(TypeError, match="not supported"):
        convert({"kind": "cat", "a": 1}, target)


def test_the_error_path_of_convert_has_the_models_names() -> None:
    @dataclass
    class Refusing:
        a: int

        def __post_init__(self) -> None:
            raise ValueError("no")

    inner = msgspec.defstruct("Holder", [("held", dict[str, Wire])], rename="upper")  # type: ignore[valid-type]
    target = msgspec.defstruct("Target", [("held", dict[str, Refusing])])
    with pytest.raises(msgspec.ValidationError, match=r"no - at `\$\.held\[\.\.\.\]`"):
        convert(inner({"x": Wire(1)}), target)
