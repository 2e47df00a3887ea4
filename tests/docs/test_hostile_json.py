"""What docs/topics/validation-and-errors.md says of odd and hostile JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from telex.codecs import as_validation_error, reader, writer


class Open(msgspec.Struct):
    a: int = 0


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0


class Model(pydantic.BaseModel):
    a: float = 0


@pytest.mark.parametrize(
    ("annotation", "raw", "value"),
    [
        (Any, '{"a": 1, "a": 2}', {"a": 2}),
        (Open, '{"a": 1, "a": 2}', Open(2)),
        (Open, '{"a": 1, "b": 2}', Open(1)),
        (int, "18446744073709551616", 2**64),
        (int, "9" * 4300, 10**4300 - 1),
        (float, "18446744073709551617", 2.0**64),
        (Decimal, "0.1", Decimal("0.1")),
        (Any, "1.0", 1.0),
    ],
)
def test_read_as(annotation: Any, raw: str, value: object) -> None:
    read = reader(annotation)(raw)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("annotation", "raw"),
    [
        (Closed, '{"a": 1, "b": 2}'),
        (int, "true"),
        (bool, "1"),
        (int, '"1"'),
        (int, "1.0"),
        (int, "1" * 4301),
        (Any, "NaN"),
        (Any, "Infinity"),
        (Any, "1e400"),
        (Any, ""),
        (Any, "\ufeff1"),
        (Any, "1 2"),
        (Any, "[1,]"),
        (Any, "'a'"),
        (Any, '"\\ud800"'),
        (Any, "[" * 100_000),
        (Open, '{"unknown": ' + "[" * 100_000),
        (Model, '{"a": NaN}'),
        (Model, '{"a": 1e400}'),
    ],
)
def test_refused(annotation: Any, raw: str) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 - which one is the library's affair
        reader(annotation)(raw)
    assert as_validation_error(refused.value) is not None


def test_not_a_number_is_written_as_null() -> None:
    assert writer(list[float])([float("nan"), float("inf")]) == "[null,null]"


def test_big_numbers_are_written_whole() -> None:
    assert writer(int)(2**64) == "18446744073709551616"
