"""Compiles an annotation into a function that reads a frame's payload as this type, or writes it.

``str`` and ``bytes`` are sent and received unchanged; other types are JSON, validated during decoding. msgspec decodes
and encodes; for pydantic's types, pydantic's ``TypeAdapter`` does, after msgspec's stricter syntax check (no ``NaN``,
no ``1e400``). Of duplicate keys the last one is used, integers are exact up to 2**64 and beyond where msgspec supports
it, and ``NaN`` and infinities are written as ``null``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from telex.annotation_parts import Part, Role, parts_of
from telex.annotations import (
    annotated,
    expand,
    is_model,
    is_protocol,
    model_class,
    split_annotated,
    union_members,
)
from telex.collisions import guarded, hashed_in_schema, hashed_in_type
from telex.exceptions import ImproperlyConfiguredException, SerializationException, ValidationException
from telex.pydantic_codecs import (
    adapter,
    cut,
    dump_pydantic,
    from_pydantic,
    is_pydantic_error,
    pydantic_reader,
    pydantic_writer,
    validate_pydantic,
    why_not,
)
from telex.types import Mode, TypeDecoder, TypeEncoder

__all__ = (
    "Raw",
    "Reader",
    "Writer",
    "as_bytes",
    "as_is",
    "as_text",
    "as_validation_error",
    "but_raw",
    "convert",
    "encoder_hook",
    "frame_reader",
    "frame_writer",
    "is_raw_writer",
    "raw_types",
    "read_by_pydantic",
    "written_by_pydantic",
    "reader",
    "value_writer",
    "writer",
)

Raw: TypeAlias = str | bytes
Reader: TypeAlias = Callable[[Raw], Any]
"""Converts a frame's payload to a value. :func:`as_validation_error` converts what it raises for invalid payloads."""
Writer: TypeAlias = Callable[[Any], Raw]
"""Converts a value to a frame's payload: ``str`` in text mode, ``bytes`` in binary mode."""


def reader(annotation: Any, mode: Mode = "text", decoders: Sequence[TypeDecoder] = ()) -> Reader:
    """The function that turns a frame of ``mode`` into ``annotation``.

    :raises ImproperlyConfiguredException: neither msgspec nor pydantic can read the whole type.
    """
    annotation = expand(annotation)
    constraints = raw_types(annotation)
    return _raw_reader(constraints, mode) if constraints else _json_reader(annotation, decoders)


def frame_reader(annotation: Any, decoders: Sequence[TypeDecoder] = ()) -> tuple[Reader | None, Reader | None]:
    """The functions that read the data of a telex.v1 frame: the JSON of a text frame, the bytes of a binary one.

    Text is a JSON string there. ``None`` where the annotation allows no such data.

    :raises ImproperlyConfiguredException: neither msgspec nor pydantic can read the whole type.
    """
    annotation = expand(annotation)
    constraints = raw_types(annotation)
    if not constraints:
        return _json_reader(annotation, decoders), None
    text = _json_reader(annotated(str, constraints[str]), decoders) if str in constraints else None
    binary = _raw_reader({bytes: constraints[bytes]}, "binary") if bytes in constraints else None
    return text, binary


def _json_reader(annotation: Any, decoders: Sequence[TypeDecoder]) -> Reader:
    if read_by_pydantic(annotation, decoders):
        return guarded(pydantic_reader(annotation), _hashed_by_pydantic(annotation))
    try:
        decode: Reader = msgspec.json.Decoder(annotation, dec_hook=_dec_hook(decoders)).decode
    except (TypeError, NameError, ValueError) as exc:
        hint = f"; {_TAGS}" if "unions may not" in str(exc) else ""
        raise ImproperlyConfiguredException(f"messages cannot be read as {annotation!r}: {exc}{hint}") from exc
    return guarded(decode, hashed_in_type(annotation, _hashed_by_pydantic))


def _hashed_by_pydantic(annotation: Any) -> frozenset[str]:
    return hashed_in_schema(adapter(annotation).core_schema) if why_not(annotation) is None else frozenset()


