"""Compiles an annotation into the function that reads it from a frame, or writes it to one.

``str`` and ``bytes`` travel as they are; everything else is JSON, validated while it is decoded. msgspec does the work;
pydantic's ``TypeAdapter`` does it for pydantic's own types, behind msgspec's stricter syntax check (no ``NaN``, no
``1e400``). Facts of the wire: the last of duplicate keys wins, integers are exact up to 2**64 and beyond where msgspec
keeps them, ``NaN`` and infinities are written as ``null``.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NewType, TypeAlias, Union, get_args, get_origin

import msgspec

from telex.annotations import split_annotated
from telex.exceptions import ImproperlyConfiguredException, SerializationException, ValidationException
from telex.types import Mode, TypeDecoder, TypeEncoder

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = (
    "Raw",
    "Reader",
    "Writer",
    "as_is",
    "as_validation_error",
    "but_raw",
    "convert",
    "encoder_hook",
    "is_raw_writer",
    "reader",
    "value_writer",
    "writer",
)

Raw: TypeAlias = str | bytes
Reader: TypeAlias = Callable[[Raw], Any]
"""A frame's payload to a value. Raises what :func:`as_validation_error` understands when it does not fit."""
Writer: TypeAlias = Callable[[Any], Raw]
"""A value to a frame's payload: ``str`` in text mode, ``bytes`` in binary mode."""


def reader(annotation: Any, mode: Mode = "text", decoders: Sequence[TypeDecoder] = ()) -> Reader:
    """The function that turns a frame of ``mode`` into ``annotation``.

    :raises ImproperlyConfiguredException: neither msgspec nor pydantic can read such a type.
    """
    raw_kinds = _raw_kinds(annotation)
    if raw_kinds:
        return _constrained_raw(_raw_reader(raw_kinds, mode), annotation)
    if _has_pydantic(annotation):
        return _pydantic_reader(annotation)
    try:
        decode: Reader = msgspec.json.Decoder(annotation, dec_hook=_dec_hook(decoders)).decode
    except (TypeError, NameError, ValueError) as exc:
        raise ImproperlyConfiguredException(f"messages cannot be read as {annotation!r}: {exc}") from exc
    return decode


def writer(annotation: Any, mode: Mode = "text", encoders: Mapping[type, TypeEncoder] | None = None) -> Writer:
    """The function that turns a value declared as ``annotation`` into a frame of ``mode``."""
    if _raw_kinds(annotation):
        return _raw_to_text if mode == "text" else _raw_to_bytes
    encode = _json_encoder(annotation, encoders or {})
    return _as_text(encode) if mode == "text" else encode


def value_writer(annotation: Any, mode: Mode = "text", encoders: Mapping[type, TypeEncoder] | None = None) -> Writer:
    """As :func:`writer`, but the value decides: ``str`` and ``bytes`` go as they are whatever the annotation says."""
    encode = _json_encoder(annotation, encoders or {})
    return but_raw(_as_text(encode) if mode == "text" else encode, mode)


def but_raw(write: Writer, mode: Mode) -> Writer:
    """``write`` for all but ``str`` and ``bytes``, which go as they are."""
    write_raw = _raw_to_text if mode == "text" else _raw_to_bytes

    def write_by_value(value: object) -> Raw:
        return write_raw(value) if isinstance(value, (str, bytes)) else write(value)

    return write_by_value


def convert(annotation: Any, decoders: Sequence[TypeDecoder] = ()) -> Callable[[object], Any]:
    """The function that turns text, or lists of text, into ``annotation``: for parameters of the handshake."""
    dec_hook = _dec_hook(decoders)

    def to_type(value: object) -> Any:
        return msgspec.convert(value, annotation, strict=False, dec_hook=dec_hook)

    return to_type


def as_validation_error(exc: BaseException) -> ValidationException | None:
    """``exc`` as a ``ValidationException`` when it says that a message is malformed or does not fit, else ``None``."""
    if isinstance(exc, ValidationException):
        return exc
    if isinstance(exc, msgspec.DecodeError):
        message, _, path = str(exc).partition(" - at `")
        return ValidationException(message, path=path.rstrip("`"))
    if isinstance(exc, RecursionError):
        return ValidationException("the message is nested too deeply")
    if isinstance(exc, UnicodeError):
        return ValidationException("the message is not valid UTF-8")
    if _is_pydantic_error(exc):
        return _from_pydantic(exc)
    return None


# -- text and bytes


def _raw_kinds(annotation: Any) -> frozenset[type]:
    """Which of ``str`` and ``bytes`` the annotation consists of; empty when it has anything else."""
    annotation, _ = split_annotated(annotation)
    if isinstance(annotation, NewType):
        return _raw_kinds(annotation.__supertype__)
    if annotation is str or annotation is bytes:
        return frozenset({annotation})
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [_raw_kinds(member) for member in get_args(annotation) if member is not type(None)]
        return frozenset().union(*members) if all(members) else frozenset()
    return frozenset()


def _raw_reader(kinds: frozenset[type], mode: Mode) -> Reader:
    native = str if mode == "text" else bytes
    if native in kinds:
        return as_is
    return _text_to_bytes if mode == "text" else _bytes_to_text


