"""JSON schemas of annotations, in the form that AsyncAPI documents take.

msgspec and pydantic write the schemas. A type that is received and sent has two schemas if they differ: clients may
leave a field with a default out, and always get it.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from telex import pydantic_codecs
from telex.annotations import union_members

__all__ = ("COMPONENTS", "Direction", "Schema", "Schemas", "references", "rename", "write_schemas")

Schema: TypeAlias = dict[str, Any]
Direction: TypeAlias = Literal["receive", "send"]
Wanted: TypeAlias = tuple[Any, bool]
"""An annotation, and whether pydantic reads or writes all of it."""

COMPONENTS: Final = "#/components/schemas/"
_LATER: Final = "#/pydantic/"
"""Marks references to schemas that pydantic writes after msgspec."""


class Schemas:
    """The schemas of the annotations that are added, once :meth:`write` has been called."""

    def __init__(self, is_opaque: Callable[[Any], bool]) -> None:
        """``is_opaque`` says which custom types the app's own functions read or write: their form is unknown."""
        self._is_opaque = is_opaque
        self._wanted: dict[Direction, list[Wanted]] = {"receive": [], "send": []}
        self._written: dict[Direction, list[Schema]] = {}
        self.components: dict[str, Schema] = {}

    def add(self, annotation: Any, direction: Direction, *, by_pydantic: bool) -> Callable[[], Schema]:
        """The function that returns the schema of ``annotation``, once all are written."""
        position = len(self._wanted[direction])
        self._wanted[direction].append((annotation, by_pydantic))
        return lambda: self._written[direction][position]

    def write(self) -> None:
        """Write the schemas of all annotations, and the components that they refer to."""
        directions: tuple[tuple[Direction, str], ...] = (("receive", ""), ("send", "Sent"))
        for direction, suffix in directions:
            written, components = write_schemas(self._wanted[direction], direction, self._is_opaque)
            names = _merge(self.components, components, suffix)
            self._written[direction] = [rename(each, names) for each in written]


def write_schemas(
    wanted: Sequence[Wanted], direction: Direction, is_opaque: Callable[[Any], bool]
) -> tuple[list[Schema], dict[str, Schema]]:
    """The schemas of annotations for one direction, and the components that they refer to."""
    pydantic: dict[str, Any] = {}
    components: dict[str, Schema] = {}

    def later(annotation: Any) -> Schema:
        key = next((key for key, known in pydantic.items() if known is annotation), str(len(pydantic)))
        pydantic[key] = annotation
        return {"$ref": _LATER + key}

    def describe_custom(kind: type) -> Schema:
        if is_opaque(kind) or pydantic_codecs.why_not(kind) is not None:
            return {"x-telex-type": getattr(kind, "__qualname__", repr(kind))}
        return later(kind)

    def describe(annotation: Any, by_pydantic: bool) -> Schema:
        if by_pydantic:
            return later(annotation)
        described = _by_msgspec(annotation, direction, describe_custom)
        if described is None:
            members = [describe(each, False) for each in union_members(annotation)]
            return {"anyOf": members} if members else {}
        schema, of_annotation = described
        return cast("Schema", rename(_digest(schema), _merge(components, _digests(of_annotation))))

    written = [describe(annotation, by_pydantic) for annotation, by_pydantic in wanted]
    if pydantic:
        by_key, definitions = pydantic_codecs.json_schemas(pydantic, direction == "receive", COMPONENTS + "{model}")
        names = _merge(components, _digests(definitions))
        targets = {_LATER + key: rename(_digest(each), names) for key, each in by_key.items()}
        written = [_replaced(each, targets) for each in written]
        components = {name: _replaced(each, targets) for name, each in components.items()}
    return written, components


# -- msgspec


def _by_msgspec(
    annotation: Any, direction: Direction, hook: Callable[[type], Schema]
) -> tuple[Schema, dict[str, Schema]] | None:
    """The schema of one annotation and its components; ``None`` for a type that msgspec cannot describe."""
    try:
        models = dict(_always_sent(annotation)) if direction == "send" else {}
        found, written = msgspec.json.schema_components(
            [annotation, *models], schema_hook=hook, ref_template=COMPONENTS + "{name}"
        )
    except Exception:  # msgspec may raise many classes
        return None
    components = dict(written)
    for schema, always in zip(found[1:], models.values(), strict=True):
        name = schema["$ref"].removeprefix(COMPONENTS)
        model = components[name]
        if "properties" in model:
            tag = [each for each in model.get("required", ()) if each not in always]
            required = [*tag, *(each for each in model["properties"] if each in always)]
            components[name] = model | ({"required": required} if required else {})
    return found[0], components


