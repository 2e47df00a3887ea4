"""From the wire type of a model to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from telex.dto.code import Code
from telex.dto.failures import Misfit
from telex.dto.nodes import Absent, Field, ModelNode

__all__ = ("generate_reader",)


def generate_reader(code: Code, node: ModelNode, *, inside: bool, lazy: bool) -> None:
    """Define ``node.function``, which takes the wire type and gives the model; and ``node.inline`` if it can be.

    ``inside``: it gives a dictionary, as the model is part of one that its own library makes. ``lazy``: it is for
    ``DTOData``, which gets what it needs besides.
    """
    reading = _Reading(code, node, inside, lazy)
    code.define(node.function, "w", reading.body())
    if reading.is_expression and not node.recursive and not lazy:
        node.inline = reading.expression
    if lazy:
        node.make = _make_of_values(node, dict if inside else reading.make)
        node.convert = {each.name: code.function(each.shape.transfer("v")) for each in node.fields}


@dataclass(slots=True)
class _Reading:
    code: Code
    node: ModelNode
    inside: bool
    lazy: bool
    make: Callable[..., Any] = field(init=False)
    make_name: str = field(init=False)
    unset: str = field(init=False)
    by_name: bool = field(init=False)
    """The fields are put into a dictionary by their own names."""

    def __post_init__(self) -> None:
        dto, model = self.node.dto, self.node.model
        self.make = dto.from_plain(model) if dto.plain else dto.constructor(model)
        self.make_name = self.code.bind(self.make, "make")
        self.unset = self.code.bind(msgspec.UNSET, "UNSET")
        self.by_name = self.inside or dto.plain or self.make is dict

    @property
    def is_expression(self) -> bool:
        """Whether nothing depends on what was sent, and nothing has to be set later."""
        later = [each for each in self.node.fields if not (self.by_name or each.definition.init)]
        is_call = self.by_name or all(self._key(each).isidentifier() for each in self.node.fields)
        return is_call and not later and not any(map(self._is_unsure, self.node.fields))

    def expression(self, wire: str, inline: bool) -> str:
        """The model, made of what is always there."""
        return self._made({self._key(each): self._value(each, wire, inline) for each in self._sure()})

    def body(self) -> list[str]:
        """The lines of the function."""
        lines = self._lines()
        return lines if self.inside else self._guarded(lines)

    def _lines(self) -> list[str]:
        if self.is_expression:
            return [f"return {self.expression('w', False)}"]
        lines = [f"m = {self._display({self._key(each): self._value(each, 'w', False) for each in self._sure()})}"]
        lines += [
            f"{self._if_sent(each)}m[{self._key(each)!r}] = {self._value(each, 'w', False)}"
            for each in self.node.fields
            if self._is_unsure(each) and self._is_argument(each)
        ]
        if not (self.inside or self.make is dict):
            lines.append(f"m = {self.make_name}({'' if self.by_name else '**'}m)")
        for each in self.node.fields:
            if not self._is_argument(each):
                condition = self._if_sent(each) if self._is_unsure(each) else ""
                lines.append(f"{condition}m.{each.name} = {self._value(each, 'w', False)}")
        return [*lines, "return m"]

    def _guarded(self, lines: list[str]) -> list[str]:
        """``lines``, whose errors say which wire value is at fault.

        A ``TypeError`` counts as the client's where all that the model needs is there, as for msgspec.
        """
        misfit, explain = self.code.bind(Misfit, "Misfit"), self.code.bind(self.node.dto.explain, "explain")
        errors = self.code.bind(ValueError if self.lazy else (ValueError, TypeError), "errors")
        return [
            "try:",
            *(f"    {line}" for line in lines),
            f"except {errors} as e:",
            f"    raise {misfit}(w, *{explain}(e)) from e",
        ]

    def _made(self, values: Mapping[str, str]) -> str:
        if not self.by_name:
            values = {**values, **self._tag()}
            return f"{self.make_name}({', '.join(f'{key}={value}' for key, value in values.items())})"
        display = self._display(values)
        return display if self.inside or self.make is dict else f"{self.make_name}({display})"

    def _display(self, values: Mapping[str, str]) -> str:
        return "{" + ", ".join(f"{key!r}: {value}" for key, value in {**values, **self._tag()}.items()) + "}"

    def _tag(self) -> dict[str, str]:
        if self.node.tag is None or not self.node.takes_tag:
            return {}
        return {self.node.tag[0]: self.code.bind(self.node.tag[1], "tag")}

    def _sure(self) -> list[Field]:
        return [each for each in self.node.fields if self._is_argument(each) and not self._is_unsure(each)]

    def _is_argument(self, each: Field) -> bool:
        return self.by_name or each.definition.init

    def _is_unsure(self, each: Field) -> bool:
        """Whether the field may be left out and has no default that is known here."""
        return each.absent is Absent.MISSING and (self.lazy or not each.definition.has_default)

    def _if_sent(self, each: Field) -> str:
        return f"if w.{each.attribute} is not {self.unset}: "

    def _key(self, each: Field) -> str:
        return each.name if self.by_name else each.definition.init_name or each.name

    def _value(self, each: Field, wire: str, inline: bool) -> str:
        """The expression for a field; for its default where that is not the wire type's own."""
        raw, definition = f"{wire}.{each.attribute}", each.definition
        value = each.shape.transfer(raw, inline)
        if each.absent is not Absent.MISSING or self._is_unsure(each):
            return value
        if definition.default_factory is not None:
            return f"({self.code.bind(definition.default_factory, 'new')}() if {raw} is {self.unset} else {value})"
        return f"({self.code.bind(definition.default, 'default')} if {raw} is {self.unset} else {value})"


def _make_of_values(node: ModelNode, make: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    """The function that makes the model of values by field name."""
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