def writer(annotation: Any, mode: Mode = "text", encoders: Mapping[type, TypeEncoder] | None = None) -> Writer:
    """The function that turns a value declared as ``annotation`` into a frame of ``mode``.

    :raises ImproperlyConfiguredException: no encoder, nor msgspec or pydantic, can write the type.
    """
    annotation = expand(annotation)
    if raw_types(annotation):
        return as_text if mode == "text" else as_bytes
    encode = _json_encoder(annotation, encoders or {})
    return _as_text(encode) if mode == "text" else encode


def frame_writer(annotation: Any, encoders: Mapping[type, TypeEncoder] | None = None) -> Writer:
    """The function that writes the data of a telex.v1 frame: bytes unchanged, every other value as JSON text."""
    annotation = expand(annotation)
    is_raw = bool(raw_types(annotation))
    encode = _encode_plain if is_raw else _json_encoder(annotation, encoders or {})

    def write(value: object) -> Raw:
        if isinstance(value, BINARY_TYPES):
            return as_bytes(value)
        if is_raw and not (value is None or isinstance(value, str)):
            raise _not_raw(value)
        return encode(value).decode()

    return write


def value_writer(annotation: Any, mode: Mode = "text", encoders: Mapping[type, TypeEncoder] | None = None) -> Writer:
    """Like :func:`writer`, but ``str`` and ``bytes`` values are always written unchanged, for any annotation."""
    encode = _json_encoder(expand(annotation), encoders or {})
    return but_raw(_as_text(encode) if mode == "text" else encode, mode)


def but_raw(write: Writer, mode: Mode) -> Writer:
    """``write``, except that ``str`` and ``bytes`` values are written unchanged."""
    write_raw = as_text if mode == "text" else as_bytes

    def write_by_value(value: object) -> Raw:
        return write_raw(value) if isinstance(value, RAW_TYPES) else write(value)

    return write_by_value


def convert(annotation: Any, decoders: Sequence[TypeDecoder] = ()) -> Callable[[object], Any]:
    """The function that converts text, or lists of text, to ``annotation``: for parameters of the handshake.

    :raises ImproperlyConfiguredException: the type cannot be read from text.
    """
    _refuse_structured(annotation, decoders)
    for part in parts_of(annotation):
        if part.role == "whole":
            raise ImproperlyConfiguredException(
                f"{part} cannot be read from text: give its values one type, str or int"
            )
    if _library(annotation, decoders) == "pydantic":
        validate = adapter(annotation).validate_python

        def to_pydantic(value: object) -> Any:
            try:
                return validate(value)
            except ValueError as exc:
                raise ValueError(from_pydantic(exc).detail) from exc

        return to_pydantic
    dec_hook = _dec_hook(decoders)
    try:
        msgspec.json.Decoder(annotation, dec_hook=dec_hook)
    except (TypeError, NameError, ValueError) as exc:
        raise ImproperlyConfiguredException(f"{annotation!r} cannot be read from text: {exc}") from exc

    def to_type(value: object) -> Any:
        return msgspec.convert(value, annotation, strict=False, dec_hook=dec_hook)

    return to_type


def _refuse_structured(annotation: Any, decoders: Sequence[TypeDecoder]) -> None:
    inner = split_annotated(annotation)[0]
    kind = model_class(inner)
    if _decoder_of(inner, decoders) is not None or kind is Literal:
        return
    if (is_model(inner) and not hasattr(kind, "__pydantic_root_model__")) or (
        isinstance(kind, type) and issubclass(kind, Mapping)
    ):
        raise ImproperlyConfiguredException(
            f"{inner!r} cannot be read from text: make each of its values a parameter, or give a type_decoders entry"
        )
    for member in get_args(inner):
        _refuse_structured(member, decoders)


# -- which library reads an annotation


