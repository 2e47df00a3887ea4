"""Reads the signature of a function: its parameters, its result, and its file and line."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum, auto
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Annotated, Any, Final, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from telex.annotations import expand, field_hints, method_arguments, split_annotated, substitute
from telex.datastructures import Empty
from telex.exceptions import ImproperlyConfiguredException

__all__ = (
    "AnyCallable",
    "annotation_of",
    "call_site",
    "class_attribute",
    "Kind",
    "ParameterInfo",
    "Signature",
    "declared_method",
    "describe",
    "is_context_manager",
    "is_undecorated",
    "parameter_names",
    "positional_count",
    "read_signature",
)

AnyCallable: TypeAlias = Callable[..., Any]
"""A user's function with any signature."""


class Kind(Enum):
    """How a callable returns its result."""

    SYNC = auto()
    ASYNC = auto()
    GENERATOR = auto()
    ASYNC_GENERATOR = auto()
    MAYBE_ASYNC = auto()
    """A plain function that wraps a coroutine function: its result may be awaitable."""
    MAYBE_GENERATOR = auto()
    """A plain function that wraps a generator function: its result may be a generator."""


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """One parameter: ``annotation`` is without the extras of ``Annotated``, which are in ``metadata``."""

    name: str
    annotation: Any
    metadata: tuple[object, ...]
    default: object
    positional: bool

    @property
    def has_default(self) -> bool:
        """Whether the parameter has a default."""
        return self.default is not Empty

    @property
    def full_annotation(self) -> Any:
        """The annotation with its extras."""
        return Annotated[self.annotation, *self.metadata] if self.metadata else self.annotation


@dataclass(frozen=True, slots=True)
class Signature:
    """The parameters and the result of a callable, and its file and line."""

    where: str
    kind: Kind
    parameters: tuple[ParameterInfo, ...]
    returns: Any

    def __contains__(self, name: str) -> bool:
        return any(parameter.name == name for parameter in self.parameters)

    def __getitem__(self, name: str) -> ParameterInfo:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def without(self, *names: str) -> tuple[ParameterInfo, ...]:
        """The parameters except those with these names."""
        return tuple(parameter for parameter in self.parameters if parameter.name not in names)


def describe(fn: object) -> str:
    """The name, file and line of ``fn``: ``room (chat/app.py:12)``. For a class, the line of its first method."""
    target = _first_method(fn) if inspect.isclass(fn) else _plain_function(fn)
    named = fn if inspect.isclass(fn) else target
    name = getattr(named, "__qualname__", None) or type(fn).__qualname__
    code = getattr(target, "__code__", None)
    if code is None:
        return f"{name} ({getattr(named, '__module__', '?')})"
    return f"{name} ({_place(code.co_filename, code.co_firstlineno)})"


def _first_method(kind: type) -> object:
    return next((member for member in vars(kind).values() if inspect.isfunction(member)), None)


def read_signature(fn: AnyCallable, namespace: Mapping[str, object] | None = None) -> Signature:
    """Read ``fn``: a function, method, partial, class or object with ``__call__``.

    ``namespace`` has names of annotations that are not defined in the function's module at run time.

    :raises ImproperlyConfiguredException: ``fn`` is not callable, or an annotation cannot be resolved or is missing.
    """
    where = describe(fn)
    if not callable(fn):
        raise ImproperlyConfiguredException(f"{where} is not callable: pass a function, a method or a class")
    try:
        signature = _signature(fn)
    except (ValueError, TypeError) as exc:
        raise ImproperlyConfiguredException(f"the signature of {where} cannot be read: {exc}") from exc
    hints = _class_hints(fn, signature) if inspect.isclass(fn) else {}
    if not inspect.isclass(fn) or not signature.parameters.keys() <= hints.keys():
        hints |= _hints(fn, dict(namespace or {}), where)
    if getattr(fn, "__name__", "") == "<lambda>":  # lambdas cannot be annotated; 'data' must be
        hints = {**{name: Any for name in signature.parameters if name != "data"}, **hints}
    parameters = tuple(
        _parameter(parameter, hints, where)
        for parameter in signature.parameters.values()
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        and parameter.name not in _bound_names(fn)
        and type(parameter.default).__name__ != "_HAS_DEFAULT_FACTORY_CLASS"  # a marker of pydantic and dataclasses
    )
    kind, returns = _kind(fn), fn if inspect.isclass(fn) else hints.get("return", Any)
    if kind is Kind.SYNC and get_origin(returns) in {Awaitable, Coroutine} and get_args(returns):
        kind, returns = Kind.MAYBE_ASYNC, get_args(returns)[-1]
    return Signature(where, kind, parameters, returns)


def positional_count(fn: AnyCallable) -> int:
    """The number of arguments that ``fn`` takes by position."""
    return len(parameter_names(fn)[0])


