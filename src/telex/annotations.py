"""Analysis of annotations: takes them apart, resolves aliases and type variables, and reads the fields of models."""

from __future__ import annotations

import collections.abc
import sys
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from telex.exceptions import ImproperlyConfiguredException

if sys.version_info >= (3, 13):
    from typing import ReadOnly, is_protocol
else:
    from typing_extensions import ReadOnly, is_protocol

__all__ = (
    "alias_value",
    "annotated",
    "expand",
    "field_hints",
    "has_plain_arguments",
    "is_alias",
    "is_model",
    "is_pydantic",
    "is_typed_dict",
    "method_arguments",
    "model_class",
    "read_hints",
    "split_annotated",
    "substitute",
    "unalias",
    "union_members",
    "union_of",
    "bound_of",
    "without_qualifiers",
    "is_protocol",
)

_QUALIFIERS: Final = {Required, NotRequired, Final, ReadOnly}


# -- taking annotations apart, and putting them together


def split_annotated(annotation: Any) -> tuple[Any, tuple[object, ...]]:
    """``Annotated[T, a, b]`` as ``(T, (a, b))``; anything else with no extras."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def annotated(inner: Any, extras: tuple[object, ...]) -> Any:
    """``Annotated[inner, *extras]``, or ``inner`` without extras."""
    return Annotated[inner, *extras] if extras else inner


def union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, including ``NoneType``; an empty tuple for any other type."""
    return get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else ()


def union_of(*members: Any) -> Any:
    """The union of ``members``."""
    return Union[(*members,)]


def model_class(annotation: Any) -> Any:
    """The class of a model, without its type arguments: ``Box`` for ``Box[int]``."""
    return get_origin(annotation) or annotation


def without_qualifiers(annotation: Any) -> tuple[Any, frozenset[Any]]:
    """``annotation`` without ``Required``, ``NotRequired``, ``Final`` and ``ReadOnly``, and the removed qualifiers."""
    inner, extras = split_annotated(annotation)
    found: set[Any] = set()
    while get_origin(inner) in _QUALIFIERS:
        found.add(get_origin(inner))
        inner, more = split_annotated(get_args(inner)[0])
        extras = (*extras, *more)
    return (annotated(inner, extras) if found else annotation), frozenset(found)


def _with_arguments(annotation: Any, arguments: tuple[Any, ...]) -> Any:
    if union_members(annotation):
        return union_of(*arguments)
    if hasattr(annotation, "copy_with"):
        return annotation.copy_with(arguments)
    return get_origin(annotation)[arguments]


def has_plain_arguments(annotation: Any) -> bool:
    """Whether the arguments are types, unlike those of ``Literal`` and ``Callable``."""
    return get_origin(annotation) not in {None, Literal, collections.abc.Callable}


# -- aliases


def unalias(annotation: Any) -> Any:
    """The type behind a ``NewType`` or a ``type`` alias, through any number of aliases."""
    while True:
        if isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif is_alias(annotation):
            annotation = alias_value(annotation)
        else:
            return annotation


def expand(annotation: Any) -> Any:
    """``annotation`` without aliases (``type``, ``TypeAliasType``, ``NewType``) at any depth of its arguments.

    A recursive alias is kept.
    """
    return _expand(annotation, ())


class _RefersToItself(Exception):
    """Raised with the alias that refers to itself."""


def _expand(annotation: Any, active: tuple[Any, ...]) -> Any:
    if isinstance(annotation, NewType):
        return _expand(annotation.__supertype__, active)
    if is_alias(annotation):
        if any(each == annotation for each in active):
            raise _RefersToItself(annotation)
        try:
            return _expand(alias_value(annotation), (*active, annotation))
        except _RefersToItself as exc:
            if exc.args[0] != annotation:
                raise
            return annotation
    inner, extras = split_annotated(annotation)
    if extras:
        return annotated(_expand(inner, active), extras)
    if not has_plain_arguments(annotation):
        return annotation
    arguments = tuple(_expand(argument, active) for argument in get_args(annotation))
    return annotation if arguments == get_args(annotation) else _with_arguments(annotation, arguments)


def is_alias(annotation: Any) -> bool:
    # By name, because typing and typing_extensions have different classes before Python 3.14.
    return "TypeAliasType" in {type(annotation).__name__, type(get_origin(annotation)).__name__}


