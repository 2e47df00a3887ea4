"""Paths with parameters, and the table that finds the handler of a path."""

from __future__ import annotations

import datetime as dt
import decimal
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeVar, cast
from urllib.parse import quote

import msgspec
from starlette.convertors import Convertor, PathConvertor, StringConvertor, UUIDConvertor

from telex.exceptions import ImproperlyConfiguredException
from telex.types import Scope

__all__ = ("CONVERTORS", "PathTemplate", "RouteTable", "own_path")

T = TypeVar("T")


class _Text(StringConvertor):
    """One segment except ``.`` and ``..``, which clients resolve before they send (RFC 3986 section 5.2.4)."""

    regex: ClassVar[str] = r"(?!\.\.?\Z)[^/\x00-\x1f\x7f]+"


class _Path(PathConvertor):
    """The rest of the path with its leading slash, as in Litestar; no ``.`` and ``..`` segments."""

    regex: ClassVar[str] = r"(?!(?:.*/)?\.\.?(?:/|\Z))[^\x00-\x1f\x7f]*"

    def convert(self, value: str) -> str:
        return f"/{value}"

    def to_string(self, value: str) -> str:
        return str(value).removeprefix("/")


class _Typed(Convertor[T], Generic[T]):
    """A segment that msgspec converts to a type."""

    def __init__(self, kind: type[T], regex: str) -> None:
        self.kind = kind
        self.regex = regex  # type: ignore[misc]

    def convert(self, value: str) -> T:
        return msgspec.convert(value, self.kind, strict=False)

    def to_string(self, value: T) -> str:
        return str(msgspec.to_builtins(value))


class _Number(_Typed[T]):
    """A number that can have a fraction, written without an exponent."""

    def to_string(self, value: T) -> str:
        return format(decimal.Decimal(str(value)), "f")


_NUMBER: Final = r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?"
_DATE: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME: Final = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_DURATION: Final = r"-?(?:P[0-9A-Z.]{1,60}|[0-9]{1,15}(?:\.[0-9]{1,6})?)"

CONVERTORS: Final[Mapping[str, Convertor[Any]]] = {
    "uuid": UUIDConvertor(),
    "datetime": _Typed(dt.datetime, rf"{_DATE}[Tt ]{_TIME}"),
    "date": _Typed(dt.date, _DATE),
    "time": _Typed(dt.time, _TIME),
    "int": _Typed(int, r"-?[0-9]{1,400}"),
    "decimal": _Number(decimal.Decimal, _NUMBER),
    "float": _Number(float, _NUMBER),
    "timedelta": _Typed(dt.timedelta, _DURATION),
    "str": _Text(),
    "path": _Path(),
}
"""The kinds that can follow the colon in ``{name:str}``, in the order in which they are tried: most specific first."""

_ORDER: Final = {name: order for order, name in enumerate(CONVERTORS)}
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"
"""Characters that are not escaped in a path (RFC 3986 section 3.3)."""
_PARAMETER: Final = re.compile(r"\{\s*([A-Za-z_][A-Za-z0-9_]*)(?:\s*:\s*([a-z]+))?\s*\}")


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A path with parameters: each segment is a text, or a pair of a parameter's name and its kind."""

    path: str
    segments: tuple[str | tuple[str, str], ...]

    @classmethod
    def parse(cls, path: str) -> PathTemplate:
        """Parse a path such as ``/rooms/{room:str}``.

        :raises ImproperlyConfiguredException: a parameter is malformed, of an unknown kind, or given twice.
        """
        segments = tuple(_parse_segment(part, path) for part in path.strip("/").split("/") if part)
        names = [segment[0] for segment in segments if isinstance(segment, tuple)]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ImproperlyConfiguredException(f"path {path!r} has the parameter {doubled[0]!r} twice: rename one")
        if any(isinstance(segment, tuple) and segment[1] == "path" for segment in segments[:-1]):
            raise ImproperlyConfiguredException(
                f"path {path!r}: a parameter of kind 'path' matches the rest of the path: put it last"
            )
        return cls(path, segments)

    @property
    def names(self) -> frozenset[str]:
        """The names of the path's parameters."""
        return frozenset(segment[0] for segment in self.segments if isinstance(segment, tuple))

    def fill(self, parameters: Mapping[str, Any]) -> str | None:
        """The path with these values, escaped for a URL.

        ``None`` if the names differ or a value does not match its kind.
        """
        if self.names != set(parameters):
            return None
        parts = [segment if isinstance(segment, str) else _to_text(segment, parameters) for segment in self.segments]
        return None if None in parts else quote("/" + "/".join(cast("list[str]", parts)), safe=_PATH_SAFE)


