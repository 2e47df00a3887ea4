"""What a model's annotations mean: forward references resolved, type variables filled in."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    is_typeddict,
)

from telex.signatures import read_hints, split_annotated

__all__ = ("field_hints", "model_class", "substitute", "unalias", "union_members", "union_of", "without_qualifiers")

_QUALIFIERS: Final = {Required, NotRequired, Final}


def model_class(annotation: Any) -> Any:
    """The class of a model that may have type arguments: ``Box`` of ``Box[int]``."""
    return get_origin(annotation) or annotation


def field_hints(model: Any) -> dict[str, Any]:
    """The annotations of a model and its bases by field; of ``Box[int]`` with ``int`` for its type variable."""
    cls = model_class(model)
    owners = _arguments_by_owner(model)
    everywhere = {variable: value for arguments in owners.values() for variable, value in arguments.items()}
    return {
        name: substitute(hint, owners.get(_owner(cls, name), everywhere))
        for name, hint in read_hints(cls).items()
        if hint is not ClassVar and get_origin(hint) is not ClassVar
    }


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """``annotation`` with its type variables filled in; one that stays free becomes its bound, or ``Any``."""
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, _bound(annotation))
    variables = getattr(annotation, "__parameters__", ())
    if not variables or isinstance(annotation, type):
        return annotation
    return annotation[tuple(arguments.get(variable, _bound(variable)) for variable in variables)]


def unalias(annotation: Any) -> Any:
    """What a ``NewType`` or a ``type`` statement names."""
    while True:
        if isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def without_qualifiers(annotation: Any) -> tuple[Any, frozenset[Any]]:
    """``Required[...]``, ``NotRequired[...]``, ``Final[...]`` and the like taken off, and which they were."""
    inner, extras = split_annotated(annotation)
    found: set[Any] = set()
    while get_origin(inner) in _QUALIFIERS or getattr(get_origin(inner), "_name", "") == "ReadOnly":
        found.add(get_origin(inner))
        inner, more = split_annotated(get_args(inner)[0])
        extras = (*extras, *more)
    return (_annotated(inner, extras) if found else annotation), frozenset(found)


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, ``None`` too; nothing for any other type."""
    return get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else ()


def union_of(*members: Any) -> Any:
    """The union of types that are known only now."""
    return Union[(*members,)]


def _annotated(inner: Any, extras: tuple[object, ...]) -> Any:
    return Annotated[inner, *extras] if extras else inner


def _bound(variable: Any) -> Any:
    if getattr(variable, "__constraints__", ()):
        return union_of(*variable.__constraints__)
    return getattr(variable, "__bound__", None) or Any


def _arguments_by_owner(model: Any) -> dict[Any, dict[Any, Any]]:
    """For each generic class among a model and its bases, what its type variables are."""
    cls = model_class(model)
    found = {cls: dict(zip(getattr(cls, "__parameters__", ()), get_args(model), strict=False))}
    pending = [cls]
    while pending:
        heir = pending.pop()
        for base in getattr(heir, "__orig_bases__", ()):
            owner = get_origin(base)
            if isinstance(owner, type) and owner not in found and hasattr(owner, "__parameters__"):
                values = [substitute(argument, found[heir]) for argument in get_args(base)]
                found[owner] = dict(zip(owner.__parameters__, values, strict=False))
                pending.append(owner)
        for base in () if is_typeddict(heir) else heir.__bases__:
            if base not in found and base is not object:
                found[base] = {}
                pending.append(base)
    return found


def _owner(cls: type, name: str) -> type | None:
    return next((base for base in cls.__mro__ if name in getattr(base, "__annotations__", {})), None)
