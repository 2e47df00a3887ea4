"""Several receivers on one class: who gets which message, and what cannot be distinguished."""

from __future__ import annotations

import datetime as dt
import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NewType, TypedDict, TypeVar

import msgspec
import pytest

from telex import ImproperlyConfiguredException, Provide, Telex, WebSocket, WebsocketListener, receives
from telex.handlers.receivers import declared_receivers
from tests.contract.servers import ServerKind
from tests.support.live import asked, asked_json, ending, talking

KINDS = [ServerKind("uvicorn-websockets"), ServerKind("telex")]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    found: ServerKind = request.param
    return found


class Move(msgspec.Struct, tag="move"):
    x: int


class Say(msgspec.Struct, tag="say"):
    text: str


class Leave(msgspec.Struct, tag="leave"):
    pass


class Numbered(msgspec.Struct, tag=5):
    pass


@dataclass
class Point:
    x: int


class Typed(TypedDict):
    y: int


Alias = NewType("Alias", int)


class Game(WebsocketListener):
    path = "/"
    send_mode = "binary"
    dependencies = {"factor": Provide(lambda: 2)}  # noqa: RUF012

    @receives
    async def anything(self, data: Move | Say, socket: WebSocket, factor: int) -> Any:
        return {"got": type(data).__name__, "factor": factor, "state": socket.connection_state}

    def leave(self, data: Leave) -> str:
        return "left"

    def hello(self, data: Say) -> None:
        """Not a receiver: it is not marked, and not named by a tag; another method receives what it takes."""

    def move(self, text: str) -> None:
        """Not a receiver: named by a tag, but it takes no data."""

    helper = 5


async def test_each_message_goes_to_who_takes_its_type(kind: ServerKind) -> None:
    async with talking(Telex([Game]), kind=kind) as client:
        assert await asked_json(client, {"type": "move", "x": 1}) == {"got": "Move", "factor": 2, "state": "receive"}
        assert (await asked_json(client, {"type": "say", "text": "a"}))["got"] == "Say"
        assert await asked(client, '{"type":"leave"}') == b"left"
        error = (await asked_json(client, {"type": "jump"}))["error"]
        assert error["path"] == "$.type"


async def test_receivers_named_by_their_tag_and_inherited_ones(kind: ServerKind) -> None:
    class Base(WebsocketListener):
        path = "/"

        async def on_move(self, data: Move) -> str:
            return f"moved {data.x}"

    class Derived(Base):
        def say(self, data: Say) -> str:
            return f"said {data.text}"

        async def on_leave(self, data: Leave) -> None: ...

    async with talking(Telex([Derived]), kind=kind) as client:
        assert await asked(client, '{"type":"move","x":1}') == "moved 1"
        await client.send('{"type":"leave"}')
        assert await asked(client, '{"type":"say","text":"a"}') == "said a"
    plan = Telex([Derived]).plans[0]
    assert {shape.annotation for shape in plan.receives} == {Move, Say, Leave}
    assert [shape.annotation for shape in plan.sends] == [str, str]


async def test_types_of_every_kind_are_told_apart(kind: ServerKind) -> None:
    class Mixed(WebsocketListener):
        path = "/"

        @receives
        def number(self, data: int | None) -> str:
            return f"number {data}"

        @receives
        async def text(self, data: str) -> str:
            return f"text {data}"

        @receives
        def items(self, data: list[int]) -> str:
            return f"list {data}"

        @receives
        def mapping(self, data: dict[str, int]) -> str:
            return f"dict {data}"

    async with talking(Telex([Mixed]), kind=kind) as client:
        for sent, answer in [("5", "number 5"), ("null", "number None"), ('"a"', "text a"), ("[1]", "list [1]")]:
            assert await asked(client, sent) == answer
        assert await asked(client, '{"a":1}') == "dict {'a': 1}"


async def test_a_dataclass_and_a_typed_dictionary(kind: ServerKind) -> None:
    class One(WebsocketListener):
        path = "/"

        @receives
        def typed(self, data: Typed) -> str:
            return f"typed {data['y']}"

        @receives
        def number(self, data: int) -> int:
            return data

    async with talking(Telex([One]), kind=kind) as client:
        assert await asked(client, '{"y":1}') == "typed 1"
        assert await asked(client, "3") == "3"


async def test_exceptions_of_receivers_are_handled_like_those_of_listeners(kind: ServerKind) -> None:
    class Failing(WebsocketListener):
        path = "/"
        exception_handlers = {KeyError: lambda socket, exc: "handled"}  # noqa: RUF012

        @receives
        def number(self, data: int) -> None:
            raise KeyError

        @receives
        async def text(self, data: str) -> None:
            raise ValueError

    async with talking(Telex([Failing]), kind=kind) as client:
        assert await asked(client, "1") == "handled"
        await client.send('"x"')
        assert (await ending(client))[0] == 1011


class Overlapping(WebsocketListener):
    @receives
    def one(self, data: Move | Say) -> None: ...

    @receives
    def two(self, data: Say) -> None: ...


