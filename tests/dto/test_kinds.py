"""Behaviour that is the same for every kind of model."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from telex.dto import DTOConfig, DTOData
from tests.dto.kinds import KINDS, Kind
from tests.dto.support import misconfigured, reader, refused, writer

ADA: Any = {"full_name": "Ada", "home": {"street_name": "Main", "number": 3}}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def configured(kind: Kind, **options: Any) -> Any:
    return kind.dto[Annotated[kind.person, DTOConfig(**options)]]


def data_of(kind: Kind) -> Any:
    model: Any = kind.person
    return DTOData[model]


def ada(kind: Kind, **more: Any) -> Any:
    return kind.person(full_name="Ada", home=kind.street(street_name="Main", number=3), **more)


def test_a_message_becomes_the_model_and_the_model_a_message(kind: Kind) -> None:
    dto = kind.dto[kind.person]
    person = reader(dto)({**ADA, "others": [{"street_name": "Side"}]})
    assert isinstance(person, dict if "DictPerson" in kind.person.__name__ else kind.person)
    assert kind.get(kind.get(person, "home"), "number") == 3
    written = writer(dto)(person)
    assert written["home"] == ADA["home"]
    assert written["others"][0]["street_name"] == "Side"


def test_marks_determine_the_directions_of_a_field(kind: Kind) -> None:
    dto = kind.dto[kind.person]
    sent = {**ADA, "seen": 99, "password": "new", "secret": "x", "_inner": 99}
    person = reader(dto)(sent)
    assert kind.get(person, "password") == "new"
    assert kind.get(person, "seen") in {7, None}
    assert kind.get(person, "secret") in {"secret", None}
    more = {"seen": 8, "password": "p", "secret": "s"}
    written = writer(dto)(ada(kind, others=[], **more))
    assert written["seen"] == 8
    assert written.keys() == {"full_name", "home", "seen", "others"}


def test_fields_with_an_underscore_are_transferred_if_they_are_not_private(kind: Kind) -> None:
    if kind.dto.__name__ == "PydanticDTO":
        return  # pydantic has no such fields: its names with underscores are private attributes
    dto = configured(kind, underscore_fields_private=False)
    assert kind.get(reader(dto)({**ADA, "_inner": 9}), "_inner") == 9


def test_excluded_fields_are_not_transferred_at_any_depth(kind: Kind) -> None:
    dto = configured(kind, exclude={"home.number", "others.0.number", "password"})
    sent = {**ADA, "password": "new", "others": [{"street_name": "Side", "number": 9}]}
    person = reader(dto)(sent)
    assert kind.get(person, "password") in {"pw", None}
    assert kind.get(kind.get(person, "home"), "number") in {1, None}
    assert kind.get(kind.get(person, "others")[0], "number") in {1, None}
    written = writer(dto)(reader(kind.dto[kind.person])(sent))
    assert written["home"] == {"street_name": "Main"}
    assert written["others"] == [{"street_name": "Side"}]


def test_only_included_fields_are_transferred(kind: Kind) -> None:
    dto = configured(kind, include={"full_name", "home.street_name"})
    assert kind.get(reader(dto)(ADA), "full_name") == "Ada"
    assert writer(dto)(ada(kind)) == {"full_name": "Ada", "home": {"street_name": "Main"}}


def test_names_on_the_wire_are_the_configured_ones(kind: Kind) -> None:
    dto = configured(kind, rename_strategy="camel", rename_fields={"home.number": "no"}, include={"full_name", "home"})
    person = reader(dto)({"fullName": "Ada", "home": {"streetName": "Main", "no": 4}})
    assert kind.get(kind.get(person, "home"), "number") == 4
    assert writer(dto)(person) == {"fullName": "Ada", "home": {"streetName": "Main", "no": 4}}


def test_the_path_of_an_error_has_names_of_the_wire(kind: Kind) -> None:
    dto = configured(kind, rename_strategy="camel")
    error = refused(reader(dto), {"fullName": "Ada", "home": {"streetName": 5}})
    assert error.path == "$.home.streetName"
    listed = {
        "fullName": "Ada",
        "home": {"streetName": "M"},
        "others": [{"streetName": "M"}, {"streetName": "M", "number": "x"}],
    }
    assert refused(reader(dto), listed).path == "$.others[1].number"
    assert "fullName" in refused(reader(dto), {"home": {"streetName": "Main"}}).detail


def test_unknown_fields_are_ignored_or_refused(kind: Kind) -> None:
    sent = {**ADA, "nonsense": 1}
    assert kind.get(reader(configured(kind))(sent), "full_name") == "Ada"
    strict = configured(kind, forbid_unknown_fields=True)
    assert "nonsense" in refused(reader(strict), sent).detail
    assert "secret" in refused(reader(strict), {**ADA, "secret": "x"}).detail


def test_create_instance_adds_missing_fields(kind: Kind) -> None:
    dto = configured(kind, exclude={"full_name"})
    data = reader(dto, data_of(kind))({"home": {"street_name": "Main"}, "password": "new"})
    assert data.as_builtins() == {"home": {"street_name": "Main"}, "password": "new"}
    person = data.create_instance(full_name="Ada", home__number=8)
    assert kind.get(person, "full_name") == "Ada"
    assert kind.get(kind.get(person, "home"), "number") == 8
    assert kind.get(kind.get(person, "home"), "street_name") == "Main"


def test_create_instance_creates_a_nested_model_that_was_not_sent(kind: Kind) -> None:
    dto = configured(kind, exclude={"home.number"}, partial=True)
    data = reader(dto, data_of(kind))({"full_name": "Ada", "others": [{"street_name": "Side"}]})
    assert repr(data) == "DTOData({'full_name': 'Ada', 'others': [{'street_name': 'Side'}]})"
    person = data.create_instance(home__street_name="Main", home__number=4, secret="given")
    assert kind.get(kind.get(person, "home"), "street_name") == "Main"
    assert kind.get(kind.get(person, "home"), "number") == 4
    assert kind.get(person, "secret") == "given"
    with_home = reader(dto, data_of(kind))({"home": {"street_name": "New"}})
    with_home.update_instance(person, home__number=5, full_name="Eve")
    assert kind.get(kind.get(person, "home"), "street_name") == "New"
    assert kind.get(kind.get(person, "home"), "number") == 5
    assert kind.get(person, "full_name") == "Eve"


def test_partial_data_updates_an_instance(kind: Kind) -> None:
    dto = configured(kind, partial=True)
    person = ada(kind, secret="kept")
    data = reader(dto, data_of(kind))({"home": {"number": 9}, "secret": "changed"})
    assert data.update_instance(person, full_name="Grace") is person
    assert kind.get(person, "full_name") == "Grace"
    assert kind.get(person, "secret") == "kept"
    assert kind.get(kind.get(person, "home"), "number") == 9
    assert kind.get(kind.get(person, "home"), "street_name") == "Main"


def test_a_model_that_no_message_can_create_is_an_error_at_construction(kind: Kind) -> None:
    text = misconfigured(lambda: reader(configured(kind, exclude={"full_name"})))
    assert "room (chat/app.py:12)" in text
    assert f"{kind.person.__name__} requires 'full_name'" in text
    assert "DTOData" in text
    assert "partial=True" in misconfigured(lambda: reader(configured(kind, partial=True)))


def test_an_unknown_path_is_an_error_at_construction(kind: Kind) -> None:
    for path, unknown in (("fullname", "fullname"), ("home.strete_name", "strete_name"), ("others.0.numbr", "numbr")):
        text = misconfigured(lambda path=path: writer(configured(kind, exclude={path})))  # type: ignore[misc]
        assert unknown in text
        assert "did you mean" in text
    text = misconfigured(lambda: writer(configured(kind, exclude={"others.number"})))
    assert "number of the type argument" in text


def test_collections_of_the_model_are_transferred(kind: Kind) -> None:
    dto = configured(kind, rename_strategy="upper", include={"full_name", "home"})
    wire = {"FULL_NAME": "Ada", "HOME": {"STREET_NAME": "Main", "NUMBER": 3}}
    for annotation, sent in (
        (list[kind.person], [wire, wire]),  # type: ignore[name-defined]
        (dict[str, kind.person], {"a": wire}),  # type: ignore[name-defined]
        (kind.person | None, wire),
        (tuple[int, kind.person], [1, wire]),  # type: ignore[name-defined]
        (tuple[kind.person, ...], [wire]),  # type: ignore[name-defined]
    ):
        value = reader(dto, annotation)(sent)
        assert writer(dto, annotation)(value) == sent
    assert writer(dto, kind.person | None)(None) is None
