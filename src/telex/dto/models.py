"""Compiles a model at one place: the fields that pass, the wire type that has them, and the transfer between both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ForwardRef

import msgspec

from telex.dto.config import Mark, renamer
from telex.dto.field_paths import Place
from telex.dto.fields import DTOFieldDefinition
from telex.dto.hints import model_class
from telex.dto.nodes import WIRE_NAMES, Absent, Field, ModelNode, Shape
from telex.dto.reading import generate_reader
from telex.dto.writing import generate_writer

if TYPE_CHECKING:
    from telex.dto.base import AbstractDTO
    from telex.dto.compiler import Compiler

__all__ = ("compile_model", "node_of")


def compile_model(
    compiler: Compiler, model: Any, dto: type[AbstractDTO[Any]], place: Place, tag: tuple[str, Any] | None = None
) -> Shape:
    """The shape of ``model``, which ``dto`` knows.

    ``tag`` is the field, and its value, that tells it from the others of a union.

    :raises ImproperlyConfiguredException: paths name fields that it does not have, or it cannot be made of what passes.
    """
    node = node_of(compiler, model, dto, place, tag)
    return Shape(node.wire, None if node.wire is model else node.transfer, node)


def node_of(
    compiler: Compiler, model: Any, dto: type[AbstractDTO[Any]], place: Place, tag: tuple[str, Any] | None = None
) -> ModelNode:
    """The node of :func:`compile_model`; where a model stands in itself, one whose fields are not there yet."""
    limited = compiler.dto.config.max_nested_depth is not None
    key = (model, tag, place.key(limited=limited))
    node = compiler.nodes.get(key)
    if node is None:
        title = getattr(model_class(model), "__qualname__", repr(model))
        reference = ForwardRef(f"Wire_{len(compiler.nodes)}")
        function = compiler.code.reserve("write" if compiler.to_wire else "read")
        node = compiler.nodes[key] = ModelNode(model, dto, function, title, reference, tag=tag)
        _fill(compiler, node, place)
    elif isinstance(node.wire, ForwardRef):
        node.recursive = True
    return node


def _fill(compiler: Compiler, node: ModelNode, place: Place) -> None:
    """Compile the fields of ``node``, its wire type and its functions."""
    definitions = tuple(node.dto.generate_field_definitions(node.model))
    place.check_names([each.name for each in definitions], node.title)
    inside = replace(place, plain=place.plain or node.dto.plain)
    chosen = [each for each in definitions if _passes(compiler, each, place)]
    fields = [_field(compiler, each, inside, position) for position, each in enumerate(chosen)]
    tags = [each for each in fields if node.tag and each.name == node.tag[0]]
    node.fields = tuple(each for each in fields if each not in tags)
    node.takes_tag = any(each.definition.init for each in tags)
    _check_wire_names(fields, node, place)
    if not compiler.to_wire and not place.lazy:
        _check_needs(compiler, definitions, chosen, node, place)
    if _is_same(compiler, definitions, node, place):
        node.wire = node.model
        return
    reference = node.wire.__forward_arg__
    try:
        node.wire = _wire_type(compiler, node, fields)
    except (ValueError, TypeError) as exc:
        raise place.wrong(f"{node.title} has no form on the wire: {exc}") from exc
    if node.recursive:
        _let_refer(compiler, reference, node.wire)
    if compiler.to_wire:
        generate_writer(compiler.code, node, inside=place.plain)
    else:
        generate_reader(compiler.code, node, inside=place.plain, lazy=place.lazy)


def _passes(compiler: Compiler, definition: DTOFieldDefinition, place: Place) -> bool:
    config, mark = compiler.dto.config, definition.mark
    if mark is None and config.underscore_fields_private and definition.name.startswith("_"):
        mark = Mark.PRIVATE
    if mark is Mark.PRIVATE or mark is (Mark.WRITE_ONLY if compiler.to_wire else Mark.READ_ONLY):
        return False
    if not place.includes(definition.name):
        return False
    deepest = config.max_nested_depth
    if deepest is None or place.depth < deepest:
        return True
    return not compiler.holds_model(definition.annotation, replace(place, depth=place.depth + 1))


def _field(compiler: Compiler, definition: DTOFieldDefinition, place: Place, position: int) -> Field:
    name, config = definition.name, compiler.dto.config
    rename = renamer(config.rename_strategy)
    alias = (definition.alias_out if compiler.to_wire else None) or definition.alias or name
    wire_name = place.new_name(name) or (rename(name) if rename else alias)
    inside = replace(place.step(name, f"{place.trail}.{name}".lstrip(".")), depth=place.depth + 1)
    shape = compiler.shape(definition.annotation, inside)
    return Field(definition, f"f{position}", wire_name, shape, _absent(compiler, definition, shape, place))


def _absent(compiler: Compiler, definition: DTOFieldDefinition, shape: Shape, place: Place) -> Absent:
    if compiler.to_wire or (definition.required and not compiler.dto.config.partial):
        return Absent.INVALID
    known = definition.has_default and shape.source is None
    return Absent.DEFAULT if known and not (place.lazy or place.plain) else Absent.MISSING


def _check_wire_names(fields: list[Field], node: ModelNode, place: Place) -> None:
    seen: dict[str, str] = {}
    for each in fields:
        other = seen.setdefault(each.wire_name, each.name)
        if other != each.name:
            raise place.wrong(
                f"{node.title}.{other} and {node.title}.{each.name} are both {each.wire_name!r} on the wire: give one"
                " of them another name in rename_fields"
            )


def _check_needs(
    compiler: Compiler,
    definitions: tuple[DTOFieldDefinition, ...],
    chosen: list[DTOFieldDefinition],
    node: ModelNode,
    place: Place,
) -> None:
    """Refuse a model that could not be made of any message.

    :raises ImproperlyConfiguredException: naming the first field that would be missing, and the ways out.
    """
    for each in definitions:
        if not (each.required and each.needed) or (node.tag and each.name == node.tag[0]):
            continue
        if each not in chosen:
            reason = _reason(compiler, each, place)
            raise place.wrong(
                f"{node.title} cannot be made without {each.name!r}, which does not pass{reason}: give the field a"
                f" default, or annotate data: DTOData[{node.title}] and add it in create_instance"
            )
        if compiler.dto.config.partial:
            raise place.wrong(
                f"{node.title} cannot be made without {each.name!r}, and partial=True lets clients leave it out:"
                f" give the field a default, or annotate data: DTOData[{node.title}]"
            )


def _reason(compiler: Compiler, definition: DTOFieldDefinition, place: Place) -> str:
    if definition.mark is not None:
        return f" (it is {definition.mark.value})"
    if not place.includes(definition.name):
        return ""
    if compiler.dto.config.underscore_fields_private and definition.name.startswith("_"):
        return " (it starts with an underscore; see underscore_fields_private)"
    return f" (it is nested deeper than max_nested_depth={compiler.dto.config.max_nested_depth})"


def _is_same(compiler: Compiler, definitions: tuple[DTOFieldDefinition, ...], node: ModelNode, place: Place) -> bool:
    """Whether msgspec reads the model itself as this DTO would.

    Never so when writing: the value may be of a subclass, whose further fields must not pass.
    """
    config = compiler.dto.config
    if compiler.to_wire or place.lazy or place.plain or node.tag or node.recursive or not node.dto.native:
        return False
    if config.partial or config.forbid_unknown_fields or len(node.fields) != len(definitions):
        return False
    return all(
        each.shape.source is None and each.wire_name == (each.definition.alias or each.name) for each in node.fields
    )


def _wire_type(compiler: Compiler, node: ModelNode, fields: list[Field]) -> Any:
    """The Struct that has the fields that pass, under their names on the wire."""
    options = dict(node.dto.wire_options(model_class(node.model)))
    if node.tag is not None:
        name, value = node.tag
        options |= {"tag": value, "tag_field": next((f.wire_name for f in fields if f.name == name), name)}
    if compiler.dto.config.forbid_unknown_fields:
        options["forbid_unknown_fields"] = True
    node.keywords = compiler.to_wire and bool(options.get("omit_defaults"))
    return msgspec.defstruct(
        model_class(node.model).__name__,
        [_declared(each, defaults=node.keywords) for each in node.fields],
        rename={each.attribute: each.wire_name for each in node.fields},
        namespace={WIRE_NAMES: {each.name: (each.attribute, each.wire_name) for each in node.fields}},
        module=__name__,
        kw_only=node.keywords or not compiler.to_wire,
        gc=False,
        **options,
    )


def _declared(each: Field, *, defaults: bool) -> tuple[str, Any] | tuple[str, Any, Any]:
    """The field as ``defstruct`` takes it; one that clients may leave out has its default, or ``UNSET``."""
    definition = each.definition
    if each.absent is Absent.MISSING:
        return each.attribute, each.shape.wire, msgspec.UNSET
    if each.absent is Absent.DEFAULT or (defaults and definition.has_default and each.shape.source is None):
        if definition.default_factory is not None:
            return each.attribute, each.shape.wire, msgspec.field(default_factory=definition.default_factory)
        return each.attribute, each.shape.wire, msgspec.field(default=definition.default)
    return each.attribute, each.shape.wire


def _let_refer(compiler: Compiler, reference: str, wire: Any) -> None:
    """Let msgspec find ``wire`` by the name that the wire types of its own fields know it by."""
    for node in compiler.nodes.values():
        if isinstance(node.wire, type) and node.wire is not node.model:
            setattr(node.wire, reference, wire)
