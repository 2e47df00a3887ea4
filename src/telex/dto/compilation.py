"""The compilation of one reader or writer, as the parts of the compiler use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, get_args, get_origin

from telex.annotations import split_annotated, unalias
from telex.dto.base import AbstractDTO
from telex.dto.code import Code
from telex.dto.data import DTOData
from telex.dto.field_paths import FieldPath
from telex.dto.kinds import kind_of
from telex.dto.nodes import ModelNode, Shape

__all__ = ("Compilation",)


class Compilation(ABC):
    """Compiles the annotations of one reader (``to_wire`` false) or one writer. Holds the code and the nodes so far."""

    def __init__(self, dto: type[AbstractDTO[Any]], *, to_wire: bool) -> None:
        self.dto = dto
        self.to_wire = to_wire
        self.code: Code = Code()
        self.nodes: dict[object, ModelNode] = {}

    @abstractmethod
    def shape(self, annotation: Any, path: FieldPath) -> Shape:
        """The shape of ``annotation`` at ``path``.

        :raises ImproperlyConfiguredException: the configuration or a model does not allow it.
        """

    def holds_model(self, annotation: Any, path: FieldPath) -> bool:
        """Whether the annotation contains a model that a DTO converts."""
        inner = unalias(split_annotated(annotation)[0])
        if get_origin(inner) is DTOData or self.kind(inner, path) is not None:
            return True
        if get_origin(inner) is Literal:
            return False
        return any(self.holds_model(argument, path) for argument in get_args(inner))

    def kind(self, annotation: Any, path: FieldPath) -> type[AbstractDTO[Any]] | None:
        """The DTO for ``annotation`` if it is a model. At the top level only this DTO's own models count."""
        if path.depth == 0:
            return self.dto if self.dto.serves(annotation) else None
        return kind_of(annotation, self.dto)
