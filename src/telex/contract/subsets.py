"""Whether each value of one JSON schema is a value of another, and where not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telex.contract.checks import fits
from telex.contract.schemas import COMPONENTS, Schema

__all__ = ("Mismatch", "Side", "mismatches", "shown")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A place where a value of the narrower schema may not be one of the wider."""

    path: str
    narrower: str
    wider: str


@dataclass(frozen=True, slots=True)
class Side:
    """A schema with the components that it refers to."""

    schema: Schema
    components: Mapping[str, Schema]

    def of(self, schema: Schema) -> Side:
        """Another schema with the same components."""
        return Side(schema, self.components)

    @property
    def plain(self) -> Side:
        """The schema behind references, with all of its keywords."""
        found, schema = self, self.schema
        while "$ref" in schema or "allOf" in schema:
            if "$ref" in schema:
                schema = self.components.get(schema["$ref"].removeprefix(COMPONENTS), {})
            else:
                rest = {key: each for key, each in schema.items() if key != "allOf"}
                inner = [self.of(each).plain.schema for each in schema["allOf"]]
                schema = {key: each for part in (*inner, rest) for key, each in part.items()}
            found = self.of(schema)
        return found

    @property
    def members(self) -> list[Side]:
        """The members of a union; the schema itself for another."""
        plain = self.plain
        if "anyOf" not in plain.schema:
            return [plain]
        return [member for each in plain.schema["anyOf"] for member in self.of(each).members]

    @property
    def values(self) -> list[Any] | None:
        """All values, where the schema lists them."""
        if "const" in self.schema:
            return [self.schema["const"]]
        found: list[Any] | None = self.schema.get("enum")
        return found


def mismatches(
    narrow: Side, wide: Side, *, reads: bool, path: str = "$", seen: frozenset[Any] = frozenset()
) -> list[Mismatch]:
    """Where a value of ``narrow`` may not be one of ``wide``; empty if all are.

    :param reads: a client reads the values as ``wide``: it ignores fields that it does not know.
    """
    key = (json.dumps(narrow.schema, sort_keys=True), json.dumps(wide.schema, sort_keys=True))
    if key in seen:
        return []
    seen |= {key}
    wide_members = wide.members
    if any(_is_open(each.schema) for each in wide_members):
        return []
    found: list[Mismatch] = []
    for member in narrow.members:
        tried = [_of_member(member, each, reads=reads, path=path, seen=seen) for each in wide_members]
        if all(tried):
            found += _closest(member, wide_members, tried)
    return found


def _closest(member: Side, others: Sequence[Side], tried: Sequence[list[Mismatch]]) -> list[Mismatch]:
    """The mismatches with the member of a union that is meant: with the same tag, else the one that differs least."""
    tag = tag_of(member)
    distances = [(tag is None or tag_of(other) != tag, len(found)) for other, found in zip(others, tried, strict=True)]
    return tried[distances.index(min(distances))]


def tag_of(side: Side) -> Any:
    """The name and value of the field that distinguishes a type."""
    for name, each in side.schema.get("properties", {}).items():
        if "const" in each:
            return name, each["const"]
    return None


def _is_open(schema: Schema) -> bool:
    return not (set(schema) - {"description", "title", "default", "examples", "x-telex-type"})


def _of_member(narrow: Side, wide: Side, *, reads: bool, path: str, seen: frozenset[Any]) -> list[Mismatch]:
    values = narrow.values
    if values is not None:
        wrong = [each for each in values if not fits(each, wide.schema, wide.components)]
        return [Mismatch(path, _json(wrong), shown(wide))] if wrong else []
    if _is_open(narrow.schema) or wide.values is not None or not _kinds(narrow.schema) <= _kinds(wide.schema):
        return [Mismatch(path, shown(narrow), shown(wide))]
    found = [
        Mismatch(path, f"{key} {narrow.schema.get(key, 'none')}", f"{key} {limit}")
        for key, limit in wide.schema.items()
        if key in _IMPLIED and not _IMPLIED[key](narrow.schema, limit)
    ]
    if narrow.schema.get("type") == "object":
        found += _of_object(narrow, wide, reads=reads, path=path, seen=seen)
    if narrow.schema.get("type") == "array":
        found += _of_array(narrow, wide, reads=reads, path=path, seen=seen)
    return found


