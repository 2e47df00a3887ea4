"""Numbers that were chosen to have one hash: refused, or read in a time in proportion to the message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
import pydantic
import pytest

from telex import codecs
from telex.collisions import MAX_LONG_NUMBERS
from telex.exceptions import ValidationException
from telex.headers import read_cookies
from telex.types import Mode

P = 2**61 - 1
MIB = 1 << 20
CPU_SECONDS = 1.0
"""Unguarded, the messages here take 10 to 20 seconds."""


class Node(msgspec.Struct):
    ids: set[int] = set()
    child: Node | None = None


class Model(pydantic.BaseModel):
    ids: set[int] = set()
    amounts: dict[Decimal, int] = {}
    child: Model | None = None


class Mixed(msgspec.Struct):
    model: Model


class Key(msgspec.Struct, frozen=True):
    number: int


def one_hash(count: int = 60_000) -> Iterator[str]:
    return (str(P * k + 1) for k in range(2, count))


def array(items: Iterator[str], most: int = MIB - 100) -> str:
    kept, size = [], 0
    for each in items:
        size += len(each) + 1
        if size > most:
            break
        kept.append(each)
    return f"[{','.join(kept)}]"


def as_object(items: str) -> str:
    return "{" + ",".join(f'"{each}":1' for each in items[1:-1].split(",")) + "}"


# Functions, as an import of this module would take half a second otherwise, in each worker.


@cache
def long() -> str:
    return array(one_hash())


@cache
def escaped() -> str:
    return array(f'"{each[:9]}\\u003{each[9]}{each[10:]}"' for each in one_hash())


@cache
def underscored() -> str:
    return array(f'"{each[:9]}_{each[9:]}"' for each in one_hash())


def exponents() -> str:
    return array(f'"{pow(10, -e, P)}e{e}"' for e in range(60_000))


def points() -> str:
    return array(f'"{each[:3]}.{each[3:]}"' for each in (f"{P * k + 1:030}" for k in range(40_000)))


def half(items: str) -> str:
    return items[: MIB // 2].rpartition(",")[0] + "]"


@pytest.mark.parametrize("mode", ["text", "binary"])
@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (set[int], long),
        (frozenset[int], long),
        (set[int | str], long),
        (set[Any], long),
        (dict[int, int], lambda: as_object(half(long()))),
        (dict[int, int], lambda: as_object(half(escaped()).replace('"', ""))),
        (dict[str, list[set[int]]], lambda: f'{{"a":[{long()}]}}'),
        (set[Key], lambda: array(f'{{"number":{each}}}' for each in one_hash())),
        (set[Decimal], long),
        (set[Decimal], escaped),
        (set[Decimal], underscored),
        (set[Decimal], exponents),
        (set[Decimal], points),
        (dict[Decimal, int], lambda: as_object(half(long()))),
        (Node, lambda: f'{{"child":{{"ids":{long()}}}}}'),
        (Model, lambda: f'{{"child":{{"ids":{long()}}}}}'),
        (Model, lambda: f'{{"child":{{"ids":{underscored()}}}}}'),
        (Model, lambda: f'{{"amounts":{as_object(half(long()))}}}'),
        (Mixed, lambda: f'{{"model":{{"ids":{long()}}}}}'),
    ],
)
def test_long_numbers_with_one_hash_are_refused(annotation: Any, message: Callable[[], str], mode: Mode) -> None:
    read = codecs.reader(annotation, mode)
    data = message() if mode == "text" else message().encode()
    began = time.thread_time()
    with pytest.raises(ValidationException, match=rf"more than {MAX_LONG_NUMBERS} numbers of (19|21) or more"):
        read(data)
    assert time.thread_time() - began < CPU_SECONDS


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (set[int], lambda: array(str(P * k + r) for r in range(1, 3000) for k in range(1, 43))),
        (set[int], lambda: array(str(i << 41) for i in range(1, 60_000))),
        (set[float], lambda: array(repr(r * 2.0**e) for r in range(1, 60_000) for e in range(-1000, 1000, 61))),
        (set[int], lambda: array(one_hash(MAX_LONG_NUMBERS))),
        (set[Decimal], lambda: array(one_hash(MAX_LONG_NUMBERS))),
        (list[int], long),
        (dict[str, Any], lambda: as_object(half(long()))),
        (
            dict[int, str],
            lambda: as_object(array(map(str, range(2000)))).replace(":1", ':"550e8400-e29b-41d4-a716-446655440000"'),
        ),
    ],
)
def test_what_cannot_have_many_numbers_of_one_hash_is_read(annotation: Any, message: Callable[[], str]) -> None:
    read = codecs.reader(annotation)
    data = message()
    began = time.thread_time()
    assert len(read(data)) > 900
    assert time.thread_time() - began < CPU_SECONDS


@pytest.mark.parametrize("quoted", ["\\" * 60_000, "\\0" * 30_000, '\\"' * 30_000, "\\012" * 15_000])
def test_cookies_of_backslashes_are_read_in_linear_time(quoted: str) -> None:
    began = time.thread_time()
    assert len(read_cookies([f'a="{quoted}"; b=1'])) == 2
    assert time.thread_time() - began < 0.3


def test_cookies_are_read_as_starlette_reads_them() -> None:
    header = ' a=1;b = "x\\"\\054y" ;; =empty; bare; c="; d=\\"; e="\\377\\400\\"; a=2; f="\\\\"'
    starlette = pytest.importorskip("starlette.requests").cookie_parser
    assert read_cookies([header]) == starlette(header)
    assert read_cookies(["a=1", "a=2; b=3"]) == {"a": "2", "b": "3"}
