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

    ``optional``: clients may leave the field out, and the model then supplies the value, other than by ``default`` or
    ``default_factory``. ``needed``: the model cannot be made without it.
    """

    name: str
    annotation: Any
    default: object = Empty
    default_factory: Callable[[], Any] | None = None
    optional: bool = False
    needed: bool = True
    mark: Mark | None = None
    alias: str | None = None
    """The name that the model itself gives the field on the wire."""
    alias_out: str | None = None
    """The same for replies, where it is another."""
    init: bool = True
    """The constructor takes it; otherwise it is set on the new instance."""
    init_name: str | None = None
    """The constructor's name for it, where it is another."""
    getter: Callable[[Any], Any] | None = None
    """How to read it from an instance, where that is not an attribute; ``msgspec.UNSET`` leaves it out."""

    @property
    def has_default(self) -> bool:
        """Whether its default is known."""
        return self.default is not Empty or self.default_factory is not None

    @property
    def required(self) -> bool:
        """Whether clients have to send it."""
        return not (self.has_default or self.optional)
