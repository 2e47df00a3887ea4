"""Analysis of annotations: resolves aliases and type variables, and finds which library can read each part.

msgspec reads most types. pydantic reads its own types and every type with metadata of pydantic or annotated_types.
A type that needs both at once, or that neither reads, is an error when the app is built.
"""

from __future__ import annotations

import collections.abc
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeAlias,
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
    "Part",
    "Role",
    "accepts",
    "annotated",
    "expand",
    "field_hints",
    "is_model",
    "is_pydantic",
    "is_typed_dict",
    "method_arguments",
    "model_class",
    "parts_of",
    "read_hints",
    "split_annotated",
    "substitute",
    "unalias",
    "union_members",
    "union_of",
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


def _has_plain_arguments(annotation: Any) -> bool:
    """Whether the arguments are types, unlike those of ``Literal`` and ``Callable``."""
    return get_origin(annotation) not in {None, Literal, collections.abc.Callable}


# -- aliases


def unalias(annotation: Any) -> Any:
    """The type behind a ``NewType`` or a ``type`` alias, through any number of aliases."""
    while True:
        if isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif _is_alias(annotation):
            annotation = _alias_value(annotation)
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
    if _is_alias(annotation):
        if any(each == annotation for each in active):
            raise _RefersToItself(annotation)
        try:
            return _expand(_alias_value(annotation), (*active, annotation))
        except _RefersToItself as exc:
            if exc.args[0] != annotation:
                raise
            return annotation
    inner, extras = split_annotated(annotation)
    if extras:
        return annotated(_expand(inner, active), extras)
    if not _has_plain_arguments(annotation):
        return annotation
    arguments = tuple(_expand(argument, active) for argument in get_args(annotation))
    return annotation if arguments == get_args(annotation) else _with_arguments(annotation, arguments)


def _is_alias(annotation: Any) -> bool:
    # By name, because typing and typing_extensions have different classes before Python 3.14.
    return "TypeAliasType" in {type(annotation).__name__, type(get_origin(annotation)).__name__}


def _alias_value(annotation: Any) -> Any:
    alias = get_origin(annotation) or annotation
    holder = type(alias.__name__, (), {"__annotations__": {"value": alias.__value__}, "__module__": alias.__module__})
    value = read_hints(holder)["value"]
    return substitute(value, dict(zip(alias.__type_params__, get_args(annotation), strict=False)))


# -- type variables


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """``annotation`` with type variables replaced by their ``arguments``, or by their default or bound."""
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, _bound(annotation))
    variables = getattr(annotation, "__parameters__", ())
    if not variables or isinstance(annotation, type):
        return annotation
    return annotation[tuple(arguments.get(variable, _bound(variable)) for variable in variables)]


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


def _bound(variable: Any) -> Any:
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


def accepts(wanted: Any, given: Any) -> bool:
    """Whether a value of the type ``given`` can be passed as ``wanted``; true where only a type checker can tell."""
    if wanted == given:
        return True
    inner, extras = split_annotated(wanted)
    if any(part.what in extras for part in parts_of(annotated(Any, extras))):
        return False  # a constraint of its own, which nothing would check
    wanted, given = unalias(inner), unalias(split_annotated(given)[0])
    if wanted is Any or wanted is object or isinstance(wanted, TypeVar):
        return True
    if union_members(given):
        return all(accepts(wanted, member) for member in union_members(given))
    if union_members(wanted):
        return any(accepts(member, given) for member in union_members(wanted))
    if Literal in {get_origin(wanted), get_origin(given)}:
        if get_origin(wanted) is Literal:
            return set(get_args(given)) <= set(get_args(wanted)) and get_origin(given) is Literal
        return all(accepts(wanted, type(value)) for value in get_args(given))
    return _accepts_class(wanted, given)


def _accepts_class(wanted: Any, given: Any) -> bool:
    outer, inner = ({None: types.NoneType}.get(each, each) for each in map(model_class, (wanted, given)))
    if not (isinstance(outer, type) and isinstance(inner, type)):
        return inner is not Any
    if is_typed_dict(outer):
        return outer in {inner, *getattr(inner, "__orig_bases__", ())}
    if not (issubclass(inner, outer) or (inner, outer) == (int, float) or is_protocol(outer)):
        return False
    arguments = get_args(wanted), get_args(given)
    return len(arguments[0]) != len(arguments[1]) or all(map(accepts, *arguments))


# -- which library reads which part

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
    elif _is_alias(inner):
        if not in_pydantic:
            yield Part("constraint", inner, field)
        if _is_new(inner, in_pydantic, seen):
            yield from _parts(_alias_value(inner), field, in_pydantic, seen)
    elif isinstance(inner, TypeVar):
        if _bound(inner) is Any:
            yield Part("open", inner, field)
        else:
            yield from _parts(_bound(inner), field, in_pydantic, seen)
    elif is_pydantic(inner):
        if not in_pydantic:
            yield Part("pydantic", inner, field)
        yield from _inside_pydantic(inner, seen)
    elif is_model(inner):
        yield from _inside_model(inner, field, in_pydantic, seen)
    elif _has_plain_arguments(inner):
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


def is_pydantic(annotation: Any) -> bool:
    """Whether ``annotation`` is a type defined with pydantic."""
    return (
        "pydantic" in sys.modules
        and isinstance(annotation, type)
        and (hasattr(annotation, "__pydantic_core_schema__") or hasattr(annotation, "__get_pydantic_core_schema__"))
    )


def _is_pydantic_metadata(extra: object) -> bool:
    kind = extra if isinstance(extra, type) else type(extra)
    homes = {each.__module__.partition(".")[0] for each in kind.__mro__}
    return not homes.isdisjoint({"pydantic", "annotated_types"}) or hasattr(extra, "__get_pydantic_core_schema__")


_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")