def parameter_names(fn: AnyCallable) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters that ``fn`` takes by position, and the keyword-only parameters."""
    parameters = inspect.signature(fn).parameters.values()
    by_position = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    positional = tuple(each.name for each in parameters if each.kind in by_position)
    return positional, tuple(each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY)


def class_attribute(instance: object, name: str) -> Any:
    """``instance.name``, but without binding a function that was assigned to the class and does not take the instance.

    A function takes the instance if it is defined in the body of a class of ``instance``, if its first parameter is
    ``self``, or if only its first parameter has no annotation: values that Telex injects need one.
    """
    value = inspect.getattr_static(instance, name)
    if not inspect.isfunction(value):
        return getattr(instance, name)
    parameters = inspect.signature(value).parameters
    bare = [name for name, each in parameters.items() if each.annotation is each.empty]
    first = next(iter(parameters), None)
    within = value.__qualname__.rpartition(".")[0] in {each.__qualname__ for each in type(instance).__mro__}
    takes_instance = within or first == "self" or (len(parameters) > 1 and bare == [first])
    return getattr(instance, name) if takes_instance else value


def declared_method(instance: object, name: str) -> AnyCallable | None:
    """``instance.name`` if its class declares a method with that name. Does not run properties or descriptors."""
    declared = inspect.getattr_static(instance, name)
    is_method = inspect.isfunction(declared) or isinstance(
        declared, (classmethod, staticmethod, functools.partialmethod)
    )
    return getattr(instance, name) if is_method else None


def annotation_of(fn: AnyCallable, name: str, namespace: Mapping[str, object] | None = None) -> Any:
    """The annotation of one parameter, or ``None`` if it cannot be resolved. Ignores the other annotations."""
    target = _plain_function(fn)
    written = {key: hint for key, hint in getattr(target, "__annotations__", {}).items() if key == name}
    names = {**getattr(target, "__globals__", {}), **(namespace or {})}
    try:
        hint = get_type_hints(SimpleNamespace(__annotations__=written), localns=names, include_extras=True).get(name)
    except (NameError, AttributeError, TypeError):
        return None
    return expand(_filled(hint, method_arguments(fn) if isinstance(fn, MethodType) else {}))


def is_undecorated(fn: object) -> bool:
    """Whether ``fn`` is a coroutine function or an async generator function, and not the result of a decorator."""
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def is_context_manager(fn: object) -> bool:
    """Whether ``fn`` was decorated with ``contextlib.contextmanager`` or ``asynccontextmanager``."""
    return getattr(fn, "__code__", None) in _CONTEXT_MANAGERS


_CONTEXT_MANAGERS: Final = frozenset(
    decorate(positional_count).__code__  # type: ignore[arg-type]
    for decorate in (contextlib.contextmanager, contextlib.asynccontextmanager)
)


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
    for mark in (*metadata, parameter.default):
        _refuse_foreign(mark, parameter, where)
    default = Empty if parameter.default is parameter.empty else parameter.default
    return ParameterInfo(
        parameter.name, annotation, metadata, default, parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    )


def _signature(fn: AnyCallable) -> inspect.Signature:
    """The signature of ``fn``; for a class whose metaclass hides it, that of ``__init__`` or ``__new__``."""
    if not isinstance(fn, type) or type(fn).__call__ is type.__call__:
        return inspect.signature(fn)
    found = inspect.signature(fn)
    if any(each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in found.parameters.values()):
        return found
    making = _plain_function(fn)
    return inspect.signature(functools.partial(fn.__new__ if making is fn else making, None))


def _refuse_foreign(mark: object, parameter: inspect.Parameter, where: str) -> None:
    """Raise for markers of other frameworks, and for markers given as a default, where they have no effect."""
    home, name = type(mark).__module__.partition(".")[0], type(mark).__name__
    is_default = mark is parameter.default
    instead = None
    if home in {"fastapi", "litestar"}:
        instead = _INSTEAD.get(name.lower(), "FromQuery[...], FromHeader[...] or Annotated[..., Parameter(...)]")
    elif is_default and home == "telex" and name in {"Parameter", "Dependency", "In", "Provide"}:
        instead = f"Annotated[..., {name}(...)]"
    elif is_default and home == "pydantic" and name == "FieldInfo":
        instead = "Annotated[..., Field(...)]"
    if instead is not None:
        kind = f"the default {name}(...)" if is_default else f"{name}(...)"
        raise ImproperlyConfiguredException(
            f"parameter {parameter.name!r} of {where} has {kind} of {home}, which has no effect here: write {instead}"
        )


_INSTEAD: Final[Mapping[str, str]] = {
    "depends": "Annotated[..., Provide(function)], or dependencies={...} on a layer",
    "security": "Annotated[..., Provide(function)], or dependencies={...} on a layer",
    "dependencykwarg": "telex.Dependency(...), or NamedDependency[...]",
    "header": "FromHeader[...], or Annotated[..., Parameter(header=...)]",
    "cookie": "FromCookie[...], or Annotated[..., Parameter(cookie=...)]",
    "path": "FromPath[...]",
    "body": "the type of the message as the annotation of 'data'",
}


def _class_hints(cls: type, signature: inspect.Signature) -> dict[str, Any]:
    """The annotations of a class: of a generated ``__init__``, of a pydantic model, or of ``__new__``."""
    hints = {name: each.annotation for name, each in signature.parameters.items()}
    missing = inspect.Parameter.empty
    found = {name: expand(hint) for name, hint in hints.items() if hint is not missing and not isinstance(hint, str)}
    fields = field_hints(cls) if is_dataclass(cls) else {}
    return {**fields, **found, **(_resolved(cls.__new__, {}) if inspect.isfunction(cls.__new__) else {})}


def _hints(fn: AnyCallable, namespace: dict[str, object], where: str) -> dict[str, Any]:
    target = _plain_function(fn)
    arguments = method_arguments(fn) if inspect.ismethod(fn) else {}
    try:
        return {name: expand(_filled(hint, arguments)) for name, hint in _resolved(target, namespace).items()}
    except (NameError, AttributeError, TypeError) as exc:
        raise ImproperlyConfiguredException(
            f"an annotation of {where} cannot be resolved: {exc}; import it outside of TYPE_CHECKING,"
            " or pass signature_namespace={'Name': Name}"
        ) from exc


def _resolved(target: AnyCallable, namespace: Mapping[str, object]) -> dict[str, Any]:
    names = getattr(target, "__globals__", {})
    return get_type_hints(target, globalns=names, localns={**names, **namespace}, include_extras=True)


def _filled(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """``hint`` with the type variables in ``arguments`` replaced; other type variables are kept."""
    variables = (hint,) if isinstance(hint, TypeVar) else getattr(hint, "__parameters__", ())
    return substitute(hint, {**{each: each for each in variables}, **arguments}) if arguments else hint


def _bound_names(fn: AnyCallable) -> frozenset[str]:
    return frozenset(fn.keywords) if isinstance(fn, functools.partial) else frozenset()


def _plain_function(fn: object) -> Any:
    """The function that has the code and annotations of ``fn``, without partials, methods and decorators."""
    if isinstance(fn, functools.partial):
        return _plain_function(fn.func)
    if inspect.isclass(fn):
        return fn.__init__ if inspect.isfunction(fn.__init__) else fn
    if inspect.ismethod(fn):
        return _plain_function(fn.__func__)
    if inspect.isfunction(fn) or inspect.isbuiltin(fn) or hasattr(fn, "__wrapped__"):
        return inspect.unwrap(fn)  # type: ignore[arg-type]
    call = inspect.getattr_static(type(fn), "__call__", None)
    return _plain_function(call) if inspect.isfunction(call) else fn


def _kind(fn: AnyCallable) -> Kind:
    """The kind of the outermost function, because a decorator can change how the result is returned."""
    if inspect.isclass(fn):
        return Kind.SYNC
    outer = _outer_function(fn)
    kind = within = _kind_of(outer)
    inner = None if is_context_manager(outer) else getattr(outer, "__wrapped__", None)
    while inner is not None and within is Kind.SYNC:
        within, inner = _kind_of(inner), getattr(inner, "__wrapped__", None)
    return _AROUND.get(within, kind) if kind is Kind.SYNC else kind


_AROUND: Final = {
    Kind.ASYNC: Kind.MAYBE_ASYNC,
    Kind.GENERATOR: Kind.MAYBE_GENERATOR,
    Kind.ASYNC_GENERATOR: Kind.MAYBE_GENERATOR,
}
"""The kind of a plain function, by the kind of the function that it wraps."""


def _outer_function(fn: object) -> Any:
    """Like :func:`_plain_function`, but keeps decorators."""
    if isinstance(fn, functools.partial):
        return _outer_function(fn.func)
    if isinstance(fn, MethodType):
        return _outer_function(fn.__func__)
    if inspect.isfunction(fn) or inspect.isbuiltin(fn) or inspect.iscoroutinefunction(fn):
        return fn
    return fn if hasattr(fn, "__wrapped__") else inspect.getattr_static(type(fn), "__call__", fn)


def _kind_of(fn: object) -> Kind:
    if inspect.isasyncgenfunction(fn):
        return Kind.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(fn):
        return Kind.ASYNC
    return Kind.GENERATOR if inspect.isgeneratorfunction(fn) else Kind.SYNC


def call_site() -> str:
    """The file and line that called the caller of this function: ``chat/app.py:12``."""
    frame = inspect.currentframe()
    caller = frame and frame.f_back and frame.f_back.f_back
    return "?" if caller is None else _place(caller.f_code.co_filename, caller.f_lineno)


def _place(filename: str, line: int) -> str:
    file = Path(filename)
    return f"{file.parent.name}/{file.name}:{line}"
