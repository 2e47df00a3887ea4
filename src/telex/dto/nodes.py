"""The results of compiling annotations: shapes, and the nodes of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeAlias

import msgspec

from telex.dto.base import AbstractDTO
from telex.dto.code import VALUE
from telex.dto.fields import DTOFieldDefinition

__all__ = ("Absent", "Field", "ModelNode", "Shape", "Tag", "WIRE_NODE")

Tag: TypeAlias = tuple[str, Any]
"""The name and the value of the field that distinguishes a model from the other members of a union."""
WIRE_NODE = "__telex_node__"
"""The attribute of a wire type that contains its model's node."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One annotation, compiled for one direction.

    ``wire`` is the type that msgspec decodes or encodes. ``source`` is the expression that converts ``VALUE`` between
    ``wire`` and the annotation, ``None`` if they are the same. ``node`` is set if the annotation is one model, or an
    optional one.
    """

    wire: Any
    source: str | None = None
    node: ModelNode | None = None

    def transfer(self, value: str = VALUE) -> str:
        """The expression that converts the expression ``value``."""
        return value if self.source is None else self.source.replace(VALUE, value)


class Absent(Enum):
    """The effect of a field that a client leaves out."""

    INVALID = auto()
    """The message is invalid."""
    DEFAULT = auto()
    """The wire type sets the model's default."""
    MISSING = auto()
    """The wire type sets ``UNSET``; the model sets the value, or the field stays absent."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A transferred field: ``attribute`` is its name in the wire type, ``wire_name`` its name in messages."""

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
    """All fields of the model, also those that are not transferred."""
    tag: Tag | None = None
    takes_tag: bool = False
    """Whether the model's constructor has a parameter for the tag."""
    source: str = ""
    """The expression that converts ``VALUE``: a call of ``function``, or its inlined body."""
    read: Callable[[Any], Any] | None = None
    """Converts the wire type to the model; ``None`` if the library of an outer model creates it."""
    make: Callable[[Mapping[str, Any]], Any] = dict
    """Creates the model from values by field name, for ``DTOData``."""
    convert: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """Converts single fields, for ``DTOData``."""
    keywords: bool = False
    """Whether the wire type has keyword arguments only."""
    recursive: bool = False

    def sent(self, wire: msgspec.Struct) -> dict[str, tuple[Field, Any]]:
        """The fields that the client has sent, each with its value on the wire."""
        values = {each.name: (each, getattr(wire, each.attribute)) for each in self.fields}
        return {name: pair for name, pair in values.items() if pair[1] is not msgspec.UNSET}
