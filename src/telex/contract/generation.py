"""What the generators of clients read: a document's types and routes, in the order in which they are written."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telex.contract.schemas import COMPONENTS, Schema

__all__ = ("ClientCall", "ClientRoute", "TypeWriter", "client_routes", "identifier")


@dataclass(frozen=True, slots=True)
class ClientCall:
    """A message that wants an answer: its ``type`` if it has one, its type, and the types of the answer."""

    tag: str | None
    takes: str
    answers: str
    is_stream: bool = False


@dataclass(frozen=True, slots=True)
class ClientRoute:
    """One path as a client sees it; types are texts of the generated language."""

    key: str
    path: str
    parameters: tuple[str, ...]
    query: Mapping[str, bool]
    """The parameters of the query, and whether each is required."""
    calls: tuple[ClientCall, ...]
    pushes: tuple[tuple[str | None, str], ...] = ()
    """What the server sends by itself: the message's ``type`` if it has one, and its type."""
    asks: tuple[ClientCall, ...] = ()
    has_events: bool = False

    @property
    def pushed(self) -> tuple[str, ...]:
        """The types of what the server sends by itself, each once."""
        return tuple(dict.fromkeys(kind for _, kind in self.pushes))


class TypeWriter(ABC):
    """Writes JSON schemas as types of one language."""

    nothing: str
    any_value: str
    null: str
    binary: str

    def __init__(self, document: Mapping[str, Any], reserved: frozenset[str]) -> None:
        """``reserved`` are the names that the generated module uses itself."""
        self.schemas: Mapping[str, Schema] = document["components"]["schemas"]
        self.names: dict[str, str] = {}
        self._taken = set(reserved)
        for key in self.schemas:
            self.names[key] = self.new_name(key)

    def new_name(self, text: str) -> str:
        """``text`` as a name in PascalCase that nothing else in the module has."""
        name = identifier(text)
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def type_of(self, schema: Schema) -> str:
        """The text of a type."""
        if "$ref" in schema:
            return self.names[schema["$ref"].removeprefix(COMPONENTS)]
        if len(schema.get("allOf", ())) == 1:
            return self.type_of(schema["allOf"][0])
        if "anyOf" in schema:
            return self.union([self.type_of(each) for each in schema["anyOf"]])
        if "const" in schema or "enum" in schema:
            return self.union([self.literal(each) for each in schema.get("enum", [schema.get("const")])])
        kind = schema.get("type")
        if isinstance(kind, list):
            return self.union([self.type_of({**schema, "type": each}) for each in kind])
        return self._of_kind(kind, schema)

    def _of_kind(self, kind: str | None, schema: Schema) -> str:
        if kind == "object":
            return self.record(schema)
        if kind == "array":
            items = schema.get("items", {})
            if isinstance(items, list):
                return self.tuple_of([self.type_of(each) for each in items])
            return self.list_of(self.type_of(items))
        if kind == "null":
            return self.null
        return self.any_value if kind is None else self.scalar(kind, schema)

    def union(self, members: Sequence[str]) -> str:
        """A union, each member once."""
        unique = list(dict.fromkeys(members))
        return self.any_value if self.any_value in unique else " | ".join(unique) or self.nothing

    def message(self, message: Schema) -> str:
        """The type of a message's payload."""
        if message["contentType"] == "application/octet-stream":
            return self.binary
        return self.type_of(message["payload"])

    def tag_of(self, message: Schema) -> str | None:
        """The value of the field ``type`` of a message, by which clients tell messages apart."""
        payload = message["payload"]
        schema = self.schemas.get(str(payload.get("$ref", "")).removeprefix(COMPONENTS), payload)
        found: str | None = schema.get("properties", {}).get("type", {}).get("const")
        return found

    @abstractmethod
    def literal(self, value: Any) -> str:
        """The type of one value."""

    @abstractmethod
    def scalar(self, kind: str, schema: Schema) -> str:
        """The type of a text, number or truth value."""

    @abstractmethod
    def record(self, schema: Schema) -> str:
        """The type of an object without a name."""

    @abstractmethod
    def list_of(self, item: str) -> str:
        """The type of a list."""

    @abstractmethod
    def tuple_of(self, items: Sequence[str]) -> str:
        """The type of a tuple."""


def identifier(text: str) -> str:
    """``text`` as a name in PascalCase."""
    parts = [each for each in re.split(r"[^A-Za-z0-9]+", text) if each]
    name = "".join(each[0].upper() + each[1:] for each in parts) or "Value"
    return name if name[0].isalpha() else f"T{name}"


def client_routes(document: Mapping[str, Any], types: TypeWriter) -> Iterator[ClientRoute]:
    """The routes of a document that have messages."""
    for key, channel in document["channels"].items():
        operations = {
            name.removeprefix(f"{key}."): each
            for name, each in document["operations"].items()
            if each["channel"]["$ref"] == f"#/channels/{key}"
        }
        if channel["x-telex-kind"] == "multiplex" or not operations:
            continue
        query = channel["bindings"]["ws"].get("query", {})
        calls = (_call(each, document, types) for name, each in operations.items() if name.startswith("receive."))
        asks = (_call(each, document, types) for name, each in operations.items() if name.startswith("ask."))
        yield ClientRoute(
            key=key,
            path=channel["address"],
            parameters=tuple(channel.get("parameters", ())),
            query={name: name in query.get("required", ()) for name in query.get("properties", {})},
            calls=tuple(calls),
            pushes=tuple(
                (types.tag_of(each), types.message(each)) for each in _messages(operations.get("send", {}), document)
            ),
            asks=tuple(asks),
            has_events=channel["x-telex-kind"] == "channel",
        )


def _call(operation: Schema, document: Mapping[str, Any], types: TypeWriter) -> ClientCall:
    (message,) = _messages(operation, document)
    answers = [types.message(each) for each in _messages(operation.get("reply", {}), document)]
    answer = types.union(answers) if answers else types.nothing
    return ClientCall(types.tag_of(message), types.message(message), answer, bool(operation.get("x-telex-stream")))


def _messages(operation: Schema, document: Mapping[str, Any]) -> list[Schema]:
    """The messages of an operation or a reply without errors, which come as exceptions."""
    names = [each["$ref"].rpartition("/")[2] for each in operation.get("messages", ())]
    found = [document["components"]["messages"][name] for name in names]
    return [each for each in found if not _is_error(each)]


def _is_error(message: Schema) -> bool:
    properties = message["payload"].get("properties", {})
    return bool(properties.get("type", {}).get("const") == "error") and "error" in properties
