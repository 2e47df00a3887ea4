"""Reads and writes with pydantic, where it is installed: its own types, and those that msgspec does not read."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from telex.exceptions import ValidationException

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = (
    "adapter",
    "cut",
    "dump_pydantic",
    "from_pydantic",
    "is_pydantic_error",
    "json_schemas",
    "pydantic_reader",
    "pydantic_writer",
    "validate_pydantic",
    "why_not",
)


def why_not(annotation: Any) -> str | None:
    """Why pydantic cannot read ``annotation``, or ``None`` if it can."""
    try:
        adapter(annotation)
    except ImportError:
        return "pydantic is not installed"
    except Exception as exc:  # pydantic raises many classes, depending on the annotation
        return str(exc).partition("\n")[0].rstrip(".")
    return None


def adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # its metadata cannot be hashed, or pydantic cannot read it
        return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)


_cached_adapter = functools.cache(_new_adapter)


def pydantic_reader(annotation: Any) -> Callable[[str | bytes], Any]:
    validate = _first_error_validator(adapter(annotation)).validate_json
    check_syntax = msgspec.json.Decoder().decode

    def read(raw: str | bytes) -> Any:
        message = check_syntax(raw)
        try:
            return validate(raw)
        except ValueError as exc:  # pydantic's ValidationError, which also wraps what validators raise
            raise from_pydantic(exc, message) from exc

    return read


_NO_SCHEMAS = frozenset({"cls", "config", "default", "expected", "metadata", "serialization"})


def _first_error_validator(adapter: TypeAdapter[Any]) -> Any:
    """The adapter's validator, changed to stop at a collection's first invalid item.

    Otherwise one MiB of invalid items creates 700 MiB of errors.
    """
    from pydantic_core import SchemaValidator, core_schema

    schema = adapter.core_schema
    if not isinstance(schema, dict):  # the class has unresolved annotations
        return adapter
    # Older versions of pydantic stop in fewer kinds of collections.
    kinds = {
        name.removesuffix("_schema").replace("_", "-")
        for name, make in vars(core_schema).items()
        if name.endswith("_schema") and "fail_fast" in inspect.signature(make).parameters
    }
    # Without the second argument, pydantic would reuse the unchanged validators of nested models.
    return SchemaValidator(_stopping(schema, kinds), _use_prebuilt=False)


@functools.cache
def _validator_of_part(wanted: type) -> Any:
    return _first_error_validator(adapter(wanted))


def _stopping(schema: Any, kinds: Collection[str]) -> Any:
    if isinstance(schema, dict):
        copy = {key: value if key in _NO_SCHEMAS else _stopping(value, kinds) for key, value in schema.items()}
        return copy | {"fail_fast": True} if copy.get("type") in kinds else copy
    if isinstance(schema, (list, tuple)):
        return type(schema)(_stopping(each, kinds) for each in schema)
    return schema


def pydantic_writer(annotation: Any) -> Callable[[Any], bytes]:
    return functools.partial(adapter(annotation).dump_json, by_alias=True, warnings="error")


def json_schemas(
    annotations: Mapping[str, Any], read: bool, template: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The JSON schemas of annotations by key, as they are read or written, and the definitions that they refer to.

    A type that pydantic cannot describe has an empty schema.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

    class Generator(GenerateJsonSchema):
        def field_is_required(self, field: Any, total: bool) -> bool:
            is_written = self.mode == "serialization" and field["type"] != "typed-dict-field"
            return is_written or super().field_is_required(field, total)

    mode: JsonSchemaMode = "validation" if read else "serialization"

    def describe(keys: Collection[str]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        wanted = [(key, mode, adapter(annotations[key])) for key in keys]
        found, rest = TypeAdapter.json_schemas(wanted, ref_template=template, schema_generator=Generator)
        return {key: schema for (key, _), schema in found.items()}, rest.get("$defs", {})

    def is_describable(key: str) -> bool:
        try:
            describe([key])
        except PydanticInvalidForJsonSchema:
            return False
        return True

    try:
        return describe(annotations)
    except PydanticInvalidForJsonSchema:
        found, definitions = describe([key for key in annotations if is_describable(key)])
        return {key: found.get(key, {}) for key in annotations}, definitions


def validate_pydantic(wanted: type, value: object) -> object:
    try:
        return _validator_of_part(wanted).validate_json(msgspec.json.encode(value))
    except ValueError as exc:
        invalid = from_pydantic(exc)
        # msgspec adds the path of the value in the message; this adds the path of the error in the value.
        raise ValueError(f"{invalid.detail}{invalid.path.replace('$', ', in it at $', 1)}") from exc


def dump_pydantic(value: object) -> object:
    kind: Any = type(value)
    return adapter(kind).dump_python(value, mode="json", by_alias=True)


def is_pydantic_error(exc: BaseException) -> bool:
    if "pydantic_core" not in sys.modules:
        return False
    from pydantic_core import ValidationError

    return isinstance(exc, ValidationError)


def from_pydantic(exc: Any, message: object = None) -> ValidationException:
    """pydantic's errors as one exception; with the decoded ``message``, its path is the location in the message."""
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    first = errors[0]
    location = first["loc"] if message is None else _location(first, message)
    path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return ValidationException(cut(first["msg"]), path=cut(path), extra=errors[:_MAX_ERRORS])


_MAX_ERRORS = 20
_MAX_REFLECTED = 500


def cut(text: str) -> str:
    """``text`` cut to a limited length: it may repeat data of the client."""
    return text if len(text) <= _MAX_REFLECTED else f"{text[:_MAX_REFLECTED]}…"


def _location(error: Mapping[str, Any], message: object) -> list[str | int]:
    """The parts of the error's location that exist in the message: pydantic also adds the names of union members."""
    found: list[str | int] = []
    last = len(error["loc"]) - 1
    for position, part in enumerate(error["loc"]):
        if isinstance(message, dict) and (part in message or (position == last and error["type"] == "missing")):
            message = message.get(part)
        elif isinstance(message, list) and isinstance(part, int):
            message = message[part] if part < len(message) else None
        else:
            continue
        found.append(part)
    return found
