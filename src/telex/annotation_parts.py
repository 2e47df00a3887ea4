"""Finds which library can read each part of an annotation.

msgspec reads most types. pydantic reads its own types and every type with metadata of pydantic or annotated_types.
A type that needs both at once, or that neither reads, is an error when the app is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final, Literal, NewType, TypeAlias, TypeVar, get_args

import msgspec

from telex.annotations import (
    alias_value,
    annotated,
    bound_of,
    field_hints,
    has_plain_arguments,
    is_alias,
    is_model,
    is_pydantic,
    is_typed_dict,
    model_class,
    split_annotated,
    unalias,
    union_members,
    without_qualifiers,
)

__all__ = ("Part", "Role", "parts_of")

Role: TypeAlias = Literal["msgspec", "pydantic", "whole", "constraint", "msgspec constraint", "custom", "open", "lost"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an annotation that not every library reads.

    ``role`` says which library does. ``msgspec`` and ``pydantic``: a type that only this library reads. ``constraint``:
    metadata (or an alias) that only pydantic applies. ``whole``: a type that is readable only if pydantic reads the
    whole annotation. ``msgspec constraint``: metadata that only msgspec applies.
    ``custom``: a type that needs a ``type_decoders`` entry or pydantic. ``open``: a type variable without a value.
    ``lost``: metadata that the library which reads the type ignores. ``field`` names the model's field.
    """

    role: Role
    what: Any
    field: str = ""

    def __str__(self) -> str:
        name = self.what.__qualname__ if isinstance(self.what, type) else repr(self.what)
        return f"{name} (field {self.field})" if self.field else name


def parts_of(annotation: Any) -> tuple[Part, ...]:
    """Everything in ``annotation``, at any depth, that not every library reads."""
    return tuple(_parts(annotation, "", False, set()))


def _parts(annotation: Any, field: str, in_pydantic: bool, seen: set[Any]) -> Iterator[Part]:
    inner, extras = split_annotated(annotation)
    yield from (part for extra in extras for part in _metadata(extra, field, in_pydantic))
    if isinstance(inner, NewType):
        yield from _parts(inner.__supertype__, field, in_pydantic, seen)
    elif is_alias(inner):
        if not in_pydantic:
            yield Part("constraint", inner, field)
        if _is_new(inner, in_pydantic, seen):
            yield from _parts(alias_value(inner), field, in_pydantic, seen)
    elif isinstance(inner, TypeVar):
        if bound_of(inner) is Any:
            yield Part("open", inner, field)
        else:
            yield from _parts(bound_of(inner), field, in_pydantic, seen)
    elif is_pydantic(inner):
        if not in_pydantic:
            yield Part("pydantic", inner, field)
        yield from _inside_pydantic(inner, seen)
    elif is_model(inner):
        yield from _inside_model(inner, field, in_pydantic, seen)
    elif has_plain_arguments(inner):
        for argument in get_args(inner):
            yield from _parts(argument, field, in_pydantic, seen)
        yield from _unknown(inner, field, in_pydantic)
    else:
        yield from _unknown(inner, field, in_pydantic)


def _metadata(extra: object, field: str, in_pydantic: bool) -> Iterator[Part]:
    if isinstance(extra, msgspec.Meta):
        if any(getattr(extra, name) is not None for name in _CONSTRAINTS):
            yield Part("lost" if in_pydantic else "msgspec constraint", extra, field)
    elif not in_pydantic and _is_pydantic_metadata(extra):
        yield Part("constraint", extra, field)


def _is_new(model: Any, in_pydantic: bool, seen: set[Any]) -> bool:
    # Arguments may hold metadata that cannot be hashed.
    key = (id(model_class(model)), repr(get_args(model)), in_pydantic)
    known = key in seen
    seen.add(key)
    return not known


def _inside_model(model: Any, field: str, in_pydantic: bool, seen: set[Any]) -> Iterator[Part]:
    cls = model_class(model)
    if not in_pydantic and (issubclass(cls, msgspec.Struct) or hasattr(cls, "__attrs_attrs__")):
        yield Part("msgspec", cls, field)
    if _is_new(model, in_pydantic, seen):
        names = _field_names(cls)
        for name, hint in field_hints(model).items():
            if names is not None and name not in names:
                continue
            for part in _parts(without_qualifiers(hint)[0], f"{cls.__qualname__}.{name}", in_pydantic, seen):
                # By the rules of typing, an unset type variable of a generic model is Any.
                if part.role != "open":
                    yield part


def _field_names(cls: Any) -> frozenset[str] | None:
    """The names of the annotations that are fields; ``None`` if all are."""
    if issubclass(cls, msgspec.Struct):
        return frozenset(cls.__struct_fields__)
    if is_dataclass(cls):
        return frozenset(each.name for each in fields(cls) if each.init)
    attributes = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else frozenset(each.name for each in attributes)


def _inside_pydantic(model: Any, seen: set[Any]) -> Iterator[Part]:
    """The metadata in the fields of a pydantic model that pydantic ignores."""
    if not _is_new(model, True, seen):
        return
    for name, info in getattr(model, "__pydantic_fields__", {}).items():
        hint = annotated(info.annotation, tuple(info.metadata))
        yield from (part for part in _parts(hint, f"{model.__qualname__}.{name}", True, seen) if part.role == "lost")


def _unknown(annotation: Any, field: str, in_pydantic: bool) -> Iterator[Part]:
    if in_pydantic or annotation is object:
        return
    if annotation in {msgspec.UnsetType, msgspec.Raw}:
        yield Part("msgspec", annotation, field)
        return
    if _is_mixed_enum(annotation) or _is_untagged(union_members(annotation)):
        yield Part("whole", annotation, field)
        return
    try:
        info = msgspec.inspect.type_info(annotation)
    except (TypeError, NameError, ValueError, AttributeError, RecursionError):
        return  # msgspec or pydantic raises a clearer error when it compiles the type
    if isinstance(info, msgspec.inspect.CustomType):
        yield Part("custom", annotation, field)


def _is_mixed_enum(annotation: Any) -> bool:
    """Whether the type is an enum that msgspec does not read: its values are text and numbers, or other scalars."""
    if not (isinstance(annotation, type) and issubclass(annotation, Enum)):
        return False
    kinds = {type(member.value) for member in annotation}
    return not (kinds <= {int} or kinds <= {str}) and kinds <= {str, int, float, bool, type(None)}


def _is_untagged(members: tuple[Any, ...]) -> bool:
    """Whether the members of a union include several dataclasses or typed dictionaries, which have no tags."""
    classes = [model_class(unalias(split_annotated(member)[0])) for member in members]
    return sum((is_dataclass(cls) and not is_pydantic(cls)) or is_typed_dict(cls) for cls in classes) > 1


def _is_pydantic_metadata(extra: object) -> bool:
    kind = extra if isinstance(extra, type) else type(extra)
    homes = {each.__module__.partition(".")[0] for each in kind.__mro__}
    return not homes.isdisjoint({"pydantic", "annotated_types"}) or hasattr(extra, "__get_pydantic_core_schema__")


_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
