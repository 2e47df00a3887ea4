"""Unions that contain models. Tags distinguish the members on the wire; classes or tags distinguish them in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from telex.annotations import (
    field_hints,
    model_class,
    split_annotated,
    unalias,
    union_members,
    union_of,
    without_qualifiers,
)
from telex.datastructures import Empty
from telex.dto.code import VALUE
from telex.dto.compilation import Compilation
from telex.dto.containers import is_container
from telex.dto.field_paths import FieldPath
from telex.dto.models import compile_model
from telex.dto.nodes import Shape, Tag

__all__ = ("compile_union",)

_SCALARS: Final = str | int | float | bool
"""The wire type of other members than models and collections, in a union that a model's library validates."""


def compile_union(compilation: Compilation, annotation: Any, path: FieldPath) -> Shape:
    """The shape of a union with members that are or contain models.

    :raises ImproperlyConfiguredException: it has models that a message cannot distinguish.
    """
    members = [_bare(each) for each in union_members(annotation) if each is not type(None)]
    none = (None,) if len(members) < len(union_members(annotation)) else ()
    if len(members) == 1:
        return _optional(compilation.shape(members[0], path))
    models = [each for each in members if compilation.kind(each, path) is not None]
    path.check_numbers(len(members), annotation)
    if not path.depth:
        path = _checked(compilation, models, path)
    tags = _tags(models, path) if len(models) > 1 else {}
    shapes = [_member(compilation, each, tags.get(each), path, index) for index, each in enumerate(members)]
    if all(shape.source is None for shape in shapes):
        return Shape(annotation)
    name = compilation.code.bind(_dispatch(compilation, members, shapes, path), "choose")
    return Shape(union_of(*(shape.wire for shape in shapes), *none), f"{name}({VALUE})")


def _optional(shape: Shape) -> Shape:
    source = f"(None if {VALUE} is None else {shape.source})" if shape.source else None
    return Shape(union_of(shape.wire, None), source, shape.node)


def _bare(annotation: Any) -> Any:
    return unalias(split_annotated(annotation)[0])


def _checked(compilation: Compilation, models: Sequence[Any], path: FieldPath) -> FieldPath:
    """``path``, after a check that each of its field names exists in at least one of the models."""
    names = [each.name for model in models for each in compilation.dto.generate_field_definitions(model)]
    path.check_names(names, _names(models))
    return replace(path, checked=True)


def _member(compilation: Compilation, member: Any, tag: Tag | None, path: FieldPath, index: int) -> Shape:
    inside = path.step(str(index), f"{path.trail}.{index}") if path.depth else path
    kind = compilation.kind(member, path)
    if kind is not None and tag is not None:
        return compile_model(compilation, member, kind, inside, tag)
    shape = compilation.shape(member, inside)
    if kind is not None or not path.plain or shape.source is not None:
        return shape
    return Shape(list[Any] if is_container(get_origin(member) or member) else _SCALARS)


def _tags(models: Sequence[Any], path: FieldPath) -> dict[Any, Tag]:
    """For each model that is not a Struct, the ``Literal`` field and the value that distinguish it in the union.

    :raises ImproperlyConfiguredException: there is no such field.
    """
    literals = [_literals(model) for model in models]
    for name in literals[0]:
        values = [each.get(name, Empty) for each in literals]
        if Empty not in values and len(set(values)) == len(values):
            found = zip(models, values, strict=True)
            return {model: (name, value) for model, value in found if not _is_struct(model)}
    raise path.wrong(
        f"a message cannot show which of {_names(models)} it is: give each a field with the same name and a"
        ' different value, such as type: Literal["move"], or make them msgspec.Struct with tag=...'
    )


def _names(models: Sequence[Any]) -> str:
    return ", ".join(getattr(model_class(model), "__name__", repr(model)) for model in models)


def _is_struct(model: Any) -> bool:
    return issubclass(model_class(model), msgspec.Struct)


def _literals(model: Any) -> dict[str, Any]:
    """The fields with a single possible value, and that value."""
    if _is_struct(model):
        config = model_class(model).__struct_config__
        return {} if config.tag is None else {config.tag_field: config.tag}
    found: dict[str, Any] = {}
    for name, hint in field_hints(model).items():
        inner = unalias(split_annotated(without_qualifiers(hint)[0])[0])
        if get_origin(inner) is Literal and len(get_args(inner)) == 1:
            found[name] = get_args(inner)[0]
    return found


def _dispatch(
    compilation: Compilation, members: Sequence[Any], shapes: Sequence[Shape], path: FieldPath
) -> Callable[[Any], Any]:
    """The function that finds the member of a value and converts the value."""
    transfers = [compilation.code.function(shape.transfer()) for shape in shapes]
    if not compilation.to_wire:
        return _by_class([_runtime_class(shape.wire) for shape in shapes], transfers)
    by_tag: dict[str, dict[Any, Callable[[Any], Any]]] = {}
    classes = []
    for member, shape, transfer in zip(members, shapes, transfers, strict=True):
        node = shape.node
        as_dict = node is not None and (path.plain or node.dto.by_items)
        classes.append(dict if as_dict else _runtime_class(member))
        if as_dict and node is not None and node.tag is not None:
            by_tag.setdefault(node.tag[0], {})[node.tag[1]] = transfer
    by_class = _by_class(classes, transfers)
    return _by_tag(*by_tag.popitem(), by_class) if by_tag else by_class


def _by_class(classes: Sequence[type], transfers: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Convert by the exact class, else by the first that matches ``isinstance``; return other values unchanged."""
    exact = dict(zip(reversed(classes), reversed(transfers), strict=True))
    table = list(zip(classes, transfers, strict=True))

    def choose(value: Any) -> Any:
        transfer = exact.get(type(value))
        if transfer is None:
            transfer = next((each for kind, each in table if isinstance(value, kind)), _same)
        return transfer(value)

    return choose


def _by_tag(
    name: str, table: Mapping[Any, Callable[[Any], Any]], otherwise: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Convert a dictionary by its tag."""

    def choose(value: Any) -> Any:
        return table.get(value.get(name), _same)(value) if isinstance(value, dict) else otherwise(value)

    return choose


def _same(value: Any) -> Any:
    return value


def _runtime_class(annotation: Any) -> type:
    """The class of a member's values."""
    bare = _bare(annotation)
    kind = get_origin(bare) or bare
    if kind is Literal:
        return type(get_args(bare)[0])
    return kind if isinstance(kind, type) else object
