"""Paths with parameters: every kind there and back, what is refused, and what is found at a path."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import time
import uuid
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telex import Telex, WebSocket, websocket_listener
from telex.exceptions import ImproperlyConfiguredException
from telex.paths import CONVERTORS, PathTemplate, RouteTable
from tests.support.live import asked, connected, serving

printable = st.characters(exclude_categories=["Cc", "Cs"])
texts = st.text(printable, min_size=1)


def is_plain_path(path: str) -> bool:
    """Whether no client and no table would change it on the way."""
    return not path.endswith("/") and not {".", ".."} & set(path.split("/"))


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": texts.filter(lambda text: "/" not in text and text not in {".", ".."}),
    "path": texts.map(lambda text: "/" + text).filter(is_plain_path),
    "int": st.integers(min_value=-(10**300), max_value=10**300),
    "float": st.floats(allow_nan=False, allow_infinity=False).filter(
        lambda number: number == 0 or abs(number) > 1e-300
    ),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12),
    "uuid": st.uuids(),
    "date": st.dates(),
    "datetime": st.datetimes(),
    "time": st.times(),
    "timedelta": st.timedeltas(min_value=-dt.timedelta(days=10**6), max_value=dt.timedelta(days=10**6)),
}


def table(*paths: str) -> RouteTable[str]:
    """A table in which each path serves itself."""
    made: RouteTable[str] = RouteTable()
    for path in paths:
        made.add(PathTemplate.parse(path), path, "it")
    return made


def test_every_kind_is_tried_here() -> None:
    assert set(VALUES) == set(CONVERTORS)


@pytest.mark.parametrize("kind", sorted(VALUES))
@given(data=st.data())
def test_a_value_survives_the_way_into_a_path_and_back(kind: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[kind])
    path = f"/before/{{value:{kind}}}"
    filled = PathTemplate.parse(path).fill({"value": value})
    assert filled is not None
    assert re.fullmatch(r"[A-Za-z0-9/:@!$&'()*+,;=._~%-]+", filled)
    assert table(path).find(unquote(filled)) == (path, {"value": value})


@given(moment=st.datetimes(), zone=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))]))
def test_a_moment_keeps_its_zone(moment: dt.datetime, zone: dt.timezone) -> None:
    path = "/{value:datetime}"
    filled = PathTemplate.parse(path).fill({"value": moment.replace(tzinfo=zone)})
    assert filled is not None
    found = table(path).find(unquote(filled))
    assert found is not None
    assert found[1]["value"].utcoffset() == zone.utcoffset(None)
    assert found[1]["value"].replace(tzinfo=None) == moment


@given(path=st.text())
def test_no_path_whatever_makes_a_lookup_fail(path: str) -> None:
    every_kind = table("/", *(f"/{{value:{kind}}}" for kind in CONVERTORS if kind != "decimal"), "/a/{b}/c")
    found = every_kind.find(path)
    assert found is None or isinstance(found[1], dict)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "1.5"),
        ("int", "+1"),
        ("int", "٣"),
        ("int", "9" * 500),
        ("float", "nan"),
        ("float", "1e5"),
        ("float", "inf"),
        ("uuid", "1234"),
        ("date", "2026-13-45"),
        ("date", "today"),
        ("datetime", "2026-02-30T00:00:00"),
        ("time", "25:00:00"),
        ("timedelta", "P"),
        ("timedelta", "P99999999999D"),
        ("decimal", "1_000"),
        ("str", "a\nb"),
        ("str", "a\x00b"),
        ("path", "a/\r\nb"),
    ],
)
def test_a_text_of_the_wrong_kind_is_no_match(kind: str, text: str) -> None:
    assert table(f"/{{value:{kind}}}").find(f"/{text}") is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", "one"),
        ("int", None),
        ("str", "a/b"),
        ("str", ""),
        ("str", "a\nb"),
        ("uuid", "no uuid"),
        ("decimal", decimal.Decimal("NaN")),
        ("float", float("inf")),
        ("float", "one"),
        ("date", "yesterday"),
        ("timedelta", object()),
    ],
)
def test_a_value_of_the_wrong_kind_fills_nothing(kind: str, value: object) -> None:
    assert PathTemplate.parse(f"/{{value:{kind}}}").fill({"value": value}) is None


def test_only_all_of_its_parameters_fill_a_path() -> None:
    template = PathTemplate.parse("/{a}/x/{b:int}")
    assert template.names == {"a", "b"}
    assert template.fill({"a": "ü ?#", "b": 1}) == "/%C3%BC%20%3F%23/x/1"
    assert template.fill({"a": "1"}) is None
    assert template.fill({"a": "1", "b": 2, "c": 3}) is None


def test_paths_have_one_form() -> None:
    assert PathTemplate.parse("/plain/").fill({}) == "/plain"
    assert PathTemplate.parse("/").fill({}) == "/"


# -- malformed paths


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/{a", r"'\{a' is not a parameter: write \{name\} or \{name:kind\}"),
        ("/a}", "is not a parameter"),
        ("/{}", "is not a parameter"),
        ("/x{a}", "as a whole segment"),
        ("/{a:}", "is not a parameter"),
        ("/{1a}", "is not a parameter"),
        ("/{a:string}", "'string' is not a kind of parameter; the kinds are date, datetime, decimal"),
        ("/{a}/{b}/{a:int}", "has the parameter 'a' twice: rename one"),
        ("/{a:path}/b", "matches the rest of the path: put it last"),
    ],
)
def test_a_malformed_path_is_an_error_that_says_why(path: str, complaint: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=complaint) as caught:
        PathTemplate.parse(path)
    assert repr(path) in str(caught.value)


# -- the table


def test_exact_comes_before_template_and_the_particular_before_the_general() -> None:
    routes = table("/{a}", "/{n:int}", "/me", "/{p:path}", "/{u:uuid}", "/{n:float}", "/me/{a}", "/{a}/settings")
    one = uuid.UUID(int=1)
    for path, served, parameters in [
        ("/me", "/me", {}),
        ("/me/", "/me", {}),
        ("/you", "/{a}", {"a": "you"}),
        ("/12", "/{n:int}", {"n": 12}),
        ("/1.5", "/{n:float}", {"n": 1.5}),
        (f"/{one}", "/{u:uuid}", {"u": one}),
        ("/me/x", "/me/{a}", {"a": "x"}),
        ("/me/settings", "/me/{a}", {"a": "settings"}),
        ("/you/settings", "/{a}/settings", {"a": "you"}),
        ("/you/other", "/{p:path}", {"p": "/you/other"}),
        ("/me/a/b", "/{p:path}", {"p": "/me/a/b"}),
    ]:
        assert routes.find(path) == (served, parameters), path


def test_what_is_not_there_is_not_found() -> None:
    routes = table("/a/{b}/c", "/x")
    for path in ("/", "/a", "/a/b", "/a/b/c/d", "/a//c", "/x/y", "/X", "/x%2f", "/../x"):
        assert routes.find(path) is None, path


def test_kinds_that_look_alike_share_a_level_and_keep_their_types() -> None:
    routes = table("/a/{x:float}/b", "/a/{y:decimal}/c")
    assert routes.find("/a/1.5/b") == ("/a/{x:float}/b", {"x": 1.5})
    served = routes.find("/a/1.5/c")
    assert served is not None
    assert served[1] == {"y": decimal.Decimal("1.5")}
    assert isinstance(served[1]["y"], decimal.Decimal)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/{a}", "/{b:str}"),
        ("/x/{a:int}/y", "/x/{b:int}/y"),
        ("/{a:float}", "/{a:decimal}"),
    ],
)
def test_what_could_never_be_reached_is_an_error(first: str, second: str) -> None:
    async def listen(data: str) -> None: ...

    one, two = (websocket_listener(path)(listen) for path in (first, second))
    with pytest.raises(
        ImproperlyConfiguredException, match=r"listen \(.*test_paths.py:\d+\) at .* can never be reached"
    ):
        Telex([one, two])


async def test_every_kind_reaches_a_handler_over_a_socket() -> None:
    values: dict[str, Any] = {
        "str": "grün & blau",
        "int": -5,
        "float": 1.5,
        "uuid": uuid.UUID(int=7),
        "path": "/a/b.txt",
        "decimal": decimal.Decimal("1.50"),
        "date": dt.date(2026, 11, 23),
        "datetime": dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC),
        "time": dt.time(1, 2, 3),
        "timedelta": dt.timedelta(hours=1.5),
    }

    async def listen(data: str, value: Any, socket: WebSocket[Any, Any, Any]) -> str:
        return f"{socket.path_params['value'] == values[data]} {value == values[data]} {type(value).__name__}"

    listeners = [websocket_listener(f"/{kind}/{{value:{kind}}}", name=kind)(listen) for kind in values]
    app = Telex(listeners)
    async with serving(app) as running:
        for kind, value in values.items():
            path = app.route_reverse(kind, value=value)
            async with connected(running, path) as client:
                assert await asked(client, kind) == f"True True {type(value).__name__}", path


def test_a_thousand_routes_cost_a_lookup_no_more_than_ten() -> None:
    def seconds(count: int) -> float:
        routes = table(*(f"/section{number}/{{room:str}}/{{seat:int}}" for number in range(count)))
        path = f"/section{count - 1}/blue/7"
        best = float("inf")
        for _ in range(20):
            start = time.process_time()
            for _ in range(100):
                assert routes.find(path) is not None
            best = min(best, time.process_time() - start)
        return best

    assert seconds(1000) < 2 * seconds(10)


@pytest.mark.parametrize("path", ["/{name: str}", "/{ name :str }", "/{name}", "/{ name }"])
def test_spaces_in_a_parameter_do_not_count(path: str) -> None:
    assert PathTemplate.parse(path).segments == (("name", "str"),)