def _constrained_raw(read: Reader, annotation: Any) -> Reader:
    """``read``, then the annotation's constraints when it has some."""
    if not any(isinstance(extra, msgspec.Meta) for extra in split_annotated(annotation)[1]):
        return read

    def read_and_check(raw: Raw) -> Any:
        return msgspec.convert(read(raw), annotation, builtin_types=(bytes,))

    return read_and_check


def as_is(raw: Raw) -> Raw:
    """The reader of text in text mode and of bytes in binary mode. Loops know it, and do not call it."""
    return raw


def _text_to_bytes(raw: Raw) -> bytes:
    return raw.encode() if isinstance(raw, str) else raw


def _bytes_to_text(raw: Raw) -> str:
    return raw if isinstance(raw, str) else raw.decode()


def _raw_to_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    raise SerializationException(f"declared as text or bytes, but the value is {type(value).__name__}")


def _raw_to_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise SerializationException(f"declared as text or bytes, but the value is {type(value).__name__}")


def is_raw_writer(write: Writer | None) -> bool:
    """Whether ``write`` lets text (in text mode) or bytes (in binary mode) pass unchanged."""
    return write is _raw_to_text or write is _raw_to_bytes


# -- JSON


def _json_encoder(annotation: Any, encoders: Mapping[type, TypeEncoder]) -> Callable[[Any], bytes]:
    if _has_pydantic(annotation):
        return _pydantic_writer(annotation)
    return msgspec.json.Encoder(enc_hook=encoder_hook(encoders)).encode


def _as_text(encode: Callable[[Any], bytes]) -> Callable[[Any], str]:
    def encode_text(value: object) -> str:
        return encode(value).decode()

    return encode_text


def _dec_hook(decoders: Sequence[TypeDecoder]) -> Callable[[type, Any], object]:
    def decode_custom(wanted: type, value: Any) -> object:
        for matches, decode in decoders:
            if matches(wanted):
                return decode(wanted, value)
        if _has_pydantic(wanted):
            return _validate_pydantic(wanted, value)
        if isinstance(wanted, type) and isinstance(value, wanted):
            return value
        raise NotImplementedError(f"no type_decoders entry reads {wanted!r}")

    return decode_custom


def encoder_hook(encoders: Mapping[type, TypeEncoder]) -> Callable[[Any], object]:
    def encode_custom(value: object) -> object:
        for kind in type(value).__mro__:
            if kind in encoders:
                return encoders[kind](value)
        if _has_pydantic(type(value)):
            return _dump_pydantic(value)
        raise NotImplementedError(f"no type_encoders entry writes {type(value).__qualname__}")

    return encode_custom


# -- pydantic, when it is there


def _has_pydantic(annotation: Any) -> bool:
    """Whether the annotation is, or is made of, types of pydantic's own."""
    if "pydantic" not in sys.modules:
        return False
    annotation, extras = split_annotated(annotation)
    if any(type(extra).__module__.partition(".")[0] == "pydantic" for extra in extras):
        return True
    if isinstance(annotation, type) and (
        hasattr(annotation, "__pydantic_core_schema__") or hasattr(annotation, "__get_pydantic_core_schema__")
    ):
        return True
    if get_origin(annotation) is Literal:
        return False
    return any(_has_pydantic(argument) for argument in get_args(annotation))


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)


def _pydantic_reader(annotation: Any) -> Reader:
    validate = _adapter(annotation).validate_json
    check_syntax = msgspec.json.Decoder().decode

    def read(raw: Raw) -> Any:
        message = check_syntax(raw)
        try:
            return validate(raw)
        except ValueError as exc:  # pydantic's own, and it makes its own of those that validators raise
            raise _from_pydantic(exc, message) from exc

    return read


def _pydantic_writer(annotation: Any) -> Callable[[Any], bytes]:
    return functools.partial(_adapter(annotation).dump_json, by_alias=True, warnings="error")


def _validate_pydantic(wanted: type, value: object) -> object:
    try:
        return _adapter(wanted).validate_json(msgspec.json.encode(value))
    except ValueError as exc:
        invalid = _from_pydantic(exc)
        # msgspec adds where the value stands in the message; this is where the fault stands in the value.
        raise ValueError(f"{invalid.detail}{invalid.path.replace('$', ', in it at $', 1)}") from exc


def _dump_pydantic(value: object) -> object:
    kind: Any = type(value)
    return _adapter(kind).dump_python(value, mode="json", by_alias=True)


def _is_pydantic_error(exc: BaseException) -> bool:
    if "pydantic_core" not in sys.modules:
        return False
    from pydantic_core import ValidationError

    return isinstance(exc, ValidationError)


def _from_pydantic(exc: Any, message: object = None) -> ValidationException:
    """pydantic's errors as one; with the decoded ``message``, the path is the one in it."""
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    first = errors[0]
    location = first["loc"] if message is None else _location(first, message)
    path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return ValidationException(first["msg"], path=path, extra=errors)


def _location(error: Mapping[str, Any], message: object) -> list[str | int]:
    """The error's location without what is no place in the message: pydantic names the members of unions there too."""
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
