"""Layered options: stated once, checked with names and places, merged by their rules, pure."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from telex import Controller, ImproperlyConfiguredException, Provide, Router, Telex, WebSocket, websocket_listener
from telex.datastructures import Empty
from telex.dto import MsgspecDTO
from telex.layers import Layer, LayerOptions, nearest
from telex.params import Parameter
from tests.support.live import asked_json, talking


def read(**options: Any) -> Layer:
    return Layer.read(options, "here")  # type: ignore[arg-type]


def test_the_options_that_users_write_are_those_that_the_code_reads() -> None:
    assert set(LayerOptions.__annotations__) == {field.name for field in dataclasses.fields(Layer)}


def test_every_option_has_a_rule() -> None:
    rules = {field.name: field.metadata["rule"] for field in dataclasses.fields(Layer)}
    assert set(rules.values()) <= {"nearest", "stacked", "nearest_first", "merged"}
    assert len(rules) == len(dataclasses.fields(Layer))


def guard(name: str) -> Any:
    def check(socket: WebSocket) -> None: ...

    check.__name__ = name
    return check


class Ping(msgspec.Struct): ...


class Pong(msgspec.Struct): ...


A, B = guard("a"), guard("b")
OUTER, INNER = MsgspecDTO[Ping], MsgspecDTO[Pong]
PROVIDE_A, PROVIDE_B, PROVIDE_C = Provide(A), Provide(B), Provide(A)


class Mine(WebSocket):
    pass


@pytest.mark.parametrize(
    ("option", "outer", "inner", "merged"),
    [
        ("dependencies", {"x": PROVIDE_A, "y": PROVIDE_C}, {"y": PROVIDE_B}, {"x": PROVIDE_A, "y": PROVIDE_B}),
        ("guards", [A], [B], (A, B)),
        ("middleware", [A], [B], (A, B)),
        ("exception_handlers", {KeyError: A, 404: A}, {404: B}, {KeyError: A, 404: B}),
        ("dto", OUTER, INNER, INNER),
        ("return_dto", OUTER, None, None),
        ("type_encoders", {int: A}, {str: B}, {int: A, str: B}),
        ("type_decoders", [(A, A)], [(B, B)], ((B, B), (A, A))),
        ("websocket_class", WebSocket, Mine, Mine),
        ("allowed_origins", ["a"], ["b"], ("b",)),
        ("allowed_origins", ["*"], None, None),
        ("on_invalid_message", "close", "reply", "reply"),
        ("max_message_size", 10, 5, 5),
        ("max_queued_messages", 10, 5, 5),
        ("opt", {"a": 1, "b": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ("signature_namespace", {"A": 1}, {"B": 2}, {"A": 1, "B": 2}),
        ("parameters", {"a": Parameter(query="a")}, {}, {"a": Parameter(query="a")}),
    ],
)
def test_two_layers_are_merged_by_the_options_rule(option: str, outer: Any, inner: Any, merged: Any) -> None:
    outermost, innermost = read(**{option: outer}), read(**{option: inner})
    assert getattr(innermost.over(outermost), option) == merged
    assert getattr(innermost.over(Layer()), option) == getattr(innermost, option)
    assert getattr(Layer().over(innermost), option) == getattr(innermost, option)
    assert outermost == read(**{option: outer})
    assert innermost == read(**{option: inner})


def test_merging_is_associative() -> None:
    one, two, three = (read(opt={"x": number}, guards=[A], max_message_size=number) for number in (1, 2, 3))
    assert three.over(two.over(one)) == three.over(two).over(one)


def test_nearest_gives_the_default_where_no_layer_did() -> None:
    assert nearest(Empty, 5) == 5
    assert nearest(0, 5) == 0
    assert repr(Empty) == "Empty"
    assert not Empty


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"gards": []}, r"unknown option 'gards'; known are allowed_origins, .*; your own values go into opt=\{...\}"),
        ({"allowed_origins": "a.example"}, r"allowed_origins='a.example' is text: write \['a.example'\]"),
        ({"max_message_size": 0}, "a limit must be a whole number from 1, not 0"),
        ({"max_message_size": "1"}, "not '1'"),
        ({"max_queued_messages": True}, "not True"),
        ({"on_invalid_message": "ignore"}, "on_invalid_message is 'reply' or 'close', not 'ignore'"),
        ({"websocket_class": object}, "websocket_class must be a subclass of WebSocket, not <class 'object'>"),
        ({"websocket_class": 3}, "websocket_class must be a subclass of WebSocket, not 3"),
        ({"dependencies": {"a": 3}}, r"Provide\(3\): the provider must be callable"),
    ],
)
@pytest.mark.parametrize("layer", ["app", "router", "controller", "handler"])
def test_a_wrong_option_is_an_error_on_every_layer_that_says_where(
    layer: str, options: dict[str, Any], complaint: str
) -> None:
    async def listen(data: str) -> None: ...

    def build() -> object:
        if layer == "app":
            return Telex([], **options)
        if layer == "router":
            return Router("/here", **options)
        if layer == "handler":
            return websocket_listener("/", **options)(listen)
        # A controller's attribute that is no option is left alone.
        return Telex([type("Here", (Controller,), options)])

    if layer == "controller" and "gards" in options:
        build()
        return
    with pytest.raises(ImproperlyConfiguredException, match=complaint) as caught:
        build()
    if "Provide" not in complaint:
        where = {"app": "Telex(...)", "router": "Router('/here')", "controller": "Here", "handler": "listen (tests/"}
        assert where[layer] in str(caught.value)


async def test_every_layer_from_the_app_to_the_handler_is_merged() -> None:
    order: list[str] = []

    def noting(name: str) -> Any:
        def check(socket: WebSocket) -> None:
            order.append(name)

        return check

    class Lobby(Controller):
        path = "/lobby"
        guards = (noting("controller"),)
        opt = {"controller": 1, "nearest": "controller"}  # noqa: RUF012

        @websocket_listener("/{room:str}", guards=[noting("handler")], opt={"handler": 1, "nearest": "handler"})
        async def listen(self, data: str, socket: WebSocket) -> Any:
            assert isinstance(socket.app, Telex)
            plan = next(plan for plan in socket.app.plans if plan.path == "/v1/lobby/{room:str}")
            return dict(plan.layer.opt)

    router = Router("/v1", route_handlers=[Lobby], guards=[noting("router")], opt={"router": 1, "nearest": "router"})
    app = Telex([router], guards=[noting("app")], opt={"app": 1, "nearest": "app"})
    async with talking(app, "/v1/lobby/x") as client:
        assert await asked_json(client, "x") == {
            "app": 1,
            "router": 1,
            "controller": 1,
            "handler": 1,
            "nearest": "handler",
        }
    assert order == ["app", "router", "controller", "handler"]


def test_a_dto_must_be_a_class_of_telex() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"here: .*int.* is no DTO: write DataclassDTO"):
        read(dto=int)


def test_no_websocket_class_is_none_said() -> None:
    class Mine(WebSocket):
        pass

    outer = Layer.read({"websocket_class": Mine}, "app")
    assert Layer.read({"websocket_class": None}, "handler").over(outer).websocket_class is Mine
    assert Layer.read({"websocket_class": None}, "app") == Layer()
