"""What a Multiplex refuses when the app is built, and how it is listed."""

from __future__ import annotations

from typing import Any

import pytest

from telex import Controller, ImproperlyConfiguredException, Multiplex, Router, Telex, WebSocket, websocket_listener


@websocket_listener("/a")
async def a(data: str) -> str:
    return data


@websocket_listener("/large", max_message_size=5_000_000)
async def large(data: str) -> str:
    return data


def guard(socket: WebSocket, user: str) -> None: ...


def test_routes_must_be_written_out() -> None:
    with pytest.raises(TypeError, match="routes"):
        Multiplex("/socket")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"routes": []}, "routes= is empty: list handlers, or write Multiplex.ALL"),
        ({"routes": a}, "routes= is a list of handlers, or Multiplex.ALL"),
        ({"routes": "ALL"}, "routes= is a list of handlers, or Multiplex.ALL"),
        ({"routes": [a], "max_routes": 0}, "max_routes is a whole number from 1, not 0"),
        ({"routes": [a], "unknown": 1}, "unknown option 'unknown'"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(options: Any, text: str) -> None:
    with pytest.raises(
        ImproperlyConfiguredException, match=r"^Multiplex\('/socket'\) \(.*test_multiplex\.py:\d+\): "
    ) as e:
        Multiplex("/socket", **options)
    assert text in str(e.value)


inner = Multiplex("/inner", routes=Multiplex.ALL)


class Desk(Controller):
    """Not part of the app."""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"routes": [a, large]}, "routes= has large (handlers/test_multiplex.py:"),
        ({"routes": [Router("/r", route_handlers=[a])]}, "which is not part of this app: add it to the app's"),
        ({"routes": [Desk]}, "routes= has Desk"),
        ({"routes": [inner]}, "a Multiplex is never opened by another"),
        ({"routes": [a], "dto": None, "max_calls": 3}, "max_calls= has no effect: give it to the routes"),
        ({"routes": [a], "dependencies": {"user": lambda: "ada"}}, "no guard has a parameter 'user'"),
    ],
)
def test_a_route_that_cannot_be_opened_is_an_error(options: Any, text: str) -> None:
    with pytest.raises(
        ImproperlyConfiguredException, match=r"^Multiplex\('/socket'\) \(.*test_multiplex\.py:\d+\): "
    ) as e:
        Telex([a, Multiplex("/socket", **options)])
    assert text in str(e.value)


def test_a_limit_below_that_of_a_route_is_an_error() -> None:
    with pytest.raises(
        ImproperlyConfiguredException, match="max_message_size=1000000 is below the 5000000 bytes of large"
    ):
        Telex([a, large, Multiplex("/socket", routes=[a, large], max_message_size=1_000_000)])
    Telex([a, large, Multiplex("/socket", routes=[a], max_message_size=2_000_000)])
    Telex([a, large, Multiplex("/socket", routes=[a, large])], max_message_size=1000)


def test_it_is_listed_with_the_other_handlers_in_their_order() -> None:
    app = Telex(
        [
            Multiplex(
                ["/socket", "/other"],
                routes=Multiplex.ALL,
                name="socket",
                guards=[guard],
                dependencies={"user": lambda: "ada"},
            ),
            a,
        ]
    )
    assert [(plan.path, plan.kind) for plan in app.plans] == [
        ("/socket", "multiplex"),
        ("/other", "multiplex"),
        ("/a", "listener"),
    ]
    assert app.plans[0].where.startswith("Multiplex('/socket', '/other') (handlers/test_multiplex.py:")
    assert app.plans[0].opens == ("/a",)


def test_a_multiplex_hangs_in_routers_and_controllers() -> None:
    class Site(Controller):
        path = "/site"
        socket = Multiplex("/socket", routes=[a])

    app = Telex([Router("/r", route_handlers=[Site, a])])
    assert [plan.path for plan in app.plans] == ["/r/site/socket", "/r/a"]
