"""Values of the handshake as parameters: where they come from, how they are converted, how refusals read."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import inspect
import uuid
from typing import Annotated, Any, Literal, NewType, Optional, Union

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telex import FromCookie, FromHeader, FromPath, FromQuery, Parameter, Telex, websocket_listener
from telex.exceptions import ImproperlyConfiguredException
from telex.params import In, is_simple, request_parameter
from telex.signatures import read_signature
from tests.support.live import asked_json, connected, denied, serving


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


UserId = NewType("UserId", int)


def one_of(fn: Any, **options: Any) -> Any:
    """What the only parameter of ``fn`` is read from."""
    return request_parameter(read_signature(fn).parameters[0], options.get("path", ()), options.get("layered", {}))


async def answers(parameters: dict[str, Any], query: str, **handshake: Any) -> Any:
    """What a listener with these parameters, read from ``query``, gets; or its denial."""

    async def listen(data: str, **given: Any) -> Any:
        return list(given.values())

    kind = inspect.Parameter.KEYWORD_ONLY
    data = inspect.Parameter("data", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    listen.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [data, *(inspect.Parameter(name, kind) for name in parameters)]
    )
    listen.__annotations__ = {"data": str, **parameters, "return": Any}
    async with serving(Telex([websocket_listener("/")(listen)])) as running:
        if handshake.pop("refused", False):
            return await denied(running, f"/?{query}", **handshake)
        async with connected(running, f"/?{query}", **handshake) as client:
            return await asked_json(client, "x")


@pytest.mark.parametrize(
    ("annotation", "query", "value"),
    [
        (str, "v=a", "a"),
        (int, "v=-5", -5),
        (float, "v=1.5", 1.5),
        (bool, "v=true", True),
        (bool, "v=0", False),
        (decimal.Decimal, "v=1.50", "1.50"),
        (uuid.UUID, f"v={uuid.UUID(int=1)}", str(uuid.UUID(int=1))),
        (dt.date, "v=2026-11-23", "2026-11-23"),
        (dt.datetime, "v=2026-11-23T01:02:03Z", "2026-11-23T01:02:03Z"),
        (dt.timedelta, "v=PT1H", "PT3600S"),
        (Colour, "v=red", "red"),
        (Literal["a", "b"], "v=b", "b"),
        (UserId, "v=7", 7),
        (int | None, "", None),
        (Optional[int], "v=3", 3),  # noqa: UP045
        (Union[int, str], "v=x", "x"),  # noqa: UP007
        (list[int], "v=1&v=2", [1, 2]),
        (set[str], "v=a&v=a", ["a"]),
        (tuple[int, ...], "v=1", [1]),
        (list[int] | None, "", None),
        (list, "v=1", ["1"]),
        (Annotated[int, msgspec.Meta(ge=1)], "v=1", 1),
        (Annotated[int, Parameter(query="other", ge=1, title="t")], "other=4", 4),
        (Annotated[int, Parameter(default=9)], "", 9),
        (Annotated[int, Parameter(required=False)], "", None),
        (Annotated[str, Parameter(annotation=int)], "v=4", 4),
        (FromQuery[int], "v=6", 6),
    ],
)
async def test_a_query_parameter_is_converted(annotation: Any, query: str, value: object) -> None:
    assert await answers({"v": annotation}, query) == [value]


@pytest.mark.parametrize(
    ("annotation", "query", "message"),
    [
        (int, "", "query parameter 'v': is missing"),
        (int, "v=one", "query parameter 'v': Expected `int`"),
        (list[int], "", "query parameter 'v': is missing"),
        (Colour, "v=green", "query parameter 'v': Invalid enum value 'green'"),
        (Annotated[int, Parameter(gt=1)], "v=1", "Expected `int` >= 2"),
        (Annotated[int, Parameter(ge=1)], "v=0", "Expected `int` >= 1"),
        (Annotated[int, Parameter(lt=1)], "v=1", "Expected `int` <= 0"),
        (Annotated[int, Parameter(le=1)], "v=2", "Expected `int` <= 1"),
        (Annotated[int, Parameter(multiple_of=2)], "v=3", "multiple of 2"),
        (Annotated[str, Parameter(min_length=2)], "v=a", "length >= 2"),
        (Annotated[str, Parameter(max_length=2)], "v=aaa", "length <= 2"),
        (Annotated[str, Parameter(pattern="^a+$")], "v=b", "matching regex"),
        (Annotated[list[int], Parameter(min_items=2)], "v=1", "length >= 2"),
        (Annotated[list[int], Parameter(max_items=1)], "v=1&v=2", "length <= 1"),
        (Annotated[int | None, Parameter(required=True)], "", "is missing"),
    ],
)
async def test_a_wrong_query_parameter_is_a_400_that_names_it(annotation: Any, query: str, message: str) -> None:
    denial = await answers({"v": annotation}, query, refused=True)
    assert denial.status == 400
    assert message in denial.json()["detail"]
    assert denial.json()["extra"][0] == {
        "key": "v",
        "source": "query",
        "message": denial.json()["detail"].partition(": ")[2],
    }


async def test_every_wrong_parameter_is_named_at_once() -> None:
    parameters = {"page": int, "x_token": FromHeader[str], "theme": Annotated[Colour, In("cookie")], "ok": int}
    denial = await answers(parameters, "page=x&ok=1", refused=True, headers={"Cookie": "theme=green"})
    assert [(each["key"], each["source"]) for each in denial.json()["extra"]] == [
        ("page", "query"),
        ("x-token", "header"),
        ("theme", "cookie"),
    ]


async def test_headers_and_cookies() -> None:
    parameters = {
        "x_token": Annotated[int, In("header")],
        "tags": Annotated[list[str], Parameter(header="X-Tag")],
        "theme": FromCookie[str],
        "renamed": Annotated[str, Parameter(cookie="other")],
        "absent": Annotated[str | None, In("header")],
        "absent_list": Annotated[list[str] | None, In("header")],
    }
    headers = {"X-Token": "5", "X-Tag": "a", "Cookie": "theme=dark; other=x"}
    assert await answers(parameters, "", headers=headers) == [5, ["a"], "dark", "x", None, None]


# -- where a parameter comes from


def test_an_explicit_mark_comes_first_then_the_layer_the_path_and_the_query() -> None:
    def bare(room: str) -> None: ...

    def marked(room: FromQuery[str]) -> None: ...

    def in_path(room: FromPath[str]) -> None: ...

    def unknown(room: object) -> None: ...

    def own(room: Annotated[object, Parameter()]) -> None: ...

    layered = {"room": Parameter(header="X-Room")}
    assert one_of(bare).source == "query"
    assert one_of(bare, path=["room"]).source == "path"
    assert one_of(bare, path=["room"], layered=layered).source == "header"
    assert one_of(bare, layered=layered).alias == "X-Room"
    assert one_of(marked, path=["room"]).source == "query"
    assert one_of(in_path).source == "path"
    assert one_of(unknown) is None
    assert one_of(unknown, layered={"room": Parameter()}).source == "query"
    assert one_of(own).source == "query"


async def test_layered_parameters_give_names_defaults_and_constraints() -> None:
    @websocket_listener("/", parameters={"page": Parameter(query="p", ge=1)})
    async def listen(data: str, page: int, size: int) -> list[int]:
        return [page, size]

    app = Telex([listen], parameters={"page": Parameter(query="q"), "size": Parameter(default=10, le=100)})
    async with serving(app) as running:
        async with connected(running, "/?p=2") as client:
            assert await asked_json(client, "x") == [2, 10]
        assert (await denied(running, "/?p=0")).status == 400
        assert (await denied(running, "/?p=1&size=101")).status == 400


def test_a_parameter_has_one_source() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"Parameter\(query, cookie\) names two sources: keep one"):
        Parameter(query="a", cookie="b")
    assert Parameter().source is None
    assert Parameter().alias is None
    assert (Parameter(cookie="c").source, Parameter(cookie="c").alias) == ("cookie", "c")


def test_a_path_parameter_that_the_path_has_not_is_an_error() -> None:
    @websocket_listener("/{room:str}")
    async def listen(data: str, seat: FromPath[int]) -> None: ...

    with pytest.raises(
        ImproperlyConfiguredException, match=r"'seat' of .*listen .* is FromPath, but the path has no \{seat"
    ):
        Telex([listen])


def test_a_type_that_text_cannot_be_is_an_error() -> None:
    @websocket_listener("/")
    async def listen(data: str, value: FromQuery[int | UserList | dict[str, int] | list[int]]) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"'value' of .*listen .* cannot be read from text"):
        Telex([listen])


class UserList(msgspec.Struct, array_like=True):
    users: list[int]


@pytest.mark.parametrize(
    ("annotation", "simple"),
    [
        (int, True),
        (UserId, True),
        (Annotated[int, "x"], True),
        (Literal[1], True),
        (int | None, True),
        (int | dict[str, int], False),
        (list[int], True),
        (tuple[int, ...], True),
        (list[object], False),
        (dict, False),
        (Colour, True),
        (object, False),
        (Any, False),
    ],
)
def test_is_simple(annotation: Any, simple: bool) -> None:
    assert is_simple(annotation) is simple


@given(value=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_comes_from_a_query_as_it_is(value: str) -> None:
    from urllib.parse import urlencode

    from starlette.requests import HTTPConnection

    def fn(v: str) -> None: ...

    scope = {"type": "websocket", "query_string": urlencode({"v": value}).encode(), "headers": []}
    assert one_of(fn).read(HTTPConnection(scope)) == value
