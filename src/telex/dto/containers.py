"""The collections that models may stand in: what they are on the wire, and how one is made of the other."""

from __future__ import annotations

import collections
import collections.abc as abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from telex.dto.code import Code, Source
from telex.dto.nodes import Shape

__all__ = ("is_container", "transfer_container")

_SEQUENCES: Final[Mapping[Any, str]] = {
    **dict.fromkeys((list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable, abc.Container), "list"),
    **dict.fromkeys((set, abc.Set, abc.MutableSet), "set"),
    frozenset: "frozenset",
    collections.deque: "deque",
}
_MAPPINGS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping, collections.OrderedDict})


def is_container(origin: object) -> bool:
    """Whether models may stand in collections of this class."""
    return origin in _SEQUENCES or origin in _MAPPINGS or origin is tuple


def transfer_container(
    code: Code, origin: Any, arguments: Sequence[Any], shapes: Sequence[Shape], to_wire: bool
) -> Shape:
    """The shape of ``origin[arguments]``, whose arguments have ``shapes`` of which some transfer.

    On the wire it is a list, a tuple or a dictionary.
    """
    if origin in _MAPPINGS:
        return _mapping(shapes)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is ...):
        return _fixed_tuple(shapes)
    return _sequence(code, origin, shapes[0], to_wire)


def _mapping(shapes: Sequence[Shape]) -> Shape:
    keys, values = shapes

    def source(mapping: str) -> str:
        return f"{{{keys.transfer('k')}: {values.transfer('v')} for k, v in {mapping}.items()}}"

    return Shape(dict[keys.wire, values.wire], source)  # type: ignore[name-defined]


def _fixed_tuple(shapes: Sequence[Shape]) -> Shape:
    def source(items: str) -> str:
        return f"({', '.join(shape.transfer(f'{items}[{index}]') for index, shape in enumerate(shapes))},)"

    return Shape(tuple[tuple(shape.wire for shape in shapes)], source)  # type: ignore[misc]


def _sequence(code: Code, origin: Any, item: Shape, to_wire: bool) -> Shape:
    kind = "list" if to_wire else _SEQUENCES.get(origin, "tuple")
    make: Callable[[str], str] | None = None if kind == "list" else _maker(code, kind)

    def source(items: str) -> str:
        listed = f"[{item.transfer('x')} for x in {items}]"
        return make(listed) if make is not None else listed

    return Shape(list[item.wire], source)  # type: ignore[name-defined]


def _maker(code: Code, kind: str) -> Source:
    name = code.bind({"set": set, "frozenset": frozenset, "deque": collections.deque, "tuple": tuple}[kind], kind)

    def source(listed: str) -> str:
        return f"{name}({listed})"

    return source
