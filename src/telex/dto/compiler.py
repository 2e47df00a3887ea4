"""Compiles an annotation for one direction: a wire type, and the expression that converts to or from it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

from telex.annotations import model_class, split_annotated, substitute, unalias, union_members
from telex.dto.code import VALUE, Code
from telex.dto.containers import is_container, transfer_container
from telex.dto.data import DTOData
from telex.dto.field_paths import FieldPath
from telex.dto.kinds import kind_of
from telex.dto.models import compile_model, node_of
from telex.dto.nodes import ModelNode, Shape
from telex.dto.unions import compile_union

if TYPE_CHECKING:
    from telex.dto.base import AbstractDTO

__all__ = ("Compiler",)


class Compiler:
    """Compiles the annotations of one reader (``to_wire`` false) or one writer."""

    def __init__(self, dto: type[AbstractDTO[Any]], *, to_wire: bool) -> None:
        self.dto = dto
        self.to_wire = to_wire
        self.code: Code = Code()
        self.nodes: dict[object, ModelNode] = {}

    def top(self, annotation: Any) -> Shape:
        """The shape of a handler's annotation.

        :raises ImproperlyConfiguredException: the configuration or a model does not allow it.
        """
        return self.shape(annotation, FieldPath.of(self.dto.config, self.dto.__qualname__))

    def shape(self, annotation: Any, path: FieldPath) -> Shape:
        """The shape of ``annotation`` at ``path``."""
        inner, extras = split_annotated(annotation)
        if isinstance(inner, TypeVar):
            inner = substitute(inner, {})
        inner = unalias(inner)
        if get_origin(inner) is Annotated:
            return self.shape(inner, path)
        shape = self._structure(inner, path)
        if shape is None:
            path.check_numbers(0, annotation)
            return Shape(Any if path.plain else annotation)
        if extras and not path.plain:
            return Shape(Annotated[shape.wire, *extras], shape.source, shape.node)
        return shape

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

    def _structure(self, annotation: Any, path: FieldPath) -> Shape | None:
        """The shape of an annotation that is or contains a model; ``None`` for other annotations."""
        kind, origin = self.kind(annotation, path), get_origin(annotation)
        if kind is not None:
            return compile_model(self, annotation, kind, path)
        if origin is Literal or not self.holds_model(annotation, path):
            return None
        if origin is DTOData:
            return self._data(get_args(annotation)[0], path)
        if union_members(annotation):
            return compile_union(self, annotation, path)
        if is_container(origin):
            return self._container(annotation, origin, path)
        raise path.wrong(
            f"{path.trail or 'the annotation'} is {annotation!r}: models are not transferred inside"
            f" {model_class(annotation)!r}; use list, tuple, set, dict or a union"
        )

    def _container(self, annotation: Any, origin: Any, path: FieldPath) -> Shape:
        arguments = get_args(annotation)
        path.check_numbers(len(arguments), annotation)
        shapes = [
            self.shape(argument, path.step(str(index), f"{path.trail}.{index}") if path.depth else path)
            for index, argument in enumerate(arguments)
            if argument is not ...
        ]
        if all(shape.source is None for shape in shapes) and not path.plain:
            return Shape(annotation)
        return transfer_container(self.code, origin, arguments, shapes, self.to_wire or path.plain)

    def _data(self, model: Any, path: FieldPath) -> Shape:
        if self.to_wire:
            raise path.wrong(f"DTOData[{model!r}] is for messages that are received: annotate the reply {model!r}")
        kind = self.kind(model, path)
        if kind is None:
            raise path.wrong(f"DTOData[{model!r}] holds one model of this DTO; write list[DTOData[...]] for several")
        node = node_of(self, model, kind, path.lazily())
        name = self.code.bind(partial(DTOData, node), "data")
        return Shape(node.wire, f"{name}({VALUE})", node)
