"""The verdict on two versions of an app. Each mutation runs: an old client really talks to the new server."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from click.testing import CliRunner

from telex import (
    CallError,
    ImproperlyConfiguredException,
    Multiplex,
    Telex,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.auth import Authenticate, Identity
from telex.cli.commands import telex as command
from telex.contract.compatibility import Difference, compare, report
from telex.contract.document import to_json, to_yaml
from telex.handlers.base import Handler
from telex.limits import Limit
from telex.testing import AsyncTestClient
from tests.asyncapi.app import app as everything
from tests.asyncapi.generated import types_of

Meta = msgspec.Meta


def struct(tag: str | None = None, /, *, closed: bool = False, name: str = "Type", **fields: Any) -> Any:
    """A type; a field is its type, or a tuple of the type and the default."""
    described = [(key, *(each if isinstance(each, tuple) else (each,))) for key, each in fields.items()]
    return msgspec.defstruct(name, described, tag=tag, forbid_unknown_fields=closed, kw_only=True)


def serving(takes: Any, answers: Any = None, values: list[Any] | None = None, **options: Any) -> Telex:
    """An app whose answers are ``values``, one after another."""
    left = iter(values or [])

    @websocket_listener("/rooms/{room:str}", **options)
    async def listen(data: Any, room: str) -> Any:
        return next(left, None)

    listen.fn.__annotations__.update({"data": takes, "return": answers})
    return Telex([listen])


@dataclass
class Mutation:
    """The types of the old and of the new app; what an old client sends, and what the new server answers."""

    breaks: bool
    takes: tuple[Any, Any] = (int, int)
    answers: tuple[Any, Any] = (int, int)
    sends: list[Any] = field(default_factory=lambda: [1])
    gets: list[Any] = field(default_factory=lambda: [1])


A, B = struct("a", x=int), struct("b", x=int)
Small, Large = Annotated[int, Meta(le=10)], Annotated[int, Meta(le=100)]
Short, Long = Annotated[str, Meta(max_length=2)], Annotated[str, Meta(max_length=9)]
X, Y = struct(x=int), struct(x=int, y=int)
Inner, Grown = struct(name="Inner", x=int), struct(name="Inner", x=int, y=int)


def takes(breaks: bool, old: Any, new: Any, *values: Any) -> Mutation:
    """A change of what the server receives."""
    return Mutation(breaks, takes=(old, new), sends=list(values))


def sends(breaks: bool, old: Any, new: Any, *values: Any) -> Mutation:
    """A change of what the server sends."""
    return Mutation(breaks, answers=(old, new), sends=[1] * len(values), gets=list(values))


OPTIONAL = struct(x=int, y=(int, 0))
MAYBE = struct(x=(int | msgspec.UnsetType, msgspec.UNSET))
MUTATIONS = {
    # what the server receives may widen
    "receive: the same": takes(False, X, X, {"x": 1}),
    "receive: a new optional field": takes(False, X, OPTIONAL, {"x": 1}),
    "receive: a new required field": takes(True, X, Y, {"x": 1}),
    "receive: an optional field becomes required": takes(True, OPTIONAL, Y, {"x": 1}),
    "receive: a required field becomes optional": takes(False, Y, OPTIONAL, {"x": 1, "y": 2}),
    "receive: a field goes": takes(False, Y, X, {"x": 1, "y": 2}),
    "receive: a field goes, and others are forbidden": takes(True, Y, struct(closed=True, x=int), {"x": 1, "y": 2}),
    "receive: a field gets another name": takes(True, X, struct(z=int), {"x": 1}),
    "receive: a number becomes text": takes(True, int, struct(x=str), 1),
    "receive: an integer becomes a number": takes(False, struct(x=int), struct(x=float), {"x": 1}),
    "receive: a number becomes an integer": takes(True, struct(x=float), struct(x=int), {"x": 1.5}),
    "receive: null is taken": takes(False, struct(x=int), struct(x=int | None), {"x": 1}),
    "receive: null is not taken any more": takes(True, struct(x=int | None), struct(x=int), {"x": None}),
    "receive: a limit widens": takes(False, struct(x=Small), struct(x=Large), {"x": 10}),
    "receive: a limit narrows": takes(True, struct(x=Large), struct(x=Small), {"x": 100}),
    "receive: text may be longer": takes(False, struct(x=Short), struct(x=Long), {"x": "ab"}),
    "receive: text may not be so long": takes(True, struct(x=Long), struct(x=Short), {"x": "abcdefghi"}),
    "receive: text becomes a UUID": takes(True, struct(x=str), struct(x=uuid.UUID), {"x": "ada"}),
    "receive: a UUID becomes text": takes(False, struct(x=uuid.UUID), struct(x=str), {"x": str(uuid.UUID(int=1))}),
    "receive: a new value of a literal": takes(False, struct(x=Literal["a"]), struct(x=Literal["a", "b"]), {"x": "a"}),
    "receive: a value of a literal goes": takes(True, struct(x=Literal["a", "b"]), struct(x=Literal["a"]), {"x": "b"}),
    "receive: a new member of a union": takes(False, A, A | B, {"type": "a", "x": 1}),
    "receive: a member of a union goes": takes(True, A | B, A, {"type": "b", "x": 1}),
    "receive: a tag gets another name": takes(True, A, B, {"type": "a", "x": 1}),
    "receive: items of a list widen": takes(False, list[int], list[int | str], [1]),
    "receive: items of a list narrow": takes(True, list[int | str], list[int], ["a"]),
    "receive: a longer tuple": takes(True, tuple[int, int], tuple[int, int, int], [1, 2]),
    "receive: values of a dictionary narrow": takes(True, dict[str, Any], dict[str, int], {"a": "b"}),
    "receive: a nested field becomes required": takes(True, struct(o=Inner), struct(o=Grown), {"o": {"x": 1}}),
    # what the server sends may narrow
    "send: a new field": sends(False, X, Y, {"x": 1, "y": 2}),
    "send: a field goes": sends(True, Y, X, {"x": 1}),
    "send: an optional field is always there": sends(False, MAYBE, X, {"x": 1}),
    "send: a field may be left out": sends(
        True, X, struct(x=(int | msgspec.UnsetType, msgspec.UNSET), y=(int, 1)), {"y": 1}
    ),
    "send: an integer becomes a number": sends(True, struct(x=int), struct(x=float), {"x": 1.5}),
    "send: a number becomes an integer": sends(False, struct(x=float), struct(x=int), {"x": 1}),
    "send: null is sent": sends(True, struct(x=int), struct(x=int | None), {"x": None}),
    "send: null is not sent any more": sends(False, struct(x=int | None), struct(x=int), {"x": 1}),
    "send: a limit widens": sends(True, struct(x=Small), struct(x=Large), {"x": 100}),
    "send: a limit narrows": sends(False, struct(x=Large), struct(x=Small), {"x": 10}),
    "send: a new value of a literal": sends(True, struct(x=Literal["a"]), struct(x=Literal["a", "b"]), {"x": "b"}),
    "send: a new member of a union": sends(True, A, A | B, {"type": "b", "x": 1}),
    "send: a member of a union goes": sends(False, A | B, A, {"type": "a", "x": 1}),
    "send: the type gets another name": sends(False, X, struct(name="Other", x=int), {"x": 1}),
    "send: text becomes a date": sends(False, struct(x=str), struct(x=dt.date), {"x": "2026-01-01"}),
    "send: a date becomes text": sends(True, struct(x=dt.date), struct(x=str), {"x": "today"}),
    "send: no answer any more": Mutation(True, answers=(struct(x=int), None), gets=[]),
    "send: text becomes JSON": sends(True, str, struct(x=int), {"x": 1}),
}


def old_client(document: dict[str, Any]) -> tuple[Any, Any]:
    """What a generated client of the old app sends, and the answers that it reads."""
    calls = types_of(document)["APP_ROUTES"]["/rooms/{room}"]["calls"]
    return reduce(or_, calls), next(iter(calls.values()))


async def breaks(mutation: Mutation, old: dict[str, Any], new: Telex) -> bool:
    """Whether the old client fails: the server refuses what it sends, or it cannot read what it gets."""
    takes, answers = old_client(old)
    sent = [msgspec.to_builtins(msgspec.convert(value, takes)) for value in mutation.sends]
    assert [json.loads(msgspec.json.encode(value)) for value in sent] == mutation.sends
    async with (
        AsyncTestClient(new) as client,
        client.websocket_connect("/rooms/7", subprotocols=["telex.v1"]) as session,
    ):
        for value in sent:
            try:
                answer = await session.call(value)
                msgspec.json.decode(msgspec.json.encode(answer), type=answers)
            except (CallError, msgspec.ValidationError):
                return True
    return False


@pytest.mark.parametrize("name", MUTATIONS)
async def test_an_old_client_breaks_exactly_where_the_verdict_says_so(name: str) -> None:
    mutation = MUTATIONS[name]
    old = serving(mutation.takes[0], mutation.answers[0]).asyncapi()
    values = [msgspec.convert(value, mutation.answers[1]) for value in mutation.gets]
    new = serving(mutation.takes[1], mutation.answers[1], values)
    found = compare(old, new.asyncapi())
    assert any(each.is_breaking for each in found) == mutation.breaks, report(found)
    assert await breaks(mutation, old, new) == mutation.breaks
    unnoticed = {"receive: the same", "send: the type gets another name"}
    assert bool(found) == (name not in unnoticed), "each difference is named"


# -- what is no schema


def verdicts(old: Telex, new: Telex) -> list[str]:
    return [str(each) for each in compare(old.asyncapi(), new.asyncapi())]


def test_paths_that_come_and_go() -> None:
    def at(path: str) -> Handler:
        @websocket_listener(path)
        def listen(data: str) -> None: ...

        return listen

    assert verdicts(Telex([at("/a")]), Telex([at("/b")])) == [
        "breaking  /a: the path is gone",
        "ok        /b: the path is new",
    ]


def test_parameters_of_the_handshake() -> None:
    def make(kind: Any, default: Any, path: str = "/{id:str}") -> Telex:
        @websocket_listener(path)
        def listen(data: str, page: Any) -> None: ...

        listen.fn.__annotations__["page"] = kind
        if default is not None:
            listen.fn.__defaults__ = (default,)
        return Telex([listen])

    assert verdicts(make(int, 1), make(int, None)) == [
        "breaking  /{id} query of the handshake: $.page: is required, where it was: may be left out"
    ]
    assert verdicts(make(int, None), make(int, 1)) == [
        "ok        /{id} query of the handshake: $.page: may be left out, where it was: is required"
    ]
    (found,) = verdicts(make(str, "a"), make(int, 1))
    assert found == "breaking  /{id} query of the handshake: $.page: integer, where it was: string"
    assert verdicts(make(int, 1), make(int, 1, "/{id:int}")) == [
        "breaking  /{id} path parameter id: $: integer, where it was: string"
    ]


def test_what_the_server_sends_and_asks() -> None:
    def make(pushes: Any = None, asks: Any = None) -> Telex:
        @websocket("/", pushes=pushes, asks=asks)
        async def raw(socket: Any) -> None: ...

        return Telex([raw])

    assert verdicts(make(A), make(A | B)) == [
        "breaking  / server sends: b is new: a client without a default branch does not expect it"
    ]
    assert verdicts(make(A | B), make(A)) == ["ok        / server sends: b is not sent any more"]
    assert verdicts(make(A), make()) == ["ok        / server sends: it sends nothing by itself any more"]
    assert verdicts(make(), make(asks={A: int})) == [
        "breaking  / server asks a: it is new: clients in the field have no answer to it"
    ]
    assert verdicts(make(asks={A: int}), make()) == ["ok        / server asks a: it does not ask this any more"]
    assert verdicts(make(asks={A: X}), make(asks={A: Y})) == [
        "breaking  / client answers a: $.y: is required, where it was: is not there"
    ]


def test_streams_errors_limits_and_logins() -> None:
    async def parts(data: str) -> AsyncIterator[int]:
        yield 1

    def whole(data: str) -> int:
        return 1

    class Full(Exception):
        pass

    def make(fn: Any = whole, **options: Any) -> Telex:
        return Telex([websocket_listener("/", **options)(fn)])

    login = Authenticate(lambda token: Identity(token), bearer=True)
    other = Authenticate(lambda token: Identity(token), cookie="session")
    tight, loose = Limit(1, on_exceed="close"), Limit(9, on_exceed="close")
    assert verdicts(make(), make(parts)) == ["breaking  / answer to text: it comes in parts now"]
    assert verdicts(make(), make(errors=[Full])) == [
        "ok        / answer to text: the error full is new",
        "ok        / server sends: the error full is new",
    ]
    assert verdicts(make(idempotent=True), make()) == ["breaking  / answer to text: calls may not carry a key any more"]
    assert verdicts(make(), make(idempotent=True)) == ["ok        / answer to text: calls may carry a key now"]
    assert verdicts(make(), make(max_message_size=9)) == [
        "breaking  / limits: messages have at most 9 bytes, where it was 1048576"
    ]
    assert verdicts(make(message_limit=loose), make(message_limit=tight))[0].startswith("breaking  / limits: messages")
    assert verdicts(make(message_limit=tight), make(message_limit=loose))[0].startswith("ok        / limits: messages")
    assert verdicts(make(), make(authenticate=login)) == ["breaking  / the handshake: a token is required now: bearer"]
    assert verdicts(make(authenticate=login), make(authenticate=other)) == [
        "breaking  / the handshake: the token is not taken from bearer any more",
        "ok        / the handshake: the token may come from cookie-session too",
    ]


def test_routes_of_a_shared_socket() -> None:
    @websocket_listener("/a")
    def a(data: str) -> None: ...

    @websocket_listener("/b")
    def b(data: str) -> None: ...

    old, new = (Telex([a, b, Multiplex("/socket", routes=routes)]) for routes in ([a, b], [a]))
    assert verdicts(old, new) == ["breaking  /socket routes: /b cannot be opened on this socket any more"]
    assert verdicts(new, old) == []


def test_a_stream_is_what_the_server_sends() -> None:
    def make(kind: Any) -> Telex:
        async def ticks() -> Any:
            yield 1

        ticks.__annotations__["return"] = kind
        return Telex([websocket_stream("/")(ticks)])

    from collections.abc import AsyncGenerator

    found = verdicts(make(AsyncGenerator[int, None]), make(AsyncGenerator[int | str, None]))
    assert found == ["breaking  / server sends: string is new: a client without a default branch does not expect it"]


def test_recursive_types_end() -> None:
    document = everything.asyncapi()
    assert compare(document, json.loads(to_json(document))) == []


def test_what_is_no_document() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="no 'channels': give one that telex asyncapi wrote"):
        compare({}, everything.asyncapi())


# -- the command


def run(file: Path) -> Any:
    return CliRunner().invoke(command, ["asyncapi", "tests.asyncapi.app:app", "--against", str(file)])


@pytest.mark.parametrize("name", ["old.json", "old.yaml"])
def test_the_command_tells_by_its_exit_code(tmp_path: Path, name: str) -> None:
    document, file = everything.asyncapi(), tmp_path / name
    write = to_yaml if name.endswith("yaml") else to_json
    file.write_text(write(document))
    same = run(file)
    assert (same.exit_code, same.output) == (0, "no difference that matters to clients\n")
    document["channels"]["gone"] = document["channels"]["table"] | {"address": "/gone"}
    file.write_text(write(document))
    broken = run(file)
    assert (broken.exit_code, broken.output) == (1, "breaking  /gone: the path is gone\n")


def test_the_command_with_another_file(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    for text in ("[]", "{}", "{"):
        file.write_text(text)
        result = run(file)
        assert result.exit_code == 1
        assert "Error: " in result.output


def test_those_that_break_come_first() -> None:
    found = [Difference("/a", "grows", is_breaking=False), Difference("/b", "is gone", is_breaking=True)]
    assert report(found) == "breaking  /b: is gone\nok        /a: grows"
