"""What annotations are compiled to: shapes, and the nodes of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import msgspec

from telex.dto.code import Source
from telex.dto.fields import DTOFieldDefinition

if TYPE_CHECKING:
    from telex.dto.base import AbstractDTO

__all__ = ("Absent", "Field", "ModelNode", "Shape", "WIRE_NAMES")

WIRE_NAMES = "__telex_names__"
"""The attribute of a wire type that has its attributes by the model's names for them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One annotation, compiled for one direction.

    ``wire`` is what msgspec reads or writes; ``source`` transfers between it and the annotation, ``None`` when they
    are the same. ``node`` is there when the annotation is one model, ``None`` aside.
    """

    wire: Any
    source: Source | None = None
    node: ModelNode | None = None

    def transfer(self, value: str, inline: bool = False) -> str:
        """The expression for the transfer of the expression ``value``."""
        return value if self.source is None else self.source(value, inline)


class Absent(Enum):
    """What it means that a client leaves a field out."""

    INVALID = auto()
    """The message does not fit."""
    DEFAULT = auto()
    """The wire type has the model's default."""
    MISSING = auto()
    """The wire type has ``UNSET``; the model supplies the value, or nobody does."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field that passes: ``attribute`` is its name in the wire type, ``wire_name`` the one that clients see."""

    definition: DTOFieldDefinition
    attribute: str
    wire_name: str
    shape: Shape
    absent: Absent

    @property
    def name(self) -> str:
        """The model's name for it."""
        return self.definition.name


@dataclass(slots=True, eq=False)
class ModelNode:
    """A model at one place. Its wire type is not there while its own fields are compiled."""

    model: Any
    dto: type[AbstractDTO[Any]]
    function: str
    title: str
    wire: Any = None
    fields: tuple[Field, ...] = ()
    tag: tuple[str, Any] | None = None
    """The field that tells the model from others of a union, by the model's name for it, and its value."""
    takes_tag: bool = False
    """The model is made with that value, rather than having it by itself."""
    make: Callable[[Mapping[str, Any]], Any] = dict
    """Makes the model of values by field name; for ``DTOData``."""
    convert: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """Transfers single fields; for ``DTOData``."""
    inline: Source | None = None
    """The transfer as one expression, where it is one."""
    keywords: bool = False
    """The wire type takes its fields by name."""
    recursive: bool = False

    def transfer(self, value: str, inline: bool) -> str:
        """The expression for the transfer of the model."""
        return self.inline(value, inline) if inline and self.inline is not None else f"{self.function}({value})"

    def sent(self, wire: msgspec.Struct) -> dict[str, tuple[Field, Any]]:
        """The fields that the client has sent, each with its value on the wire."""
        values = {each.name: (each, getattr(wire, each.attribute)) for each in self.fields}
        return {name: pair for name, pair in values.items() if pair[1] is not msgspec.UNSET}
