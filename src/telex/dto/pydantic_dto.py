"""``PydanticDTO``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from telex.dto.base import AbstractDTO
from telex.dto.config import Mark, mark_of
from telex.dto.fields import DTOFieldDefinition
from telex.exceptions import MissingDependencyException

try:
    import pydantic
    import pydantic_core
    from pydantic.fields import FieldInfo
except ImportError as _missing:
    raise MissingDependencyException("pydantic") from _missing

__all__ = ("PydanticDTO",)

T = TypeVar("T")


class PydanticDTO(AbstractDTO[T]):
    """The DTO for pydantic models. pydantic validates and serializes; the DTO selects and names the fields.

    Aliases are the names on the wire unless the configuration renames a field. ``exclude=True`` makes a field
    write-only, and a ``computed_field`` is read-only. ``RootModel`` has no fields and needs no DTO.
    """

    plain = True

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        """Whether it is a model with fields."""
        return issubclass(model, pydantic.BaseModel) and not issubclass(model, pydantic.RootModel)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        """The fields, then the computed ones."""
        if not model.__pydantic_complete__:
            model.model_rebuild()
        for name, field in model.model_fields.items():
            notes = (*field.metadata, field.json_schema_extra)
            yield DTOFieldDefinition(
                name=name,
                annotation=field.annotation,
                optional=not field.is_required(),
                mark=mark_of(notes) or (Mark.WRITE_ONLY if field.exclude else None),
                alias=_alias_in(field),
                alias_out=field.serialization_alias or field.alias or name,
            )
        for name, computed in model.model_computed_fields.items():
            yield DTOFieldDefinition(
                name=name,
                annotation=computed.return_type,
                optional=True,
                mark=mark_of((computed.json_schema_extra,)) or Mark.READ_ONLY,
                alias=computed.alias,
            )

    @classmethod
    def from_plain(cls, model: Any) -> Callable[[dict[str, Any]], Any]:
        """Validates in pydantic's JSON mode, so that strict models accept JSON values."""
        validate, to_json = model.model_validate_json, pydantic_core.to_json

        def make(values: dict[str, Any]) -> Any:
            return validate(to_json(values), by_alias=False, by_name=True)

        return make

    @classmethod
    def to_plain(cls, model: Any) -> Callable[[Any], dict[str, Any]]:
        """Serializes as pydantic does for JSON."""

        def take_apart(instance: pydantic.BaseModel) -> dict[str, Any]:
            return instance.model_dump(mode="json", by_alias=False, warnings="error")

        return take_apart

    @classmethod
    def wire_options(cls, model: Any) -> Mapping[str, Any]:
        """Applies the model's ``extra="forbid"``."""
        return {"forbid_unknown_fields": model.model_config.get("extra") == "forbid"}

    @classmethod
    def explain(cls, exc: Exception) -> tuple[str, Sequence[str | int]]:
        """pydantic's first error."""
        if not isinstance(exc, pydantic.ValidationError):
            return str(exc), ()
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        return first["msg"], first["loc"]

    @classmethod
    def assign(cls, instance: Any, name: str, value: Any) -> None:
        """Sets a field with pydantic's validation of assignments."""
        instance.__pydantic_validator__.validate_assignment(instance, name, value)


def _alias_in(field: FieldInfo) -> str | None:
    """The alias for received messages; of several choices the first one that is a name."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, pydantic.AliasChoices) else [alias]
    return next((choice for choice in choices if isinstance(choice, str)), None)
