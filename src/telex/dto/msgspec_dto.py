"""``MsgspecDTO``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from telex.annotations import field_hints, model_class, split_annotated, without_qualifiers
from telex.datastructures import Empty
from telex.dto.base import AbstractDTO
from telex.dto.config import mark_of
from telex.dto.fields import DTOFieldDefinition

__all__ = ("MsgspecDTO",)

T = TypeVar("T")


class MsgspecDTO(AbstractDTO[T]):
    """The DTO for ``msgspec.Struct``. It applies the Struct's tag, ``rename``, ``omit_defaults``, ``array_like`` and
    ``forbid_unknown_fields``.

    A name in the DTO's configuration overrides the Struct's ``rename``.
    """

    native = True

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        """Whether it is a Struct."""
        return issubclass(model, msgspec.Struct)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        """The fields, in their order on the wire."""
        hints = field_hints(model)
        for field in msgspec.structs.fields(model_class(model)):
            annotation, _ = without_qualifiers(hints[field.name])
            factory = field.default_factory
            yield DTOFieldDefinition(
                name=field.name,
                annotation=annotation,
                default=Empty if field.default is msgspec.NODEFAULT else field.default,
                default_factory=None if factory is msgspec.NODEFAULT else factory,
                mark=mark_of(split_annotated(annotation)[1]),
                alias=field.encode_name,
            )

    @classmethod
    def wire_options(cls, model: Any) -> Mapping[str, Any]:
        """The Struct's options that affect messages."""
        config = model.__struct_config__
        return {
            "tag": config.tag,
            "tag_field": config.tag_field,
            "array_like": config.array_like,
            "omit_defaults": config.omit_defaults,
            "forbid_unknown_fields": config.forbid_unknown_fields,
        }
