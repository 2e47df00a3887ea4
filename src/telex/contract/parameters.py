"""The parameters of a route in a document: those of the path, and the handshake's query, headers and cookies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from telex.annotations import expand
from telex.contract.messages import is_pydantic
from telex.contract.schemas import COMPONENTS, Schema, Schemas
from telex.datastructures import Empty
from telex.params import RequestParameter, Source
from telex.paths import PathTemplate
from telex.plans import HandlerPlan
from telex.protocol.envelope import SUBPROTOCOL

__all__ = ("Handshake", "address_of")

Write = Callable[[], Schema]
_PATH_TYPES: Final[Mapping[str, Schema]] = {
    "str": {"type": "string"},
    "path": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "decimal": {"type": "string", "format": "decimal"},
    "uuid": {"type": "string", "format": "uuid"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {"type": "string", "format": "duration"},
}
"""The types of :data:`telex.paths.CONVERTORS`."""


def address_of(template: PathTemplate) -> str:
    """The path with its parameters as ``{name}``, without their kinds."""
    parts = (each if isinstance(each, str) else f"{{{each[0]}}}" for each in template.segments)
    return "/" + "/".join(parts)


class Handshake:
    """The parameters of one plan; their schemas are known once all schemas are written."""

    def __init__(self, plan: HandlerPlan, schemas: Schemas) -> None:
        self._plan = plan
        self._template = PathTemplate.parse(plan.path)
        found: dict[tuple[Source, str], RequestParameter] = {}
        for parameter in plan.parameters:
            found.setdefault((parameter.source, parameter.alias), parameter)
        self._parameters = found
        self._schemas = schemas
        self._write = {key: self._collect(parameter) for key, parameter in found.items()}

    def _collect(self, parameter: RequestParameter) -> Write:
        annotation = expand(parameter.annotation)
        by_pydantic = is_pydantic(annotation, self._plan.layer.type_decoders)
        return self._schemas.add(annotation, "receive", by_pydantic=by_pydantic)

    @property
    def checks_values(self) -> bool:
        """Whether a value of the handshake can be missing or wrong."""
        return bool(self._parameters)

    def path(self) -> dict[str, Schema]:
        """The parameters of the path, as AsyncAPI takes them; their types are an extension."""
        found: dict[str, Schema] = {}
        for segment in self._template.segments:
            if isinstance(segment, str):
                continue
            name, kind = segment
            known = self._write.get(("path", name))
            schema = self._inlined(known()) if known is not None else {}
            schema = schema or dict(_PATH_TYPES[kind])
            entry: Schema = {key: schema[key] for key in ("description",) if key in schema}
            values = schema.get("enum", [schema["const"]] if "const" in schema else [])
            if values:
                entry["enum"] = [str(value) for value in values]
            if schema.get("examples"):
                entry["examples"] = [str(value) for value in schema["examples"]]
            found[name] = entry | {"x-telex-schema": schema} | ({"x-telex-rest": True} if kind == "path" else {})
        return found

    def _inlined(self, schema: Schema) -> Schema:
        name = str(schema.get("$ref", "")).removeprefix(COMPONENTS)
        return {key: each for key, each in self._schemas.components.get(name, schema).items() if key != "title"}

    def bindings(self) -> Schema:
        """The WebSocket binding of the channel."""
        query, headers, cookies = (self._object(source) for source in ("query", "header", "cookie"))
        if self._plan.channel is not None:
            since = {"type": "string", "description": "The position of the last event that the client has."}
            query = _with(query, "since", since)
        if cookies is not None:
            headers = _with(headers, "Cookie", {"type": "string", "x-telex-cookies": cookies})
        if self._plan.speaks_frames:
            offered = {"type": "string", "description": f"Offer {SUBPROTOCOL} for calls and answers."}
            headers = _with(headers, "Sec-WebSocket-Protocol", offered)
        binding: Schema = {"method": "GET"}
        if query is not None:
            binding["query"] = query
        if headers is not None:
            binding["headers"] = headers
        return {"ws": binding | {"bindingVersion": "0.1.0"}}

    def _object(self, source: Source) -> Schema | None:
        named = {alias: each for (found, alias), each in self._parameters.items() if found == source}
        if not named:
            return None
        properties = {alias: self._with_default(each, self._write[source, alias]()) for alias, each in named.items()}
        required = [alias for alias, each in named.items() if each.default is Empty]
        return {"type": "object", "properties": properties} | ({"required": required} if required else {})

    def _with_default(self, parameter: RequestParameter, schema: Schema) -> Schema:
        if parameter.default is Empty or parameter.default is None:
            return schema
        try:
            default = msgspec.to_builtins(parameter.default)
        except TypeError:
            return schema
        return ({"allOf": [schema]} if "$ref" in schema else schema) | {"default": default}


def _with(schema: Schema | None, name: str, value: Schema) -> Schema:
    found: dict[str, Any] = schema or {"type": "object", "properties": {}}
    return found | {"properties": found["properties"] | {name: found["properties"].get(name, value)}}
