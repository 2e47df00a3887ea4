"""Generates the functions that convert models to their wire types."""

from __future__ import annotations

import msgspec

from telex.dto.code import VALUE, Code, call, get
from telex.dto.nodes import Field, ModelNode

__all__ = ("generate_writer",)


def generate_writer(code: Code, node: ModelNode, *, inside: bool) -> None:
    """Define ``node.function``, which converts the model to the wire type; or ``node.source``, if one expression is
    sufficient.

    ``inside``: it converts a dictionary, because the library of an outer model has already dumped this one.
    """
    unset = code.bind(msgspec.UNSET, "UNSET")
    any_may_lack = inside or node.dto.plain
    by_items = any_may_lack or node.dto.by_items
    lines, values = [], {}
    if node.dto.plain and not inside:
        lines.append(f"{VALUE} = {code.bind(node.dto.to_plain(node.model), 'plain')}({VALUE})")
    for each in node.fields:
        may_lack = any_may_lack or (by_items and each.definition.optional)
        value = _item(each, unset, may_lack=may_lack) if by_items else _attribute(code, each)
        if each.shape.source is not None and (may_lack or each.definition.getter is not None):
            local = f"t_{each.attribute}"
            lines.append(f"{local} = {value}")
            values[each.attribute] = f"{unset} if {local} is {unset} else {each.shape.transfer(local)}"
        else:
            values[each.attribute] = each.shape.transfer(value)
    wire = code.bind(node.wire, "Wire")
    made = call(wire, values) if node.keywords else f"{wire}({', '.join(values.values())})"
    if lines or node.recursive:
        code.define(node.function, [*lines, f"return {made}"])
    else:
        node.source = made


def _item(field: Field, unset: str, *, may_lack: bool) -> str:
    return f"{VALUE}.get({field.name!r}, {unset})" if may_lack else f"{VALUE}[{field.name!r}]"


def _attribute(code: Code, field: Field) -> str:
    getter = field.definition.getter
    return get(VALUE, field.name) if getter is None else f"{code.bind(getter, 'get')}({VALUE})"
