"""Random models of every kind, their values and configurations, and an independent computation of the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st

from telex.annotations import union_of
from telex.dto import DTOConfig, dto_field

Wrapper = Literal["one", "optional", "list", "dict"]
NAMES = ("alpha_one", "beta", "gamma_two_x", "delta", "epsilon_y")
SCALARS: Mapping[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**62), 2**62),
    str: st.text(max_size=5),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    list[int]: st.lists(st.integers(-9, 9), max_size=3),
}
DEFAULTS: Mapping[Any, Any] = {int: 0, str: "", bool: False, float: 0.0, list[int]: []}
STEPS: Mapping[Wrapper, str] = {"one": "", "optional": "", "list": ".0", "dict": ".1"}


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """A field: of a scalar type, or of a nested model in a wrapper."""

    name: str
    kind: Any
    mark: str | None
    nested: tuple[FieldSpec, ...] | None = None
    wrapper: Wrapper = "one"


Spec = tuple[FieldSpec, ...]


@st.composite
def specs(draw: st.DrawFn, depth: int = 2) -> Spec:
    """The fields of a model, some of them models."""
    fields = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)):
        mark = draw(st.sampled_from([None, None, None, "private", "read-only", "write-only"]))
        if depth and draw(st.integers(0, 2)) == 0:
            wrapper: Wrapper = draw(st.sampled_from(["one", "optional", "list", "dict"]))
            fields.append(FieldSpec(name, None, mark, draw(specs(depth - 1)), wrapper))
        else:
            fields.append(FieldSpec(name, draw(st.sampled_from(list(SCALARS))), mark))
    return tuple(fields)


def values(spec: Spec) -> st.SearchStrategy[dict[str, Any]]:
    """A value for every field of a model, by name."""
    return st.fixed_dictionaries({field.name: _value(field) for field in spec})


def _value(field: FieldSpec) -> st.SearchStrategy[Any]:
    if field.nested is None:
        return SCALARS[field.kind]
    inner = values(field.nested)
    wrapped: Mapping[Wrapper, st.SearchStrategy[Any]] = {
        "one": inner,
        "optional": st.none() | inner,
        "list": st.lists(inner, max_size=2),
        "dict": st.dictionaries(st.text(max_size=3), inner, max_size=2),
    }
    return wrapped[field.wrapper]


def paths(spec: Spec, prefix: str = "") -> list[str]:
    """Every path that a configuration may contain."""
    found = []
    for field in spec:
        found.append(prefix + field.name)
        if field.nested is not None:
            found += paths(field.nested, f"{prefix}{field.name}{STEPS[field.wrapper]}.")
    return found


@st.composite
def configs(draw: st.DrawFn, spec: Spec) -> DTOConfig:
    """A configuration that fits the model."""
    some = st.sets(st.sampled_from(paths(spec)), max_size=3)
    chosen: dict[str, Any] = {draw(st.sampled_from(["include", "exclude"])): draw(some)}
    if draw(st.booleans()):
        chosen["rename_strategy"] = draw(st.sampled_from(["upper", "camel", "pascal", "kebab"]))
    chosen["rename_fields"] = {path: f"new {index}" for index, path in enumerate(sorted(draw(some)))}
    return DTOConfig(max_nested_depth=None, **chosen)


# -- what should pass


def passes(path: str, mark: str | None, config: DTOConfig, *, to_wire: bool) -> bool:
    """Whether the field at ``path`` is transferred in this direction."""
    if mark in {"private", "write-only" if to_wire else "read-only"} or path in config.exclude:
        return False
    if not config.include:
        return True
    return any(path == each or path.startswith(f"{each}.") or each.startswith(f"{path}.") for each in config.include)


RENAME: Mapping[Any, Callable[[str], str]] = {
    None: lambda name: name,
    "upper": lambda name: name.upper(),
    "kebab": lambda name: name.replace("_", "-"),
    "pascal": lambda name: name.title().replace("_", ""),
    "camel": lambda name: name[0] + name.title().replace("_", "")[1:],
}


def wire_name(path: str, config: DTOConfig) -> str:
    """The field's name on the wire."""
    return config.rename_fields.get(path) or RENAME[config.rename_strategy](path.rpartition(".")[2])


def passing(
    spec: Spec, value: Mapping[str, Any], *, config: DTOConfig, to_wire: bool, renamed: bool, prefix: str = ""
) -> dict[str, Any]:
    """The part of ``value`` that is transferred in this direction."""
    found: dict[str, Any] = {}
    for field in spec:
        path = prefix + field.name
        if passes(path, field.mark, config, to_wire=to_wire):
            inner, below = field.nested, f"{path}{STEPS[field.wrapper]}."
            name = wire_name(path, config) if renamed else field.name
            options: Any = {"config": config, "to_wire": to_wire, "renamed": renamed, "prefix": below}
            change = _as_it_is if inner is None else partial(passing, inner, **options)
            found[name] = rewrap(field.wrapper, value[field.name], change)
    return found


