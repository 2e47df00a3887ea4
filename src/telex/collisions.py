"""Refuses messages whose numbers could all have one hash: sets of them, and dicts with such keys, take minutes to fill.

Python hashes numbers modulo 2**61 - 1, without a secret. Numbers of usual length share a hash with few others, so only
long ones are counted: each of a short list costs little, whatever its hash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from msgspec import inspect as types

from telex.exceptions import ValidationException

__all__ = ("MAX_LONG_NUMBERS", "guarded", "hashed_in_schema", "hashed_in_type")

MAX_LONG_NUMBERS: Final = 1000
"""Long numbers in a message that hashes numbers. So many with one hash take some 50 ms."""

_LONG: Final = {"int": 21, "decimal": 19}
"""Characters of a long number. At most 43 integers, and some 20 decimals, of fewer characters share a hash."""

_UNBOUNDED: Final = (types.IntType, types.AnyType)


def guarded(read: Callable[[str | bytes], Any], hashed: frozenset[str]) -> Callable[[str | bytes], Any]:
    """``read``, for a type that hashes ``hashed`` kinds of numbers, with a limit of long ones in a message."""
    if not hashed:
        return read
    length = min(_LONG[kind] for kind in hashed)
    # An escape may stand for a digit, and Decimal reads the digits of every script.
    text = re.compile(rf"(?:[\d_.+\-eE]|\\u[\da-fA-F]{{4}}){{{length},}}+")
    binary = re.compile(rb"(?:[\d_.+\-eE\x80-\xff]|\\u[\da-fA-F]{4}){%d,}+" % length)
    harmless = length * MAX_LONG_NUMBERS

    def read_guarded(raw: str | bytes) -> Any:
        if len(raw) > harmless:
            found = text.finditer(raw) if isinstance(raw, str) else binary.finditer(raw)
            if sum(1 for _ in found) > MAX_LONG_NUMBERS:
                raise ValidationException(
                    f"the message has more than {MAX_LONG_NUMBERS} numbers of {length} or more characters"
                )
        return read(raw)

    return read_guarded


def hashed_in_type(annotation: Any, custom: Callable[[Any], frozenset[str]]) -> frozenset[str]:
    """The kinds of numbers that msgspec puts into sets and keys of dicts; ``custom`` tells those of other types."""
    found: set[str] = set()
    for kind, is_hashed in _types_in(types.type_info(annotation), False, set()):
        if isinstance(kind, types.CustomType):
            found |= custom(kind.cls)
        if is_hashed and isinstance(kind, _UNBOUNDED):
            found.add("int")
        elif is_hashed and isinstance(kind, (types.DecimalType, types.CustomType)):
            found.add("decimal")
    return frozenset(found)


def _types_in(kind: Any, is_hashed: bool, seen: set[tuple[int, bool]]) -> Iterator[tuple[types.Type, bool]]:
    """Each type in ``kind``, and whether its values are hashed."""
    if isinstance(kind, (list, tuple)):
        for each in kind:
            yield from _types_in(each, is_hashed, seen)
    elif isinstance(kind, types.Field):
        yield from _types_in(kind.type, is_hashed, seen)
    elif isinstance(kind, types.Type) and (id(kind), is_hashed) not in seen:
        seen.add((id(kind), is_hashed))
        yield kind, is_hashed
        is_set = isinstance(kind, (types.SetType, types.FrozenSetType))
        for name in kind.__struct_fields__:
            yield from _types_in(getattr(kind, name), is_hashed or is_set or name == "key_type", seen)


def hashed_in_schema(schema: object, *, is_hashed: bool = False) -> frozenset[str]:
    """The same for a schema of pydantic's."""
    found: set[str] = set()
    if isinstance(schema, Mapping):
        kind = schema.get("type")
        if is_hashed and kind == "int":
            found.add("int")
        elif is_hashed and kind in {"decimal", "any", "definition-ref"}:  # a reference may be to anything
            found.add("decimal")
        for key, value in schema.items():
            if key not in {"metadata", "serialization"}:
                found |= hashed_in_schema(
                    value, is_hashed=is_hashed or kind in {"set", "frozenset"} or key == "keys_schema"
                )
    elif isinstance(schema, (list, tuple)):
        for value in schema:
            found |= hashed_in_schema(value, is_hashed=is_hashed)
    return frozenset(found)
