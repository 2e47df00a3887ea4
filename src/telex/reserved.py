"""Parameter names with a fixed meaning in every function: their values, and the annotations that they allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

from telex.annotation_parts import parts_of
from telex.annotations import (
    annotated,
    is_protocol,
    is_typed_dict,
    model_class,
    split_annotated,
    unalias,
    union_members,
)
from telex.connection import Socket, WebSocket
from telex.datastructures import Headers, QueryParams, State

__all__ = ("RESERVED", "RESERVED_KINDS", "RESERVED_VALUES", "accepts", "fits", "members_of")

RESERVED: Final = frozenset({"socket", "data", "state", "scope", "headers", "cookies", "query"})
"""Parameter names with a fixed meaning in every function. A dependency cannot have one of these names."""

RESERVED_VALUES: Final[Mapping[str, Callable[[Socket, bool], object]]] = {
    "socket": lambda socket, _: socket,
    "state": lambda socket, _: socket.app.state,
    "scope": lambda socket, _: socket.scope,
    "headers": lambda socket, plain: dict(socket.headers) if plain else socket.headers,
    "cookies": lambda socket, _: socket.cookies,
    "query": lambda socket, plain: dict(socket.query_params) if plain else socket.query_params,
}


RESERVED_KINDS: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "socket": ("the connection", (WebSocket,)),
    "state": ("the app's state", (State,)),
    "scope": ("the ASGI scope", (dict,)),
    "headers": ("the request's headers", (Headers, dict)),
    "cookies": ("the request's cookies", (dict,)),
    "query": ("the query parameters", (QueryParams, dict)),
}


def fits(annotation: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value of one of ``kinds`` can have the type of the annotation; true when this cannot be decided."""
    for member in members_of(annotation):
        found = model_class(member)
        if found is Any or not isinstance(found, type) or is_protocol(found):
            return True
        if any(issubclass(kind, found) or issubclass(found, kind) for kind in kinds):
            return True
    return False


def members_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation itself."""
    return union_members(annotation) or (annotation,)


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
    outer, inner = ({None: NoneType}.get(each, each) for each in map(model_class, (wanted, given)))
    if not (isinstance(outer, type) and isinstance(inner, type)):
        return inner is not Any
    if is_typed_dict(outer):
        return outer in {inner, *getattr(inner, "__orig_bases__", ())}
    if not (issubclass(inner, outer) or (inner, outer) == (int, float) or is_protocol(outer)):
        return False
    arguments = get_args(wanted), get_args(given)
    return len(arguments[0]) != len(arguments[1]) or all(map(accepts, *arguments))
