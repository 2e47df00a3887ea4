"""From a model to its wire type."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from telex.dto.code import Code
from telex.dto.failures import unwritable
from telex.dto.nodes import Field, ModelNode

__all__ = ("generate_writer",)


def generate_writer(code: Code, node: ModelNode, *, inside: bool) -> None:
    """Define ``node.function``, which takes the model and gives the wire type; and ``node.inline`` if it can be.

    ``inside``: it takes a dictionary, as the model is part of one that its own library has taken apart.
    """
    writing = _Writing(code, node, inside)
    code.define(node.function, "v", writing.body())
    if writing.is_expression and not node.recursive:
        node.inline = writing.expression


@dataclass(slots=True)
class _Writing:
    code: Code
    node: ModelNode
    inside: bool
    unset: str = field(init=False)
    wire_name: str = field(init=False)
    lacking: bool = field(init=False)
    """Any field may be absent: another library has decided what there is."""

    def __post_init__(self) -> None:
        self.unset = self.code.bind(msgspec.UNSET, "UNSET")
        self.wire_name = self.code.bind(self.node.wire, "Wire")
        self.lacking = self.inside or self.node.dto.plain

    @property
    def is_expression(self) -> bool:
        """Whether reading a field twice costs next to nothing, and each is there."""
        is_simple = all(each.definition.getter is None and not self._may_lack(each) for each in self.node.fields)
        return is_simple and not self.lacking

    def expression(self, model: str, inline: bool) -> str:
        """The wire type, made of the model's fields."""
        return self._made([each.shape.transfer(self._read(each, model), inline) for each in self.node.fields])

    def body(self) -> list[str]:
        """The lines of the function."""
        refuse = self.code.bind(unwritable, "unwritable")
        title = self.code.bind(f"{self.node.dto.__qualname__}: {self.node.title}", "title")
        return [
            "try:",
            *(f"    {line}" for line in self._lines()),
            "except (AttributeError, KeyError, TypeError) as e:",
            f"    raise {refuse}(v, {title}, e) from e",
        ]

    def _lines(self) -> list[str]:
        if self.is_expression:
            return [f"return {self.expression('v', False)}"]
        lines, values = [], []
        if self.node.dto.plain and not self.inside:
            lines.append(f"v = {self.code.bind(self.node.dto.to_plain(self.node.model), 'plain')}(v)")
        for each in self.node.fields:
            local = f"t_{each.attribute}"
            lines.append(f"{local} = {self._read(each, 'v')}")
            if each.shape.source is not None:
                unset = f"{self.unset} if {local} is {self.unset} else "
                lines.append(f"{local} = {unset if self._may_lack(each) else ''}{each.shape.transfer(local)}")
            values.append(local)
        return [*lines, f"return {self._made(values)}"]

    def _made(self, values: list[str]) -> str:
        if self.node.keywords:
            values = [f"{each.attribute}={value}" for each, value in zip(self.node.fields, values, strict=True)]
        return f"{self.wire_name}({', '.join(values)})"

    def _may_lack(self, each: Field) -> bool:
        by_items = self.lacking or self.node.dto.by_items
        return self.lacking or each.definition.getter is not None or (by_items and each.definition.optional)

    def _read(self, each: Field, model: str) -> str:
        """The expression for a field of the model."""
        definition, name = each.definition, each.name
        if self.lacking or self.node.dto.by_items:
            return f"{model}.get({name!r}, {self.unset})" if self._may_lack(each) else f"{model}[{name!r}]"
        if definition.getter is not None:
            return f"{self.code.bind(definition.getter, 'get')}({model})"
        return f"{model}.{name}" if name.isidentifier() else f"{self.code.bind(getattr, 'getattr')}({model}, {name!r})"
