"""Reads a function once. The only module that uses ``inspect`` and ``get_type_hints``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from telex.datastructures import Empty
from telex.exceptions import ImproperlyConfiguredException

__all__ = (
    "AnyCallable",
    "class_attribute",
    "Kind",
    "ParameterInfo",
    "Signature",
    "describe",
    "is_undecorated",
    "positional_count",
    "read_hints",
    "read_signature",
    "split_annotated",
    "with_parameters",
)

AnyCallable: TypeAlias = Callable[..., Any]
"""A user's function: its parameters and result are what its signature says."""


class Kind(Enum):
    """How a callable gives its result."""

    SYNC = auto()
    ASYNC = auto()
    GENERATOR = auto()
    ASYNC_GENERATOR = auto()


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One parameter: ``annotation`` without ``Annotated``'s extras, which are in ``metadata``."""

    name: str
    annotation: Any
    metadata: tuple[object, ...]
    default: object
    positional: bool

    @property
    def has_default(self) -> bool:
        """Whether the function has a value of its own for it."""
        return self.default is not Empty

    @property
    def full_annotation(self) -> Any:
        """The annotation with its extras, as msgspec wants it."""
        return Annotated[self.annotation, *self.metadata] if self.metadata else self.annotation


@dataclass(frozen=True, slots=True)
class Signature:
    """What a callable takes and gives, and where it stands."""

    where: str
    kind: Kind
    parameters: tuple[ParameterInfo, ...]
    returns: Any

    def __contains__(self, name: str) -> bool:
        return any(parameter.name == name for parameter in self.parameters)

    def __getitem__(self, name: str) -> ParameterInfo:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def without(self, *names: str) -> tuple[ParameterInfo, ...]:
        """The parameters but those of these names."""
        return tuple(parameter for parameter in self.parameters if parameter.name not in names)


def describe(fn: object) -> str:
    """Who and where, for errors: ``room (chat/app.py:12)``; a class stands where its first own method does."""
    target = _first_method(fn) if inspect.isclass(fn) else _plain_function(fn)
    named = fn if inspect.isclass(fn) else target
    name = getattr(named, "__qualname__", None) or type(fn).__qualname__
    code = getattr(target, "__code__", None)
    if code is None:
        return f"{name} ({getattr(named, '__module__', '?')})"
    file = Path(code.co_filename)
    return f"{name} ({file.parent.name}/{file.name}:{code.co_firstlineno})"


def _first_method(kind: type) -> object:
    return next((member for member in vars(kind).values() if inspect.isfunction(member)), None)


def read_signature(fn: AnyCallable, namespace: Mapping[str, object] | None = None) -> Signature:
    """Read ``fn``: a function, method, partial, class or object with ``__call__``.

    ``namespace`` resolves names in annotations that the function's module does not have at run time.

    :raises ImproperlyConfiguredException: ``fn`` is not callable, or an annotation cannot be resolved or is missing.
    """
    where = describe(fn)
    if not callable(fn):
        raise ImproperlyConfiguredException(f"{where} is not callable: pass a function, a method or a class")
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError) as exc:
        raise ImproperlyConfiguredException(f"the signature of {where} cannot be read: {exc}") from exc
    hints = _hints(fn, dict(namespace or {}), where)
    parameters = tuple(
        _parameter(parameter, hints, where)
        for parameter in signature.parameters.values()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        and parameter.name not in _bound_names(fn)
    )
    returns = fn if inspect.isclass(fn) else hints.get("return", Any)
    return Signature(where, _kind(fn, returns), parameters, returns)


