"""Fields with every name that an attribute may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import registry

from telex.dto import (
    AbstractDTO,
    DTOConfig,
    DTOData,
    DTOFieldDefinition,
    MsgspecDTO,
    PydanticDTO,
    SQLAlchemyDTO,
    TypedDictDTO,
)
from tests.dto.support import misconfigured, reader, writer

T = TypeVar("T")

NAMES = (
    *("class", "None", "async", "match", "type", "__debug__"),
    *("__init__x", "__call__", "_", "two__parts"),
    *("größe", "ﬁ", "µ", "\N{GREEK SMALL LETTER MU}", "名"),
    *("with space", "a-b", "9", "a'b", "brace{}"),
    *("self", "cls", "instance", "values", "model", "v", "w", "m", "e", "f0", "t_f0", "UNSET_0", "make_1", "getattr"),
)

IDENTIFIERS = [name for name in NAMES if name.isidentifier() and name != "__init__x"]
"""Names that a Struct may have: it mangles names that start, but do not end, with two underscores."""


class Free:
    """A model with any fields."""

    fields: tuple[str, ...] = NAMES

    def __init__(self, /, **values: Any) -> None:
        self.__dict__.update(values)


class FreeDTO(AbstractDTO[T]):
    late = False
    """Fields are set on the new instance."""

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        return issubclass(model, Free)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        for name in model.fields:
            yield DTOFieldDefinition(
                name=name, annotation=list[int] | None, optional=cls.late, needed=not cls.late, init=not cls.late
            )


class LateDTO(FreeDTO[T]):
    late = True


def _typed_dict(*, required: bool) -> Any:
    make: Any = TypedDict
    return make("Model", dict.fromkeys(NAMES, int if required else NotRequired[int]))


def _pydantic() -> Any:
    # pydantic keeps names with underscores for itself, and has methods of its own under others.
    kept = [name for name in NAMES if not name.startswith("_") and not hasattr(pydantic.BaseModel, name)]
    made: dict[str, Any] = dict.fromkeys(kept, (int, ...))
    return pydantic.create_model("Model", **made)


def _mapped() -> Any:
    class Mapped:
        pass

    # SQLAlchemy's constructor has a parameter that is named self.
    kept = [name for name in NAMES if name != "self"]
    columns = [
        sa.Column(f"c{i}", sa.Integer, key=name, primary_key=not i, autoincrement=False) for i, name in enumerate(kept)
    ]
    registry().map_imperatively(Mapped, sa.Table("mapped", sa.MetaData(), *columns))
    return Mapped


MODELS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "own": (FreeDTO, lambda: Free),
    "own, set later": (LateDTO, lambda: Free),
    "msgspec": (MsgspecDTO, lambda: msgspec.defstruct("Model", [(name, int) for name in IDENTIFIERS])),
    "msgspec, defaults": (
        MsgspecDTO,
        lambda: msgspec.defstruct("Model", [(name, int, 0) for name in IDENTIFIERS], omit_defaults=True),
    ),
    "typeddict": (TypedDictDTO, lambda: _typed_dict(required=True)),
    "typeddict, not required": (TypedDictDTO, lambda: _typed_dict(required=False)),
    "pydantic": (PydanticDTO, _pydantic),
    "sqlalchemy": (SQLAlchemyDTO, _mapped),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("strategy", [None, lambda name: f"<{name}>"], ids=["same", "renamed"])
def test_fields_of_any_name_are_read_and_written(kind: str, strategy: Any) -> None:
    make_dto, make_model = MODELS[kind]
    model = make_model()
    config = DTOConfig(underscore_fields_private=False, rename_strategy=strategy)
    dto = make_dto[Annotated[model, config]]
    names = [each.name for each in make_dto.generate_field_definitions(model)]
    assert len(names) > 25
    many = make_dto in (FreeDTO, LateDTO)
    sent = {strategy(name) if strategy else name: [i + 1] if many else i + 1 for i, name in enumerate(names)}
    instance = reader(dto)(sent)
    for name, value in zip(names, sent.values(), strict=True):
        assert (instance[name] if isinstance(instance, dict) else getattr(instance, name)) == value
    assert writer(dto)(instance) == sent


@pytest.mark.parametrize("kind", MODELS)
def test_create_instance_takes_values_for_fields_of_any_name(kind: str) -> None:
    make_dto, make_model = MODELS[kind]
    model: Any = make_model()
    names = [each.name for each in make_dto.generate_field_definitions(model)]
    dto = make_dto[Annotated[model, DTOConfig(include={names[0]}, max_nested_depth=None)]]
    data = reader(dto, DTOData[model])({names[0]: [0] if make_dto in (FreeDTO, LateDTO) else 0})
    instance = data.create_instance(**dict.fromkeys(names[1:], 7))
    data.update_instance(instance, **dict.fromkeys(names[1:], 8))
    for name in names[1:]:
        assert (instance[name] if isinstance(instance, dict) else getattr(instance, name)) == 8, name


def test_the_name_of_a_model_may_be_a_keyword() -> None:
    model = msgspec.defstruct("class", [("def", int)])
    dto = MsgspecDTO[Annotated[model, DTOConfig(rename_strategy="upper")]]  # type: ignore[valid-type]
    assert writer(dto)(reader(dto)({"DEF": 1})) == {"DEF": 1}


def test_a_name_that_json_must_escape_is_an_error_at_construction() -> None:
    make: Any = TypedDict
    model: Any = make("Model", {'a"b': int})
    text = misconfigured(lambda: writer(TypedDictDTO[model]))
    assert "no wire type can be created for Model" in text