def _to_text(segment: tuple[str, str], parameters: Mapping[str, Any]) -> str | None:
    name, kind = segment
    try:
        text = CONVERTORS[kind].to_string(parameters[name])
    except (AssertionError, TypeError, ValueError, ArithmeticError):
        return None
    return text if re.fullmatch(CONVERTORS[kind].regex, text) else None


def _parse_segment(part: str, path: str) -> str | tuple[str, str]:
    match = _PARAMETER.fullmatch(part)
    if match is None:
        if "{" in part or "}" in part:
            raise ImproperlyConfiguredException(
                f"path {path!r}: {part!r} is not a parameter: write {{name}} or {{name:kind}} as a whole segment"
            )
        return part
    name, kind = match.group(1), match.group(2) or "str"
    if kind not in CONVERTORS:
        raise ImproperlyConfiguredException(
            f"path {path!r}: {kind!r} is not a kind of parameter; the kinds are {', '.join(sorted(CONVERTORS))}"
        )
    return name, kind


# -- the table


@dataclass(slots=True)
class _Segment(Generic[T]):
    """One level of the templates' tree: a dictionary of texts, then parameters, the most specific first."""

    texts: dict[str, _Segment[T]] = field(default_factory=dict)
    parameters: list[tuple[str, re.Pattern[str], _Segment[T]]] = field(default_factory=list)
    leaf: tuple[T, PathTemplate] | None = None


class RouteTable(Generic[T]):
    """Finds the value of a path: exact paths in a dictionary, templates in a tree of segments.

    The cost of a lookup depends on the depth of the path, not on the number of routes.
    """

    def __init__(self) -> None:
        self._exact: dict[str, T] = {}
        self._root: _Segment[T] = _Segment()

    def add(self, template: PathTemplate, value: T, where: str) -> None:
        """Add ``value`` under the path of ``template``.

        :raises ImproperlyConfiguredException: the path already has a value.
        """
        if not template.names:
            first = self._exact.setdefault(template.path, value)
        else:
            node = self._root
            for segment in template.segments:
                node = _child(node, segment)
            node.leaf = node.leaf or (value, template)
            first = node.leaf[0]
        if first is not value:
            raise ImproperlyConfiguredException(
                f"{where} at {template.path!r} can never be reached: another handler has the same path, change one"
            )

    def find(self, path: str) -> tuple[T, dict[str, Any]] | None:
        """The value for ``path`` and the converted path parameters. A trailing slash is ignored."""
        if len(path) > 1 and path.endswith("/"):
            path = path[:-1]
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        return _search(self._root, path.split("/")[1:], 0, ())


def _child(node: _Segment[T], segment: str | tuple[str, str]) -> _Segment[T]:
    if isinstance(segment, str):
        return node.texts.setdefault(segment, _Segment())
    kind = segment[1]
    pattern = re.compile(CONVERTORS[kind].regex)
    for _, known, child in node.parameters:
        if known == pattern:
            return child
    new: _Segment[T] = _Segment()
    node.parameters.append((kind, pattern, new))
    node.parameters.sort(key=lambda entry: _ORDER[entry[0]])
    return new


def _search(
    node: _Segment[T], parts: Sequence[str], index: int, texts: tuple[str, ...]
) -> tuple[T, dict[str, Any]] | None:
    if index == len(parts):
        return _matched(node, texts)
    child = node.texts.get(parts[index])
    found = _search(child, parts, index + 1, texts) if child is not None else None
    if found is not None:
        return found
    for kind, pattern, child in node.parameters:
        text = "/".join(parts[index:]) if kind == "path" else parts[index]
        if pattern.fullmatch(text) is None:
            continue
        after = len(parts) if kind == "path" else index + 1
        found = _search(child, parts, after, (*texts, text))
        if found is not None:
            return found
    return None


def _matched(node: _Segment[T], texts: tuple[str, ...]) -> tuple[T, dict[str, Any]] | None:
    """The value at ``node``, with ``texts`` converted to the kinds of its template.

    Kinds with the same pattern share a node, so the kinds come from the template.
    """
    if node.leaf is None:
        return None
    value, template = node.leaf
    parameters = (segment for segment in template.segments if isinstance(segment, tuple))
    try:
        return value, {
            name: CONVERTORS[kind].convert(text) for (name, kind), text in zip(parameters, texts, strict=True)
        }
    except (ValueError, msgspec.ValidationError):
        return None


def own_path(scope: Scope) -> str:
    """The path below ``root_path``, which belongs to the app that Telex is mounted in."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        path = path[len(root) :]
    return path or "/"
