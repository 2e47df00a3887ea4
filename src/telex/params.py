"""Parameters that are read from the opening handshake: path, query, header and cookie."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import types
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec
from starlette.requests import HTTPConnection

from telex.annotations import annotated, unalias
from telex.datastructures import Empty, EmptyType
from telex.exceptions import ImproperlyConfiguredException, ValidationException
from telex.signatures import ParameterInfo

__all__ = (
    "FromCookie",
    "FromHeader",
    "FromPath",
    "FromQuery",
    "In",
    "Parameter",
    "Source",
    "fill_parameters",
    "is_simple",
    "request_parameter",
)

T = TypeVar("T")

Source: TypeAlias = Literal["path", "query", "header", "cookie"]


@dataclass(frozen=True, slots=True)
class In:
    """Marks the source of a parameter. ``FromQuery[int]`` is ``Annotated[int, In("query")]``."""

    source: Source


FromPath = Annotated[T, In("path")]
FromQuery = Annotated[T, In("query")]
FromHeader = Annotated[T, In("header")]
FromCookie = Annotated[T, In("cookie")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter's name on the wire, its default and its constraints.

    ``Annotated[int, Parameter(query="page", ge=1)]``. At most one of ``query``, ``header`` and ``cookie`` may be given;
    without any, the parameter's name is looked up in the path, then in the query. ``title``, ``description`` and
    ``examples`` appear in API documents. The constraints are those of msgspec
    (https://jcristharif.com/msgspec/constraints.html).
    """

    query: str | None = None
    header: str | None = None
    cookie: str | None = None
    annotation: Any = Empty
    default: object = Empty
    required: bool | None = None
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None
    pattern: str | None = None
    title: str | None = None
    description: str | None = None
    examples: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        given = [name for name in ("query", "header", "cookie") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ImproperlyConfiguredException(f"Parameter({', '.join(given)}) names two sources: keep one")

    @property
    def source(self) -> Source | None:
        """The source, or ``None`` if none is given."""
        if self.header is not None:
            return "header"
        if self.cookie is not None:
            return "cookie"
        return "query" if self.query is not None else None

    @property
    def alias(self) -> str | None:
        """The name in the handshake, or ``None`` if none is given."""
        return self.header or self.cookie or self.query

    def constrain(self, annotation: Any) -> Any:
        """``annotation`` with these constraints as metadata."""
        return _constrained(
            annotation,
            {
                "gt": self.gt,
                "ge": self.ge,
                "lt": self.lt,
                "le": self.le,
                "multiple_of": self.multiple_of,
                "min_length": self.min_items if self.min_length is None else self.min_length,
                "max_length": self.max_items if self.max_length is None else self.max_length,
                "pattern": self.pattern,
                "title": self.title,
                "description": self.description,
                "examples": list(self.examples) or None,
            },
        )


@dataclass(frozen=True, slots=True)
class RequestParameter:
    """One parameter that is read from the handshake: its source, its name there and its type."""

    name: str
    source: Source
    alias: str
    annotation: Any
    default: object
    many: bool

    def read(self, connection: HTTPConnection) -> object:
        """The raw value: text, a list of texts, the result of the path's convertor, or ``Empty`` if absent."""
        return _READERS[self.source](connection, self)


def request_parameter(
    parameter: ParameterInfo, path_names: Collection[str], layered: Mapping[str, Parameter]
) -> RequestParameter | None:
    """How ``parameter`` is read from the handshake, or ``None`` if it is no value of the handshake.

    The first match decides: an explicit mark, a layered ``parameters`` entry, a path parameter of that name, and for a
    simple type the query.
    """
    mark = next((extra for extra in parameter.metadata if isinstance(extra, In)), None)
    own = next((extra for extra in parameter.metadata if isinstance(extra, Parameter)), None)
    options = own or layered.get(parameter.name) or Parameter()
    source = (mark.source if mark else None) or options.source
    if source is None and parameter.name in path_names:
        source = "path"
    if source is None:
        known = own is not None or parameter.name in layered or is_simple(parameter.annotation)
        source = "query" if known else None
    if source is None:
        return None
    return RequestParameter(
        name=parameter.name,
        source=source,
        alias=options.alias or (parameter.name.replace("_", "-") if source == "header" else parameter.name),
        annotation=_wire_annotation(parameter, options),
        default=_default(parameter, options),
        many=source in {"query", "header"} and _is_collection(parameter.annotation),
    )


def fill_parameters(
    connection: HTTPConnection,
    values: tuple[tuple[int, RequestParameter, Callable[[object], Any]], ...],
    slots: list[Any],
) -> None:
    """Read and convert the values of a handshake into ``slots``; each value comes with its slot and its conversion.

    :raises ValidationException: it names every missing or invalid parameter.
    """
    wrong: list[dict[str, str]] = []
    for index, parameter, to_type in values:
        raw = parameter.read(connection)
        if raw is Empty:
            if parameter.default is Empty:
                wrong.append(_complaint(parameter, "is missing"))
            slots[index] = parameter.default
            continue
        try:
            slots[index] = to_type(raw)
        except (msgspec.ValidationError, ValueError, TypeError) as exc:
            wrong.append(_complaint(parameter, str(exc)))
    if wrong:
        names = "; ".join(f"{each['source']} parameter {each['key']!r}: {each['message']}" for each in wrong)
        raise ValidationException(names, extra=wrong)


def _complaint(parameter: RequestParameter, message: str) -> dict[str, str]:
    return {"key": parameter.alias, "source": parameter.source, "message": message}


def is_simple(annotation: Any) -> bool:
    """Whether a value of this type can be read from text: numbers, text, dates, enums, and unions or lists of them."""
    annotation = unalias(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_simple(get_args(annotation)[0])
    if origin is Literal:
        return True
    if origin in {Union, types.UnionType}:
        return all(is_simple(member) for member in get_args(annotation))
    if origin in _COLLECTIONS:
        return all(is_simple(member) for member in get_args(annotation) if member is not Ellipsis)
    return annotation in _SIMPLE or annotation in _COLLECTIONS or _is_enum(annotation)


def _wire_annotation(parameter: ParameterInfo, options: Parameter) -> Any:
    declared = parameter.annotation if options.annotation is Empty else options.annotation
    extras = tuple(extra for extra in parameter.metadata if not isinstance(extra, (In, Parameter)))
    return options.constrain(annotated(declared, extras))


def _default(parameter: ParameterInfo, options: Parameter) -> object:
    if parameter.has_default and not isinstance(parameter.default, EmptyType):
        return parameter.default
    if options.default is not Empty:
        return options.default
    if options.required is False or (options.required is None and _is_optional(parameter.annotation)):
        return None
    return Empty


def _constrained(annotation: Any, constraints: Mapping[str, Any]) -> Any:
    given = {name: value for name, value in constraints.items() if value is not None}
    return Annotated[annotation, msgspec.Meta(**given)] if given else annotation


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in {Union, types.UnionType} and type(None) in get_args(annotation)


def _is_collection(annotation: Any) -> bool:
    if _is_optional(annotation):
        return any(_is_collection(member) for member in get_args(annotation))
    return annotation in _COLLECTIONS or get_origin(annotation) in _COLLECTIONS


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum)


def _from_path(connection: HTTPConnection, parameter: RequestParameter) -> object:
    return connection.path_params.get(parameter.alias, Empty)


def _from_query(connection: HTTPConnection, parameter: RequestParameter) -> object:
    if parameter.many:
        return connection.query_params.getlist(parameter.alias) or Empty
    return connection.query_params.get(parameter.alias, Empty)


def _from_header(connection: HTTPConnection, parameter: RequestParameter) -> object:
    if parameter.many:
        return connection.headers.getlist(parameter.alias) or Empty
    return connection.headers.get(parameter.alias, Empty)


def _from_cookie(connection: HTTPConnection, parameter: RequestParameter) -> object:
    return connection.cookies.get(parameter.alias, Empty)


_READERS: Mapping[Source, Callable[[HTTPConnection, RequestParameter], object]] = {
    "path": _from_path,
    "query": _from_query,
    "header": _from_header,
    "cookie": _from_cookie,
}

_COLLECTIONS: frozenset[Any] = frozenset({list, set, frozenset, tuple})

_SIMPLE: frozenset[Any] = frozenset(
    {
        str,
        int,
        float,
        bool,
        type(None),
        decimal.Decimal,
        uuid.UUID,
        dt.date,
        dt.datetime,
        dt.time,
        dt.timedelta,
    }
)