def read_hints(target: type | AnyCallable, namespace: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The annotations of a class and its bases, or of a function, resolved, ``Annotated``'s extras kept.

    :raises ImproperlyConfiguredException: a name in one of them is not there at run time.
    """
    try:
        return get_type_hints(target, localns=dict(namespace or {}) or None, include_extras=True)
    except (NameError, AttributeError, TypeError) as exc:
        raise ImproperlyConfiguredException(
            f"an annotation of {describe(target)} cannot be resolved: {exc}; import or define the name at the top of"
            " the module, outside of TYPE_CHECKING"
        ) from exc


def positional_count(fn: AnyCallable) -> int:
    """How many arguments ``fn`` takes by position."""
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return sum(parameter.kind in kinds for parameter in inspect.signature(fn).parameters.values())


def class_attribute(instance: object, name: str) -> Any:
    """``instance.name``, but a function that was put on the class and takes no ``self`` as it is, not as a method."""
    value = inspect.getattr_static(instance, name)
    if inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), None) != "self":
        return value
    return getattr(instance, name)


def is_undecorated(fn: object) -> bool:
    """Whether ``fn`` is a coroutine function or an async generator itself, and no decorator's result."""
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def split_annotated(annotation: Any) -> tuple[Any, tuple[object, ...]]:
    """``Annotated[T, a, b]`` as ``(T, (a, b))``; anything else with no extras."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def _parameter(parameter: inspect.Parameter, hints: dict[str, Any], where: str) -> ParameterInfo:
    if parameter.name not in hints:
        raise ImproperlyConfiguredException(
            f"parameter {parameter.name!r} of {where} has no annotation: write its type, or Any"
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ImproperlyConfiguredException(
            f"parameter {parameter.name!r} of {where} is positional-only: remove the '/', Telex passes by name"
        )
    annotation, metadata = split_annotated(hints[parameter.name])
    default = Empty if parameter.default is parameter.empty else parameter.default
    return ParameterInfo(
        parameter.name, annotation, metadata, default, parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    )


def _hints(fn: AnyCallable, namespace: dict[str, object], where: str) -> dict[str, Any]:
    target = _plain_function(fn)
    module_names = getattr(target, "__globals__", {})
    try:
        return get_type_hints(target, globalns=module_names, localns={**module_names, **namespace}, include_extras=True)
    except (NameError, AttributeError, TypeError) as exc:
        raise ImproperlyConfiguredException(
            f"an annotation of {where} cannot be resolved: {exc}; import it outside of TYPE_CHECKING,"
            " or pass signature_namespace={'Name': Name}"
        ) from exc


def _bound_names(fn: AnyCallable) -> frozenset[str]:
    return frozenset(fn.keywords) if isinstance(fn, functools.partial) else frozenset()


def _plain_function(fn: object) -> Any:
    """The function whose code and annotations stand behind ``fn``."""
    if isinstance(fn, functools.partial):
        return _plain_function(fn.func)
    if inspect.isclass(fn):
        return fn.__init__ if inspect.isfunction(fn.__init__) else fn
    if inspect.ismethod(fn):
        return _plain_function(fn.__func__)
    if inspect.isfunction(fn) or inspect.isbuiltin(fn):
        return inspect.unwrap(fn)
    call = inspect.getattr_static(type(fn), "__call__", None)
    return _plain_function(call) if inspect.isfunction(call) else fn


def _kind(fn: AnyCallable, returns: Any) -> Kind:
    target = _plain_function(fn)
    if inspect.isclass(fn):
        return Kind.SYNC
    if inspect.isasyncgenfunction(target):
        return Kind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(target):
        return Kind.ASYNC
    if inspect.isgeneratorfunction(target):
        return Kind.GENERATOR
    return Kind.SYNC


def with_parameters(fn: AnyCallable, parameters: Mapping[str, Any], name: str) -> AnyCallable:
    """``fn``, which takes ``**values``, as a function ``name`` that says which: by keyword, with these annotations."""
    kind = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([inspect.Parameter(each, kind, annotation=of) for each, of in parameters.items()])
    fn.__signature__ = signature  # type: ignore[attr-defined]  # where inspect looks first
    fn.__annotations__ = dict(parameters)
    fn.__qualname__ = name
    return fn
