"""``AttrsDTO``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from telex.annotations import field_hints, model_class, split_annotated, without_qualifiers
from telex.datastructures import Empty
from telex.dto.base import AbstractDTO
from telex.dto.config import Mark, mark_of
from telex.dto.fields import DTOFieldDefinition
from telex.exceptions import MissingDependencyException

try:
    import attr
    import attrs
except ImportError as _missing:
    raise MissingDependencyException("attrs") from _missing

__all__ = ("AttrsDTO",)

T = TypeVar("T")


class AttrsDTO(AbstractDTO[T]):
    """The DTO for attrs classes. It calls the constructor, so converters and validators run.

    A field with ``init=False`` is read-only.
    """

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        """Whether it is an attrs class."""
        return attrs.has(model)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        """The fields, those of base classes first."""
        hints = field_hints(model)
        for field in attrs.fields(model_class(model)):
            annotation, _ = without_qualifiers(hints.get(field.name, field.type or Any))
            factory = field.default if isinstance(field.default, attr.Factory) else None  # type: ignore[arg-type]
            of_instance = factory is not None and factory.takes_self
            mark = mark_of((field.metadata, *split_annotated(annotation)[1]))
            yield DTOFieldDefinition(
                name=field.name,
                annotation=annotation,
                default=Empty if factory is not None or field.default is attrs.NOTHING else field.default,
                default_factory=None if factory is None or of_instance else factory.factory,
                optional=of_instance,
                mark=mark or (None if field.init else Mark.READ_ONLY),
                needed=field.init,
                init=field.init,
                init_name=field.alias,
            )

    @classmethod
    def explain(cls, exc: Exception) -> tuple[str, Sequence[str | int]]:
        """A validator's message, and the field if the validator names one."""
        message = str(exc.args[0]) if exc.args else str(exc)
        return message, [each.name for each in exc.args[1:2] if isinstance(each, attrs.Attribute)]
