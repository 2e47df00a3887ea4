"""Checks of a document that the parser of AsyncAPI does not make: references, parameters, replies and examples."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from telex.contract.schemas import COMPONENTS, Schema, references

__all__ = ("check_document", "fits")


def check_document(document: Mapping[str, Any]) -> list[str]:
    """What is wrong with the document, each with the place where it stands."""
    return [
        *_dangling(document),
        *_parameters(document),
        *_messages_elsewhere(document),
        *_wrong_values(document, document["components"]["schemas"], "$"),
    ]


def _dangling(document: Mapping[str, Any]) -> Iterator[str]:
    for reference in dict.fromkeys(references(document)):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is None:
            yield f"the reference {reference} leads nowhere"


def _parameters(document: Mapping[str, Any]) -> Iterator[str]:
    for name, channel in document["channels"].items():
        in_address = set(re.findall(r"\{(\w+)\}", channel["address"]))
        if in_address != set(channel.get("parameters", ())):
            yield f"channel {name}: its parameters are not those of its address {channel['address']}"


def _messages_elsewhere(document: Mapping[str, Any]) -> Iterator[str]:
    for name, operation in document["operations"].items():
        for part in (operation, operation.get("reply", {"channel": operation["channel"], "messages": []})):
            home = part["channel"]["$ref"] + "/messages/"
            for each in part["messages"]:
                if not each["$ref"].startswith(home):
                    yield f"operation {name}: the message {each['$ref']} is not one of its channel"


def _wrong_values(part: Any, components: Mapping[str, Schema], where: str) -> Iterator[str]:
    """Examples that are not of their schema. Defaults are the code's own values, which nobody sends."""
    if isinstance(part, list):
        for index, each in enumerate(part):
            yield from _wrong_values(each, components, f"{where}[{index}]")
    if not isinstance(part, Mapping):
        return
    examples = part.get("examples")
    if isinstance(examples, list) and not where.endswith(".properties"):
        for example in examples:
            if not fits(example, {key: each for key, each in part.items() if key != "examples"}, components):
                yield f"{where}: the example {example!r:.80} is not of its schema"
    for key, each in part.items():
        if key not in {"examples", "default", "const", "enum"} or where.endswith(".properties"):
            yield from _wrong_values(each, components, f"{where}.{key}")


# -- values


def fits(value: Any, schema: Schema, components: Mapping[str, Schema]) -> bool:
    """Whether a JSON value is of ``schema``, as far as the keywords go that Telex writes. Formats are not checked."""
    if "$ref" in schema:
        return fits(value, components.get(schema["$ref"].removeprefix(COMPONENTS), {}), components)
    kinds = schema.get("type")
    if kinds is not None and not any(_TYPES[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if "const" in schema and not _same(value, schema["const"]):
        return False
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        return False
    if any(_LIMITS[key](value, limit) is False for key, limit in schema.items() if key in _LIMITS):
        return False
    if "anyOf" in schema and not any(fits(value, each, components) for each in schema["anyOf"]):
        return False
    if "allOf" in schema and not all(fits(value, each, components) for each in schema["allOf"]):
        return False
    if "not" in schema and fits(value, schema["not"], components):
        return False
    if isinstance(value, dict):
        return _fits_object(value, schema, components)
    return not isinstance(value, list) or _fits_array(value, schema, components)


def _fits_object(value: dict[str, Any], schema: Schema, components: Mapping[str, Schema]) -> bool:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
    if any(name not in value for name in schema.get("required", ())):
        return False
    for name, each in value.items():
        if name in properties:
            if not fits(each, properties[name], components):
                return False
        elif more is False or (isinstance(more, dict) and not fits(each, more, components)):
            return False
    return True


def _fits_array(value: list[Any], schema: Schema, components: Mapping[str, Schema]) -> bool:
    items = schema.get("items", {})
    if isinstance(items, dict):
        return all(fits(each, items, components) for each in value)
    rest = schema.get("additionalItems", {})
    return all(fits(each, items[index] if index < len(items) else rest, components) for index, each in enumerate(value))


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_LIMITS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "minimum": lambda value, limit: not _is_number(value) or value >= limit,
    "maximum": lambda value, limit: not _is_number(value) or value <= limit,
    "exclusiveMinimum": lambda value, limit: not _is_number(value) or value > limit,
    "exclusiveMaximum": lambda value, limit: not _is_number(value) or value < limit,
    "multipleOf": lambda value, step: (
        not _is_number(value) or math.isclose(math.remainder(value, step), 0, abs_tol=1e-9)
    ),
    "minLength": lambda value, limit: not isinstance(value, str) or len(value) >= limit,
    "maxLength": lambda value, limit: not isinstance(value, str) or len(value) <= limit,
    "pattern": lambda value, pattern: not isinstance(value, str) or re.search(pattern, value) is not None,
    "minItems": lambda value, limit: not isinstance(value, list) or len(value) >= limit,
    "maxItems": lambda value, limit: not isinstance(value, list) or len(value) <= limit,
    "minProperties": lambda value, limit: not isinstance(value, dict) or len(value) >= limit,
    "maxProperties": lambda value, limit: not isinstance(value, dict) or len(value) <= limit,
}
