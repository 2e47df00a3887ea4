"""Where on the wire the value stands that a model refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from telex.dto.nodes import WIRE_NAMES
from telex.exceptions import SerializationException, ValidationException

__all__ = ("Misfit", "located", "unwritable")


class Misfit(Exception):
    """A model was not made of a wire value: the cause says why.

    ``wire`` is that value; ``inside`` the way from it to what is wrong, in the model's names.
    """

    def __init__(self, wire: object, message: str, inside: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.wire = wire
        self.inside = inside


def located(misfit: Misfit, root: object) -> ValidationException:
    """The validation error for ``misfit`` somewhere in the message ``root``, with the path that its sender knows."""
    way = next(_ways(root, misfit.wire, ""), "")
    return ValidationException(misfit.message, path=f"${way}{_inside(misfit.wire, misfit.inside)}")


def unwritable(value: object, title: str, exc: Exception) -> Exception:
    """The error for a value that could not be transferred to the wire."""
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


def _inside(value: Any, parts: Sequence[str | int]) -> str:
    """``parts`` in the names of the wire; one that is no place in the value, such as a union's label, is left out."""
    way = ""
    for part in parts:
        names = getattr(type(value), WIRE_NAMES, None)
        if names is not None and part in names:
            attribute, name = names[part]
            way, value = f"{way}.{name}", getattr(value, attribute)
        elif isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value):
            way, value = f"{way}[{part}]", value[part]
        elif isinstance(value, dict) and part in value:
            way, value = f"{way}.{part}", value[part]
    return way
