"""Validation errors of models, with the path of the invalid value in the message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import msgspec

from telex.dto.nodes import WIRE_NODE, ModelNode
from telex.exceptions import SerializationException, ValidationException

__all__ = ("Misfit", "innermost", "located", "refuse", "unwritable")


class Misfit(Exception):
    """The model of ``node`` could not be created from a wire value, because of ``error``."""

    def __init__(self, wire: object, node: ModelNode, error: Exception) -> None:
        super().__init__(str(error))
        self.wire: object = wire
        self.error: Exception = error
        message, inside = node.dto.explain(error)
        self.message: str = message
        self.inside: Sequence[str | int] = inside


def refuse(root: object, error: Exception) -> NoReturn:
    """Raise the validation error for a message whose conversion raised ``error``.

    ``error`` does not say which model raised it, so this creates each model again, innermost first. If none raises,
    ``error`` was not caused by the message and is raised unchanged.
    """
    misfit = innermost(root, (ValueError, TypeError))
    if misfit is None:
        raise error
    raise located(misfit, root) from misfit.error


def innermost(wire: object, errors: type[Exception] | tuple[type[Exception], ...]) -> Misfit | None:
    """The first model in a wire value that cannot be created; inner models are tried before outer ones."""
    for _, inner in _items(wire):
        found = innermost(inner, errors)
        if found is not None:
            return found
    node: ModelNode | None = getattr(type(wire), WIRE_NODE, None)
    if node is not None and node.read is not None:
        try:
            node.read(wire)
        except (ValueError, TypeError) as exc:
            return Misfit(wire, node, exc) if isinstance(exc, errors) else None
    return None


def located(misfit: Misfit, root: object) -> ValidationException:
    """The validation error for ``misfit`` in the message ``root``, with its path in the names of the message."""
    way = next(_ways(root, misfit.wire, ""), "")
    return ValidationException(misfit.message, path=f"${way}{_inside(misfit)}")


def unwritable(value: object, title: str, exc: Exception) -> Exception:
    """The error for a value that could not be converted to its wire type."""
    if isinstance(exc, SerializationException):
        return exc
    return SerializationException(f"{title} cannot be written from a {type(value).__name__}: {exc!r}")


def _ways(value: object, target: object, way: str) -> Iterator[str]:
    if value is target:
        yield way
    for part, inner in _items(value):
        yield from _ways(inner, target, way + part)


def _items(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        for attribute, name in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            yield f".{name}", getattr(value, attribute)
    elif isinstance(value, dict):
        yield from ((f".{key}", inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", inner) for index, inner in enumerate(value))


def _inside(misfit: Misfit) -> str:
    """The path inside the model, in the names of the message.

    A part that is not in the value, such as the label of a union, is left out.
    """
    way, value = "", misfit.wire
    for part in misfit.inside:
        node: ModelNode | None = getattr(type(value), WIRE_NODE, None)
        field = None if node is None else next((each for each in node.fields if each.name == part), None)
        if field is not None:
            way, value = f"{way}.{field.wire_name}", getattr(value, field.attribute)
        elif isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value):
            way, value = f"{way}[{part}]", value[part]
        elif isinstance(value, dict) and part in value:
            way, value = f"{way}.{part}", value[part]
    return way
