"""Functions of every kind of callable are read once, and errors name function, file and line."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from telex.annotations import split_annotated
from telex.datastructures import Empty
from telex.exceptions import ImproperlyConfiguredException
from telex.signatures import Kind, class_attribute, describe, is_undecorated, positional_count, read_signature
from tests.support.wrappers import made_async, passing

if TYPE_CHECKING:
    from decimal import Decimal


def sync(a: int, *args: int, b: Annotated[str, "note"] = "x", **kwargs: int) -> float: ...  # type: ignore[empty-body]


async def coroutine(a: int) -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Plain:
    pass


class Made:
    def __init__(self, a: int) -> None:
        self.a = a

    async def method(self, b: str) -> None: ...

    async def __call__(self, c: bytes) -> None: ...

    @staticmethod
    def static(d: int) -> int:
        return d


def test_parameters_have_annotation_metadata_and_default() -> None:
    signature = read_signature(sync)
    a, b = signature.parameters
    assert (a.name, a.annotation, a.metadata, a.has_default, a.positional) == ("a", int, (), False, True)
    assert (b.name, b.annotation, b.metadata, b.default, b.positional) == ("b", str, ("note",), "x", False)
    assert a.full_annotation is int
    assert b.full_annotation == Annotated[str, "note"]
    assert a.default is Empty
    assert signature.returns is float
    assert "a" in signature
    assert "kwargs" not in signature
    assert signature["b"] is b
    assert signature.without("a") == (b,)


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (sync, Kind.SYNC),
        (coroutine, Kind.ASYNC),
        (generator, Kind.GENERATOR),
        (async_generator, Kind.ASYNC_GENERATOR),
        (Made, Kind.SYNC),
        (Plain, Kind.SYNC),
        (Made(1), Kind.ASYNC),
        (Made(1).method, Kind.ASYNC),
        (functools.partial(coroutine, a=1), Kind.ASYNC),
        (passing(coroutine), Kind.MAYBE_ASYNC),
        (passing(Made(1).method), Kind.MAYBE_ASYNC),
        (passing(generator), Kind.MAYBE_GENERATOR),
        (passing(async_generator), Kind.MAYBE_GENERATOR),
        (passing(sync), Kind.SYNC),
        (functools.lru_cache(sync), Kind.SYNC),
        (functools.lru_cache(coroutine), Kind.MAYBE_ASYNC),
        (made_async(sync), Kind.ASYNC),
        (functools.partial(made_async(sync)), Kind.ASYNC),
        (contextlib.contextmanager(generator), Kind.SYNC),
        (contextlib.asynccontextmanager(async_generator), Kind.SYNC),
    ],
)
def test_every_kind_of_callable(fn: Callable[..., Any], kind: Kind) -> None:
    assert read_signature(fn).kind is kind


@pytest.mark.parametrize(
    ("fn", "names"),
    [
        (Made, ["a"]),
        (Plain, []),
        (Made(1), ["c"]),
        (Made(1).method, ["b"]),
        (Made.static, ["d"]),
        (functools.partial(coroutine, a=1), []),
        (functools.partial(sync), ["a", "b"]),
        (passing(coroutine), ["a"]),
    ],
)
def test_the_parameters_that_remain_to_be_given(fn: Callable[..., Any], names: list[str]) -> None:
    assert [parameter.name for parameter in read_signature(fn).parameters] == names


def test_a_class_gives_itself() -> None:
    assert read_signature(Made).returns is Made


def test_a_lambda_without_parameters_returns_anything() -> None:
    assert read_signature(lambda: 1).returns is Any


def test_names_are_resolved_in_the_namespace_given() -> None:
    def hidden(value: Decimal) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"signature_namespace=\{'Name': Name\}"):
        read_signature(hidden)
    import decimal

    assert read_signature(hidden, {"Decimal": decimal.Decimal}).parameters[0].annotation is decimal.Decimal


# -- errors name function, file and line


def unannotated(a) -> None: ...  # type: ignore[no-untyped-def]


def positional_only(a: int, /) -> None: ...


@pytest.mark.parametrize(
    ("fn", "complaint"),
    [
        (
            unannotated,
            r"parameter 'a' of unannotated \(tests/test_signatures.py:\d+\) has no annotation: write its type",
        ),
        (positional_only, r"'a' of positional_only .* is positional-only: remove the '/'"),
        (3, r"int \(.*\) is not callable: pass a function"),
        (type.__call__, r"the signature of .* cannot be read|has no annotation"),
        (dict.fromkeys, r"has no annotation|cannot be read"),
    ],
)
def test_what_cannot_be_read_is_an_error(fn: Any, complaint: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=complaint):
        read_signature(fn)


def test_a_signature_that_python_does_not_know() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"the signature of .* cannot be read"):
        read_signature(min)


def test_describe_names_functions_methods_classes_objects_and_partials() -> None:
    line = sync.__code__.co_firstlineno
    assert describe(sync) == f"sync (tests/test_signatures.py:{line})"
    assert describe(functools.partial(sync)) == describe(sync)
    assert describe(passing(sync)) == describe(sync)
    assert describe(Made(1).method).startswith("Made.method (tests/test_signatures.py:")
    assert describe(Made) == f"Made (tests/test_signatures.py:{Made.__init__.__code__.co_firstlineno})"
    assert describe(Made(1)).startswith("Made.__call__ (tests/")
    assert describe(Plain) == f"Plain ({__name__})"
    assert describe(len) == "len (builtins)"
    assert describe(5) == "int (?)"


# -- small helpers


def test_positional_count() -> None:
    assert positional_count(sync) == 1
    assert positional_count(generator) == 0
    assert positional_count(Made(1).method) == 1


def test_class_attribute_leaves_functions_without_self_alone() -> None:
    def put(socket: int) -> int:
        return socket

    class Holder:
        on = put
        value = 5

        def method(self) -> str:
            return "method"

    assert class_attribute(Holder(), "on") is put
    assert class_attribute(Holder(), "value") == 5
    assert class_attribute(Holder(), "method")() == "method"


def test_class_attribute_binds_methods_whose_first_parameter_has_any_name() -> None:
    def outside(this, socket: int) -> Any:  # type: ignore[no-untyped-def]
        return this, socket

    class Holder:
        from_outside = outside

        def inside(this) -> Any:  # noqa: N805
            return this

    holder = Holder()
    assert class_attribute(holder, "from_outside")(5) == (holder, 5)
    assert class_attribute(holder, "inside")() is holder


def test_is_undecorated() -> None:
    assert is_undecorated(coroutine)
    assert is_undecorated(async_generator)
    assert not is_undecorated(sync)


def test_split_annotated() -> None:
    assert split_annotated(Annotated[int, 1, 2]) == (int, (1, 2))
    assert split_annotated(list[int]) == (list[int], ())