def _of_object(narrow: Side, wide: Side, *, reads: bool, path: str, seen: frozenset[Any]) -> Iterator[Mismatch]:
    has, takes = narrow.schema.get("properties", {}), wide.schema.get("properties", {})
    always = narrow.schema.get("required", ())
    for name in wide.schema.get("required", ()):
        if name not in always:
            yield Mismatch(f"{path}.{name}", "may be left out" if name in has else "is not there", "is required")
    more = wide.schema.get("additionalProperties", True)
    for name, schema in has.items():
        if name in takes:
            yield from mismatches(
                narrow.of(schema), wide.of(takes[name]), reads=reads, path=f"{path}.{name}", seen=seen
            )
        elif isinstance(more, dict):
            yield from mismatches(narrow.of(schema), wide.of(more), reads=reads, path=f"{path}.{name}", seen=seen)
        elif more is False and not reads:
            yield Mismatch(f"{path}.{name}", "may be there", "is forbidden")
    own = narrow.schema.get("additionalProperties", True)
    if isinstance(more, dict):
        rest = narrow.of(own if isinstance(own, dict) else {})
        if own is not False and not (own is True and has):
            yield from mismatches(rest, wide.of(more), reads=reads, path=f"{path}.*", seen=seen)


def _of_array(narrow: Side, wide: Side, *, reads: bool, path: str, seen: frozenset[Any]) -> Iterator[Mismatch]:
    positions = narrow.schema.get("items"), wide.schema.get("items")
    count = max((len(each) for each in positions if isinstance(each, list)), default=1)
    most = narrow.schema.get("maxItems", count)
    for index in range(min(count, most) if most else 0):
        yield from mismatches(
            _item(narrow, index),
            _item(wide, index),
            reads=reads,
            path=f"{path}[{index if count > 1 else '*'}]",
            seen=seen,
        )


def _item(side: Side, index: int) -> Side:
    items = side.schema.get("items", {})
    if isinstance(items, dict):
        return side.of(items)
    return side.of(items[index] if index < len(items) else side.schema.get("additionalItems", {}))


def _kinds(schema: Schema) -> frozenset[str]:
    kinds = schema.get("type", _ALL)
    found = frozenset([kinds] if isinstance(kinds, str) else kinds)
    return found | {"integer"} if "number" in found else found


_ALL: Final = ("null", "boolean", "integer", "number", "string", "array", "object")


def _at_least(*keys: str) -> Callable[[Schema, Any], bool]:
    return lambda schema, limit: any(key in schema and schema[key] >= limit for key in keys)


def _at_most(*keys: str) -> Callable[[Schema, Any], bool]:
    return lambda schema, limit: any(key in schema and schema[key] <= limit for key in keys)


def _equal(key: str) -> Callable[[Schema, Any], bool]:
    return lambda schema, value: bool(schema.get(key) == value)


_IMPLIED: Final[Mapping[str, Callable[[Schema, Any], bool]]] = {
    "minimum": _at_least("minimum", "exclusiveMinimum"),
    "maximum": _at_most("maximum", "exclusiveMaximum"),
    "exclusiveMinimum": lambda schema, limit: (
        schema.get("exclusiveMinimum", limit - 1) >= limit or schema.get("minimum", limit) > limit
    ),
    "exclusiveMaximum": lambda schema, limit: (
        schema.get("exclusiveMaximum", limit + 1) <= limit or schema.get("maximum", limit) < limit
    ),
    "multipleOf": lambda schema, step: "multipleOf" in schema and schema["multipleOf"] % step == 0,
    "minLength": lambda schema, limit: limit <= schema.get("minLength", 0),
    "maxLength": _at_most("maxLength"),
    "minItems": lambda schema, limit: limit <= schema.get("minItems", 0),
    "maxItems": _at_most("maxItems"),
    "minProperties": lambda schema, limit: limit <= schema.get("minProperties", 0),
    "maxProperties": _at_most("maxProperties"),
    "pattern": _equal("pattern"),
    "format": _equal("format"),
    "contentEncoding": _equal("contentEncoding"),
    "uniqueItems": _equal("uniqueItems"),
}
"""Whether a narrower schema keeps within a limit of a wider one."""


def shown(side: Side) -> str:
    """A schema in a few words."""
    members = side.members
    if len(members) > 1:
        return " | ".join(dict.fromkeys(map(shown, members)))
    (only,) = members
    if only.values is not None:
        return _json(only.values)
    tag = tag_of(only)
    kind = only.schema.get("type", "any value")
    name = tag[1] if tag is not None else only.schema.get("title")
    words = [str(name) if name else kind if isinstance(kind, str) else " | ".join(kind)]
    return " ".join([*words, *([only.schema["format"]] if "format" in only.schema else [])])


def _json(values: list[Any]) -> str:
    return " | ".join(json.dumps(each) for each in values)
