"""The AsyncAPI document of an app, from its compiled plans."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from telex.contract.messages import Messages
from telex.contract.parameters import address_of
from telex.contract.routes import Route
from telex.contract.schemas import Schema, Schemas
from telex.contract.security import schemes_of
from telex.exceptions import ImproperlyConfiguredException
from telex.paths import PathTemplate
from telex.plans import HandlerPlan
from telex.protocol.close_codes import table

__all__ = ("AsyncAPIVersion", "DocumentInfo", "contract_hash", "from_yaml", "make_document", "to_json", "to_yaml")

AsyncAPIVersion: TypeAlias = Literal["3.1.0", "3.0.0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInfo:
    """What the app's code does not tell: title, version and description of the document."""

    title: str = "Telex"
    version: str = "0.0.0"
    description: str = ""


_ENVELOPE: Final[Schema] = {
    "headers": {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "minimum": 1, "maximum": 2**53 - 1},
            "key": {"type": "string", "maxLength": 64},
            "meta": {"type": "object"},
        },
    },
    "correlationId": {"location": "$message.header#/id"},
    "x-telex-envelope": "telex.v1",
}
"""The frame around a message in telex.v1, where a payload is its ``data``."""


def make_document(
    plans: Sequence[HandlerPlan], info: DocumentInfo, version: AsyncAPIVersion = "3.1.0"
) -> dict[str, Any]:
    """The document: the same plans give the same document, in the same order.

    :raises ImproperlyConfiguredException: the version of AsyncAPI is none that is written.
    """
    if version not in get_args(AsyncAPIVersion):
        known = " or ".join(get_args(AsyncAPIVersion))
        raise ImproperlyConfiguredException(f"AsyncAPI {version} is not written: give {known}")
    schemas = Schemas(_has_own_code(plans))
    messages = Messages(schemas)
    keys = _keys(plans)
    routes = [Route(key, plan, schemas, messages) for key, plan in zip(keys, plans, strict=True)]
    schemas.write()
    channels: dict[str, Schema] = {}
    operations: dict[str, Schema] = {}
    for route in routes:
        channels[route.key], of_route = route.write()
        operations |= of_route
        if route.plan.opens:
            opened = [{"$ref": f"#/channels/{keys[_position(plans, path)]}"} for path in route.plan.opens]
            channels[route.key]["x-telex-routes"] = opened
    schemes = {name: scheme for plan in plans for name, scheme in schemes_of(plan).items()}
    found: dict[str, Any] = {
        "asyncapi": version,
        "info": {"title": info.title, "version": info.version}
        | ({"description": info.description} if info.description else {}),
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            **({"securitySchemes": schemes} if schemes else {}),
            "messages": messages.components,
            "messageTraits": {"telex-v1": _ENVELOPE},
            "schemas": dict(sorted(schemas.components.items())),
        },
        "x-telex-close-codes": table(),
    }
    return found | {"x-telex-contract": contract_hash(found)}


def _has_own_code(plans: Iterable[HandlerPlan]) -> Any:
    """Whether a function of the app reads or writes a type: nobody knows its form then."""
    predicates = {id(each): each for plan in plans for each, _ in plan.layer.type_decoders}
    encoded = tuple({kind for plan in plans for kind in plan.layer.type_encoders if isinstance(kind, type)})

    def is_opaque(kind: Any) -> bool:
        return (isinstance(kind, type) and issubclass(kind, encoded)) or any(each(kind) for each in predicates.values())

    return is_opaque


def _position(plans: Sequence[HandlerPlan], path: str) -> int:
    return next(index for index, plan in enumerate(plans) if plan.path == path)


def _keys(plans: Iterable[HandlerPlan]) -> list[str]:
    """The keys of the channels: their paths in letters, digits and dashes."""
    found: list[str] = []
    for plan in plans:
        key = re.sub(r"[^A-Za-z0-9_]+", "-", address_of(PathTemplate.parse(plan.path))).strip("-") or "root"
        unique, count = key, 1
        while unique in found:
            count += 1
            unique = f"{key}-{count}"
        found.append(unique)
    return found


# -- the hash and the text


def contract_hash(document: dict[str, Any]) -> str:
    """The hash of what matters to clients: not of info, servers and descriptions."""
    matters = {key: each for key, each in document.items() if key not in _OUTER}
    canonical = msgspec.json.encode(_without_words(matters, is_schema=True), order="sorted")
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


_OUTER: Final = frozenset({"asyncapi", "info", "servers", "x-telex-contract"})
_WORDS: Final = frozenset({"description", "summary", "title", "examples", "tags", "externalDocs"})
_NAMED: Final = frozenset(
    {"properties", "patternProperties", "parameters", "messages", "schemas", "channels", "operations", "messageTraits"}
)
"""Keys whose values are named by the app: a field may have the name ``title``."""


def _without_words(value: Any, *, is_schema: bool) -> Any:
    if isinstance(value, list):
        return [_without_words(each, is_schema=True) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: each
        if key in {"default", "const", "enum"} and is_schema
        else _without_words(each, is_schema=key not in _NAMED)
        for key, each in value.items()
        if not (is_schema and key in _WORDS)
    }


def to_json(document: dict[str, Any]) -> str:
    """The document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def to_yaml(document: dict[str, Any]) -> str:
    """The document as YAML.

    :raises ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    # Decoded from JSON, no two parts are one object, which YAML would write as aliases.
    plain = msgspec.json.decode(msgspec.json.encode(document))
    written: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return written


def from_yaml(text: str) -> object:
    """The value of a YAML text.

    :raises ValueError: it is no YAML.
    :raises ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    try:
        found: object = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc
    return found
