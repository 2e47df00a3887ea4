"""pydantic models with a DTO, and without one, which keep pydantic's semantics."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import pydantic
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from telex import Telex, codecs, websocket_listener
from telex.dto import DTOConfig, DTOData, PydanticDTO, dto_field
from telex.exceptions import ValidationException
from tests.dto.support import misconfigured, reader, refused, writer
from tests.support.live import asked_json, talking

T = TypeVar("T")


class Address(BaseModel):
    street_name: str = Field(min_length=2)
    zip_code: int = 0


class User(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_name: str = Field(alias="uName")
    born: dt.date
    address: Address | None = None
    given: list[str] = Field(
        default=[], validation_alias=AliasChoices(AliasPath("names", 0), "in"), serialization_alias="out"
    )
    password: str = Field(default="", exclude=True)
    token: Annotated[str, dto_field("private")] = "token"

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def age(self) -> int:
        return 2026 - self.born.year

    @pydantic.field_serializer("born")
    def write_born(self, born: dt.date) -> str:
        return born.strftime("%d.%m.%Y")

    @pydantic.model_validator(mode="after")
    def check_together(self) -> User:
        if self.user_name == "Nobody":
            raise ValueError("nobody is nobody")
        return self


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: dt.datetime
    number: int


# -- with a DTO


def test_aliases_validators_and_serializers_apply() -> None:
    dto = PydanticDTO[User]
    user = reader(dto)({"uName": "Ada", "born": "2000-01-02", "password": "new", "in": ["a"]})
    assert user == User.model_validate({"uName": "Ada", "born": "2000-01-02", "password": "new", "in": ["a"]})
    assert writer(dto)(user) == {"uName": "Ada", "born": "02.01.2000", "address": None, "out": ["a"], "age": 26}


def test_errors_have_the_path_on_the_wire() -> None:
    read = reader(PydanticDTO[Annotated[User, DTOConfig(rename_strategy="camel")]], list[User])
    good = {"userName": "Ada", "born": "2000-01-02"}
    assert refused(read, [good, {**good, "address": {"streetName": "x"}}]).path == "$[1].address.streetName"
    assert refused(read, [{**good, "born": "someday"}]).path == "$[0].born"
    error = refused(read, [{**good, "userName": "Nobody"}])
    assert (error.detail, error.path) == ("Value error, nobody is nobody", "$[0]")
    assert "token" in refused(read, [{**good, "token": "stolen"}]).detail
    assert "age" in refused(read, [{**good, "age": 3}]).detail


def test_strict_models_read_json() -> None:
    read = reader(PydanticDTO[Annotated[Strict, DTOConfig(rename_strategy="upper")]])
    assert read({"AT": "2000-01-02T03:04:05", "NUMBER": 2**70}).number == 2**70
    assert refused(read, {"AT": "2000-01-02T03:04:05", "NUMBER": "1"}).path == "$.NUMBER"


def test_assignments_are_validated() -> None:
    dto = PydanticDTO[Annotated[User, DTOConfig(partial=True)]]
    user = User(uName="Ada", born=dt.date(2000, 1, 2), address=Address(street_name="Main"))
    data = reader(dto, DTOData[User])({"born": "2001-01-02", "address": {"zip_code": 5}})
    data.update_instance(user)
    assert user.born == dt.date(2001, 1, 2)
    assert user.address == Address(street_name="Main", zip_code=5)
    bad = reader(dto, DTOData[User])({"address": {"street_name": "x"}})
    with pytest.raises(ValidationException) as caught:
        bad.update_instance(user)
    assert caught.value.path == "$.address.street_name"
    with pytest.raises(ValidationException):
        bad.create_instance(user_name="Ada", born=dt.date(2000, 1, 2))


def test_generic_models() -> None:
    class Box(BaseModel, Generic[T]):
        some_content: T

    dto = PydanticDTO[Annotated[Box[Address], DTOConfig(rename_strategy="camel")]]
    box = reader(dto)({"someContent": {"streetName": "Main"}})
    assert box == Box[Address](some_content=Address(street_name="Main"))
    assert writer(dto)(box) == {"someContent": {"streetName": "Main", "zipCode": 0}}


def test_root_models_need_no_dto() -> None:
    assert "Names is not a model of the kind" in misconfigured(lambda: PydanticDTO[Names])


def test_a_private_field_of_a_nested_union_is_not_transferred() -> None:
    class Hidden(BaseModel):
        shown: int
        hidden: Annotated[int, dto_field("private")] = 1

    class Holder(BaseModel):
        either: Hidden | str | list[Hidden]

    dto = PydanticDTO[Holder]
    assert writer(dto)(Holder(either=Hidden(shown=1))) == {"either": {"shown": 1}}
    assert writer(dto)(Holder(either=[Hidden(shown=1)])) == {"either": [{"shown": 1}]}
    assert reader(dto)({"either": {"shown": 1, "hidden": 9}}).either.hidden == 1
    assert reader(dto)({"either": "text"}).either == "text"


# -- without a DTO


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    long_name: str = pydantic.Field(max_length=5)
    in_list: list[Address] = []


class Names(RootModel[list[str]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Zoo(BaseModel):
    pets: list[Pet]
    other: int | Address = 0


async def test_without_a_dto_pydantic_models_keep_their_semantics() -> None:
    @websocket_listener("/")
    def echo(data: Camel) -> Camel:
        return data

    async with talking(Telex([echo])) as client:
        for sent in ({"longName": "a", "more": 1}, {"long_name": "a", "more": 1}):
            assert await asked_json(client, sent) == {"longName": "a", "inList": [], "more": 1}
        error = (await asked_json(client, {"longName": "too long"}))["error"]
        assert error["code"] == "invalid_message"
        assert error["path"] == "$.longName"
        assert "at most 5" in error["message"]
        error = (await asked_json(client, {"longName": "a", "inList": [{"street_name": "ok"}, {}]}))["error"]
        assert error["path"] == "$.inList[1].street_name"


@dataclass
class Plain:
    """A dataclass that holds a pydantic model: pydantic reads both."""

    at: Strict


@pytest.mark.parametrize(
    ("annotation", "raw", "path"),
    [
        (Names, '["a", 1]', "$[1]"),
        (Pet, '{"kind": "cat", "lives": "x"}', "$.lives"),
        (Pet, '{"kind": "emu"}', "$"),
        (Zoo, '{"pets": [{"kind": "dog", "barks": true}, {"kind": "cat"}]}', "$.pets[1].lives"),
        (Zoo, '{"pets": [], "other": {"street_name": "x"}}', "$.other"),
        (dict[str, Zoo], '{"a": {"pets": 1}}', "$.a.pets"),
        (list[Address | None], '[null, {"street_name": 5}]', "$[1].street_name"),
        (Address, "[]", "$"),
        (Plain, '{"at": {"at": "2000-01-01T00:00:00", "number": "1"}}', "$.at.number"),
    ],
)
def test_the_path_is_that_of_the_message(annotation: Any, raw: str, path: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is, is asserted below
        codecs.reader(annotation)(raw)
    error = codecs.as_validation_error(caught.value)
    assert error is not None
    assert error.path == path


def test_root_models_unions_and_models_in_dataclasses_are_read_and_written() -> None:
    assert codecs.reader(Names)('["a"]') == Names(["a"])
    assert codecs.writer(Names)(Names(["a"])) == '["a"]'
    assert codecs.reader(Pet)('{"kind": "dog", "barks": true}') == Dog(kind="dog", barks=True)
    assert codecs.writer(Pet)(Cat(kind="cat", lives=9)) == '{"kind":"cat","lives":9}'
    plain = codecs.reader(Plain)('{"at": {"at": "2000-01-01T00:00:00", "number": 1}}')
    assert plain == Plain(Strict(at=dt.datetime(2000, 1, 1), number=1))
    assert codecs.writer(Plain)(plain) == '{"at":{"at":"2000-01-01T00:00:00","number":1}}'