def alias_value(annotation: Any) -> Any:
    alias = get_origin(annotation) or annotation
    holder = type(alias.__name__, (), {"__annotations__": {"value": alias.__value__}, "__module__": alias.__module__})
    value = read_hints(holder)["value"]
    return substitute(value, dict(zip(alias.__type_params__, get_args(annotation), strict=False)))


# -- type variables


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """``annotation`` with type variables replaced by their ``arguments``, or by their default or bound."""
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, bound_of(annotation))
    variables = getattr(annotation, "__parameters__", ())
    if not variables or isinstance(annotation, type):
        return annotation
    return annotation[tuple(arguments.get(variable, bound_of(variable)) for variable in variables)]


def method_arguments(method: types.MethodType) -> dict[Any, Any]:
    """The values of type variables for a method of an instance: ``{T: int}`` in a subclass of ``Base[int]``."""
    owner = method.__self__ if isinstance(method.__self__, type) else type(method.__self__)
    owners = _arguments_by_owner(owner)
    defined_in = next(
        (kind for kind in owner.__mro__ if any(_function_of(each) is method.__func__ for each in vars(kind).values())),
        None,
    )
    everywhere = {variable: value for arguments in owners.values() for variable, value in arguments.items()}
    return {**everywhere, **owners.get(defined_in, {})}


def _function_of(member: object) -> object:
    """The function behind a member of a class, which may be a handler's description."""
    return getattr(member, "__func__", None) or getattr(member, "fn", member)


def bound_of(variable: Any) -> Any:
    default = getattr(variable, "__default__", None)
    if default is not None and type(default).__name__ != "NoDefaultType":
        return default
    if getattr(variable, "__constraints__", ()):
        return union_of(*variable.__constraints__)
    return getattr(variable, "__bound__", None) or Any


def _arguments_by_owner(model: Any) -> dict[Any, dict[Any, Any]]:
    """The values of the type variables of a model and of each of its bases."""
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
        for base in () if is_typed_dict(heir) else heir.__bases__:
            if base not in found and base is not object:
                found[base] = {}
                pending.append(base)
    return found


# -- the fields of models


def read_hints(target: Any, namespace: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The resolved annotations of a class and its bases, or of a function, with the extras of ``Annotated``.

    :raises ImproperlyConfiguredException: a name in an annotation is not defined at run time.
    """
    try:
        return get_type_hints(target, localns=dict(namespace or {}) or None, include_extras=True)
    except (NameError, AttributeError, TypeError) as exc:
        raise ImproperlyConfiguredException(
            f"an annotation of {target.__qualname__} (in {target.__module__}) cannot be resolved: {exc};"
            " import or define the name at the top of the module, outside of TYPE_CHECKING"
        ) from exc


def field_hints(model: Any) -> dict[str, Any]:
    """The annotations of a model and its bases by field, with type variables replaced by the model's arguments."""
    cls = model_class(model)
    owners = _arguments_by_owner(model)
    everywhere = {variable: value for arguments in owners.values() for variable, value in arguments.items()}
    return {
        name: substitute(hint, owners.get(_owner(cls, name), everywhere))
        for name, hint in read_hints(cls).items()
        if hint is not ClassVar and get_origin(hint) is not ClassVar
    }


def _owner(cls: type, name: str) -> type | None:
    return next((base for base in cls.__mro__ if name in getattr(base, "__annotations__", {})), None)


def is_typed_dict(cls: Any) -> bool:
    """Whether ``cls`` is a ``TypedDict`` of ``typing`` or ``typing_extensions``."""
    return isinstance(cls, type) and issubclass(cls, dict) and hasattr(cls, "__total__")


def is_model(annotation: Any) -> bool:
    """Whether the type has named fields: values are read from a JSON object, or from an array by position."""
    cls = model_class(annotation)
    return isinstance(cls, type) and (
        issubclass(cls, msgspec.Struct)
        or is_dataclass(cls)
        or hasattr(cls, "__attrs_attrs__")
        or is_typed_dict(cls)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
        or hasattr(cls, "__pydantic_fields__")
    )


def is_pydantic(annotation: Any) -> bool:
    """Whether ``annotation`` is a type defined with pydantic."""
    return (
        "pydantic" in sys.modules
        and isinstance(annotation, type)
        and (hasattr(annotation, "__pydantic_core_schema__") or hasattr(annotation, "__get_pydantic_core_schema__"))
    )
