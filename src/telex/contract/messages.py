"""The messages of a document: one for each member of a union, shared by the routes that have the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from telex import codecs
from telex.annotations import annotated, expand
from telex.contract.schemas import COMPONENTS, Direction, Schema, Schemas
from telex.dto.compiler import dto_wire
from telex.exceptions import ImproperlyConfiguredException
from telex.plans import HandlerPlan, MessageShape
from telex.types import TypeDecoder

__all__ = ("MESSAGES", "Members", "Messages", "TRAIT", "is_pydantic", "message_refs", "name_of", "slug", "tag_of")

MESSAGES: Final = "#/components/messages/"
TRAIT: Final = {"$ref": "#/components/messageTraits/telex-v1"}
BYTES: Final[Schema] = {"type": "string", "format": "binary"}
_RAW: Final = {str: "text/plain", bytes: "application/octet-stream"}

Members = Callable[[], list[tuple[Schema, str]]]
"""The members of a type of message, each a schema and a content type, once the schemas are written."""


class Messages:
    """The messages under ``components``. Their schemas are collected first, and written together."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self.components: dict[str, Schema] = {}
        self._names: dict[str, str] = {}

    def collect(self, shape: MessageShape, plan: HandlerPlan, direction: Direction) -> Members:
        """The members of the messages of ``shape``, for later."""
        annotation = expand(shape.annotation)
        if shape.dto is not None:
            annotation = dto_wire(shape.dto, annotation, plan.where, to_wire=direction == "send")
            return self._of_json(annotation, direction, by_pydantic=False)
        raw = _raw_types(annotation)
        if raw:
            found = [self._of_raw(kind, extras, direction) for kind, extras in raw.items()]
            return lambda: [member for each in found for member in each()]
        if direction == "send":
            return self._of_json(annotation, direction, by_pydantic=codecs.written_by_pydantic(annotation))
        return self._of_json(annotation, direction, by_pydantic=is_pydantic(annotation, plan.layer.type_decoders))

    def _of_raw(self, kind: type, extras: tuple[object, ...], direction: Direction) -> Members:
        annotation = annotated(kind, extras)
        if kind is bytes:
            return lambda: [(BYTES, _RAW[bytes])]
        schema = self._schemas.add(annotation, direction, by_pydantic=is_pydantic(annotation))
        return lambda: [(schema(), _RAW[str])]

    def _of_json(self, annotation: Any, direction: Direction, *, by_pydantic: bool) -> Members:
        schema = self._schemas.add(annotation, direction, by_pydantic=by_pydantic)
        return lambda: [(each, "application/json") for each in _members(schema(), self._schemas.components)]

    def add(
        self,
        payload: Schema,
        content_type: str = "application/json",
        *,
        name: str | None = None,
        in_frames: bool,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """Add a message, or find the same; returns its name."""
        component = self._schemas.components.get(str(payload.get("$ref", "")).removeprefix(COMPONENTS), payload)
        name = name or name_of(payload, self._schemas.components, content_type)
        message: Schema = {"name": name}
        text = component.get("description")
        if text:
            summary, _, rest = text.partition("\n\n")
            message |= {"summary": " ".join(summary.split())} | ({"description": text} if rest else {})
        message |= {"contentType": content_type, "payload": payload, **(more or {})}
        if in_frames:
            message["traits"] = [TRAIT]
        return self._place(name, message)

    def _place(self, name: str, message: Schema) -> str:
        written = json.dumps(message, sort_keys=True)
        known = self._names.get(written)
        if known is None:
            known, count = name, 1
            while known in self.components:
                count += 1
                known = f"{name}-{count}"
            self._names[written] = known
            self.components[known] = message
        return known


def _raw_types(annotation: Any) -> Mapping[type, tuple[object, ...]]:
    try:
        return codecs.raw_types(annotation)
    except ImproperlyConfiguredException:
        return {}


def is_pydantic(annotation: Any, decoders: Sequence[TypeDecoder] = ()) -> bool:
    """Whether pydantic reads all of ``annotation``; false also for what nothing reads."""
    try:
        return codecs.read_by_pydantic(annotation, decoders)
    except ImproperlyConfiguredException:
        return False


def _members(schema: Schema, components: Mapping[str, Schema]) -> list[Schema]:
    """The members of a union, also of one that has a name of its own."""
    if set(schema) == {"$ref"}:
        component = components.get(schema["$ref"].removeprefix(COMPONENTS), {})
        if set(component) <= {"anyOf", "title", "description"} and "anyOf" in component:
            return [member for each in component["anyOf"] for member in _members(each, components)]
    if set(schema) <= {"anyOf", "description"} and "anyOf" in schema:
        return [member for each in schema["anyOf"] for member in _members(each, components)]
    return [schema]


def name_of(schema: Schema, components: Mapping[str, Schema], content_type: str = "") -> str:
    """A message's name: its tag, the name of its type, or what kind of JSON it is."""
    if content_type == _RAW[str]:
        return "text"
    if content_type == _RAW[bytes]:
        return "bytes"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(COMPONENTS)
        tag = tag_of(components.get(name, {}))
        return slug(tag if tag is not None else components.get(name, {}).get("title", name))
    if "const" in schema:
        return slug(str(schema["const"])) or "value"
    kind = schema.get("type", "any")
    items = schema.get("items")
    if kind == "array" and isinstance(items, dict):
        return f"{name_of(items, components)}-list"
    return kind if isinstance(kind, str) else "value"


def tag_of(schema: Schema) -> str | None:
    """The value of the field that distinguishes a type from the others of a union."""
    for name, each in schema.get("properties", {}).items():
        if isinstance(each.get("const"), str) and name in schema.get("required", ()):
            found: str = each["const"]
            return found
    return None


def slug(text: str) -> str:
    """``text`` as a key: letters, digits, ``-`` and ``_``."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def message_refs(channel: str, names: Sequence[str]) -> list[Schema]:
    """References to messages of a channel."""
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]
