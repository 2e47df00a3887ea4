"""The same model in every kind that needs no database."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import attrs
import msgspec
import pydantic

from telex.dto import AttrsDTO, DataclassDTO, MsgspecDTO, PydanticDTO, TypedDictDTO, dto_field


@dataclass
class DataclassStreet:
    street_name: str
    number: int = 1


@dataclass
class DataclassPerson:
    full_name: str
    home: DataclassStreet
    seen: int = dataclasses.field(default=7, metadata=dto_field("read-only"))
    password: Annotated[str, dto_field("write-only")] = "pw"
    secret: Annotated[str, dto_field("private")] = "secret"
    others: list[DataclassStreet] = dataclasses.field(default_factory=list)
    _inner: int = 5


class StructStreet(msgspec.Struct):
    street_name: str
    number: int = 1


class StructPerson(msgspec.Struct):
    full_name: str
    home: StructStreet
    seen: Annotated[int, msgspec.Meta(extra=dto_field("read-only"))] = 7
    password: Annotated[str, dto_field("write-only")] = "pw"
    secret: Annotated[str, dto_field("private")] = "secret"
    others: list[StructStreet] = []
    _inner: int = 5


class DictStreet(TypedDict):
    street_name: str
    number: NotRequired[int]


class DictPerson(TypedDict):
    full_name: str
    home: DictStreet
    seen: NotRequired[Annotated[int, dto_field("read-only")]]
    password: NotRequired[Annotated[str, dto_field("write-only")]]
    secret: NotRequired[Annotated[str, dto_field("private")]]
    others: NotRequired[list[DictStreet]]
    _inner: NotRequired[int]


class PydanticStreet(pydantic.BaseModel):
    street_name: str
    number: int = 1


class PydanticPerson(pydantic.BaseModel):
    full_name: str
    home: PydanticStreet
    seen: Annotated[int, dto_field("read-only")] = 7
    password: Annotated[str, dto_field("write-only")] = "pw"
    secret: Annotated[str, dto_field("private")] = "secret"
    others: list[PydanticStreet] = []
    _inner: int = 5


@attrs.define
class AttrsStreet:
    street_name: str
    number: int = 1


@attrs.define
class AttrsPerson:
    full_name: str
    home: AttrsStreet
    seen: int = attrs.field(default=7, metadata=dto_field("read-only"))
    password: Annotated[str, dto_field("write-only")] = "pw"
    secret: Annotated[str, dto_field("private")] = "secret"
    others: list[AttrsStreet] = attrs.Factory(list)
    _inner: int = 5


class Kind(NamedTuple):
    """A DTO and its models."""

    dto: Any
    person: Any
    street: Any

    def get(self, instance: Any, name: str) -> Any:
        """The value of a field; ``None`` if it is absent."""
        return instance.get(name) if isinstance(instance, dict) else getattr(instance, name)


KINDS = {
    "dataclass": Kind(DataclassDTO, DataclassPerson, DataclassStreet),
    "msgspec": Kind(MsgspecDTO, StructPerson, StructStreet),
    "typeddict": Kind(TypedDictDTO, DictPerson, DictStreet),
    "pydantic": Kind(PydanticDTO, PydanticPerson, PydanticStreet),
    "attrs": Kind(AttrsDTO, AttrsPerson, AttrsStreet),
}
