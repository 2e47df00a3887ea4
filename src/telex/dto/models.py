"""Compiles a model at one field path: its transferred fields, its wire type, and the conversion between both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ForwardRef

import msgspec

from telex.annotations import model_class
from telex.dto.base import AbstractDTO
from telex.dto.code import VALUE
from telex.dto.compilation import Compilation
from telex.dto.config import Mark, renamer
from telex.dto.field_paths import FieldPath
from telex.dto.fields import DTOFieldDefinition
from telex.dto.nodes import WIRE_NODE, Absent, Field, ModelNode, Shape, Tag
from telex.dto.reading import generate_reader
from telex.dto.writing import generate_writer

__all__ = ("compile_model", "node_of")


def compile_model(
    compilation: Compilation,
    model: Any,
    dto: type[AbstractDTO[Any]],
    path: FieldPath,
    tag: Tag | None = None,
) -> Shape:
    """The shape of ``model``; ``dto`` is the DTO of its kind.

    ``tag`` is the name and the value of the field that distinguishes it from the other members of a union.

    :raises ImproperlyConfiguredException: a path names an unknown field, or a required field is not transferred.
    """
    node = node_of(compilation, model, dto, path, tag)
    return Shape(node.wire, None if node.wire is model else node.source, node)


def node_of(
    compilation: Compilation,
    model: Any,
    dto: type[AbstractDTO[Any]],
    path: FieldPath,
    tag: Tag | None = None,
) -> ModelNode:
    """The node of :func:`compile_model`; for a recursive model, a node whose fields are not compiled yet."""
    limited = compilation.dto.config.max_nested_depth is not None
    key = (model, tag, path.key(limited=limited))
    node = compilation.nodes.get(key)
    if node is None:
        title = getattr(model_class(model), "__qualname__", repr(model))
        reference = ForwardRef(f"Wire_{len(compilation.nodes)}")
        function = compilation.code.reserve("write" if compilation.to_wire else "read")
        node = compilation.nodes[key] = ModelNode(
            model, dto, function, title, reference, tag=tag, source=f"{function}({VALUE})"
        )
        _fill(compilation, node, path)
    elif isinstance(node.wire, ForwardRef):
        node.recursive = True
    return node


def _fill(compilation: Compilation, node: ModelNode, path: FieldPath) -> None:
    """Compile the fields of ``node``, its wire type and its functions."""
    definitions = tuple(node.dto.generate_field_definitions(node.model))
    node.names = frozenset(each.name for each in definitions)
    path.check_names([each.name for each in definitions], node.title)
    inside = replace(path, plain=path.plain or node.dto.plain)
    chosen = [each for each in definitions if _is_transferred(compilation, each, path)]
    fields = [_field(compilation, each, inside, position) for position, each in enumerate(chosen)]
    tags = [each for each in fields if node.tag and each.name == node.tag[0]]
    node.fields = tuple(each for each in fields if each not in tags)
    node.takes_tag = any(each.definition.init for each in tags)
    _check_wire_names(fields, node, path)
    if not compilation.to_wire and not path.lazy:
        _check_needs(compilation, definitions, chosen, node, path)
    if _is_same(compilation, definitions, node, path):
        node.wire = node.model
        return
    reference = node.wire.__forward_arg__
    try:
        node.wire = _wire_type(compilation, node, fields)
    except (ValueError, TypeError) as exc:
        raise path.wrong(f"no wire type can be created for {node.title}: {exc}") from exc
    if node.recursive:
        _let_refer(compilation, reference, node.wire)
    if compilation.to_wire:
        generate_writer(compilation.code, node, inside=path.plain)
    else:
        generate_reader(compilation.code, node, inside=path.plain, lazy=path.lazy)


def _is_transferred(compilation: Compilation, definition: DTOFieldDefinition, path: FieldPath) -> bool:
    config, mark = compilation.dto.config, definition.mark
    if mark is None and config.underscore_fields_private and definition.name.startswith("_"):
        mark = Mark.PRIVATE
    if mark is Mark.PRIVATE or mark is (Mark.WRITE_ONLY if compilation.to_wire else Mark.READ_ONLY):
        return False
    if not path.includes(definition.name):
        return False
    deepest = config.max_nested_depth
    if deepest is None or path.depth < deepest:
        return True
    return not compilation.holds_model(definition.annotation, replace(path, depth=path.depth + 1))


def _field(compilation: Compilation, definition: DTOFieldDefinition, path: FieldPath, position: int) -> Field:
    name, config = definition.name, compilation.dto.config
    rename = renamer(config.rename_strategy)
    alias = (definition.alias_out if compilation.to_wire else None) or definition.alias or name
    wire_name = path.new_name(name) or (rename(name) if rename else alias)
    inside = replace(path.step(name, f"{path.trail}.{name}".lstrip(".")), depth=path.depth + 1)
    shape = compilation.shape(definition.annotation, inside)
    return Field(definition, f"f{position}", wire_name, shape, _absent(compilation, definition, shape, path))


def _absent(compilation: Compilation, definition: DTOFieldDefinition, shape: Shape, path: FieldPath) -> Absent:
    if compilation.to_wire or (definition.required and not compilation.dto.config.partial):
        return Absent.INVALID
    known = definition.has_default and shape.source is None
    return Absent.DEFAULT if known and not (path.lazy or path.plain) else Absent.MISSING


def _check_wire_names(fields: list[Field], node: ModelNode, path: FieldPath) -> None:
    seen: dict[str, str] = {}
    for each in fields:
        other = seen.setdefault(each.wire_name, each.name)
        if other != each.name:
            raise path.wrong(
                f"{node.title}.{other} and {node.title}.{each.name} have the same name on the wire, {each.wire_name!r}:"
                " give one of them another name in rename_fields"
            )


def _check_needs(
    compilation: Compilation,
    definitions: tuple[DTOFieldDefinition, ...],
    chosen: list[DTOFieldDefinition],
    node: ModelNode,
    path: FieldPath,
) -> None:
    """Raise for a model that no message could create.

    :raises ImproperlyConfiguredException: with the first missing field, and what to write instead.
    """
    for each in definitions:
        if not (each.required and each.needed) or (node.tag and each.name == node.tag[0]):
            continue
        if each not in chosen:
            reason = _reason(compilation, each, path)
            raise path.wrong(
                f"{node.title} requires {each.name!r}, which is not transferred{reason}: give the field a"
                f" default, or annotate data: DTOData[{node.title}] and add it in create_instance"
            )
        if compilation.dto.config.partial:
            raise path.wrong(
                f"{node.title} requires {each.name!r}, and partial=True lets clients leave it out:"
                f" give the field a default, or annotate data: DTOData[{node.title}]"
            )


def _reason(compilation: Compilation, definition: DTOFieldDefinition, path: FieldPath) -> str:
    if definition.mark is not None:
        return f" (it is {definition.mark.value})"
    if not path.includes(definition.name):
        return ""
    if compilation.dto.config.underscore_fields_private and definition.name.startswith("_"):
        return " (it starts with an underscore; see underscore_fields_private)"
    return f" (it is nested deeper than max_nested_depth={compilation.dto.config.max_nested_depth})"


def _is_same(
    compilation: Compilation, definitions: tuple[DTOFieldDefinition, ...], node: ModelNode, path: FieldPath
) -> bool:
    """Whether msgspec can decode the model directly, with the same result as this DTO.

    Always false for writing: a value may be of a subclass, whose additional fields must not be sent.
    """
    config = compilation.dto.config
    if compilation.to_wire or path.lazy or path.plain or node.tag or node.recursive or not node.dto.native:
        return False
    if config.partial or config.forbid_unknown_fields or len(node.fields) != len(definitions):
        return False
    return all(
        each.shape.source is None and each.wire_name == (each.definition.alias or each.name) for each in node.fields
    )


def _wire_type(compilation: Compilation, node: ModelNode, fields: list[Field]) -> Any:
    """The Struct with the transferred fields under their names on the wire."""
    options = dict(node.dto.wire_options(model_class(node.model)))
    if node.tag is not None:
        name, value = node.tag
        options |= {"tag": value, "tag_field": next((f.wire_name for f in fields if f.name == name), name)}
    if compilation.dto.config.forbid_unknown_fields:
        options["forbid_unknown_fields"] = True
    node.keywords = compilation.to_wire and bool(options.get("omit_defaults"))
    return msgspec.defstruct(
        model_class(node.model).__name__,
        [_declared(each, defaults=node.keywords) for each in node.fields],
        rename={each.attribute: each.wire_name for each in node.fields},
        namespace={WIRE_NODE: node},
        module=__name__,
        kw_only=node.keywords or not compilation.to_wire,
        gc=False,
        **options,
    )


def _declared(each: Field, *, defaults: bool) -> tuple[str, Any] | tuple[str, Any, Any]:
    """The field as an argument of ``defstruct``; an optional field has its default, or ``UNSET``."""
    definition = each.definition
    if each.absent is Absent.MISSING:
        return each.attribute, each.shape.wire, msgspec.UNSET
    if each.absent is Absent.DEFAULT or (defaults and definition.has_default and each.shape.source is None):
        if definition.default_factory is not None:
            return each.attribute, each.shape.wire, msgspec.field(default_factory=definition.default_factory)
        return each.attribute, each.shape.wire, msgspec.field(default=definition.default)
    return each.attribute, each.shape.wire


def _let_refer(compilation: Compilation, reference: str, wire: Any) -> None:
    """Make ``wire`` available under ``reference``, so that msgspec resolves forward references to it."""
    for node in compilation.nodes.values():
        if isinstance(node.wire, type) and node.wire is not node.model:
            setattr(node.wire, reference, wire)
