"""Writes a typed client in TypeScript, on the runtime ``telex-client``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from telex.contract.generation import ClientRoute, TypeWriter, client_routes, identifier
from telex.contract.schemas import Schema

__all__ = ("write_typescript",)

_IMPORTED: Final = ("CallOptions", "Channel", "ChannelOptions", "Options", "Route", "Socket")
_BRANDS: Final = {
    "uuid": "Uuid",
    "date": "IsoDate",
    "date-time": "IsoDateTime",
    "time": "IsoTime",
    "duration": "IsoDuration",
    "decimal": "Decimal",
}
"""The formats of text that have a type of their own, so that they are not mixed up."""
_RESERVED: Final = frozenset(_BRANDS.values()) | {
    *_IMPORTED,
    *("AbortSignal", "Array", "AsyncGenerator", "Paths", "Pick", "Promise", "PromiseLike", "Record", "Uint8Array"),
}
"""The names that the module uses."""
_NO_FUNCTIONS: Final = frozenset(
    {
        *("case", "catch", "connect", "const", "contract", "debugger", "default", "delete", "do", "enum", "export"),
        *("extends", "function", "instanceof", "interface", "let", "new", "package", "private", "protected", "public"),
        *("static", "super", "switch", "this", "throw", "typeof", "var", "void"),
    }
)
"""Names of Python modules that no function of TypeScript has here."""


def write_typescript(document: Mapping[str, Any], name: str) -> str:
    """The module of a typed client; ``name`` is that of its function."""
    types = _TypeScriptTypes(document, _RESERVED)
    name = f"{name}Client" if name in _NO_FUNCTIONS else name
    routes = list(client_routes(document, types))
    own = {route.key: types.new_name(f"{route.key}-route") for route in routes}
    parts = [
        f"/** The hash of the contract that this file was written from. */\n"
        f"export const contract = {json.dumps(document['x-telex-contract'])};\n",
        *types.declarations(),
        *(_interface(route, own[route.key]) for route in routes),
        _paths(routes, own),
        _socket(routes, own, name),
    ]
    brands = [
        f'export type {brand} = string & {{ readonly __format: "{kind}" }};\n'
        for kind, brand in _BRANDS.items()
        if any(re.search(rf"\b{brand}\b", part) for part in parts)
    ]
    used = [each for each in _IMPORTED if any(re.search(rf"\b{each}\b", part) for part in parts)]
    names = "".join(f"  type {each},\n" for each in used)
    head = f'// Written by `telex client`: do not edit.\nimport {{\n  connect,\n{names}}} from "telex-client";\n'
    return "\n".join([head, parts[0], *brands, *parts[1:]])


class _TypeScriptTypes(TypeWriter):
    nothing = "void"
    any_value = "unknown"
    null = "null"
    binary = "Uint8Array"

    def literal(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def scalar(self, kind: str, schema: Schema) -> str:
        if kind == "string":
            return _BRANDS.get(schema.get("format", ""), "string")
        return "boolean" if kind == "boolean" else "number"

    def list_of(self, item: str) -> str:
        return f"Array<{item}>"

    def tuple_of(self, items: Sequence[str]) -> str:
        return f"[{', '.join(items)}]"

    def record(self, schema: Schema) -> str:
        more = schema.get("additionalProperties")
        if "properties" not in schema:
            return f"Record<string, {self.type_of(more) if isinstance(more, dict) else 'unknown'}>"
        return "{ " + " ".join(self._fields(schema)) + " }"

    def _fields(self, schema: Schema) -> Iterator[str]:
        for name, each in schema["properties"].items():
            mark = "" if name in schema.get("required", ()) else "?"
            yield f"{_key(name)}{mark}: {self.type_of(each)};"

    def declarations(self) -> Iterator[str]:
        """The named types."""
        for key, schema in self.schemas.items():
            name, comment = self.names[key], _comment(schema, end="\n")
            if schema.get("type") == "object" and "properties" in schema:
                comments = [_comment(each, end="\n  ") for each in schema["properties"].values()]
                pairs = zip(comments, self._fields(schema), strict=True)
                fields = "\n".join(f"  {above}{each}" for above, each in pairs)
                yield f"{comment}export interface {name} {{\n{fields}\n}}\n"
            else:
                yield f"{comment}export type {name} = {self.type_of(schema)};\n"


def _interface(route: ClientRoute, name: str) -> str:
    lines: list[str] = []
    for call in route.calls:
        if call.is_stream:
            parts = f"AsyncGenerator<{call.answers}, void, undefined>"
            lines.append(f"stream(data: {call.takes}, options?: CallOptions): {parts};")
        else:
            lines.append(f"call(data: {call.takes}, options?: CallOptions): Promise<{call.answers}>;")
    if route.calls:
        taken = " | ".join(dict.fromkeys(each.takes for each in route.calls))
        lines.append(f"notify(data: {taken}, options?: CallOptions): Promise<void>;")
    pushed = " | ".join(route.pushed)
    if route.has_events:
        lines.append(f"events<S = unknown>(options?: ChannelOptions<S>): Channel<{pushed or 'unknown'}, S>;")
    elif pushed:
        for tag, kind in route.pushes:
            if tag is not None:
                lines.append(f"on(type: {json.dumps(tag)}, listener: (data: {kind}) => void): () => void;")
        lines.append(f'on(type: "*", listener: (data: {pushed}) => void): () => void;')
    for ask in route.asks:
        answer = f"(data: {ask.takes}, signal: AbortSignal) => {ask.answers} | PromiseLike<{ask.answers}>"
        lines.append(f"answer(type: {json.dumps(ask.tag or '*')}, answer: {answer}): void;")
    body = "\n".join(f"  {each}" for each in lines)
    kept = 'Pick<Route, "path" | "status" | "error" | "close">'
    return f"/** {route.path} */\nexport interface {name} extends {kept} {{\n{body}\n}}\n"


def _paths(routes: Sequence[ClientRoute], own: Mapping[str, str]) -> str:
    body = "\n".join(f"  {json.dumps(route.path)}: {own[route.key]};" for route in routes)
    return f"/** The routes by their paths. */\nexport interface Paths {{\n{body}\n}}\n"


def _socket(routes: Sequence[ClientRoute], own: Mapping[str, str], name: str) -> str:
    lines = ["/** The route at the address of the socket itself. */", "route<P extends keyof Paths>(): Paths[P];"]
    for route in routes:
        arguments = f"path: {json.dumps(route.path)}, {_parameters(route)}"
        query = _query(route)
        needed = "" if any(route.query.values()) else "?"
        lines.append(f"route({arguments}{f', query{needed}: {query}' if query else ''}): {own[route.key]};")
        if route.has_events:
            pushed = " | ".join(route.pushed) or "unknown"
            options = f"ChannelOptions<S> & {{ query?: {query or 'Record<string, string>'} }}"
            lines.append(f"channel<S = unknown>({arguments}, options?: {options}): Channel<{pushed}, S>;")
    body = "\n".join(f"  {each}" for each in lines)
    kind = f"{identifier(name)}Socket"
    return (
        f'export interface {kind} extends Pick<Socket, "status" | "on" | "close"> {{\n{body}\n}}\n\n'
        f"/** Connects to `url`, and stays connected until `close()`. */\n"
        f"export function {name}(url: string, options?: Options): {kind} {{\n"
        f"  return connect(url, {{ contract, ...options }}) as unknown as {kind};\n}}\n"
    )


def _parameters(route: ClientRoute) -> str:
    if not route.parameters:
        return "params?: Record<string, never>"
    return f"params: {{ {' '.join(f'{each}: string;' for each in route.parameters)} }}"


def _query(route: ClientRoute) -> str:
    fields = [f"{_key(name)}{'' if needed else '?'}: string;" for name, needed in route.query.items()]
    return f"{{ {' '.join(fields)} }}" if fields else ""


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]*", name) else json.dumps(name, ensure_ascii=False)


def _comment(schema: Schema, end: str = " ") -> str:
    text = " ".join(str(schema.get("description", "")).split()).replace("*/", "* /")
    return f"/** {text} */{end}" if text else ""