def _library(annotation: Any, decoders: Sequence[TypeDecoder]) -> Literal["msgspec", "pydantic"]:
    """The library that reads all of ``annotation``. With msgspec, ``decoders`` or pydantic may read types within it.

    :raises ImproperlyConfiguredException: no library reads all of it.
    """
    by_role: dict[Role, list[Part]] = {}
    for part in parts_of(annotation):
        decoded = part.role == "custom" and _decoder_of(part.what, decoders) is not None
        by_role.setdefault("msgspec" if decoded else part.role, []).append(part)
    for part in by_role.get("open", ()):
        raise ImproperlyConfiguredException(
            f"the type variable {part} has no value: subclass with a type, as in class Room(Base[Message])"
        )
    for part in by_role.get("lost", ()):
        raise ImproperlyConfiguredException(
            f"{part} belongs to msgspec, and pydantic ignores it: write pydantic.Field(...) in a pydantic model"
        )
    wanted = [part for role in ("whole", "constraint", "custom", "pydantic") for part in by_role.get(role, ())]
    if not wanted:
        return "msgspec"
    by_msgspec = [part for role in ("msgspec", "msgspec constraint") for part in by_role.get(role, ())]
    problem = f"{by_msgspec[0]} is read by msgspec" if by_msgspec else why_not(annotation)
    if problem is None:
        return "pydantic"
    for part in by_role.get("whole", ()):
        way_out = _TAGS if union_members(part.what) else "give its values one type, str or int"
        raise ImproperlyConfiguredException(f"only pydantic reads {part}, but {problem}: {way_out}")
    for part in by_role.get("constraint", ()):
        raise ImproperlyConfiguredException(
            f"only pydantic applies {part}, but {problem}: write the constraint as msgspec.Meta(...),"
            " or use pydantic models only"
        )
    for part in by_role.get("custom", ()):
        reason = why_not(part.what)
        if reason is not None:
            raise ImproperlyConfiguredException(
                f"nothing reads {part}: give type_decoders=[(predicate, function)] on the handler or a layer above it"
                f" ({reason})"
            )
    return "msgspec"


_TAGS: Final = "give each member a tag, as in class Move(msgspec.Struct, tag=True)"


def _decoder_of(wanted: Any, decoders: Sequence[TypeDecoder]) -> Callable[[type, Any], object] | None:
    return next((decode for matches, decode in decoders if matches(wanted)), None)


def as_validation_error(exc: BaseException) -> ValidationException | None:
    """``exc`` as a ``ValidationException`` if it was raised for an invalid message, else ``None``."""
    if isinstance(exc, ValidationException):
        return exc
    if isinstance(exc, msgspec.DecodeError):
        message, _, path = str(exc).partition(" - at `")
        return ValidationException(cut(message), path=cut(path.rstrip("`")))
    if isinstance(exc, RecursionError):
        return ValidationException("the message is nested too deeply")
    if isinstance(exc, UnicodeError):
        return ValidationException("the message is not valid UTF-8")
    if is_pydantic_error(exc):
        return from_pydantic(exc)
    return None


# -- text and bytes


def raw_types(annotation: Any) -> dict[type, tuple[object, ...]]:
    """The metadata of ``str`` and ``bytes`` in an annotation of only these types; empty for any other annotation.

    :raises ImproperlyConfiguredException: one of them appears twice with different metadata.
    """
    found: dict[type, tuple[object, ...]] = {}
    for inner, extras in _raw_members(annotation, ()):
        if inner not in {str, bytes}:
            return {}
        if found.setdefault(inner, extras) != extras:
            raise ImproperlyConfiguredException(f"{annotation!r} has {inner.__name__} twice: keep one of them")
    return found


def _raw_members(annotation: Any, outer: tuple[object, ...]) -> Iterator[tuple[Any, tuple[object, ...]]]:
    inner, extras = split_annotated(annotation)
    members = [member for member in union_members(inner) if member is not type(None)]
    if not members:
        yield inner, (*extras, *outer)
    for member in members:
        yield from _raw_members(member, (*extras, *outer))


def _raw_reader(constraints: Mapping[type, tuple[object, ...]], mode: Mode) -> Reader:
    native, other = (str, bytes) if mode == "text" else (bytes, str)
    kind = native if native in constraints else other
    read = as_is if kind is native else _text_to_bytes if mode == "text" else _bytes_to_text
    wanted = annotated(kind, constraints[kind])
    if not parts_of(wanted):
        return read
    if _library(wanted, ()) == "pydantic":
        check = adapter(wanted).validate_python
    else:
        check = functools.partial(msgspec.convert, type=wanted, builtin_types=(bytes,))

    def read_and_check(raw: Raw) -> Any:
        return check(read(raw))

    return read_and_check


def as_is(raw: Raw) -> Raw:
    """The reader of text in text mode and of bytes in binary mode. Message loops compare with it and skip the call."""
    return raw


