"""Writes the types of a client in Python, as msgspec Structs."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from telex.contract.generation import ClientRoute, TypeWriter, client_routes, identifier
from telex.contract.messages import tag_of
from telex.contract.schemas import COMPONENTS, Schema

__all__ = ("write_python",)

_HEADER: Final = '''\
"""Written by `telex client`: do not edit."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Annotated, Any, Literal

import msgspec
'''
_FORMATS: Final = {
    "uuid": "uuid.UUID",
    "date": "datetime.date",
    "date-time": "datetime.datetime",
    "time": "datetime.time",
    "duration": "datetime.timedelta",
    "decimal": "decimal.Decimal",
}
_SCALARS: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
_LIMITS: Final = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
}


def write_python(document: Mapping[str, Any], name: str) -> str:
    """The module of a client's types; ``name`` is that of its class of routes."""
    types = _PythonTypes(document, frozenset({"Annotated", "Any", "Literal"}))
    routes = list(client_routes(document, types))
    parts = [
        _HEADER,
        f'CONTRACT = {json.dumps(document["x-telex-contract"])}\n"""The hash of the contract of these types."""\n\n',
        *types.declarations(),
        _table(routes, name),
    ]
    return "\n".join(parts)


class _PythonTypes(TypeWriter):
    nothing = "None"
    any_value = "Any"
    null = "None"
    binary = "bytes"

    def literal(self, value: Any) -> str:
        return "None" if value is None else f"Literal[{value!r}]"

    def scalar(self, kind: str, schema: Schema) -> str:
        if schema.get("contentEncoding") == "base64":
            return "bytes"
        inner = _FORMATS.get(schema.get("format", ""), _SCALARS[kind])
        limits = [f"{_LIMITS[key]}={value!r}" for key, value in schema.items() if key in _LIMITS]
        return f"Annotated[{inner}, msgspec.Meta({', '.join(limits)})]" if limits and inner in _PLAIN else inner

    def list_of(self, item: str) -> str:
        return f"list[{item}]"

    def tuple_of(self, items: Sequence[str]) -> str:
        return f"tuple[{', '.join(items)}]"

    def record(self, schema: Schema) -> str:
        more = schema.get("additionalProperties")
        return f"dict[str, {self.type_of(more) if isinstance(more, dict) else 'Any'}]"

    def union(self, members: Sequence[str]) -> str:
        """A union that msgspec reads: of types without tags it has at most one of each kind."""
        unique = list(dict.fromkeys(members))
        untagged = [each for each in unique if each in self._untagged or each.startswith("dict[")]
        lists = [each for each in unique if each.startswith(("list[", "tuple["))]
        if len(untagged) > 1 or (untagged and any(each in self._tagged for each in unique)) or len(lists) > 1:
            return self.any_value
        return super().union(unique)

    @property
    def _untagged(self) -> set[str]:
        return {self.names[key] for key, each in self.schemas.items() if _is_struct(each) and tag_of(each) is None}

    @property
    def _tagged(self) -> set[str]:
        return {self.names[key] for key, each in self.schemas.items() if _is_struct(each) and tag_of(each) is not None}

    def declarations(self) -> Iterator[str]:
        """The named types: classes first, so that aliases of them can be read."""
        for key, schema in self.schemas.items():
            if _is_struct(schema):
                yield self._class(self.names[key], schema)
        for key, schema in _aliases_in_order(self.schemas):
            yield f"{self.names[key]} = {self.type_of(schema)}\n"

    def _class(self, name: str, schema: Schema) -> str:
        tag, properties = tag_of(schema), schema["properties"]
        options, fields = ["kw_only=True"], dict(properties)
        if tag is not None:
            home = next(key for key, each in properties.items() if each.get("const") == tag)
            options = [f"tag_field={home!r}", f"tag={tag!r}", *options]
            del fields[home]
        lines = [f"class {name}(msgspec.Struct, {', '.join(options)}):"]
        if schema.get("description"):
            lines.append(f"    {json.dumps(schema['description'], ensure_ascii=False)}\n")
        lines += [self._field(key, each, key in schema.get("required", ())) for key, each in fields.items()]
        return "\n".join(lines if len(lines) > 1 else [*lines, "    pass"]) + "\n\n"

    def _field(self, name: str, schema: Schema, is_required: bool) -> str:
        attribute = re.sub(r"\W", "_", name)
        if keyword.iskeyword(attribute) or not attribute.isidentifier() or attribute.startswith("__"):
            attribute = f"field_{attribute.strip('_')}"
        kind = self.type_of(schema)
        renamed = f"name={name!r}" if attribute != name else ""
        if is_required:
            return f"    {attribute}: {kind}{f' = msgspec.field({renamed})' if renamed else ''}"
        default = f"msgspec.field(default=msgspec.UNSET, {renamed})" if renamed else "msgspec.UNSET"
        return f"    {attribute}: {kind} | msgspec.UnsetType = {default}"


_PLAIN: Final = frozenset(_SCALARS.values())


def _is_struct(schema: Schema) -> bool:
    return schema.get("type") == "object" and "properties" in schema


def _aliases_in_order(schemas: Mapping[str, Schema]) -> Iterator[tuple[str, Schema]]:
    """The types that are no classes, each after those that it refers to."""
    left = {key: each for key, each in schemas.items() if not _is_struct(each)}
    while left:
        ready = [
            key
            for key, each in left.items()
            if not any(f'"{COMPONENTS}{other}"' in json.dumps(each) for other in left if other != key)
        ] or list(left)
        for key in ready:
            yield key, left.pop(key)


def _table(routes: Sequence[ClientRoute], name: str) -> str:
    """The routes as a table: what a client may call, and what it gets."""
    lines = [f"{identifier(name).upper()}_ROUTES: dict[str, dict[str, Any]] = {{"]
    for route in routes:
        lines.append(f"    {route.path!r}: {{")
        for title, is_stream in (("calls", False), ("streams", True)):
            pairs = [f"{each.takes}: {each.answers}" for each in route.calls if each.is_stream == is_stream]
            lines.append(f"        {title!r}: {{{', '.join(pairs)}}},")
        pushed = " | ".join(route.pushed) or "None"
        lines.append(f"        {'events' if route.has_events else 'pushes'!r}: {pushed},")
        lines.append(f"        'asks': {{{', '.join(f'{each.takes}: {each.answers}' for each in route.asks)}}},")
        lines.append("    },")
    return "\n".join([*lines, "}", '"""What may be called on each path, and what comes from there."""', ""])
