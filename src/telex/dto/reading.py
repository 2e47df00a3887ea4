"""Generates the functions that convert wire types to models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from telex.dto.code import VALUE, Code, call, display, put
from telex.dto.nodes import Absent, Field, ModelNode

__all__ = ("generate_reader",)


def generate_reader(code: Code, node: ModelNode, *, inside: bool, lazy: bool) -> None:
    """Define ``node.function``, which converts the wire type to the model, and ``node.source``, if one expression is
    sufficient.

    ``inside``: it returns a dictionary, because the library of an outer model creates this one. ``lazy``: it is for
    ``DTOData``, which adds missing values later.
    """
    make: Callable[..., Any] = dict if inside else _maker(node)
    by_field_name = node.dto.plain or make is dict
    unset = code.bind(msgspec.UNSET, "UNSET")
    always: dict[str, str] = {}
    optional, later = [], []
    if node.tag is not None and node.takes_tag:
        always[node.tag[0]] = code.bind(node.tag[1], "tag")
    for each in node.fields:
        key = each.name if by_field_name else each.definition.init_name or each.name
        may_lack = each.absent is Absent.MISSING and (lazy or not each.definition.has_default)
        condition = f"if {VALUE}.{each.attribute} is not {unset}: " if may_lack else ""
        value = _value(code, each, unset, has_value=may_lack)
        if not (by_field_name or each.definition.init):
            later.append(condition + put("m", each.name, value))
        elif may_lack:
            optional.append(f"{condition}m[{key!r}] = {value}")
        else:
            always[key] = value
    if make is dict:
        made, made_of_m = display(always), "m"
    else:
        function = code.bind(make, "make")
        made = f"{function}({display(always)})" if node.dto.plain else call(function, always)
        made_of_m = f"{function}({'' if node.dto.plain else '**'}m)"
    if not (optional or later or lazy or node.recursive):
        node.source = made
    lines = [f"m = {display(always)}", *optional] if optional else []
    made = made_of_m if optional else made
    lines += [f"m = {made}", *later, "return m"] if later else [f"return {made}"]
    read = code.define(node.function, lines)
    node.read = None if inside else read
    if lazy:
        node.make = _make_of_values(node, make)
        node.convert = {each.name: code.function(each.shape.transfer()) for each in node.fields}


def _maker(node: ModelNode) -> Callable[..., Any]:
    return node.dto.from_plain(node.model) if node.dto.plain else node.dto.constructor(node.model)


def _value(code: Code, field: Field, unset: str, *, has_value: bool) -> str:
    """The expression for a field, or for its default if the wire type does not set it."""
    raw, definition = f"{VALUE}.{field.attribute}", field.definition
    value = field.shape.transfer(raw)
    if has_value or field.absent is not Absent.MISSING:
        return value
    if definition.default_factory is not None:
        return f"({code.bind(definition.default_factory, 'new')}() if {raw} is {unset} else {value})"
    return f"({code.bind(definition.default, 'default')} if {raw} is {unset} else {value})"


def _make_of_values(node: ModelNode, make: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """The function that creates the model from values by field name."""
    definitions = {each.name: each for each in node.dto.generate_field_definitions(node.model)}
    init_names = {name: each.init_name or name for name, each in definitions.items()}

    def make_of_values(values: Mapping[str, Any]) -> Any:
        if node.tag is not None and node.takes_tag:
            values = {node.tag[0]: node.tag[1], **values}
        if node.dto.plain or make is dict:
            return make(dict(values))
        later = {name for name in values if name in definitions and not definitions[name].init}
        instance = make(**{init_names.get(name, name): value for name, value in values.items() if name not in later})
        for name in later:
            setattr(instance, name, values[name])
        return instance

    return make_of_values
