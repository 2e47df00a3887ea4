"""``DataclassDTO``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from telex.annotations import field_hints, model_class, split_annotated, without_qualifiers
from telex.datastructures import Empty
from telex.dto.base import AbstractDTO
from telex.dto.config import Mark, mark_of
from telex.dto.fields import DTOFieldDefinition

__all__ = ("DataclassDTO",)

T = TypeVar("T")


class DataclassDTO(AbstractDTO[T]):
    """The DTO for dataclasses. It calls the constructor, so ``__post_init__`` runs.

    A field with ``init=False`` is read-only.
    """

    native = True

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        """Whether it is a dataclass."""
        return dataclasses.is_dataclass(model)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        """The fields, those of base classes first."""
        hints = field_hints(model)
        for field in dataclasses.fields(model_class(model)):
            annotation, _ = without_qualifiers(hints[field.name])
            mark = mark_of((field.metadata, *split_annotated(annotation)[1]))
            yield DTOFieldDefinition(
                name=field.name,
                annotation=annotation,
                default=Empty if field.default is dataclasses.MISSING else field.default,
                default_factory=None if field.default_factory is dataclasses.MISSING else field.default_factory,
                mark=mark or (None if field.init else Mark.READ_ONLY),
                needed=field.init,
                init=field.init,
            )