def _always_sent(annotation: Any) -> Iterator[tuple[Any, frozenset[str]]]:
    """The models in ``annotation``, each with the names of the fields that are always on the wire."""
    stack: list[Any] = [msgspec.inspect.type_info(annotation)]
    seen: set[int] = set()
    while stack:
        info = stack.pop()
        if isinstance(info, (list, tuple)):
            stack.extend(info)
        if not isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)) or id(info) in seen:
            continue
        seen.add(id(info))
        stack.extend(getattr(info, name) for name in info.__struct_fields__)
        if isinstance(info, (msgspec.inspect.StructType, msgspec.inspect.DataclassType)):
            config = getattr(info.cls, "__struct_config__", None)
            omits = config is not None and config.omit_defaults
            sent = (each for each in info.fields if each.required or (_has_default(each) and not omits))
            yield info.cls, frozenset(each.encode_name for each in sent)


def _has_default(each: msgspec.inspect.Field) -> bool:
    """False for a field that is UNSET by default: it is not on the wire then."""
    return each.default is not msgspec.NODEFAULT or each.default_factory is not msgspec.NODEFAULT


# -- the form


def _digests(schemas: Mapping[str, Schema]) -> dict[str, Schema]:
    return {name: _digest(each, title=True) for name, each in schemas.items()}


def _digest(schema: Any, *, title: bool = False) -> Any:
    """``schema`` in the form that the parser of AsyncAPI takes: JSON Schema draft 7, without discriminators."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    found: Schema = {}
    for key, value in schema.items():
        if key in {"discriminator", "prefixItems"} or (key == "title" and not title):
            continue
        if key == "description":
            found[key] = inspect.cleandoc(value)
        elif key in {"properties", "patternProperties"}:
            found[key] = {name: _digest(each) for name, each in value.items()}
        elif key in {"anyOf", "oneOf", "allOf"}:
            found[key] = [_digest(each) for each in value]
        elif key == "additionalProperties" and isinstance(value, bool):
            found[key] = value
        elif key in {"items", "additionalProperties", "propertyNames", "not"}:
            found[key] = _digest(value)
        else:
            found[key] = value
    if "prefixItems" in schema:
        found.pop("items", None)
        found["items"] = [_digest(each) for each in schema["prefixItems"]]
        if isinstance(schema.get("items"), dict):
            found["additionalItems"] = _digest(schema["items"])
    return _plain(found)


def _plain(schema: Schema) -> Schema:
    """``schema`` with unions in one form, constants as such, and nothing beside a reference."""
    if "oneOf" in schema and "anyOf" not in schema:
        schema = {"anyOf" if key == "oneOf" else key: value for key, value in schema.items()}
    if "anyOf" in schema:
        members = [inner for each in schema["anyOf"] for inner in (each["anyOf"] if set(each) == {"anyOf"} else [each])]
        unique: list[Schema] = []
        for each in members:
            if each not in unique:
                unique.append(each)
        schema = schema | {"anyOf": unique}
    if len(schema.get("enum", ())) == 1:
        value = schema["enum"][0]
        schema = {"const" if key == "enum" else key: value if key == "enum" else each for key, each in schema.items()}
    if schema.get("enum") and all(isinstance(each, str) for each in schema["enum"]):
        schema = {"type": "string"} | schema
    if "const" in schema and "type" not in schema:
        kind = _TYPES.get(type(schema["const"]))
        schema = ({"type": kind} if kind else {}) | schema
    if "$ref" in schema and len(schema) > 1:
        schema = {"allOf": [{"$ref": schema["$ref"]}]} | {key: each for key, each in schema.items() if key != "$ref"}
    return schema


_TYPES: Final = {str: "string", int: "integer", bool: "boolean", float: "number", type(None): "null"}


# -- names


def references(schema: Any) -> Iterator[str]:
    """The references in ``schema``, at any depth."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def rename(schema: Any, names: Mapping[str, str]) -> Any:
    """``schema`` with the references to components replaced."""
    return _replaced(schema, {COMPONENTS + old: {"$ref": COMPONENTS + new} for old, new in names.items()})


def _replaced(schema: Any, targets: Mapping[str, Schema]) -> Any:
    """``schema`` with the references in ``targets`` replaced by schemas."""
    if isinstance(schema, dict):
        found = {key: _replaced(value, targets) for key, value in schema.items()}
        target = targets.get(found["$ref"]) if isinstance(found.get("$ref"), str) else None
        if target is None:
            return found
        return {key: value for key, value in found.items() if key != "$ref"} | target
    return [_replaced(value, targets) for value in schema] if isinstance(schema, list) else schema


def _merge(into: dict[str, Schema], more: Mapping[str, Schema], suffix: str = "") -> dict[str, str]:
    """Add ``more`` to ``into``. Returns new names for what means something else there, directly or by reference."""
    other = {name for name, schema in more.items() if name in into and into[name] != schema}
    size = -1
    while size != len(other):
        size = len(other)
        other |= {
            name
            for name, schema in more.items()
            if name in into and any(each.removeprefix(COMPONENTS) in other for each in references(schema))
        }
    for count in itertools.count(1 if suffix else 2):
        names = {name: f"{name}{suffix}{count if count > 1 else ''}" for name in other}
        added = {names.get(name, name): rename(schema, names) for name, schema in more.items()}
        if all(into.get(name, schema) == schema for name, schema in added.items()):
            break
    into |= added
    return names
