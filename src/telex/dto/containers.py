"""The collections that may contain models: their wire types and their conversion."""

from __future__ import annotations

import collections
import collections.abc as abc
from collections.abc import Mapping, Sequence
from typing import Any, Final

from telex.dto.code import VALUE, Code
from telex.dto.nodes import Shape

__all__ = ("is_container", "transfer_container")

_SEQUENCES: Final[Mapping[Any, str]] = {
    **dict.fromkeys((list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable, abc.Container), "list"),
    **dict.fromkeys((set, abc.Set, abc.MutableSet), "set"),
    frozenset: "frozenset",
    collections.deque: "deque",
}
_MAKERS: Final = {"set": set, "frozenset": frozenset, "deque": collections.deque, "tuple": tuple}
_MAPPINGS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping, collections.OrderedDict})


def is_container(origin: object) -> bool:
    """Whether collections of this class may contain models."""
    return origin in _SEQUENCES or origin in _MAPPINGS or origin is tuple


def transfer_container(
    code: Code, origin: Any, arguments: Sequence[Any], shapes: Sequence[Shape], to_wire: bool
) -> Shape:
    """The shape of ``origin[arguments]`` with the ``shapes`` of its arguments, at least one of which is converted.

    Its wire type is a list, a tuple or a dictionary.
    """
    if origin in _MAPPINGS:
        return _mapping(shapes)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is ...):
        return _fixed_tuple(shapes)
    return _sequence(code, origin, shapes[0], to_wire)


def _mapping(shapes: Sequence[Shape]) -> Shape:
    keys, values = shapes

    pair = f"{keys.transfer('k')}: {values.transfer('v')}"
    return Shape(dict[keys.wire, values.wire], f"{{{pair} for k, v in {VALUE}.items()}}")  # type: ignore[name-defined]


def _fixed_tuple(shapes: Sequence[Shape]) -> Shape:
    items = (shape.transfer(f"{VALUE}[{index}]") for index, shape in enumerate(shapes))
    return Shape(tuple[tuple(shape.wire for shape in shapes)], f"({', '.join(items)},)")  # type: ignore[misc]


def _sequence(code: Code, origin: Any, item: Shape, to_wire: bool) -> Shape:
    kind = "list" if to_wire else _SEQUENCES.get(origin, "tuple")
    listed = f"[{item.transfer('x')} for x in {VALUE}]"
    source = listed if kind == "list" else f"{code.bind(_MAKERS[kind], kind)}({listed})"
    return Shape(list[item.wire], source)  # type: ignore[name-defined]