def _as_it_is(value: Any) -> Any:
    return value


def rewrap(wrapper: Wrapper, value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with ``change`` applied to every model in it."""
    if wrapper == "list":
        return [change(each) for each in value]
    if wrapper == "dict":
        return {key: change(each) for key, each in value.items()}
    return None if value is None and wrapper == "optional" else change(value)


def complete(spec: Spec, value: Mapping[str, Any], *, absent: bool) -> dict[str, Any]:
    """``value`` with defaults for missing fields; with ``absent`` these stay absent, as in dictionaries."""
    found: dict[str, Any] = {}
    for field in spec:
        inner = field.nested
        if field.name in value:
            change = _as_it_is if inner is None else partial(complete, inner, absent=absent)
            found[field.name] = rewrap(field.wrapper, value[field.name], change)
        elif not absent:
            empty: Mapping[Wrapper, Any] = {"optional": None, "list": [], "dict": {}}
            found[field.name] = (
                DEFAULTS[field.kind]
                if inner is None
                else complete(inner, {}, absent=False)
                if field.wrapper == "one"
                else empty[field.wrapper]
            )
    return found


# -- the models


class Family:
    """Creates the models of one kind, and converts instances to dictionaries."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._models: dict[Spec, Any] = {}

    def model(self, spec: Spec) -> Any:
        """The model; equal fields give the same model."""
        if spec not in self._models:
            fields = [(field.name, self._annotation(field), self._default(field)) for field in spec]
            self._models[spec] = _MAKERS[self.kind](fields)
        return self._models[spec]

    def make(self, spec: Spec, value: Mapping[str, Any]) -> Any:
        """An instance from values by name."""
        parts = {
            field.name: value[field.name]
            if field.nested is None
            else rewrap(field.wrapper, value[field.name], partial(self.make, field.nested))
            for field in spec
            if field.name in value
        }
        return self.model(spec)(**parts)

    def take_apart(self, spec: Spec, instance: Any) -> dict[str, Any]:
        """The values of an instance by name."""
        if isinstance(instance, dict):
            found = dict(instance)
        else:
            found = {field.name: getattr(instance, field.name) for field in spec}
        for field in spec:
            if field.nested is not None and field.name in found:
                found[field.name] = rewrap(field.wrapper, found[field.name], partial(self.take_apart, field.nested))
        return found

    def _annotation(self, field: FieldSpec) -> Any:
        annotation: Any = field.kind
        if field.nested is not None:
            model = self.model(field.nested)
            wrapped: Mapping[Wrapper, Any] = {
                "one": model,
                "optional": union_of(model, None),
                "list": generic(list, model),
                "dict": generic(dict, str, model),
            }
            annotation = wrapped[field.wrapper]
        mark: Any = field.mark
        return annotation if mark is None else Annotated[annotation, dto_field(mark)]

    def _default(self, field: FieldSpec) -> Callable[[], Any]:
        if field.nested is None:
            return lambda: DEFAULTS[field.kind] if field.kind != list[int] else []
        if field.wrapper == "one":
            return self.model(field.nested)  # type: ignore[no-any-return]
        empty: Mapping[Wrapper, Any] = {"optional": lambda: None, "list": list, "dict": dict}
        return empty[field.wrapper]  # type: ignore[no-any-return]


def generic(origin: Any, *arguments: Any) -> Any:
    """``origin[arguments]`` for types that are created at run time."""
    return origin[arguments if len(arguments) > 1 else arguments[0]]


Fields = list[tuple[str, Any, Callable[[], Any]]]


def _dataclass(fields: Fields) -> Any:
    return dataclasses.make_dataclass("Model", [(n, a, dataclasses.field(default_factory=d)) for n, a, d in fields])


def _struct(fields: Fields) -> Any:
    return msgspec.defstruct("Model", [(n, a, msgspec.field(default_factory=d)) for n, a, d in fields])


def _typed_dict(fields: Fields) -> Any:
    make: Any = TypedDict
    return make("Model", {name: NotRequired[annotation] for name, annotation, _ in fields})


def _pydantic(fields: Fields) -> Any:
    made: dict[str, Any] = {n: (a, pydantic.Field(default_factory=d)) for n, a, d in fields}
    return pydantic.create_model("Model", **made)


def _attrs(fields: Fields) -> Any:
    return attrs.make_class("Model", {n: attrs.field(type=a, factory=d) for n, a, d in fields})


_MAKERS: Mapping[str, Callable[[Fields], Any]] = {
    "dataclass": _dataclass,
    "msgspec": _struct,
    "typeddict": _typed_dict,
    "pydantic": _pydantic,
    "attrs": _attrs,
}