def _text_to_bytes(raw: Raw) -> bytes:
    return raw.encode() if isinstance(raw, str) else raw


def _bytes_to_text(raw: Raw) -> str:
    return raw if isinstance(raw, str) else raw.decode()


def as_text(value: object, encoding: str = "utf-8") -> str:
    """Text or bytes as exactly ``str``: some servers and clients do not accept a subclass."""
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return str(value, encoding)
    raise _not_raw(value)


def as_bytes(value: object, encoding: str = "utf-8") -> bytes:
    """Text or bytes as exactly ``bytes``."""
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(memoryview(value))
    if isinstance(value, str):
        return value.encode(encoding)
    raise _not_raw(value)


def _not_raw(value: object) -> SerializationException:
    return SerializationException(f"declared as text or bytes, but the value is {_named(value)}")


def _named(value: object) -> str:
    """The type of a value that cannot be written; for an awaitable, also how to correct the code."""
    hint = ": declare the function with async def, or await it" if hasattr(value, "__await__") else ""
    return f"{type(value).__qualname__}{hint}"


def is_raw_writer(write: Writer | None) -> bool:
    """Whether ``write`` returns text (in text mode) or bytes (in binary mode) unchanged."""
    return write is as_text or write is as_bytes


# -- JSON


_encode_plain: Final = msgspec.json.Encoder().encode
BINARY_TYPES: Final = (bytes, bytearray, memoryview)
RAW_TYPES: Final = (str, *BINARY_TYPES)
"""The types that :func:`but_raw` writes unchanged."""


def read_by_pydantic(annotation: Any, decoders: Sequence[TypeDecoder]) -> bool:
    """Whether pydantic reads all of ``annotation``."""
    return _library(annotation, decoders) == "pydantic"


def written_by_pydantic(annotation: Any) -> bool:
    """Whether pydantic writes all of ``annotation``."""
    return _is_pydantics(annotation, _own_parts(annotation))


def _own_parts(annotation: Any) -> list[Part]:
    return [part for part in parts_of(annotation) if not part.field]


def _is_pydantics(annotation: Any, parts: Sequence[Part]) -> bool:
    roles = {part.role for part in parts}
    return bool(roles & {"pydantic", "constraint"}) and "msgspec" not in roles and why_not(annotation) is None


def _json_encoder(annotation: Any, encoders: Mapping[type, TypeEncoder]) -> Callable[[Any], bytes]:
    parts = _own_parts(annotation)
    if _is_pydantics(annotation, parts):
        return pydantic_writer(annotation)
    for part in parts:
        if part.role == "custom" and not _is_writable(part.what, encoders):
            raise ImproperlyConfiguredException(
                f"nothing writes {part}: give type_encoders={{{part.what.__qualname__}: function}} on the handler or a"
                " layer above it"
            )
    return msgspec.json.Encoder(enc_hook=encoder_hook(encoders)).encode


def _is_writable(kind: Any, encoders: Mapping[type, TypeEncoder]) -> bool:
    """Whether values may be writable: true also for a class whose subclasses may be writable."""
    if not isinstance(kind, type) or inspect.isabstract(kind) or is_protocol(kind):
        return True
    if kind.__subclasses__() or any(issubclass(kind, each) or issubclass(each, kind) for each in encoders):
        return True
    return why_not(kind) is None


def _as_text(encode: Callable[[Any], bytes]) -> Callable[[Any], str]:
    def encode_text(value: object) -> str:
        return encode(value).decode()

    return encode_text


def _dec_hook(decoders: Sequence[TypeDecoder]) -> Callable[[type, Any], object]:
    def decode_custom(wanted: type, value: Any) -> object:
        decode = _decoder_of(wanted, decoders)
        if decode is not None:
            return decode(wanted, value)
        if isinstance(wanted, type) and isinstance(value, wanted):
            return value
        return validate_pydantic(wanted, value)

    return decode_custom


def encoder_hook(encoders: Mapping[type, TypeEncoder]) -> Callable[[Any], object]:
    def encode_custom(value: object) -> object:
        for kind in type(value).__mro__:
            if kind in encoders:
                return encoders[kind](value)
        if why_not(type(value)) is None:
            return dump_pydantic(value)
        raise NotImplementedError(f"no type_encoders entry writes {_named(value)}")

    return encode_custom
