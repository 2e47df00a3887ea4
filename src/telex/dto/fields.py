"""The description of one field of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from telex.datastructures import Empty
from telex.dto.config import Mark

__all__ = ("DTOFieldDefinition",)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DTOFieldDefinition:
    """One field, as ``AbstractDTO.generate_field_definitions`` yields it.

    ``optional``: clients may leave the field out, and the model then sets its value without ``default`` or
    ``default_factory``. ``needed``: the model cannot be created without it.
    """

    name: str
    annotation: Any
    default: object = Empty
    default_factory: Callable[[], Any] | None = None
    optional: bool = False
    needed: bool = True
    mark: Mark | None = None
    alias: str | None = None
    """The field's name on the wire according to the model."""
    alias_out: str | None = None
    """The alias for replies, if it is different."""
    init: bool = True
    """Whether it is a parameter of the constructor; otherwise it is set on the new instance."""
    init_name: str | None = None
    """The name of the constructor's parameter, if it is different."""
    getter: Callable[[Any], Any] | None = None
    """Reads the field from an instance, if it is not a plain attribute; ``msgspec.UNSET`` leaves the field out."""

    @property
    def has_default(self) -> bool:
        """Whether it has a default or a default factory."""
        return self.default is not Empty or self.default_factory is not None

    @property
    def required(self) -> bool:
        """Whether clients must send it."""
        return not (self.has_default or self.optional)
