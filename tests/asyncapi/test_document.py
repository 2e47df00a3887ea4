"""The AsyncAPI document: from every kind of handler and model, the same on every Python, without mistakes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from telex import ImproperlyConfiguredException, Router, Telex, websocket, websocket_listener
from telex.contract.checks import check_document, fits
from telex.contract.document import to_json, to_yaml
from telex.contract.serving import AsyncAPI
from telex.handlers.base import Handler
from telex.layers import LayerOptions
from tests.asyncapi.app import app as everything

GOLDEN = Path(__file__).parent / "golden.json"


class Move(msgspec.Struct, tag="move"):
    x: int


class Moved(msgspec.Struct):
    x: int
    by: str = "ada"


def document(*handlers: Handler, **options: Any) -> dict[str, Any]:
    return Telex(handlers, **options).asyncapi()


def names(operation: dict[str, Any]) -> list[str]:
    return [each["$ref"].rpartition("/")[2] for each in operation["messages"]]


def test_the_document_of_an_app_with_everything() -> None:
    """Written with ``telex asyncapi tests.asyncapi.app:app --out tests/asyncapi/golden.json``: read the difference."""
    assert to_json(everything.asyncapi()) == GOLDEN.read_text("utf-8")


def test_the_document_has_no_mistake() -> None:
    assert check_document(everything.asyncapi()) == []


def test_each_member_of_a_union_is_an_operation_with_replies_and_errors() -> None:
    operations = everything.asyncapi()["operations"]
    move = operations["rooms-room-number.receive.move"]
    assert names(move) == ["move"]
    assert names(move["reply"]) == ["Moved", "null", "error", "no_such_room", "room_full"]
    assert move["summary"] == "Plays in a room."
    assert operations["table.receive.say"]["x-telex-stream"] is True
    assert operations["options.receive.Options"]["x-telex-idempotent"] is True
    assert names(operations["rooms-room-number.ask.confirm"]["reply"]) == ["Answer"]
    assert names(operations["rooms-room-number.send"])[:2] == ["string", "joined"]


def test_a_field_with_a_default_is_optional_for_clients_and_always_there_in_answers() -> None:
    @websocket_listener("/")
    def both(data: Moved) -> Moved:
        return data

    schemas = document(both)["components"]["schemas"]
    assert schemas["Moved"]["required"] == ["x"]
    assert schemas["MovedSent"]["required"] == ["x", "by"]


def test_a_declared_error_has_the_types_of_its_public_fields() -> None:
    payload = everything.asyncapi()["components"]["messages"]["no_such_room"]["payload"]
    error = payload["properties"]["error"]["properties"]
    assert error["code"] == {"type": "string", "const": "no_such_room"}
    assert error["data"]["properties"] == {"room": {"type": "string"}}


def test_a_dto_gives_its_wire_type() -> None:
    schemas = everything.asyncapi()["components"]["schemas"]
    assert list(schemas["Address"]["properties"]) == ["street"]


def test_types_of_one_name_are_kept_apart() -> None:
    def make(kind: Any) -> Handler:
        same = msgspec.defstruct("Same", [("value", kind)])

        @websocket_listener(f"/{kind.__name__}")
        def listen(data: Any) -> None: ...

        listen.fn.__annotations__["data"] = same
        return listen

    found = document(make(int), make(str))
    values = {name: each["properties"]["value"]["type"] for name, each in found["components"]["schemas"].items()}
    assert values == {"Same": "integer", "Same2": "string"}
    assert names(found["operations"]["int.receive.Same"]) == ["Same"]
    assert found["components"]["messages"]["Same-2"]["payload"] == {"$ref": "#/components/schemas/Same2"}


def test_a_type_that_only_the_app_can_read_is_open() -> None:
    class Own:
        pass

    options: LayerOptions = {"type_decoders": [(lambda kind: kind is Own, lambda _, __: Own())]}
    router = Router("/", route_handlers=[], **options)

    @websocket_listener("/")
    def own(data: Any) -> None: ...

    own.fn.__annotations__["data"] = list[Own]
    router.register(own)
    found = Telex([router]).asyncapi()
    (message,) = (each for each in found["components"]["messages"].values() if each["name"] != "error")
    assert message["payload"]["items"]["x-telex-type"].endswith("Own")


def test_a_low_level_handler_says_itself_what_it_receives_and_sends() -> None:
    @websocket("/raw", receives=Move, pushes=Moved | bytes)
    async def raw(socket: Any) -> None: ...

    operations = document(raw)["operations"]
    assert names(operations["raw.receive.move"]) == ["move"]
    assert names(operations["raw.send"]) == ["string", "Moved"]


def test_asks_is_a_mapping() -> None:
    @websocket_listener("/", asks=[Move])  # type: ignore[arg-type]
    def listen(data: str) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"asks= is a mapping of types, \{Confirm: Answer\}"):
        Telex([listen])


def test_the_title_and_version_are_those_of_the_plugin() -> None:
    found = document(plugins=[AsyncAPI(title="Chat", version="2")])
    assert found["info"] == {"title": "Chat", "version": "2"}


def test_another_version_of_asyncapi() -> None:
    assert Telex([]).asyncapi("3.0.0")["asyncapi"] == "3.0.0"
    with pytest.raises(
        ImproperlyConfiguredException, match=r"AsyncAPI 2\.6\.0 is not written: give 3\.1\.0 or 3\.0\.0"
    ):
        Telex([]).asyncapi("2.6.0")  # type: ignore[arg-type]


def test_yaml_says_the_same() -> None:
    yaml = pytest.importorskip("yaml")
    found = everything.asyncapi()
    text = to_yaml(found)
    assert yaml.safe_load(text) == json.loads(to_json(found))
    assert "&id" not in text


# -- the hash


def listener(annotation: Any, returns: Any = None, doc: str | None = None, **options: Any) -> Telex:
    @websocket_listener("/", **options)
    async def listen(data: Any) -> Any: ...

    listen.fn.__annotations__.update({"data": annotation, "return": returns})
    listen.fn.__doc__ = doc
    return Telex([listen])


def test_the_hash_is_of_what_matters_to_clients() -> None:
    described = Annotated[int, msgspec.Meta(description="a number", examples=[3])]
    assert listener(int).contract() == listener(described, doc="Counts.").contract()
    assert listener(int).contract() != listener(str).contract()
    assert listener(int).contract() != listener(int, int).contract()
    assert listener(int).contract() != listener(int, max_message_size=5).contract()


def test_a_field_may_have_the_name_of_a_word() -> None:
    class One(msgspec.Struct):
        title: int

    class Two(msgspec.Struct, rename={"title": "description"}):
        title: int

    Two.__name__ = Two.__qualname__ = "One"
    assert listener(One).contract() != listener(Two).contract()


def test_a_document_that_cannot_be_written_does_not_stop_connections(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = listener(int)
    monkeypatch.setattr("telex.application.make_document", None)
    assert app.contract() == app.contract() == ""
    (record,) = caplog.records
    assert "the AsyncAPI document cannot be written" in record.getMessage()


# -- checks


def with_fault(change: Any) -> list[str]:
    found = json.loads(to_json(everything.asyncapi()))
    change(found)
    return check_document(found)


def test_what_the_parser_misses_is_found() -> None:
    def lose_parameters(found: dict[str, Any]) -> None:
        del found["channels"]["rooms-room-number"]["parameters"]["room"]

    def dangle(found: dict[str, Any]) -> None:
        reply = found["operations"]["rooms-room-number.receive.move"]["reply"]
        reply["messages"].append({"$ref": "#/channels/rooms-room-number/messages/nothing"})

    def go_elsewhere(found: dict[str, Any]) -> None:
        found["operations"]["users.send"]["messages"].append({"$ref": "#/channels/table/messages/move"})

    assert with_fault(lose_parameters) == [
        "channel rooms-room-number: its parameters are not those of its address /rooms/{room}/{number}"
    ]
    assert with_fault(dangle) == ["the reference #/channels/rooms-room-number/messages/nothing leads nowhere"]
    (fault,) = with_fault(go_elsewhere)
    assert fault == "operation users.send: the message #/channels/table/messages/move is not one of its channel"


def test_an_example_that_is_not_of_its_schema_is_found() -> None:
    wrong = Annotated[int, msgspec.Meta(ge=1, examples=[0])]
    bad = msgspec.defstruct("Bad", [("examples", wrong), ("default", int, 1)])
    (fault,) = check_document(listener(bad).asyncapi())
    assert fault == "$.components.schemas.Bad.properties.examples: the example 0 is not of its schema"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (int, [1, -2], [1.5, True, "1", None]),
        (bool, [True], [0, 1]),
        (str | None, ["", None], [0]),
        (Annotated[float, msgspec.Meta(gt=0, le=2, multiple_of=0.5)], [0.5, 2], [0, 2.5, 0.7]),
        (Annotated[str, msgspec.Meta(pattern="^a", max_length=2)], ["ab"], ["ba", "abc"]),
        (Annotated[list[int], msgspec.Meta(min_length=1)], [[1]], [[], ["a"]]),
        (tuple[int, str], [[1, "a"]], [[1], ["a", 1], [1, "a", 2]]),
        (dict[str, int], [{}, {"a": 1}], [{"a": "b"}, []]),
        (
            Move,
            [{"type": "move", "x": 1}, {"type": "move", "x": 1, "y": 2}],
            [{"type": "say", "x": 1}, {"type": "move"}],
        ),
        (Any, [None, 1, []], []),
    ],
)
def test_values_fit_their_schema(kind: Any, good: list[Any], bad: list[Any]) -> None:
    components = listener(list[kind]).asyncapi()["components"]
    (message,) = (each for each in components["messages"].values() if each["name"] != "error")
    for value in good:
        assert fits([value], message["payload"], components["schemas"]), value
        msgspec.json.decode(msgspec.json.encode(value), type=kind)
    for value in bad:
        assert not fits([value], message["payload"], components["schemas"]), value
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(value), type=kind)


def test_an_answer_in_parts_is_marked() -> None:
    @websocket_listener("/")
    async def lines(data: str) -> AsyncIterator[int]:
        yield 1

    operation = document(lines)["operations"]["root.receive.text"]
    assert (operation["x-telex-stream"], names(operation["reply"])) == (True, ["integer", "error"])