class Vague(WebsocketListener):
    @receives
    def one(self, data: Any) -> None: ...

    @receives
    def two(self, data: Say) -> None: ...


class Literals(WebsocketListener):
    @receives
    def one(self, data: Literal["a"]) -> None: ...

    @receives
    def two(self, data: Say) -> None: ...


class Ambiguous(WebsocketListener):
    @receives
    def one(self, data: Point) -> None: ...

    @receives
    def two(self, data: Move) -> None: ...


@pytest.mark.parametrize(
    ("listener", "complaint"),
    [
        (Overlapping, r"Overlapping.one \(.*\) and Overlapping.two \(.*\) both receive Say: give each its own types"),
        (Vague, r"'data' of Vague.one \(.*\): typing.Any cannot be distinguished from other messages: give"),
        (Literals, r"'data' of Literals.one .* typing.Literal\['a'\] cannot be distinguished"),
        (Ambiguous, r"messages cannot be read as .*Point"),
    ],
)
def test_what_cannot_be_told_apart_is_an_error(listener: Any, complaint: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=complaint):
        Telex([listener])


def test_a_tag_that_is_no_text_names_nobody() -> None:
    class Tagged(WebsocketListener):
        path = "/"

        def of_5(self, data: Numbered) -> None: ...

        def on_receive(self, data: str) -> None: ...

    assert [fn.__name__ for fn in declared_receivers(Tagged(None))] == ["on_receive"]


def test_a_method_that_looks_like_a_receiver_and_is_none_is_an_error() -> None:
    class Misspelt(WebsocketListener):
        path = "/"

        def on_move(self, data: Move) -> None: ...

        def on_sya(self, data: Say) -> None: ...

    class Unmarked(WebsocketListener):
        path = "/"

        def on_move(self, data: Move) -> None: ...

        def talk(self, data: Say) -> None: ...

    class Extra(WebsocketListener):
        path = "/"

        def on_receive(self, data: str) -> None: ...

        def on_message(self, data: str) -> None: ...

    for listener, method in ((Misspelt, "on_sya"), (Unmarked, "talk"), (Extra, "on_message")):
        with pytest.raises(
            ImproperlyConfiguredException, match=rf"{method} \(.*\) takes 'data', but no message reaches"
        ):
            Telex([listener])


async def test_building_reads_only_receivers(kind: ServerKind) -> None:
    ran: list[str] = []

    class Busy(WebsocketListener):
        path = "/"
        signature_namespace: ClassVar[dict[str, Any]] = {"Later": Move}

        @property
        def broken(self) -> str:
            raise RuntimeError("a property ran while the app was built")

        @functools.cached_property
        def cached(self) -> str:
            ran.append("cached")
            return "cached"

        def on_move(self, data: Later) -> str:  # type: ignore[name-defined]  # noqa: F821
            return f"{self.render(data)} {ran}"

        def render(self, data: Move, digits: Unknown = None) -> str:  # type: ignore[name-defined]  # noqa: F821
            return f"x={data.x}"

        def keep(self, data: Nowhere, /, *rest: object) -> None:  # type: ignore[name-defined]  # noqa: F821
            """A helper whose annotations are there for type checkers alone."""

    async with talking(Telex([Busy]), kind=kind) as client:
        assert await asked(client, '{"type": "move", "x": 3}') == "x=3 []"


M = TypeVar("M")


async def test_a_generic_base_receives_what_its_subclass_says(kind: ServerKind) -> None:
    class Base(WebsocketListener, Generic[M]):
        path = "/"

        def on_receive(self, data: list[M]) -> str:
            return repr(data)

    class Moves(Base[Move]):
        pass

    class Open(Base):  # type: ignore[type-arg]
        pass

    async with talking(Telex([Moves]), kind=kind) as client:
        assert await asked(client, '[{"type": "move", "x": 3}]') == "[Move(x=3)]"
        assert '"$[0].x"' in await asked(client, '[{"type": "move", "x": "three"}]')
    with pytest.raises(ImproperlyConfiguredException, match=r"on_receive \(.*: the type variable ~M has no value"):
        Telex([Open])


async def test_on_receive_beside_others(kind: ServerKind) -> None:
    class Both(WebsocketListener):
        path = "/"

        def on_receive(self, data: dt.datetime) -> int:
            return data.year

        @receives
        def number(self, data: int) -> int:
            return data

    async with talking(Telex([Both]), kind=kind) as client:
        assert await asked(client, '"2026-01-01T00:00:00Z"') == "2026"
        assert await asked(client, "4") == "4"


async def test_nothing_may_be_a_message_of_its_own(kind: ServerKind) -> None:
    class Quiet(WebsocketListener):
        path = "/"

        @receives
        def nothing(self, data: None) -> str:
            return "nothing"

        @receives
        def number(self, data: int) -> int:
            return data

    async with talking(Telex([Quiet]), kind=kind) as client:
        assert await asked(client, "null") == "nothing"
