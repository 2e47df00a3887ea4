"""The results of compiling annotations: shapes, and the nodes of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import msgspec

from telex.dto.code import VALUE
from telex.dto.fields import DTOFieldDefinition

if TYPE_CHECKING:
    from telex.dto.base import AbstractDTO

__all__ = ("Absent", "Field", "ModelNode", "Shape", "WIRE_NODE")

WIRE_NODE = "__telex_node__"
"""The attribute of a wire type that has its model's node."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One annotation, compiled for one direction.

    ``wire`` is what msgspec reads or writes; ``source`` is the expression that transfers ``VALUE`` between it and the
    annotation, ``None`` when they are the same. ``node`` is there when the annotation is one model, ``None`` aside.
    """

    wire: Any
    source: str | None = None
    node: ModelNode | None = None

    def transfer(self, value: str = VALUE) -> str:
        """The expression for the transfer of the expression ``value``."""
        return value if self.source is None else self.source.replace(VALUE, value)


class Absent(Enum):
    """What it means that a client leaves a field out."""

    INVALID = auto()
    """The message does not fit."""
    DEFAULT = auto()
    """The wire type has the model's default."""
    MISSING = auto()
    """The wire type has ``UNSET``; the model supplies the value, or there is none."""


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
    """A model at one field path. ``wire`` is a forward reference until the model's own fields are compiled."""

    model: Any
    dto: type[AbstractDTO[Any]]
    function: str
    title: str
    wire: Any = None
    fields: tuple[Field, ...] = ()
    names: frozenset[str] = frozenset()
    """All fields of the model, also those that do not pass."""
    tag: tuple[str, Any] | None = None
    """The model's name and the value of the field that distinguishes the model from other members of a union."""
    takes_tag: bool = False
    """The model is made with that value, rather than having it by itself."""
    source: str = ""
    """The expression that transfers ``VALUE``: a call of ``function``, or what that returns."""
    read: Callable[[Any], Any] | None = None
    """Makes the model of its wire type; ``None`` where its library makes it as a part of another."""
    make: Callable[[Mapping[str, Any]], Any] = dict
    """Makes the model of values by field name; for ``DTOData``."""
    convert: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """Transfers single fields; for ``DTOData``."""
    keywords: bool = False
    """The wire type takes its fields by name."""
    recursive: bool = False

    def sent(self, wire: msgspec.Struct) -> dict[str, tuple[Field, Any]]:
        """The fields that the client has sent, each with its value on the wire."""
        values = {each.name: (each, getattr(wire, each.attribute)) for each in self.fields}
        return {name: pair for name, pair in values.items() if pair[1] is not msgspec.UNSET}
