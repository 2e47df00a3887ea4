"""A refusal costs no more than its message: of a collection's invalid items, pydantic makes the first error alone."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import dataclasses
from pydantic_core import core_schema
from typing_extensions import TypedDict

from telex import codecs
from telex.exceptions import ValidationException

MANY = 1000
WRONG_LIST = ["x"] * MANY
WRONG_DICT = dict.fromkeys(map("k{}".format, range(MANY)), "x")


class Item(pydantic.BaseModel):
    number: int


class Entry(TypedDict):
    number: int


@dataclasses.dataclass
class Place:
    number: int


Positive = Annotated[int, pydantic.Field(gt=0)]
STOPS_IN_DICTS = "fail_fast" in core_schema.DictSchema.__annotations__


def errors_made(annotation: Any, value: object) -> int:
    """How many errors pydantic makes for a message."""
    holder = pydantic.create_model("Holder", items=(annotation, ...))
    with pytest.raises(ValidationException) as caught:
        codecs.reader(holder)(json.dumps({"items": value}))
    cause = caught.value.__cause__
    assert isinstance(cause, pydantic.ValidationError)
    return cause.error_count()


@pytest.mark.parametrize(
    "annotation",
    [list[int], list[Positive], tuple[int, ...], set[int], frozenset[int], Sequence[int], list[Item], list[Entry]],
)
def test_a_list_has_one_error(annotation: Any) -> None:
    assert errors_made(annotation, WRONG_LIST) == 1
    assert errors_made(list[annotation], [WRONG_LIST] * 3) == 1
    assert errors_made(annotation | bool, WRONG_LIST) == 2


@pytest.mark.skipif(not STOPS_IN_DICTS, reason="this version of pydantic makes an error for each item")
@pytest.mark.parametrize(
    "annotation",
    [
        dict[str, int],
        dict[int, str],
        dict[str, Positive],
        dict[str, Item],
        dict[str, Entry],
        dict[str, Place],
        Mapping[str, int],
        defaultdict[str, int],
        OrderedDict[str, int],
        Counter[str],
    ],
)
def test_a_dict_has_one_error(annotation: Any) -> None:
    most = 2 if annotation == dict[int, str] else 1
    assert errors_made(annotation, WRONG_DICT) <= most
    assert errors_made(dict[str, annotation], {"a": WRONG_DICT, "b": WRONG_DICT}) <= most
    assert errors_made(list[annotation], [WRONG_DICT] * 3) <= most
    assert errors_made(annotation | bool, WRONG_DICT) <= most + 1


@pytest.mark.skipif(not STOPS_IN_DICTS, reason="this version of pydantic makes an error for each item")
def test_a_deque_has_one_error() -> None:
    assert errors_made(deque[int], WRONG_LIST) == 1


def test_a_union_has_one_error_for_each_member() -> None:
    assert errors_made(list[int | Item | float], WRONG_LIST) == 3
    assert errors_made(list[int] | list[float] | set[Item], WRONG_LIST) == 3


def nested(kinds: list[str]) -> tuple[Any, object]:
    """A type of collections in each other, and a value whose innermost items are wrong."""
    annotation: Any = int
    value: object = "x"
    for kind in kinds:
        if kind == "dict":
            annotation, value = dict[str, annotation], {f"k{i}": value for i in range(3)}
        else:
            annotation, value = {"list": list, "tuple": Sequence}[kind][annotation], [value] * 3
    return annotation, value


@pytest.mark.skipif(not STOPS_IN_DICTS, reason="this version of pydantic makes an error for each item")
@given(st.lists(st.sampled_from(["dict", "list", "tuple"]), min_size=1, max_size=5))
def test_collections_in_each_other_have_one_error(kinds: list[str]) -> None:
    assert errors_made(*nested(kinds)) == 1


class Numbers(pydantic.BaseModel):
    items: list[int]


class Outer(msgspec.Struct):
    inner: Numbers


def test_a_model_of_pydantic_in_one_of_msgspec_has_one_error() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        codecs.reader(Outer)(json.dumps({"inner": {"items": WRONG_LIST}}))
    causes = [caught.value.__cause__, caught.value.__cause__ and caught.value.__cause__.__cause__]
    (made,) = [each for each in causes if isinstance(each, pydantic.ValidationError)]
    assert made.error_count() == 1
