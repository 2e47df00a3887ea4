"""Random models, values and configurations: the right fields are transferred, and a round trip keeps their values."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telex.dto import DTOConfig
from tests.dto.kinds import KINDS
from tests.dto.models import Family, Spec, complete, configs, passing, paths, specs, values, wire_name
from tests.dto.support import reader, writer


@pytest.mark.parametrize("examples", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_transferred_values_are_equal_after_a_round_trip_and_no_other_field_is_transferred(
    kind: str, examples: int
) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def round_trip(data: st.DataObject) -> None:
        spec = data.draw(specs())
        value, config = data.draw(values(spec)), data.draw(configs(spec))
        check_round_trip(kind, spec, value, config)

    round_trip()


def check_round_trip(kind: str, spec: Spec, value: dict[str, Any], config: DTOConfig) -> None:
    family = Family(kind)
    model, is_dict = family.model(spec), kind == "typeddict"
    dto: Any = KINDS[kind].dto[Annotated[model, config]]
    instance = family.make(spec, value)
    read = reader(dto)
    assert writer(dto)(instance) == passing(spec, value, config=config, to_wire=True, renamed=True)
    sent = passing(spec, value, config=config, to_wire=False, renamed=True)
    polluted = pollute(spec, sent, config, value)
    expected = complete(spec, passing(spec, value, config=config, to_wire=False, renamed=False), absent=is_dict)
    for message in (sent, polluted):
        assert family.take_apart(spec, read(message)) == expected, json.dumps(message)


def pollute(spec: Spec, sent: dict[str, Any], config: Any, value: dict[str, Any]) -> dict[str, Any]:
    """``sent`` with additional fields: those that are not transferred, under every possible name, and unknown ones."""
    taken = {wire_name(path, config) for path in paths(spec)}
    names = {"unknown": 1, "": None}
    for field in spec:
        if field.name not in taken:
            names[field.name] = value[field.name]
        own = wire_name(field.name, config)
        if own not in sent:
            names[own] = value[field.name]
    return {**names, **sent}
