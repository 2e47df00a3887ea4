"""The functions of a model: from its wire type, and to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from telex.dto.code import Code
from telex.dto.failures import Misfit, unwritable
from telex.dto.nodes import Absent, Field, ModelNode

__all__ = ("generate_reader", "generate_writer")


def generate_reader(code: Code, node: ModelNode, *, inside: bool, lazy: bool) -> None:
    """Define ``node.function``: takes the wire type, gives the model.

    ``inside``: it gives a dictionary, as the model is part of one that its own library makes.
    """
    make = _maker(node)
    unset = code.bind(msgspec.UNSET, "UNSET")
    sure, unsure = _arguments(code, node, unset, lazy=lazy)
    as_dict = inside or make is dict
    by_name = as_dict or node.dto.plain
    named = {_key(field, by_name=by_name): value for field, value in sure.items() if by_name or field.definition.init}
    if node.tag is not None and node.takes_tag:
        named[node.tag[0]] = code.bind(node.tag[1], "tag")
    later = [] if by_name else [field for field in (*sure, *unsure) if not field.definition.init]
    conditional = _conditional(unsure, later, by_name)
    body = _construction(None if as_dict else code.bind(make, "make"), not by_name, named, conditional, unset)
    for field in later:
        line = f"m.{field.name} = {(sure | unsure)[field]}"
        body.append(f"if w.{field.attribute} is not {unset}: {line}" if field in unsure else line)
    body.append("return m")
    code.define(node.function, "w", body if inside else _guarded(code, node, body, lazy=lazy))
    if lazy:
        node.make = _make_of_values(node, dict if inside else make)
        node.convert = {field.name: code.function(field.shape.transfer) for field in node.fields}


def generate_writer(code: Code, node: ModelNode, *, inside: bool) -> None:
    """Define ``node.function``: takes the model, gives the wire type.

    ``inside``: it takes a dictionary, as the model is part of one that its own library has taken apart.
    """
    unset = code.bind(msgspec.UNSET, "UNSET")
    by_items = inside or node.dto.plain or node.dto.by_items
    body, values = [], []
    if node.dto.plain and not inside:
        body.append(f"v = {code.bind(node.dto.to_plain(node.model), 'plain')}(v)")
    for field in node.fields:
        value, may_lack = _value(code, field, by_items=by_items, all_may_lack=inside or node.dto.plain, unset=unset)
        if field.shape.source is not None:
            body.append(f"t = {value}")
            local = f"t_{field.attribute}"
            transferred = field.shape.transfer("t")
            body.append(f"{local} = " + (f"{unset} if t is {unset} else {transferred}" if may_lack else transferred))
            value = local
        values.append(f"{field.attribute}={value}" if node.keywords else value)
    body.append(f"return {code.bind(node.wire, 'Wire')}({', '.join(values)})")
    refuse = code.bind(unwritable, "unwritable")
    title = code.bind(f"{node.dto.__qualname__}: {node.title}", "title")
    guarded = ["try:", *(f"    {line}" for line in body)]
    guarded += ["except (AttributeError, KeyError, TypeError) as e:", f"    raise {refuse}(v, {title}, e) from e"]
    code.define(node.function, "v", guarded)


def _arguments(code: Code, node: ModelNode, unset: str, *, lazy: bool) -> tuple[dict[Field, str], dict[Field, str]]:
    """The expressions of the fields that are always there, and of those that may be left out."""
    sure: dict[Field, str] = {}
    unsure: dict[Field, str] = {}
    for field in node.fields:
        raw, definition = f"w.{field.attribute}", field.definition
        value = field.shape.transfer(raw)
        if field.absent is not Absent.MISSING:
            sure[field] = value
        elif lazy or not definition.has_default:
            unsure[field] = value
        elif definition.default_factory is not None:
            sure[field] = f"({code.bind(definition.default_factory, 'new')}() if {raw} is {unset} else {value})"
        else:
            sure[field] = f"({code.bind(definition.default, 'default')} if {raw} is {unset} else {value})"
    return sure, unsure


def _key(field: Field, *, by_name: bool) -> str:
    return field.name if by_name else field.definition.init_name or field.name


def _conditional(unsure: Mapping[Field, str], later: list[Field], by_name: bool) -> list[tuple[str, str, str]]:
    return [
        (field.attribute, _key(field, by_name=by_name), value) for field, value in unsure.items() if field not in later
    ]


def _construction(
    make: str | None, by_keywords: bool, named: Mapping[str, str], conditional: list[tuple[str, str, str]], unset: str
) -> list[str]:
    """The lines that make ``m``: a dictionary, or ``make`` of one, or ``make`` of keywords."""
    if by_keywords and not conditional and all(key.isidentifier() for key in named):
        return [f"m = {make}({', '.join(f'{key}={value}' for key, value in named.items())})"]
    lines = ["m = {" + ", ".join(f"{key!r}: {value}" for key, value in named.items()) + "}"]
    lines += [f"if w.{attribute} is not {unset}: m[{key!r}] = {value}" for attribute, key, value in conditional]
    if make is not None:
        lines.append(f"m = {make}(**m)" if by_keywords else f"m = {make}(m)")
    return lines


def _guarded(code: Code, node: ModelNode, body: list[str], *, lazy: bool) -> list[str]:
    """``body``, whose errors say which wire value is at fault.

    A ``TypeError`` counts as the client's where all that the model needs is there, as for msgspec.
    """
    misfit = code.bind(Misfit, "Misfit")
    explain = code.bind(node.dto.explain, "explain")
    errors = code.bind(ValueError if lazy else (ValueError, TypeError), "errors")
    return [
        "try:",
        *(f"    {line}" for line in body),
        f"except {errors} as e:",
        f"    raise {misfit}(w, *{explain}(e)) from e",
    ]


def _maker(node: ModelNode) -> Callable[..., Any]:
    return node.dto.from_plain(node.model) if node.dto.plain else node.dto.constructor(node.model)


def _make_of_values(node: ModelNode, make: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """The function that makes the model of values by field name."""
    definitions = {each.name: each for each in node.dto.generate_field_definitions(node.model)}

    def make_of_values(values: Mapping[str, Any]) -> Any:
        if node.tag is not None and node.takes_tag:
            values = {node.tag[0]: node.tag[1], **values}
        if node.dto.plain or make is dict:
            return make(dict(values))
        later = {name for name in values if name in definitions and not definitions[name].init}
        given = {name: value for name, value in values.items() if name not in later}
        instance = make(**{_init_name(definitions, name): value for name, value in given.items()})
        for name in later:
            setattr(instance, name, values[name])
        return instance

    return make_of_values


def _init_name(definitions: Mapping[str, Any], name: str) -> str:
    return definitions[name].init_name or name if name in definitions else name


def _value(code: Code, field: Field, *, by_items: bool, all_may_lack: bool, unset: str) -> tuple[str, bool]:
    """The expression for a field of ``v``, and whether it may be ``UNSET``."""
    definition, name = field.definition, field.name
    if by_items and (all_may_lack or definition.optional):
        return f"v.get({name!r}, {unset})", True
    if by_items:
        return f"v[{name!r}]", False
    if definition.getter is not None:
        return f"{code.bind(definition.getter, 'get')}(v)", True
    if name.isidentifier():
        return f"v.{name}", False
    return f"{code.bind(getattr, 'getattr')}(v, {name!r})", False
