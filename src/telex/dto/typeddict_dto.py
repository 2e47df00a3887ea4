"""``TypedDictDTO``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NotRequired, Required, TypeVar

from telex.annotations import field_hints, is_typed_dict, model_class, split_annotated, without_qualifiers
from telex.dto.base import AbstractDTO
from telex.dto.config import mark_of
from telex.dto.fields import DTOFieldDefinition

__all__ = ("TypedDictDTO",)

T = TypeVar("T")


class TypedDictDTO(AbstractDTO[T]):
    """The DTO for ``TypedDict``. A key that is not required is absent if the client leaves it out."""

    native = True
    by_items = True

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        """Whether it is a TypedDict."""
        return is_typed_dict(model)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        """The keys, required ones and others."""
        required = model_class(model).__required_keys__
        for name, hint in field_hints(model).items():
            annotation, qualifiers = without_qualifiers(hint)
            # Under `from __future__ import annotations`, __required_keys__ ignores qualifiers.
            needed = Required in qualifiers or (name in required and NotRequired not in qualifiers)
            yield DTOFieldDefinition(
                name=name,
                annotation=annotation,
                optional=not needed,
                mark=mark_of(split_annotated(annotation)[1]),
            )

    @classmethod
    def constructor(cls, model: Any) -> Callable[..., Any]:
        """A dictionary."""
        return dict
